"""Photographs with grades and lesion masks, as arrays ready for training.

The sets lie side by side in one folder, each with ``images/`` and, where it is
graded, ``labels.csv`` (``file,grade[,split]``). IDRiD has no validation split
of its own: every fifth image by number is held out, and training images that
are near-duplicates of a held-out one are dropped.
"""

from __future__ import annotations

import csv
import hashlib
import logging
import os
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

import cv2
import numpy as np

from medlocker_dicom.bundles.picture import read_bits, read_rgb
from medlocker_dicom.bundles.preprocess import crop_to_retina
from medlocker_dicom.errors import NotFundusError

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

log = logging.getLogger(__name__)
#: The set whose channels were stretched: colours that no camera gives.
EQUALISED = "eyepacs_equalised"
GRADED_SETS = ("idrid_grading", "srahim", "odir", "eyepacs_natural", EQUALISED)
HELD_OUT_EVERY = 5


@dataclass(frozen=True)
class Graded:
    """One graded photograph.

    Attributes
    ----------
    path
        The image file.
    source
        Name of its set.
    grade
        ICDR grade, 0 to 4.
    validation
        Held out from training.
    """

    path: Path
    source: str
    grade: int
    validation: bool


def list_graded(root: Path) -> list[Graded]:
    """List every graded photograph under ``root``, in a fixed order.

    Raises
    ------
    FileNotFoundError
        A set is missing.
    """
    listed: list[Graded] = []
    for source in GRADED_SETS:
        folder = root / source
        with (folder / "labels.csv").open(newline="") as stream:
            for row in csv.DictReader(stream):
                held_out = (
                    row["split"] == "val" if "split" in row else held_out_by_number(row["file"])
                )
                path = folder / "images" / row["file"]
                listed.append(Graded(path, source, int(row["grade"]), held_out))
    return listed


def held_out_by_number(name: str) -> bool:
    """Whether the number in an IDRiD file name is a multiple of five."""
    found = re.search(r"(\d+)", name)
    return found is not None and int(found.group()) % HELD_OUT_EVERY == 0


def difference_hash(rgb: NDArray[np.uint8]) -> int:
    """Hash that near-duplicates share up to a few of its 256 bits.

    Parameters
    ----------
    rgb
        uint8 (H, W, 3).
    """
    grey = cv2.resize(cv2.cvtColor(rgb, cv2.COLOR_RGB2GRAY), (17, 16), interpolation=cv2.INTER_AREA)
    bits = (grey[:, 1:] > grey[:, :-1]).reshape(-1)
    return int.from_bytes(np.packbits(bits).tobytes())


def drop_near_duplicates(
    items: list[Graded], hashes: list[int], most_bits: int = 12
) -> list[Graded]:
    """Drop training photographs that nearly equal a held-out one of the same set."""
    held = [(i.source, h) for i, h in zip(items, hashes, strict=True) if i.validation]
    return [
        item
        for item, value in zip(items, hashes, strict=True)
        if item.validation
        or all(s != item.source or (value ^ h).bit_count() > most_bits for s, h in held)
    ]


@dataclass(frozen=True)
class Crops:
    """Retina crops of graded photographs, in memory.

    Attributes
    ----------
    items
        One entry a photograph.
    pixels
        uint8 (n, size, size, 3) RGB.
    """

    items: list[Graded]
    pixels: NDArray[np.uint8]


def load_crops(root: Path, size: int, cache: Path | None) -> Crops:
    """Crop every graded photograph to its retina and shrink it to ``size`` px.

    Photographs that show no retina and near-duplicates of held-out ones are left out.

    Parameters
    ----------
    root
        Folder of the sets.
    size
        Side of the crops in px.
    cache
        Folder that keeps the crops between runs; None keeps nothing.
    """
    items = list_graded(root)
    names = "\n".join(f"{i.source}/{i.path.name}" for i in items)
    stamp = hashlib.sha256(f"{size}\n{names}".encode()).hexdigest()[:16]
    stored = cache / f"crops-{stamp}.npy" if cache else None
    if stored and stored.exists():
        pixels = np.load(stored, mmap_mode="r", allow_pickle=False)
    else:
        pixels = np.stack([_crop_or_black(item.path, size) for item in items])
        if stored:
            stored.parent.mkdir(parents=True, exist_ok=True)
            part = stored.with_suffix(f".{os.getpid()}.part")  # others may crop at the same time
            with part.open("wb") as stream:
                np.save(stream, pixels)
            part.replace(stored)
    seen = {id(item): n for n, item in enumerate(items) if pixels[n].any()}
    shown = [item for item in items if id(item) in seen]
    hashes = [difference_hash(pixels[seen[id(item)]]) for item in shown]
    kept = drop_near_duplicates(shown, hashes)
    return Crops(kept, pixels[[seen[id(item)] for item in kept]])


def _crop_or_black(path: Path, size: int) -> NDArray[np.uint8]:
    """Crop a photograph; one in which no retina is found, which the tool refuses, gives black."""
    try:
        return crop_to_retina(read_rgb(path), size)
    except NotFundusError as error:
        log.warning("left out: %s: %s", path, error)
        return np.zeros((size, size, 3), np.uint8)


@dataclass(frozen=True)
class Segmented:
    """One photograph with its lesion mask, resampled so that the retina is ``diameter`` px wide.

    Attributes
    ----------
    name
        File name.
    image
        uint8 (H, W, 3) RGB.
    mask
        uint8 (H, W): bit 0 MA, 1 HE, 2 EX, 3 SE, 4 optic disc.
    discs_known
        False where the optic disc is not annotated.
    validation
        Held out from training.
    """

    name: str
    image: NDArray[np.uint8]
    mask: NDArray[np.uint8]
    discs_known: bool
    validation: bool


def load_segmented(root: Path, diameter: int) -> list[Segmented]:
    """Load the IDRiD lesion images and masks at a common retina diameter in px."""
    from medlocker_dicom.bundles.preprocess import retina_at  # noqa: PLC0415  heavy, used here alone

    loaded = []
    for path in sorted((root / "idrid_lesions" / "images").glob("*.jpg")):
        mask_path = root / "idrid_lesions" / "masks" / path.with_suffix(".png").name
        image, small = retina_at(read_rgb(path), diameter, read_bits(mask_path))
        assert small is not None
        loaded.append(Segmented(path.name, image, small, True, held_out_by_number(path.name)))  # noqa: FBT003
    return loaded


def load_healthy(root: Path, diameter: int, most: int) -> list[Segmented]:
    """Load grade-0 IDRiD photographs as lesion-free examples; their discs are not annotated."""
    from medlocker_dicom.bundles.preprocess import retina_at  # noqa: PLC0415  heavy, used here alone

    loaded: list[Segmented] = []
    for item in list_graded(root):
        if item.source == "idrid_grading" and item.grade == 0 and len(loaded) < most:
            image, _ = retina_at(read_rgb(item.path), diameter, None)
            empty = np.zeros(image.shape[:2], np.uint8)
            loaded.append(Segmented(item.path.name, image, empty, False, item.validation))  # noqa: FBT003
    return loaded
