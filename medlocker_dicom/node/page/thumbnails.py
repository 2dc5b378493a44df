"""Small pictures of what lies in the spool, made when they are asked for."""

from __future__ import annotations

from collections import OrderedDict
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple

import anyio
from anyio.to_thread import run_sync
from PIL import Image

from medlocker_dicom.dicom.fundus import Fundus, decode_fundus
from medlocker_dicom.dicom.locked import decode_locked
from medlocker_dicom.dicom.reading import parsing, read_file
from medlocker_dicom.errors import MedLockerError, PixelLayoutError
from medlocker_dicom.node.apart import Apart, EndedError, EndlessError, quiet

if TYPE_CHECKING:
    from collections.abc import Callable

    from pydicom.dataset import Dataset

#: Longer side in px, and the quality of the JPEG.
SIDE: Final = 240
_QUALITY: Final = 80
#: Most bytes of a file, and of its decoded pixels, that a picture is made of.
MAX_FILE_BYTES: Final = 128 << 20
MAX_PIXEL_BYTES: Final = 256 << 20
_LONGEST_S: Final = 60.0
_JPEG: Final = b"\xff\xd8"
#: Most pictures that are kept, about 10 kB each.
MOST: Final = 400


class Small(NamedTuple):
    """A small picture, or the word that stands for it."""

    jpeg: bytes
    word: str


GONE: Final = Small(b"", "deleted here")
LARGE: Final = Small(b"", "too large to be shown")
UNREADABLE: Final = Small(b"", "cannot be shown")
NOT_NOW: Final = Small(b"", "cannot be shown now")


class Thumbnails:
    """The last `MOST` pictures, by the files that they show; one at a time is made, apart.

    Used from one event loop.
    """

    def __init__(self) -> None:
        self._kept: OrderedDict[Path, Small] = OrderedDict()
        self._one = anyio.CapacityLimiter(1)
        self._apart = Apart(begin)

    async def of(self, path: Path, *, locked: bool) -> Small:
        """Give the picture of a file in the spool, whose content never changes.

        Parameters
        ----------
        path
            Which.
        locked
            Whether it is what locking made, and not what came in.
        """
        if path not in self._kept:
            made = await run_sync(self._made, path, locked, limiter=self._one)
            if made in {GONE, NOT_NOW}:
                return made
            self._kept[path] = made
            while len(self._kept) > MOST:
                self._kept.popitem(last=False)
        self._kept.move_to_end(path)
        return self._kept[path]

    def _made(self, path: Path, locked: bool) -> Small:  # noqa: FBT001  run_sync's
        try:
            said = self._apart.call(_LONGEST_S, str(path), "locked" if locked else "")
        except EndlessError:
            return UNREADABLE
        except (EndedError, MedLockerError):
            return NOT_NOW
        return Small(said, "") if said.startswith(_JPEG) else Small(b"", said.decode())

    def word(self, path: Path) -> str:
        """Give the word that stands for a picture, as far as it was tried; empty for none."""
        return self._kept[path].word if path in self._kept else ""


def begin() -> Callable[[str, str], bytes]:
    """Begin to make pictures, see `apart`."""
    quiet()
    return _small


def _small(path: str, locked: str) -> bytes:
    made = thumbnail(Path(path), decode_result if locked else decode_fundus)
    return made.jpeg or made.word.encode()


def decode_result(ds: Dataset) -> Fundus:
    """Decode what locking made of a photograph; raises as `decode_locked`."""
    locked = decode_locked(ds)
    return Fundus(locked.ds, locked.pixels, locked.bits)


def thumbnail(path: Path, decode: Callable[[Dataset], Fundus]) -> Small:
    """Make the picture of a file: its first frame, at most `SIDE` px, JPEG."""
    try:
        if path.stat().st_size > MAX_FILE_BYTES:
            return LARGE
        ds = read_file(path)
        if _pixel_bytes(ds) > MAX_PIXEL_BYTES:
            return LARGE
        picture = Image.fromarray(decode(ds).display(0))
    except FileNotFoundError:
        return GONE
    except (MedLockerError, OSError, MemoryError):
        return UNREADABLE
    picture.thumbnail((SIDE, SIDE), reducing_gap=2)
    stream = BytesIO()
    picture.save(stream, "JPEG", quality=_QUALITY)
    return Small(stream.getvalue(), "")


def _pixel_bytes(ds: Dataset) -> int:
    """Tell what decoding will take.

    Raises
    ------
    SourceError
        The attributes that say so are no numbers.
    """
    with parsing("the pixels' layout"):
        frames = int(ds.get("NumberOfFrames") or 1)
        sides = int(ds.get("Rows", 0)) * int(ds.get("Columns", 0))
        size = frames * sides * int(ds.get("SamplesPerPixel", 1)) * int(ds.get("BitsAllocated", 8))
    if size <= 0:
        raise PixelLayoutError("holds no pixels")
    return size // 8
