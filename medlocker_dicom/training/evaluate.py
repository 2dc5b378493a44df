"""Figures of a bundle on the held-out photographs of the sets that it was trained on."""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy.special import softmax

from medlocker_dicom.bundles.bundle import read_bundle
from medlocker_dicom.bundles.engine import OnnxEngine
from medlocker_dicom.bundles.models import Classifier, Segmenter
from medlocker_dicom.evaluation.measures import fit_temperature, grading_figures
from medlocker_dicom.evaluation.models import Masked, grade, measure_segmenter
from medlocker_dicom.training.photographs import (
    EQUALISED,
    list_graded,
    load_healthy,
    load_segmented,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from medlocker_dicom.bundles.bundle import Bundle

#: Grade-0 photographs looked through for held-out ones: all.
HEALTHY = 134


@dataclass(frozen=True)
class EvaluateGrader:
    """Scores a classifier; prints JSON and writes it into ``output_dir``.

    Attributes
    ----------
    bundle_root
        The bundle's folder.
    data_dir
        Folder of the photograph sets.
    output_dir
        Gets ``figures.json``.
    """

    bundle_root: str
    data_dir: str
    output_dir: str

    def run(self) -> dict[str, Any]:
        """Score each set, and all sets of natural colour together."""
        bundle = read_bundle(Path(self.bundle_root).resolve())
        figures = grade_held_out(bundle, Path(self.data_dir)).figures(bundle.temperature)
        return _write(figures, Path(self.output_dir))


@dataclass(frozen=True)
class EvaluateSegmenter:
    """Scores the segmenter on held-out IDRiD lesion images and healthy eyes.

    Attributes
    ----------
    bundle_root
        The bundle's folder.
    data_dir
        Folder of the photograph sets.
    output_dir
        Gets ``figures.json``.
    """

    bundle_root: str
    data_dir: str
    output_dir: str

    def run(self) -> dict[str, Any]:
        """Dice and AUPR of each label at the model's scale; share of healthy px marked."""
        bundle = read_bundle(Path(self.bundle_root).resolve())
        return _write(segmenter_figures(bundle, Path(self.data_dir)), Path(self.output_dir))


@dataclass(frozen=True)
class HeldOut:
    """What a classifier says of the held-out photographs.

    Attributes
    ----------
    logits
        float64 (n, grades), up to a constant a row.
    grades
        int64 (n,): the truth.
    sources
        str (n,): the set that each is of.
    """

    logits: NDArray[np.float64]
    grades: NDArray[np.int64]
    sources: NDArray[np.str_]

    def temperature(self) -> float:
        """Fit the temperature to the photographs of natural colour."""
        natural = self.sources != EQUALISED
        return fit_temperature(self.logits[natural], self.grades[natural])

    def figures(self, temperature: float) -> dict[str, Any]:
        """Give figures of ``natural``, all sets of natural colour, and of each set."""
        probabilities = softmax(self.logits / temperature, axis=1).astype(np.float32)
        chosen = {"natural": self.sources != EQUALISED} | {
            str(name): self.sources == name for name in np.unique(self.sources)
        }
        return {
            name: grading_figures(probabilities[rows], self.grades[rows])
            for name, rows in chosen.items()
        }


def grade_held_out(bundle: Bundle, data: Path) -> HeldOut:
    """Grade the held-out photographs of every set, through the product's own preprocessing."""
    held = [item for item in list_graded(data) if item.validation]
    probabilities = grade(Classifier(bundle, OnnxEngine(bundle)), [i.path for i in held])
    return HeldOut(
        np.log(probabilities.astype(np.float64) + 1e-12) * bundle.temperature,
        np.array([item.grade for item in held]),
        np.array([item.source for item in held]),
    )


def segmenter_figures(bundle: Bundle, data: Path) -> dict[str, Any]:
    """Figures of the segmenter, see ``measure_segmenter``."""
    segmenter = Segmenter(bundle, OnnxEngine(bundle))

    def photographs() -> Iterator[Masked]:
        for item in load_segmented(data, bundle.input_size):
            if item.validation:
                yield Masked(item.image, item.mask, tuple(range(len(bundle.labels))))
        for item in load_healthy(data, bundle.input_size, HEALTHY):
            if item.validation:  # counted by itself: nobody drew masks of these
                yield Masked(item.image, item.mask, ())

    return measure_segmenter(segmenter, photographs())


def _write(figures: dict[str, Any], out: Path) -> dict[str, Any]:
    out.mkdir(parents=True, exist_ok=True)
    text = json.dumps(figures, indent=1)
    (out / "figures.json").write_text(text + "\n")
    sys.stdout.write(text + "\n")
    return figures
