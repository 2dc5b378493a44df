"""Which object a received file holds: its UIDs, read without its pixels.

Only what comes before the pixels is parsed, and of a deflated data set
(PS3.5 A.5) no more than `MAX_INFLATED` bytes are inflated: what a small file
inflates to is for who decodes it to bound.
"""

from __future__ import annotations

import mmap
import zlib
from dataclasses import dataclass
from io import BytesIO
from typing import TYPE_CHECKING, Any, Final

from pydicom import uid
from pydicom.filereader import read_dataset

from medlocker_dicom.dicom.reading import parsing
from medlocker_dicom.dicom.structure import EXPLICIT_LITTLE, read_header
from medlocker_dicom.dicom.uids import check_uid
from medlocker_dicom.errors import NotDicomError, OutputError, TruncatedError, UIDError

if TYPE_CHECKING:
    from pathlib import Path

    from pydicom.tag import BaseTag

MAX_INFLATED: Final = 16 << 20
_META: Final = 132  # the preamble and DICM come before (PS3.10 section 7.1)
_SYNTAX: Final = 0x00020010
_LAST: Final = 0x0020000E  # Series Instance UID, the last of those that are read
_READ: Final = {
    "SOPClassUID": 0x00080016,
    "SOPInstanceUID": 0x00080018,
    "StudyInstanceUID": 0x0020000D,
    "SeriesInstanceUID": _LAST,
}


@dataclass(frozen=True)
class Identity:
    """Which object it is.

    Attributes
    ----------
    sop_instance_uid, sop_class_uid, transfer_syntax_uid
        Checked UIDs.
    study_instance_uid, series_instance_uid
        The same; empty where the data set has none.
    """

    sop_instance_uid: str
    sop_class_uid: str
    transfer_syntax_uid: str
    study_instance_uid: str
    series_instance_uid: str


def read_identity(path: Path) -> Identity:
    """Read which object a file of the receiver's holds; messages name no path.

    Raises
    ------
    NotDicomError, TruncatedError
        It cannot be parsed as far as to its series.
    UIDError
        A UID is missing, or is none.
    OutputError
        The disk fails.
    """
    try:
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            syntax, start = _open(data)
            values = _parse(data, syntax, start)
    except (OSError, ValueError) as error:  # ValueError: an empty file cannot be mapped
        raise OutputError("what was received cannot be read again") from error
    return Identity(
        _checked(values["SOPInstanceUID"], "SOP Instance UID"),
        _checked(values["SOPClassUID"], "SOP Class UID"),
        syntax,
        _optional(values["StudyInstanceUID"], "Study Instance UID"),
        _optional(values["SeriesInstanceUID"], "Series Instance UID"),
    )


def _open(data: mmap.mmap) -> tuple[str, int]:
    """Read the transfer syntax from the file meta information, and where the data set begins."""
    if data[_META - 4 : _META] != b"DICM":
        raise NotDicomError("what was received is no DICOM file")
    offset, syntax = _META, ""
    while offset < len(data):
        header = read_header(data, offset, EXPLICIT_LITTLE)
        if header.tag >> 16 != 0x0002:
            break
        offset = header.value + header.length
        if header.tag == _SYNTAX:
            syntax = data[header.value : offset].decode("ascii", "replace").rstrip("\0 ")
    if offset >= len(data):
        raise TruncatedError("the data set is empty")
    return _checked(syntax, "transfer syntax UID"), offset


def _parse(data: mmap.mmap, syntax: str, start: int) -> dict[str, Any]:
    """Read the elements of `_READ`; None for what is not there."""
    with parsing("the data set"):
        stream: Any = data
        stream.seek(start)
        if syntax == uid.DeflatedExplicitVRLittleEndian:
            stream = BytesIO(_inflate(data, start))
        ds = read_dataset(
            stream,
            syntax == uid.ImplicitVRLittleEndian,
            is_little_endian=True,
            stop_when=_past,
            specific_tags=list(_READ.values()),
        )
        return {keyword: ds.get(keyword) for keyword in _READ}


def _past(tag: BaseTag, _vr: str | None, _length: int) -> bool:
    return bool(tag > _LAST)


def _inflate(data: mmap.mmap, start: int) -> bytes:
    inflater = zlib.decompressobj(-zlib.MAX_WBITS)
    try:
        return inflater.decompress(data[start : start + MAX_INFLATED], MAX_INFLATED)
    except zlib.error as error:
        raise NotDicomError("the deflated data set is damaged") from error


def _optional(value: Any, name: str) -> str:
    return "" if value is None or value == "" else _checked(value, name)


def _checked(value: Any, name: str) -> str:
    try:
        return check_uid(value, name)
    except UIDError:  # its message tells the value, which may be anything, and goes into a log
        raise UIDError(f"{name} is missing, or is no UID (PS3.5 9.1)") from None
