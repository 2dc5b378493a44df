"""What ``python -m monai.bundle run`` does with our bundles, on files given by path."""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from medlocker_dicom.bundles.bundle import read_bundle
from medlocker_dicom.bundles.device import chosen_device
from medlocker_dicom.bundles.engine import TorchEngine
from medlocker_dicom.bundles.models import Classifier, Segmenter
from medlocker_dicom.bundles.picture import list_images, read_rgb
from medlocker_dicom.dicom.reading import naming
from medlocker_dicom.evaluation.models import grade


@dataclass(frozen=True)
class GradeImages:
    """Grades photographs; writes ``grades.json`` with the probabilities of every file.

    Attributes
    ----------
    bundle_root
        The bundle's folder.
    images
        An image file or a folder of them.
    output_dir
        Made if it is not there.
    """

    bundle_root: str
    images: str
    output_dir: str

    def run(self) -> None:
        """Grade every image."""
        bundle = read_bundle(Path(self.bundle_root).resolve())
        classifier = Classifier(bundle, TorchEngine(bundle, chosen_device()))
        paths = list_images(Path(self.images))
        rows = grade(classifier, paths).astype(np.float64).round(5).tolist()
        grades = {
            path.name: dict(zip(bundle.labels, row, strict=True))
            for path, row in zip(paths, rows, strict=True)
        }
        out = Path(self.output_dir)
        out.mkdir(parents=True, exist_ok=True)
        (out / "grades.json").write_text(json.dumps(grades, indent=1) + "\n")
        sys.stdout.write(f"{len(grades)} graded: {out / 'grades.json'}\n")


@dataclass(frozen=True)
class SegmentImages:
    """Segments lesions; writes a PNG for each photograph, bit n set where label n is.

    Attributes
    ----------
    bundle_root
        The bundle's folder.
    images
        An image file or a folder of them.
    output_dir
        Made if it is not there.
    """

    bundle_root: str
    images: str
    output_dir: str

    def run(self) -> None:
        """Segment every image."""
        bundle = read_bundle(Path(self.bundle_root).resolve())
        segmenter = Segmenter(bundle, TorchEngine(bundle, chosen_device()))
        out = Path(self.output_dir)
        out.mkdir(parents=True, exist_ok=True)
        paths = list_images(Path(self.images))
        for path in paths:
            rgb = read_rgb(path)
            with naming(path):
                marked = segmenter.labels_of(rgb)
            bits = (marked << np.arange(len(marked), dtype=np.uint8)[:, None, None]).sum(0)
            cv2.imwrite(str(out / f"{path.stem}.png"), bits.astype(np.uint8))
        sys.stdout.write(f"{len(paths)} segmented: {out}\n")
