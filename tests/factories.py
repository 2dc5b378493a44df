"""Fundus photographs built for tests, valid down to every mandatory module."""

from datetime import datetime
from pathlib import Path
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray
from pydicom import uid
from pydicom.dataset import Dataset, FileDataset

from medlocker_dicom.dicom.photograph import Shot, photograph, photograph_jpeg
from medlocker_dicom.dicom.pixels import store_pixels
from medlocker_dicom.dicom.writing import to_bytes

TAKEN = datetime(2024, 5, 6, 7, 8, 9)  # noqa: DTZ001 - cameras know no time zone
SHOT: Shot = {
    "patient_name": "Doe^Jane",
    "patient_id": "P-1",
    "laterality": "R",
    "study_uid": "1.2.826.0.1.3680043.10.1.1",
    "series_uid": "1.2.826.0.1.3680043.10.1.2",
    "instance_uid": "1.2.826.0.1.3680043.10.1.3",
    "instance_number": 7,
    "taken": TAKEN,
}


def shot_with(fields: dict[str, Any]) -> Shot:
    """Return `SHOT` with other values for some fields."""
    return cast("Shot", SHOT | fields)  # the tests name fields that exist


def make_pixels(
    shape: tuple[int, int, int, int] = (1, 40, 36, 3), bits: int = 8, seed: int = 0
) -> NDArray[Any]:
    """Return noise over a bright disc: uint8 or uint16 (F, H, W, C), full range."""
    rng = np.random.default_rng(seed)
    _, height, width, _ = shape
    y, x = np.mgrid[-1 : 1 : height * 1j, -1 : 1 : width * 1j]
    disc = np.clip(1.2 - np.hypot(x, y), 0, 1)[None, :, :, None]
    pixels = disc * (1 << bits) * rng.uniform(0.6, 1, shape)
    pixels[:, 0, 0], pixels[:, -1, -1] = 0, (1 << bits) - 1
    samples: NDArray[Any] = pixels.clip(0, (1 << bits) - 1)
    return samples.astype(np.uint8 if bits <= 8 else np.uint16)


def make_fundus(
    pixels: NDArray[Any] | None = None, bits: int | None = None, **shot: Any
) -> FileDataset:
    """Return a valid Ophthalmic Photography instance, 8 or 16 Bit as the pixels need.

    Parameters
    ----------
    pixels
        uint8 or uint16 (F, H, W, C); `make_pixels` by default.
    bits
        Bits Stored; all of the dtype by default.
    **shot
        Fields of `Shot` that differ from `SHOT`.
    """
    if pixels is None:
        pixels = make_pixels()
    blank = np.zeros((1, 1, 3), dtype=np.uint8)
    ds = photograph(blank, **shot_with(shot))
    store_pixels(ds, pixels, bits or 8 * pixels.itemsize)
    ds.ImageType = ["ORIGINAL", "PRIMARY", "", "COLOR" if pixels.shape[-1] == 3 else "REDFREE"]
    if pixels.itemsize == 2:
        ds.SOPClassUID = uid.OphthalmicPhotography16BitImageStorage
        ds.file_meta.MediaStorageSOPClassUID = ds.SOPClassUID
    if pixels.shape[-1] == 1:
        ds.PresentationLUTShape = "IDENTITY"
    return ds


def wrap_jpeg(jpeg: bytes, **shot: Any) -> FileDataset:
    """Return a baseline JPEG, unchanged, as an Ophthalmic Photography 8 Bit instance."""
    return photograph_jpeg(jpeg, **shot_with(shot))


def save(ds: Dataset, folder: Path, name: str = "source.dcm") -> Path:
    """Write an instance into `folder` and return its path."""
    path = folder / name
    path.write_bytes(to_bytes(ds))
    return path
