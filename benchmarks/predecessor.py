"""Seconds and queries of our search beside the loop of the paper's public predecessor.

    python benchmarks/predecessor.py --data ../shared/data [--each 1]

The loop, stated anew: 50 individuals over 3 generations; each is moved by scipy's basinhopping
with 3 hops, whose minimiser finds nothing to do on whole numbers; then crossover and selection.
Every call composes one picture and asks the models in plain torch, one picture at a time, without
a memory. It ends at the first picture that turns the models, as `paper` does; `guided` with 64
queries and our default go on to their margin. The same photographs, models and places for all, in
one run.
"""

from __future__ import annotations

import argparse
import time
from dataclasses import replace
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING

import numpy as np
from held_out import anywhere, held_out
from scipy.optimize import basinhopping

from medlocker_dicom.bundles.engine import TorchEngine
from medlocker_dicom.bundles.models import Classifier, Ensemble
from medlocker_dicom.evaluation.plans import policy_of
from medlocker_dicom.evaluation.study import Condition, Study
from medlocker_dicom.evaluation.tables import flipped
from medlocker_dicom.lesions.positions import Mode
from medlocker_dicom.pipeline.models import load_models
from medlocker_dicom.pipeline.policy import Policy
from medlocker_dicom.training.photographs import list_graded
from medlocker_dicom.watermark.png import default_logo

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from medlocker_dicom.pipeline.canvas import Canvas
    from medlocker_dicom.search import Feasible

SEED = 20240613
POPULATION, GENERATIONS, HOPS, CROSSOVER = 50, 3, 3, 0.9
ALPHA = (100, 255)
SL = 4.0
#: Reach of a hop on the canvas: of the opacity, of x and of y.
REACH = np.array([20, 50, 50])


class Turned(Exception):  # noqa: N818  the good end of a loop
    """A picture that turns the models was found."""


class Predecessor:
    """The loop on one photograph; `queries` counts its calls.

    Parameters
    ----------
    canvas
        Composes at the models' size.
    feasible
        Where the logo may lie.
    ensemble
        In plain torch.
    label
        The true grade.
    """

    def __init__(self, canvas: Canvas, feasible: Feasible, ensemble: Ensemble, label: int) -> None:
        self.canvas, self.feasible, self.ensemble, self.label = canvas, feasible, ensemble, label
        self.rng = np.random.default_rng(SEED)
        self.queries = 0

    def ask(self, genes: NDArray[np.float64]) -> float:
        """Compose one picture and ask every model."""
        alpha, x, y = (int(gene) for gene in genes)
        alpha = min(max(alpha, ALPHA[0]), ALPHA[1])
        x, y = self.feasible.nearest((x, y))
        picture = self.canvas.compose(np.array([[alpha, x, y]], np.int32))
        chances = self.ensemble.probabilities(picture)[0]
        self.queries += 1
        if int(chances.argmax()) != self.label:
            raise Turned
        return float(chances[self.label])

    def run(self) -> bool:
        """Search; whether the models were turned."""
        try:
            self._evolve()
        except Turned:
            return True
        return False

    def _evolve(self) -> None:
        alphas = self.rng.integers(*ALPHA, POPULATION, endpoint=True)
        parents = np.column_stack([alphas, self.feasible.sample(self.rng, POPULATION)])
        parents = parents.astype(np.float64)
        losses = np.array([self.ask(one) for one in parents])
        for _ in range(GENERATIONS):
            mutants = np.stack([self._hopped(one) for one in parents])
            mixed = np.where(self.rng.random(parents.shape) <= CROSSOVER, mutants, parents)
            children = np.array([self.ask(one) for one in mixed])
            better = children <= losses
            parents = np.where(better[:, None], mixed, parents)
            losses = np.where(better, children, losses)

    def _hopped(self, parent: NDArray[np.float64]) -> NDArray[np.float64]:
        def step(genes: NDArray[np.float64]) -> NDArray[np.float64]:
            return np.rint(genes + self.rng.uniform(-REACH, REACH))

        found = basinhopping(self.ask, parent, niter=HOPS, take_step=step, rng=self.rng)
        best: NDArray[np.float64] = found.x
        return best


def main() -> None:
    """Run the loop and ours on the same photographs."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--each", type=int, default=1, help="photographs of a grade")
    parser.add_argument("--models", default="", help="searched against, comma separated")
    parser.add_argument("--out", type=Path, default=Path("runs/predecessor"))
    arguments = parser.parse_args()
    if not arguments.data.is_dir():
        print(f"{arguments.data}: no photographs, skipped; name their folder by --data")
        return
    ensemble, segmenter = load_models([m for m in arguments.models.split(",") if m])
    sources = tuple(one.bundle.name for one in ensemble.classifiers)
    ours = Policy(mode=Mode.ANYWHERE)
    study = Study(
        held_out(list_graded(arguments.data)),
        {one.bundle.name: one for one in ensemble.classifiers},
        segmenter,
        [
            Condition("paper", sources, policy_of("paper", ours)),
            Condition("guided 64", sources, replace(ours, strategy="guided", budget=64)),
            Condition("default", sources, ours),
        ],
        arguments.out,
        default_logo(),
        arguments.each,
        SEED,
    )
    plain = Ensemble([Classifier(c.bundle, TorchEngine(c.bundle)) for c in ensemble.classifiers])
    drawn = [case for case in study.draw() if case is not None]
    loop: list[tuple[bool, int, float]] = []
    for case in drawn:
        canvas, allowed = anywhere(case, ensemble.size, SL)
        search = Predecessor(canvas, allowed, plain, case.grade)
        started = time.perf_counter()
        turned = search.run()
        loop.append((turned, search.queries, time.perf_counter() - started))
        print(f"{case.name}: {'turned' if turned else 'not turned'}, {search.queries} queries")
    for _ in study.run(drawn):
        pass
    told = {"predecessor's loop": loop}
    for condition in study.conditions:
        rows = [row for row in study.rows if row["condition"] == condition.name]
        told[condition.name] = [
            (flipped(row), row["forward_passes"], row["seconds"]) for row in rows if row["feasible"]
        ]
    slow = fmean(seconds for _, _, seconds in loop)
    for name, runs in told.items():
        seconds = fmean(one[2] for one in runs)
        print(
            f"{name}: turned {sum(one[0] for one in runs)} of {len(runs)}, "
            f"{fmean(one[1] for one in runs):.0f} forward passes, {seconds:.1f} s an image, "
            f"1/{slow / seconds:.1f} of the loop's"
        )


if __name__ == "__main__":
    main()
