"""Image files that are no DICOM: photographs of data sets, and masks."""

from __future__ import annotations

import io
import warnings
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
from PIL import Image

from medlocker_dicom.errors import PictureError, UsageError

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

#: Most px of a picture, below what Pillow refuses by itself; fundus cameras stay far below.
MAX_PIXELS = 1 << 27
#: Most bytes of its file: so many px of three channels of 16 bits.
MAX_BYTES = 6 * MAX_PIXELS
SUFFIXES = (".jpg", ".jpeg", ".png", ".tif", ".tiff", ".bmp")


def read_rgb(path: Path) -> NDArray[np.uint8]:
    """Read an image file as uint8 (H, W, 3) RGB.

    Raises
    ------
    PictureError
        The file is missing, no image, damaged, or has too many px.
    """
    return np.ascontiguousarray(_read(path, cv2.IMREAD_COLOR)[..., ::-1])


def read_bits(path: Path) -> NDArray[np.uint8]:
    """Read a mask: one channel of 8 bits, uint8 (H, W).

    Raises
    ------
    PictureError
        As ``read_rgb``, or it has other channels or bits.
    """
    bits = _read(path, cv2.IMREAD_UNCHANGED)
    if bits.ndim != 2 or bits.dtype != np.uint8:
        raise PictureError(f"{path}: not a mask: one channel of 8 bits is wanted")
    return bits


def _read(path: Path, how: int) -> NDArray[Any]:
    try:
        with path.open("rb") as stream:
            data = stream.read(MAX_BYTES + 1)
    except OSError as error:
        raise PictureError(f"{path}: cannot be read: {error.strerror}") from error
    if len(data) > MAX_BYTES:
        raise PictureError(f"{path}: larger than {MAX_BYTES} bytes")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow's, of sizes and of EXIF
            _check(path, data)
        # From memory: OpenCV's own reading dies of a file name that is no UTF-8.
        picture = cv2.imdecode(np.frombuffer(data, np.uint8), how)
    except PictureError:
        raise
    except Image.DecompressionBombError as error:  # Pillow's own limit is above ours
        raise PictureError(f"{path}: more than {MAX_PIXELS} px") from error
    except Exception as error:  # what a damaged image raises is unbounded
        raise PictureError(f"{path}: not an image, or a damaged one") from error
    if picture is None:
        raise PictureError(f"{path}: not an image, or a damaged one")
    return np.asarray(picture)


def _check(path: Path, data: bytes) -> None:
    """Decode it all with Pillow, which notices JPEG that is cut; OpenCV paints the rest grey."""
    with Image.open(io.BytesIO(data)) as picture:  # reads the header alone
        width, height = picture.size
        if width * height > MAX_PIXELS:
            raise PictureError(f"{path}: {width} x {height} px are more than {MAX_PIXELS}")
        picture.load()


def list_images(path: Path) -> list[Path]:
    """List an image file, or the image files of a folder, by name.

    Raises
    ------
    UsageError
        There are none.
    """
    found = (
        [path]
        if path.is_file()
        else sorted(p for p in path.glob("*") if p.suffix.lower() in SUFFIXES)
    )
    if not found:
        raise UsageError(f"{path}: no images", f"looked for {', '.join(SUFFIXES)}")
    return found
