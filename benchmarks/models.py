"""A table of all shipped models on the held-out photographs, as docs/models.md.

    python benchmarks/models.py [--data ../shared/data] [--output docs/models.md]

Speed is that of ONNX Runtime on all cores of this machine, one photograph at a time, as a
lock asks it.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from medlocker_dicom.bundles.bundle import SHIPPED, list_bundles
from medlocker_dicom.bundles.check import check_bundle
from medlocker_dicom.bundles.engine import OnnxEngine
from medlocker_dicom.training.evaluate import grade_held_out, segmenter_figures

if TYPE_CHECKING:
    from medlocker_dicom.bundles.bundle import Bundle

#: Area under the precision-recall curve of the first on IDRiD's leaderboard, on its own test set.
LEADERBOARD = {"MA": 0.50, "HE": 0.68, "EX": 0.89, "SE": 0.70}
RUNS = 30
GRADER_HEAD = ["model", "set", "n", "accuracy", "kappa", "AUC any", "AUC referable", "ECE"]
GRADER_HEAD += ["parameters", "MB", "px", "photographs/s"]
PAGE = """# How good the models are

Made by `python benchmarks/models.py`, on held-out photographs: by patient, in IDRiD every fifth by
number. They also served to choose between recipes and to fit temperatures, so strangers'
photographs may fare worse. No medical devices.

## Graders

`all` are the held-out photographs of natural colour (IDRiD, SRahim, ODIR, EyePACS). Kappa:
quadratic weighted. ECE: expected calibration error, 15 bins. Speed: ONNX Runtime, {cores} cores,
one photograph at a time.

{graders}
## Lesion segmenter

Over all px of the held-out IDRiD lesion photographs, at the segmenter's scale. Beside it, the
first of the IDRiD challenge on its own test set at full resolution: other photographs, so no
contest.

{lesions}
{healthy}"""


def speed(bundle: Bundle) -> float:
    """Photographs a second, the median of some."""
    engine = OnnxEngine(bundle)
    shape = (1, 3, bundle.input_size, bundle.input_size)
    inputs = np.random.default_rng(0).standard_normal(shape).astype(np.float32)
    seconds = []
    for _ in range(RUNS):
        started = time.perf_counter()
        engine(inputs)
        seconds.append(time.perf_counter() - started)
    return 1 / float(np.median(seconds))


def grader_rows(bundle: Bundle, data: Path) -> list[list[Any]]:
    """One row on all photographs of natural colour, one on IDRiD's."""
    figures = grade_held_out(bundle, data).figures(bundle.temperature)
    facts = check_bundle(bundle)
    name = bundle.name.removeprefix("dr_classifier_")
    made = [
        f"{facts['parameters'] / 1e6:.1f} M",
        facts["megabytes"],
        bundle.input_size,
        f"{speed(bundle):.0f}",
    ]
    rows = []
    for label, key in (("all", "natural"), ("IDRiD", "idrid_grading")):
        row = figures[key]
        scores = [f"{row[k]:.3f}" for k in ("accuracy", "kappa", "auc_any", "auc_referable", "ece")]
        rows.append([name, label, int(row["n"]), *scores, *made])
    return rows


def table(head: list[str], rows: list[list[Any]]) -> str:
    """Markdown."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(map(str, line)) + " |" for line in lines) + "\n"


def main() -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--output", type=Path, default=Path("docs/models.md"))
    arguments = parser.parse_args()
    bundles = list_bundles([SHIPPED])
    graders: list[list[Any]] = []
    lesions: list[list[Any]] = []
    healthy = ""
    for bundle in bundles:
        sys.stderr.write(f"{bundle.name}\n")
        if bundle.kind == "dr-classifier":
            graders += grader_rows(bundle, arguments.data)
            continue
        figures = segmenter_figures(bundle, arguments.data)
        for label in bundle.labels:
            row = figures[label]
            best = LEADERBOARD.get(label, "")
            lesions.append([label, row["n"], row["aupr"], row["dice"], best])
        eyes = figures["healthy"]
        healthy = (
            f"On {eyes['n']} healthy eyes, {eyes['marked_share']:.4%} of all px are marked as "
            f"lesions; {eyes['without_any']} of the eyes have no mark at all.\n"
        )
    text = PAGE.format(
        cores=os.cpu_count(),
        graders=table(GRADER_HEAD, graders),
        lesions=table(["label", "n", "AUPR", "Dice", "challenge, AUPR"], lesions),
        healthy=healthy,
    )
    arguments.output.write_text(text)
    sys.stdout.write(text)


if __name__ == "__main__":
    main()
