"""Photographs whose grades are known, and lesions where they are."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final

import cv2
import numpy as np

from medlocker_dicom.bundles.picture import SUFFIXES, read_bits, read_rgb
from medlocker_dicom.dicom.fundus import Fundus, decode_fundus, read_fundus
from medlocker_dicom.dicom.photograph import photograph, uids_for
from medlocker_dicom.errors import UsageError
from medlocker_dicom.folder.labels import read_labels

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from numpy.typing import NDArray

_TAKEN: Final = datetime(2024, 1, 1, tzinfo=UTC)  # of photographs that are no DICOM
_LESIONS: Final = ("MA", "HE", "EX", "SE")  # as IDRiD's files of masks end
_DISC: Final = 1 << 4  # bit of the optic disc


@dataclass(frozen=True)
class Case:
    """One photograph; of several frames the first.

    Attributes
    ----------
    name
        Its path below the folder of photographs.
    path
        Its file: an image, or DICOM.
    grade
        The true one.
    masks
        Files that mark its lesions; None where nobody did.
    """

    name: str
    path: Path
    grade: int
    masks: tuple[Path, ...] | None = None

    def fundus(self) -> Fundus:
        """Read the photograph; an image file is wrapped as DICOM, with UIDs of its name.

        Raises
        ------
        SourceError
            It cannot be read, or is no fundus photograph.
        """
        if self.path.suffix.lower() not in SUFFIXES:
            return read_fundus(self.path)
        secret = self.name.encode("utf-8", "surrogateescape").ljust(16)
        ds = photograph(
            read_rgb(self.path),
            patient_name="",
            patient_id="",
            laterality="L",
            **uids_for(secret, "image"),
            instance_number=1,
            taken=_TAKEN,
        )
        return decode_fundus(ds)

    def lesions(self, shape: tuple[int, ...]) -> NDArray[np.bool_] | None:
        """Read the true lesions, bool (H, W) of ``shape``; None where nobody marked any.

        Raises
        ------
        UsageError
            A mask is of another size than the photograph.
        PictureError
            A mask cannot be read.
        """
        if self.masks is None:
            return None
        marked = np.zeros(shape[:2], np.bool_)
        for path in self.masks:
            plane = _lesions_of(path)
            if plane.shape != marked.shape:
                raise UsageError(
                    f"{path}: not a mask of {self.path.name}: "
                    f"{marked.shape[1]} x {marked.shape[0]} px are wanted"
                )
            marked |= plane
        return marked


def read_cases(
    images: Path, labels: Path, classes: int, split: str = "", masks: Path | None = None
) -> list[Case]:
    """List the photographs that a CSV grades.

    Parameters
    ----------
    images
        Folder of image files or DICOM; names in the CSV are relative to it, or those of files
        anywhere below it, with or without their ending, as in the public sets.
    labels
        CSV, see `read_labels`.
    classes
        Grades are 0 to one less.
    split
        Read only rows of this split; empty reads all.
    masks
        Folder of lesion masks: ``NAME.png`` with bit n for lesion n (bit 4, the optic disc, is
        none), or the folders of IDRiD, where ``NAME_MA.tif`` marks microaneurysms.

    Raises
    ------
    UsageError
        The CSV is unusable or has no rows, a photograph is not there, not the only one of its
        name or of two grades, or there are no masks where some are expected.
    """
    truth = read_labels(labels, classes, split)
    if not truth:
        raise UsageError(f"{labels}: no rows" + (f" of split {split}" if split else ""))
    files = sorted(path for path in images.rglob("*") if path.is_file())
    by_name = _by_name(files, images)
    marks = _by_name(sorted(masks.rglob("*")), masks) if masks else {}
    cases: dict[Path, Case] = {}
    for name, grade in truth.items():
        found = by_name.get(name, [])
        if len(found) != 1:
            raise UsageError(
                f"{images / name}: no such photograph"
                if not found
                else f"{name}: could be {found[0]} or {found[1]}",
                f"{labels} names it, relative to {images}",
            )
        (path,) = found
        relative = path.relative_to(images).as_posix()
        case = Case(relative, path, grade, _masks_of(path.stem, marks))
        if cases.setdefault(path, case) != case:
            raise UsageError(
                f"{path}: graded {cases[path].grade} and {grade}", f"{labels} names it twice"
            )
    listed = list(cases.values())
    if masks and all(case.masks is None for case in listed):
        raise UsageError(
            f"{masks}: no lesion mask of any photograph in {labels}",
            "name the folder that holds NAME.png, or NAME_MA.tif and its like",
        )
    return listed


def _by_name(files: Iterable[Path], root: Path) -> dict[str, list[Path]]:
    """Files by their path below the root, their name, and their name without its ending."""
    found: dict[str, list[Path]] = {}
    for path in files:
        for name in {path.relative_to(root).as_posix(), path.name, path.stem}:
            found.setdefault(name, []).append(path)
    return found


def _masks_of(stem: str, marks: dict[str, list[Path]]) -> tuple[Path, ...] | None:
    names = [f"{stem}.png", *(f"{stem}_{lesion}" for lesion in _LESIONS)]
    found = [path for name in names for path in marks.get(name, [])]
    return tuple(found) or None


def _lesions_of(path: Path) -> NDArray[np.bool_]:
    """Any lesion of one file: bits of ours, or whatever is marked in IDRiD's."""
    if path.suffix.lower() == ".png":
        return np.asarray(read_bits(path) & (0xFF ^ _DISC), np.bool_)
    return np.asarray(cv2.cvtColor(read_rgb(path), cv2.COLOR_RGB2GRAY) > 0, np.bool_)
