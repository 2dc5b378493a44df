"""How far a place travels: one opaque logo at many places, and every model asked about each.

    python benchmarks/travel.py --data ../shared/data [--each 2] [--places 32]
        [--looks "solid;dotted,dark-red,3"] [--sl 4,3]

Photographs are held-out ones that all models grade correctly. For each model, the others in its
stead: the rank correlation over places between its lead of a wrong grade and the mean of theirs;
and the photographs that it grades wrongly at a random place (a share over all places), at the place
that turns the others most, and at the one that turns it most. The last is what no choice of a place
exceeds, even one that asks the model itself.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

import numpy as np
from held_out import anywhere, held_out
from scipy.stats import spearmanr

from medlocker_dicom.evaluation.study import Study
from medlocker_dicom.evaluation.tables import short
from medlocker_dicom.pipeline.models import load_models
from medlocker_dicom.training.photographs import list_graded
from medlocker_dicom.watermark.placement import ALPHA_MAX
from medlocker_dicom.watermark.png import default_logo
from medlocker_dicom.watermark.style import Look, read_look

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from medlocker_dicom.bundles.models import Ensemble
    from medlocker_dicom.evaluation.cases import Case

SEED = 20240613


def leads(case: Case, ensemble: Ensemble, look: Look, sl: float, count: int) -> NDArray[np.float64]:
    """Lay a logo at random places; float64 (count, models): a wrong grade's lead, of logarithms."""
    canvas, feasible = anywhere(case, ensemble.size, sl, look)
    places = feasible.sample(np.random.default_rng(SEED), count)
    genes = np.column_stack([np.full(count, ALPHA_MAX), places]).astype(np.int32)
    pictures = canvas.compose(genes)
    told = np.stack([one.probabilities(pictures) for one in ensemble.classifiers], axis=1)
    logs = np.log(told + 1e-9)
    wrong: NDArray[np.float64] = np.delete(logs, case.grade, axis=2).max(2)
    return wrong - logs[:, :, case.grade]


def line(name: str, number: int, found: list[NDArray[np.float64]]) -> str:
    """Tell of one model, for which the others stand."""
    own = [one[:, number] for one in found]
    others = [np.delete(one, number, axis=1).mean(1) for one in found]
    pairs = list(zip(own, others, strict=True))
    alike = np.mean([spearmanr(mine, theirs).statistic for mine, theirs in pairs])
    return (
        f"    {short(name)}: correlation {alike:.2f}; turned at random "
        f"{100 * np.mean([mine > 0 for mine in own]):.0f} %, where the others are most "
        f"{sum(mine[theirs.argmax()] > 0 for mine, theirs in pairs)} of {len(own)}, where it is "
        f"itself {sum(mine.max() > 0 for mine in own)} of {len(own)}"
    )


def main() -> None:
    """Print a table for each look and size."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--each", type=int, default=2, help="photographs of a grade")
    parser.add_argument("--models", default="all", help="comma separated")
    parser.add_argument("--places", type=int, default=32)
    parser.add_argument("--looks", default="solid;dotted,dark-red,3", help="by semicolons")
    parser.add_argument("--sl", default="4,3", help="the width over the logo's, comma separated")
    arguments = parser.parse_args()
    if not arguments.data.is_dir():
        print(f"{arguments.data}: no photographs, skipped; name their folder by --data")
        return
    ensemble, segmenter = load_models(arguments.models.split(","))
    classifiers = {one.bundle.name: one for one in ensemble.classifiers}
    cases = held_out(list_graded(arguments.data))
    with TemporaryDirectory() as folder:
        study = Study(
            cases, classifiers, segmenter, [], Path(folder), default_logo(), arguments.each, SEED
        )
        chosen = [case for case in study.draw() if case is not None]
    print(f"{len(chosen)} correctly graded held-out photographs, {arguments.places} places each")
    for look in (read_look(one) for one in arguments.looks.split(";")):
        for sl in (float(one) for one in arguments.sl.split(",")):
            found = []
            for case in chosen:
                found.append(leads(case, ensemble, look, sl, arguments.places))
                sys.stderr.write(f"{look.words} sl {sl:g}: {len(found)}/{len(chosen)}\n")
            print(f"{look.words}, 1/{sl:g} of the width")
            for number, name in enumerate(classifiers):
                print(line(name, number, found))


if __name__ == "__main__":
    main()
