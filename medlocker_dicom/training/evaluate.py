"""Figures of a bundle on the held-out photographs, through the product's own preprocessing."""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from medlocker_dicom.bundles.bundle import read_bundle
from medlocker_dicom.bundles.engine import OnnxEngine
from medlocker_dicom.bundles.models import Classifier, Segmenter
from medlocker_dicom.bundles.picture import read_rgb
from medlocker_dicom.training.measures import grading_figures, segmentation_figures
from medlocker_dicom.training.photographs import (
    EQUALISED,
    Segmented,
    list_graded,
    load_healthy,
    load_segmented,
)

DISC = "OD"


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
        classifier = Classifier(bundle, OnnxEngine(bundle))
        held = [item for item in list_graded(Path(self.data_dir)) if item.validation]
        probabilities = np.stack([classifier.photograph(read_rgb(item.path)) for item in held])
        grades = np.array([item.grade for item in held])
        sources = np.array([item.source for item in held])
        chosen = {"natural": sources != EQUALISED} | {
            str(name): sources == name for name in np.unique(sources)
        }
        figures: dict[str, Any] = {
            name: grading_figures(probabilities[rows].astype(np.float32), grades[rows])
            for name, rows in chosen.items()
        }
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
    healthy
        Grade-0 photographs looked through for held-out ones.
    """

    bundle_root: str
    data_dir: str
    output_dir: str
    healthy: int = 134

    def run(self) -> dict[str, Any]:
        """Dice and AUPR of each label at the model's scale; share of healthy px marked."""
        bundle = read_bundle(Path(self.bundle_root).resolve())
        segmenter = Segmenter(bundle, OnnxEngine(bundle))
        root, diameter = Path(self.data_dir), bundle.input_size
        held = [i for i in load_segmented(root, diameter) if i.validation]
        figures: dict[str, Any] = score_masks(segmenter, held)
        eyes = [i for i in load_healthy(root, diameter, self.healthy) if i.validation]
        lesions = [n for n, label in enumerate(bundle.labels) if label != DISC]
        shares = [
            float((segmenter.scores(i.image)[lesions].max(0) >= segmenter.threshold).mean())
            for i in eyes
        ]
        figures["healthy"] = {
            "n": len(eyes),
            "marked_share": round(float(np.mean(shares)), 6),
            "without_any": sum(share == 0 for share in shares),
        }
        return _write(figures, Path(self.output_dir))


def score_masks(segmenter: Segmenter, held: list[Segmented]) -> dict[str, Any]:
    """Dice at the threshold and AUPR of each label, over all px of all images at once."""
    scores = [segmenter.scores(item.image) for item in held]
    figures: dict[str, Any] = {}
    for bit, label in enumerate(segmenter.bundle.labels):
        flat = np.concatenate([score[bit].ravel() for score in scores])
        truth = np.concatenate([(item.mask >> bit & 1).ravel() for item in held]).astype(bool)
        row = segmentation_figures(flat, truth, segmenter.threshold)
        figures[label] = {"n": len(held), **row}
    return figures


def _write(figures: dict[str, Any], out: Path) -> dict[str, Any]:
    out.mkdir(parents=True, exist_ok=True)
    text = json.dumps(figures, indent=1)
    (out / "figures.json").write_text(text + "\n")
    sys.stdout.write(text + "\n")
    return figures
