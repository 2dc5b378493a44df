"""Figures of a bundle on a folder of photographs and a file, or folder, that tells the truth."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from medlocker_dicom.bundles.engine import OnnxEngine
from medlocker_dicom.bundles.models import Classifier, Segmenter
from medlocker_dicom.bundles.picture import list_images
from medlocker_dicom.errors import UsageError
from medlocker_dicom.evaluation.measures import grading_figures
from medlocker_dicom.evaluation.models import grade, measure_segmenter, read_masked
from medlocker_dicom.folder.labels import read_labels

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from pathlib import Path

    from medlocker_dicom.bundles.bundle import Bundle

    Progress = Callable[[Sequence[Path], str], Iterable[Path]]


def evaluate_grader(
    bundle: Bundle, images: Path, labels: Path, split: str, counted: Progress
) -> dict[str, Any]:
    """Grade the photographs that a CSV names, and compare.

    Parameters
    ----------
    bundle
        A classifier.
    images
        Folder that the names in the CSV are relative to.
    labels
        CSV, see ``read_labels``.
    split
        Read only rows of this split; empty reads all.
    counted
        Passes paths on and shows progress.

    Raises
    ------
    UsageError
        No rows, or a photograph that is not there.
    MedLockerError
        A photograph cannot be graded.
    """
    truth = read_labels(labels, len(bundle.labels), split)
    if not truth:
        raise UsageError(f"{labels}: no rows" + (f" of split {split}" if split else ""))
    paths = [images / name for name in truth]
    missing = [path for path in paths if not path.is_file()]
    if missing:
        raise UsageError(
            f"{missing[0]}: no such photograph; {len(missing)} of {len(paths)} are missing",
            f"{labels} names them, relative to --images",
        )
    classifier = Classifier(bundle, OnnxEngine(bundle))
    probabilities = grade(classifier, counted(paths, "grading"))
    return grading_figures(probabilities, np.array(list(truth.values())))


def evaluate_segmenter(
    bundle: Bundle, images: Path, masks: Path, counted: Progress
) -> dict[str, Any]:
    """Segment every photograph of a folder, and compare with the mask of its name.

    Parameters
    ----------
    bundle
        A segmenter.
    images
        Folder of photographs.
    masks
        Folder with NAME.png of each NAME.*, see ``read_masked``.
    counted
        Passes paths on and shows progress.

    Raises
    ------
    MedLockerError
        There are no photographs, one cannot be segmented, or its mask is missing or unusable.
    """
    paths = list_images(images)
    segmenter = Segmenter(bundle, OnnxEngine(bundle))
    photographs = (
        read_masked(path, masks / f"{path.stem}.png", segmenter)
        for path in counted(paths, "segmenting")
    )
    return measure_segmenter(segmenter, photographs)
