"""A file to a data set: whole, in a known transfer syntax, or refused (PS3.10 section 7)."""

import contextlib
import mmap
import zlib
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from typing import NamedTuple

from pydicom import uid
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.filereader import read_dataset as parse_elements
from pydicom.tag import BaseTag

from medlocker_dicom.dicom.endian import swap_words
from medlocker_dicom.dicom.layout import MAX_DECODED_BYTES
from medlocker_dicom.dicom.private import MAX_PACKET_BYTES
from medlocker_dicom.dicom.structure import (
    EXPLICIT_BIG,
    EXPLICIT_LITTLE,
    IMPLICIT_LITTLE,
    Buffer,
    Encoding,
    check_whole,
    looks_explicit,
    read_header,
)
from medlocker_dicom.dicom.syntaxes import CODECS, NATIVE_SYNTAXES
from medlocker_dicom.errors import (
    MedLockerError,
    NotDicomError,
    PixelLayoutError,
    TransferSyntaxError,
    TruncatedError,
)

MAX_FILE_BYTES = 2 << 30
"""Largest file that is read."""
MAX_INFLATED_BYTES = MAX_DECODED_BYTES + MAX_PACKET_BYTES
"""Largest deflated data set: pixels, and as much again as the largest packet for the rest."""

_INFLATED_AT_ONCE = 1 << 14  # bytes of deflated data, which give 16 MiB at most
_PREAMBLE, _PREFIX = 128, b"DICM"
_FIRST_TAGS = frozenset({0x00080000, 0x00080001, 0x00080005, 0x00080008, 0x00080012, 0x00080016})
_ZEROS = BaseTag(0)
_SOP_CLASS_IMPLICIT = b"\x08\x00\x16\x00"


class Opening(NamedTuple):
    """File meta information, and the offset of the data set in bytes."""

    meta: FileMetaDataset
    start: int


@contextlib.contextmanager
def naming(path: Path) -> Iterator[None]:
    """Put the file's name before the message of an error raised within."""
    try:
        yield
    except MedLockerError as exc:
        raise type(exc)(f"{path}: {exc}", exc.hint) from exc


@contextlib.contextmanager
def parsing(what: str) -> Iterator[None]:
    """Turn whatever pydicom raises on damaged data into `NotDicomError`."""
    try:
        yield
    except MedLockerError:
        raise
    except Exception as exc:
        raise NotDicomError(f"{what} cannot be parsed ({type(exc).__name__})") from exc


def read_file(path: Path) -> Dataset:
    """Read an instance from a file, with its ``file_meta``.

    A data set without preamble and file meta information is accepted if it
    plainly is Implicit VR Little Endian. Big-endian data sets come back as
    little-endian ones.

    Raises
    ------
    NotDicomError
        If it cannot be opened or is not DICOM.
    TruncatedError
        If it ends before its last element does.
    TransferSyntaxError
        If its transfer syntax is not among those read.
    PixelLayoutError
        If it is larger than `MAX_FILE_BYTES`.
    """
    with naming(path):
        try:
            with path.open("rb") as file:
                size = file.seek(0, 2)
                if size == 0:
                    raise NotDicomError("is empty")
                if size > MAX_FILE_BYTES:
                    raise PixelLayoutError(f"has {size} bytes, more than {MAX_FILE_BYTES}")
                with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
                    return read_instance(data)
        except OSError as exc:
            raise NotDicomError(f"cannot be read: {exc.strerror}") from exc


def read_instance(data: Buffer) -> Dataset:
    """Parse an instance from the bytes of its file; `read_file` has the rules."""
    meta, start = _open(data)
    syntax = meta.TransferSyntaxUID
    if syntax not in NATIVE_SYNTAXES and syntax not in CODECS:
        raise TransferSyntaxError(
            f"transfer syntax {syntax.name} cannot be read",
            "send it uncompressed or as JPEG, JPEG-LS, JPEG 2000 or RLE",
        )
    encoding = _encoding(syntax)
    if syntax == uid.DeflatedExplicitVRLittleEndian:
        data, start = _inflate(data, start), 0
    elif encoding.implicit and looks_explicit(data, start):
        encoding = EXPLICIT_LITTLE  # declared implicit, written explicit
    check_whole(data, start, encoding)
    with parsing("the data set"):
        stream = BytesIO(data) if not isinstance(data, mmap.mmap) else data
        stream.seek(start)
        ds = parse_elements(stream, encoding.implicit, encoding.little)  # type: ignore[arg-type]  # mmap reads as a file does
        ds.pop(_ZEROS, None)  # padding after the last element, read as one more
        if not encoding.little:
            ds = swap_words(ds)
    ds.file_meta = meta
    return ds


def _encoding(syntax: uid.UID) -> Encoding:
    if syntax == uid.ImplicitVRLittleEndian:
        return IMPLICIT_LITTLE
    return EXPLICIT_BIG if syntax == uid.ExplicitVRBigEndian else EXPLICIT_LITTLE


def _open(data: Buffer) -> Opening:
    """Parse the preamble and group 0002, or recognise a bare data set."""
    if data[_PREAMBLE : _PREAMBLE + 4] == _PREFIX:
        return _read_meta(data, _PREAMBLE + 4)
    if _is_bare(data):
        meta = FileMetaDataset()
        meta.TransferSyntaxUID = uid.ImplicitVRLittleEndian
        return Opening(meta, 0)
    raise NotDicomError("is not a DICOM file", "a DICOM file has DICM at byte 128 (PS3.10 7.1)")


def _is_bare(data: Buffer) -> bool:
    """Tell an Implicit VR Little Endian data set without file meta from other files."""
    if len(data) < 8:
        return False
    first = read_header(data, 0, IMPLICIT_LITTLE)
    if first.tag not in _FIRST_TAGS or first.length > 1024 or looks_explicit(data, 0):
        return False
    return data.find(_SOP_CLASS_IMPLICIT, 0, 4096) >= 0


def _read_meta(data: Buffer, start: int) -> Opening:
    """Read group 0002, always Explicit VR Little Endian (PS3.10 section 7.1)."""
    offset = start
    while offset < len(data):
        header = read_header(data, offset, EXPLICIT_LITTLE)
        if header.tag >> 16 != 0x0002:
            break
        offset = header.value + header.length
    if offset > len(data):
        raise TruncatedError("ends within the file meta information")
    with parsing("the file meta information"):
        meta = FileMetaDataset(parse_elements(BytesIO(data[start:offset]), False, True))  # noqa: FBT003 - pydicom's signature
        syntax = meta.get("TransferSyntaxUID")
    if not isinstance(syntax, uid.UID) or not syntax:
        if offset == len(data):
            raise TruncatedError("ends within the file meta information")
        raise TransferSyntaxError("names no transfer syntax")
    return Opening(meta, offset)


def _inflate(data: Buffer, start: int) -> bytes:
    """Inflate a deflated data set (PS3.5 A.5), no further than `MAX_INFLATED_BYTES`."""
    inflater = zlib.decompressobj(-zlib.MAX_WBITS)
    inflated = BytesIO()
    try:
        for offset in range(start, len(data), _INFLATED_AT_ONCE):
            inflated.write(inflater.decompress(data[offset : offset + _INFLATED_AT_ONCE]))
            if inflated.tell() > MAX_INFLATED_BYTES:
                raise PixelLayoutError(f"inflates to more than {MAX_INFLATED_BYTES} bytes")
            if inflater.eof:
                return inflated.getvalue()
    except zlib.error as exc:
        raise NotDicomError("the deflated data set is damaged") from exc
    except MemoryError as exc:
        raise PixelLayoutError("inflates to more bytes than there is memory for") from exc
    raise TruncatedError("the deflated data set ends early")
