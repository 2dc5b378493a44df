"""An object as a file to be sent: what it is, and the syntaxes that lose nothing."""

from __future__ import annotations

import errno
import io
import os
import tempfile
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, BinaryIO, Final

from pydicom import dcmread
from pydicom.dataelem import DataElement
from pydicom.filereader import read_file_meta_info
from pydicom.filewriter import dcmwrite
from pydicom.pixels.decoders.base import get_decoder
from pydicom.uid import (
    UID,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGLossless,
    JPEGLosslessSV1,
    JPEGLSLossless,
    RLELossless,
)

from medlocker_dicom.errors import NotDicomError, OutputError, TransferSyntaxError
from medlocker_dicom.files import PART, output_error
from medlocker_dicom.node.apart import EndlessError, UnbegunError, quiet
from medlocker_dicom.node.outcome import FEW_TRIES, Kind, Outcome

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from pydicom.dataset import Dataset

    Convert = Callable[[float, str, str, str], bytes]

NATIVE: Final = (ExplicitVRLittleEndian, ImplicitVRLittleEndian)
"""What any uncompressed or losslessly compressed object can be turned into, the better first."""
CRASHED: Final = Outcome(Kind.RETRY, "its codec crashed, or had no memory", FEW_TRIES)
"""What became of an object whose conversion ended with its process."""
_LOSSLESS: Final = frozenset(
    {
        *NATIVE,
        DeflatedExplicitVRLittleEndian,
        JPEG2000Lossless,
        JPEGLossless,
        JPEGLosslessSV1,
        JPEGLSLossless,
        RLELossless,
    }
)
_PIXEL_DATA: Final = 0x7FE00010
_LARGE: Final = 1 << 16  # bytes from which on a value stays in its file
_LONGEST_S: Final = 1800.0  # for an object, once its turn has come
_MOST_NATIVE: Final = 0xFFFFFFFE  # bytes of a value whose length is written (PS3.5 7.1.1)


@dataclass(frozen=True)
class Sendable:
    """A file that can be sent.

    Attributes
    ----------
    path
        Of a file as PS3.10 has it.
    class_uid, instance_uid, syntax
        Of its file meta information.
    """

    path: Path
    class_uid: UID
    instance_uid: UID
    syntax: UID

    @property
    def candidates(self) -> tuple[UID, ...]:
        """Transfer syntaxes that it can be sent in without loss, the best first."""
        if self.syntax not in _LOSSLESS:
            return (self.syntax,)
        return (self.syntax, *(one for one in NATIVE if one != self.syntax))


def sendable(path: Path) -> Sendable:
    """Look at a file that is to be sent.

    Raises
    ------
    NotDicomError
        It cannot be read, or does not say what it is.
    """
    try:
        meta = read_file_meta_info(path)
        values = (
            meta.MediaStorageSOPClassUID,
            meta.MediaStorageSOPInstanceUID,
            meta.TransferSyntaxUID,
        )
    except OSError as error:
        raise NotDicomError(f"{path}: cannot be read: {error.strerror}") from error
    except Exception as error:
        raise NotDicomError(f"{path}: has no file meta information that can be used") from error
    return Sendable(path, *map(UID, values))


@contextmanager
def converted(source: Sendable, syntax: UID, folder: Path, convert: Convert) -> Iterator[Path]:
    """Write an object in another transfer syntax, pixels bit by bit as they are.

    Pixels stay on the disk: of a native object a few KB are in memory at once,
    of a compressed one a frame and the codestreams.

    Parameters
    ----------
    source
        With `syntax` among its candidates.
    syntax
        One of `NATIVE`.
    folder
        For the file, which is deleted in the end.
    convert
        What `begin` begins, in a process apart: `Apart(begin).call`.

    Raises
    ------
    TransferSyntaxError
        It cannot be.
    OutputError
        The folder cannot be written, or the process apart cannot begin.
    EndedError
        That ended while it wrote.
    """
    if syntax not in NATIVE or syntax not in source.candidates:
        raise TransferSyntaxError(f"{source.syntax.name} cannot become {syntax.name} without loss")
    try:
        with tempfile.NamedTemporaryFile(dir=folder, prefix=".sending-", suffix=PART) as part:
            _write_apart(source, syntax, part.name, convert)
            yield Path(part.name)
    except OSError as error:
        raise output_error(folder, error) from error


def _write_apart(source: Sendable, syntax: UID, part: str, convert: Convert) -> None:
    try:
        said = convert(_LONGEST_S, str(source.path), syntax, part).decode()
    except UnbegunError as error:
        raise OutputError(str(error), error.hint) from error
    except EndlessError:
        said = "its codec takes too long"
    if said.isdecimal():
        raise OSError(int(said), os.strerror(int(said)))
    if said:
        raise TransferSyntaxError(f"cannot be written as {syntax.name} ({said})")


def begin() -> Callable[[str, str, str], bytes]:
    """Begin to convert files, see `apart`."""
    quiet()
    return _convert


def _convert(source: str, syntax: str, part: str) -> bytes:
    """Write a file in another syntax; give the error's class, or the number of an OSError."""
    path = Path(part)
    try:
        with path.open("r+b") as file:
            _write(sendable(Path(source)), UID(syntax), file, path.parent)
    except OSError as error:
        return str(error.errno or errno.EIO).encode()
    except Exception as error:  # noqa: BLE001  pydicom raises almost anything on values that it cannot encode anew
        return type(error).__name__.encode()
    return b""


def _write(source: Sendable, syntax: UID, part: IO[bytes], folder: Path) -> None:
    ds = dcmread(source.path, defer_size=_LARGE)
    with source.path.open("rb") as file, tempfile.TemporaryFile(dir=folder) as frames:
        if _PIXEL_DATA in ds:
            if source.syntax.is_encapsulated:
                _decode(ds, source.syntax, frames)
            else:
                _leave(ds, file)
        ds.file_meta.TransferSyntaxUID = syntax
        dcmwrite(part, ds, implicit_vr=syntax.is_implicit_VR, little_endian=True)


def _leave(ds: Dataset, file: BinaryIO) -> None:
    """Let native pixels be copied from where they lie."""
    raw: Any = ds.get_item(_PIXEL_DATA, keep_deferred=True)
    # PS3.5 A.1: of implicit syntaxes always OW, which is right in explicit ones too
    vr = raw.VR or "OW"
    if raw.value is None:
        value: io.BufferedIOBase = io.BufferedReader(_Window(file, raw.value_tell, raw.length))
    else:
        value = io.BytesIO(raw.value)
    ds[_PIXEL_DATA] = DataElement(_PIXEL_DATA, vr, value)


def _decode(ds: Dataset, syntax: UID, frames: IO[bytes]) -> None:
    """Put native pixels into a file, as they are coded: no colours are turned into others."""
    length = 0
    image: dict[str, Any] = {}
    for frame, image in get_decoder(syntax).iter_array(ds, raw=True):  # noqa: B007  the last one
        length += frames.write(frame.tobytes())
    if length % 2:
        length += frames.write(b"\0")
    if length > _MOST_NATIVE:
        raise TransferSyntaxError(f"{length} bytes of pixels are too many for a native syntax")
    frames.flush()
    frames.seek(0)
    vr = "OB" if ds.BitsAllocated <= 8 else "OW"
    ds[_PIXEL_DATA] = DataElement(_PIXEL_DATA, vr, frames)
    ds.PhotometricInterpretation = image["photometric_interpretation"]
    if ds.SamplesPerPixel > 1:
        ds.PlanarConfiguration = 0
    for keyword in ("ExtendedOffsetTable", "ExtendedOffsetTableLengths"):
        ds.pop(keyword, None)


class _Window(io.RawIOBase):
    """A part of a file, read as if it were all of it."""

    def __init__(self, file: BinaryIO, start: int, length: int) -> None:
        self._file, self._start, self._length, self._at = file, start, length, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._length}[whence]
        self._at = base + offset
        return self._at

    def readinto(self, buffer: Any) -> int:
        count = min(len(buffer), max(0, self._length - self._at))
        self._file.seek(self._start + self._at)
        data = self._file.read(count)
        buffer[: len(data)] = data
        self._at += len(data)
        return len(data)
