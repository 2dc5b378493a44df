"""A source instance: its attributes and its decoded pixels."""

import hashlib
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset

from medlocker_dicom.dicom.decoding import PIXEL_KEYWORDS, Pixels, decode_pixels
from medlocker_dicom.dicom.elements import text
from medlocker_dicom.dicom.marks import is_locked
from medlocker_dicom.dicom.reading import naming, parsing, read_file
from medlocker_dicom.dicom.syntaxes import SOURCE_CLASSES
from medlocker_dicom.dicom.uids import check_uid
from medlocker_dicom.errors import NoPixelDataError, NotFundusError

_DIGEST_DOMAIN = b"medlocker pixels 1\n"
IDENTITY = {
    "SOPInstanceUID": "SOP Instance UID",
    "SeriesInstanceUID": "Series Instance UID",
    "StudyInstanceUID": "Study Instance UID",
}
"""Keyword to name of the UIDs that every instance needs."""


@dataclass(frozen=True, eq=False)
class Fundus:
    """A fundus photograph as it came in.

    Attributes
    ----------
    ds
        Its attributes without Pixel Data, little-endian, with ``file_meta``.
    pixels
        uint8 or uint16 (F, H, W, C): C is 1 for MONOCHROME2, 3 for RGB.
    bits
        Samples are 0 to 2**bits - 1.
    """

    ds: Dataset = field(repr=False)  # holds names
    pixels: Pixels = field(repr=False)
    bits: int

    @property
    def photometric(self) -> str:
        """``MONOCHROME2`` or ``RGB``: what `pixels` holds, whatever was stored."""
        return "RGB" if self.pixels.shape[-1] == 3 else "MONOCHROME2"

    def display(self, frame: int) -> NDArray[np.uint8]:
        """Return a frame for models and pictures: uint8 (H, W, 3) RGB, 0 to 255."""
        samples = self.pixels[frame]
        top = (1 << self.bits) - 1
        if top != 255:
            wide = samples.astype(np.uint32)
            samples = ((wide * 255 + top // 2) // top).astype(np.uint8)
        return np.ascontiguousarray(np.broadcast_to(samples, (*samples.shape[:2], 3)), np.uint8)


def read_fundus(path: Path) -> Fundus:
    """Read a fundus photograph from a file.

    Returns
    -------
    Fundus
        With decoded pixels.

    Raises
    ------
    SourceError
        Every subclass but `DuplicateInstanceError`; the message begins with
        the file's name.
    """
    ds = read_file(path)
    with naming(path):
        return decode_fundus(ds)


def decode_fundus(ds: Dataset) -> Fundus:
    """Check and decode a source instance that is in memory.

    Parameters
    ----------
    ds
        With ``file_meta``, as `reading.read_file` returns it; loses its Pixel
        Data.

    Raises
    ------
    SourceError
        As `read_fundus`.
    """
    with parsing("the data set"):
        check_source(ds)
        decoded = decode_pixels(ds)
    for keyword in PIXEL_KEYWORDS:
        if keyword in ds:
            del ds[keyword]
    return Fundus(ds, decoded.pixels, decoded.bits)


def check_source(ds: Dataset) -> None:
    """Check that `ds` is an instance that may be locked; its pixels are not looked at.

    Raises
    ------
    NotFundusError
        If its SOP class is not accepted, or it is locked already.
    UIDError
        If its SOP Instance, Series or Study UID is no UID.
    NoPixelDataError
        If it has no Pixel Data.
    """
    sop_class = text(ds, "SOPClassUID")
    if sop_class not in SOURCE_CLASSES:
        raise NotFundusError(
            f"SOP class {_class_name(ds)} is not a fundus photograph",
            f"accepted are {', '.join(SOURCE_CLASSES.values())}",
        )
    for keyword, name in IDENTITY.items():
        check_uid(ds.get(keyword), name)
    if is_locked(ds):
        raise NotFundusError(
            "is locked already", "lock the original, or unlock this one with `medlocker unlock`"
        )
    if "PixelData" not in ds:
        raise NoPixelDataError("holds no pixel data", "only images can be locked")


def _class_name(ds: Dataset) -> str:
    uid = ds.get("SOPClassUID")
    return f"{getattr(uid, 'name', uid)!s:.64}" if uid else "(none)"


def pixel_digest(pixels: Pixels) -> bytes:
    """Return the SHA-256 that stands for decoded pixels.

    Parameters
    ----------
    pixels
        uint8 or uint16, any shape and memory order.

    Returns
    -------
    bytes
        32 bytes, over dtype, shape and the samples: little-endian, C order.
    """
    little = np.ascontiguousarray(pixels, dtype=pixels.dtype.newbyteorder("<"))
    shape = " ".join(str(side) for side in pixels.shape)
    header = _DIGEST_DOMAIN + f"u{pixels.dtype.itemsize} {shape}\n".encode("ascii")
    digest = hashlib.sha256(header)
    digest.update(little.data)
    return digest.digest()
