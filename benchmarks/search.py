"""What the strategies reach, and how it travels: one run, the same photographs, the same models.

    python benchmarks/search.py --data ../shared/data [--each 6] [--models a,b] [--targets c]
        [--searches guided:64,alpha-list:200] [--looks "solid;dotted,dark-red,3"] [--sl 4,6]

Photographs are held-out ones that all models searched against grade correctly, so many of each
grade as there are. Success: the grade of the locked photograph, at its full size and through the
models' own preprocessing, is not the true one: by the ensemble that was searched against (ASR), and
by each target, which was not, of the photographs that it grades correctly and of those among them
on which the ensemble was turned; at the end summed over targets, without an interval.
Searches over places stop at the first flip (margin 0) that holds at full size, the paper's too,
which would not look; what is asked there is not counted. `alpha-list` ends its list, and tries
further places while no list turns the grade. A gradient counts as three forward passes. What --out
holds is not done again; it gets ``search.png``, success against forward passes.
"""

from __future__ import annotations

import argparse
import sys
from collections import defaultdict
from dataclasses import replace
from itertools import product
from operator import itemgetter
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING

import numpy as np
from held_out import held_out
from matplotlib.figure import Figure

from medlocker_dicom.evaluation.rates import Rate
from medlocker_dicom.evaluation.report import words
from medlocker_dicom.evaluation.study import Condition, Study
from medlocker_dicom.evaluation.tables import flipped, short, turned
from medlocker_dicom.lesions.positions import Mode
from medlocker_dicom.pipeline.models import load_models
from medlocker_dicom.pipeline.policy import Policy
from medlocker_dicom.training.photographs import list_graded
from medlocker_dicom.watermark.png import default_logo
from medlocker_dicom.watermark.style import read_look

if TYPE_CHECKING:
    from collections.abc import Iterator

    from medlocker_dicom.evaluation.results import Row

SEED = 20240613
#: Strategies and budgets. `paper` ends by itself at about 520: of its 650, some come twice.
SEARCHES = (
    ("random-placement", 650),
    ("paper", 650),
    ("guided", 16),
    ("guided", 32),
    ("guided", 64),
    ("guided", 128),
    ("alpha-list", 64),
    ("alpha-list", 120),
    ("alpha-list", 200),
)


def main() -> None:
    """Run every condition and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--each", type=int, default=6, help="photographs of a grade")
    parser.add_argument("--models", default="", help="searched against, comma separated")
    parser.add_argument("--targets", default="", help="asked about the results, comma separated")
    parser.add_argument("--modes", default="anywhere,avoid")
    parser.add_argument("--searches", default="", help="strategy:budget, comma separated")
    parser.add_argument("--looks", default="solid", help="of the logo, separated by semicolons")
    parser.add_argument("--sl", default="4", help="the width over the logo's, comma separated")
    parser.add_argument("--out", type=Path, default=Path("runs/search"))
    arguments = parser.parse_args()
    if not arguments.data.is_dir():
        print(f"{arguments.data}: no photographs, skipped; name their folder by --data")
        return
    ensemble, segmenter = load_models([m for m in arguments.models.split(",") if m])
    named = [m for m in arguments.targets.split(",") if m]
    targets = load_models(named)[0].classifiers if named else ()
    sources = tuple(one.bundle.name for one in ensemble.classifiers)
    modes = [Mode(one) for one in arguments.modes.split(",")]
    looks = [read_look(one) for one in arguments.looks.split(";")]
    sizes = [float(one) for one in arguments.sl.split(",")]
    pairs = [one.split(":") for one in arguments.searches.split(",") if one]
    searches = [(name, int(budget)) for name, budget in pairs] or SEARCHES
    study = Study(
        held_out(list_graded(arguments.data)),
        {one.bundle.name: one for one in (*ensemble.classifiers, *targets)},
        segmenter,
        [
            Condition(
                f"{mode} {look.words} sl {sl:g} {strategy} {budget}",
                sources,
                Policy(
                    mode=mode,
                    strategy=strategy,
                    margin=0.0,
                    budget=budget,
                    sl=sl,
                    smallest_sl=2 * sl,
                    look=look,
                ),
            )
            for mode, look, sl, (strategy, budget) in product(modes, looks, sizes, searches)
        ],
        arguments.out,
        default_logo(),
        arguments.each,
        SEED,
    )
    asked = {one.bundle.name: one for one in ensemble.classifiers}
    drawn = [case for case in replace(study, classifiers=asked).draw() if case is not None]
    for done, total in study.run(drawn):
        sys.stderr.write(f"{done}/{total}\n")
    print(f"{len(drawn)} correctly graded held-out photographs; rates in per cent with intervals")
    for line in lines(study, [one.bundle.name for one in targets]):
        print(line)
    draw(study, modes, arguments.out / "search.png")


def draw(study: Study, modes: list[Mode], path: Path) -> None:
    """Draw success against forward passes, with intervals: a panel a mode, a line a strategy."""
    figure = Figure(figsize=(5 * len(modes), 4), layout="constrained")
    for mode, axes in zip(modes, figure.subplots(1, len(modes), squeeze=False)[0], strict=True):
        points = defaultdict(list)
        for condition in study.conditions:
            tried = [row for row in rows_of(study, condition) if row["feasible"]]
            if condition.policy.mode is mode and tried:
                cost = fmean(row["forward_passes"] for row in tried)
                points[condition.name.rpartition(" ")[0]].append((cost, rate(tried)))
        for name, found in points.items():
            passes, rates = zip(*sorted(found, key=itemgetter(0)), strict=True)
            shares = [100 * one.share for one in rates]
            reach = 100 * np.array([one.reach for one in rates]).T
            axes.errorbar(passes, shares, reach, marker="o", capsize=3, label=name)
        axes.set(xlabel="forward passes a photograph", ylabel="turned, %", ylim=(0, 100))
        axes.legend(fontsize="small")
    figure.savefig(path, dpi=120)


def lines(study: Study, targets: list[str]) -> Iterator[str]:
    """Lay out a condition: what it reached, by true grade, and by target."""
    for condition in study.conditions:
        mine = rows_of(study, condition)
        tried = [row for row in mine if row["feasible"]]
        if not tried:
            continue
        yield (
            f"{condition.name}: ASR {words(rate(tried))}; "
            f"{fmean(row['forward_passes'] for row in tried):.0f} forward passes, "
            f"{fmean(row['seconds'] for row in tried):.1f} s an image; "
            f"{len(mine) - len(tried)} without a feasible position"
        )
        graded = [[row for row in tried if row["grade"] == grade] for grade in range(5)]
        yield "    " + ", ".join(f"grade {g} {words(rate(rows))}" for g, rows in enumerate(graded))
        told = [
            (target, [row for row in tried if np.argmax(row["clean"][target]) == row["grade"]])
            for target in targets
        ]
        sums = np.zeros((2, 2), int)
        for target, fair in told:
            both = [
                Rate(sum(turned(row, target) for row in some), len(some))
                for some in (fair, [row for row in fair if flipped(row)])
            ]
            whole, given = map(words, both)
            yield f"    {short(target)}: {whole}, where the ensemble is turned {given}"
            sums += [(one.hits, one.n) for one in both]
        if targets:
            (hits, n), (some, of) = sums.tolist()
            yield f"    all targets: {hits} of {n}, where the ensemble is turned {some} of {of}"


def rows_of(study: Study, condition: Condition) -> list[Row]:
    """Pick what the photographs came to under one condition."""
    return [row for row in study.rows if row["condition"] == condition.name]


def rate(rows: list[Row]) -> Rate:
    """How many of them are turned."""
    return Rate(sum(map(flipped, rows)), len(rows))


if __name__ == "__main__":
    main()
