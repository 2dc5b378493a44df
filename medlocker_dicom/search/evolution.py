"""Differential evolution over (alpha, x, y): eq. 4 (mutation), 5 (crossover), 6 (selection)."""

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from medlocker_dicom.search.evaluator import Evaluator
from medlocker_dicom.search.feasible import Feasible
from medlocker_dicom.search.objective import FloatArray, GeneArray
from medlocker_dicom.search.parameters import SearchParameters

Mutation = Callable[[GeneArray, FloatArray], GeneArray]
"""Parents ``int32 (n, 3)`` and their losses ``(n,)`` to one mutant each."""


def random_population(
    feasible: Feasible, rng: np.random.Generator, count: int, parameters: SearchParameters
) -> GeneArray:
    """Draw individuals uniformly from the feasible candidates.

    Returns
    -------
    numpy.ndarray
        int32 ``(count, 3)``, rows ``(alpha, x, y)``.
    """
    low, high = parameters.alpha_low, parameters.alpha_high
    alphas = rng.integers(low, high, size=count, endpoint=True, dtype=np.int32)
    return np.column_stack([alphas, feasible.sample(rng, count)])


def evolve(
    evaluator: Evaluator,
    feasible: Feasible,
    rng: np.random.Generator,
    parameters: SearchParameters,
    mutate: Mutation,
) -> None:
    """Run the loop of fig. 2 (b) until the generations or the evaluator end.

    Parameters
    ----------
    evaluator
        Remembers all that is found.
    feasible
        Allowed positions; no other is ever evaluated.
    rng
        Source of every random choice.
    parameters
        Population, generations, crossover rate and alpha's range.
    mutate
        The mutation: basin hopping (eq. 4) or another.
    """
    parents = random_population(feasible, rng, parameters.population, parameters)
    losses = evaluator.losses(parents)
    for _ in range(parameters.generations):
        if evaluator.finished:
            return
        mutants = mutate(parents, losses)
        children = crossed(parents, mutants, feasible, rng, parameters.crossover_rate)
        child_losses = evaluator.losses(children)
        better = child_losses <= losses
        parents = np.where(better[:, None], children, parents)
        losses = np.where(better, child_losses, losses)


def crossed(
    parents: GeneArray,
    mutants: GeneArray,
    feasible: Feasible,
    rng: np.random.Generator,
    rate: float,
) -> GeneArray:
    """Mix each parent with its mutant, gene by gene (eq. 5).

    The mutant's x beside the parent's y may be forbidden ground; the child then
    goes to the nearest feasible position.
    """
    children = np.where(rng.random(parents.shape) <= rate, mutants, parents)
    for child in children:
        child[1:] = feasible.nearest((int(child[1]), int(child[2])))
    return children


class BasinHopping:
    """Mutation by a short random walk from each individual (eq. 4).

    Each of `proposals` steps draws alpha and a feasible position near the walk's
    present point; the walk moves there if that is no worse, or by the Metropolis
    rule at a temperature. The mutant is the best point seen, the start included.
    There is no local minimiser: on integers it would only repeat queries.

    The walks of a population advance together, so their candidates fill batches.

    Parameters
    ----------
    evaluator, feasible, rng, parameters
        As in `evolve`.
    """

    def __init__(
        self,
        evaluator: Evaluator,
        feasible: Feasible,
        rng: np.random.Generator,
        parameters: SearchParameters,
    ) -> None:
        self._evaluator = evaluator
        self._feasible = feasible
        self._rng = rng
        self._parameters = parameters

    def __call__(self, parents: GeneArray, losses: FloatArray) -> GeneArray:
        """Return the best point of each individual's walk, int32 ``(n, 3)``."""
        best, best_losses = parents, losses
        present, present_losses = parents, losses
        for _ in range(self._parameters.proposals):
            if self._evaluator.finished:
                break
            proposed = self.propose(present)
            proposed_losses = self._evaluator.losses(proposed)
            moved = self._accepted(present_losses, proposed_losses)
            present = np.where(moved[:, None], proposed, present)
            present_losses = np.where(moved, proposed_losses, present_losses)
            improved = proposed_losses <= best_losses
            best = np.where(improved[:, None], proposed, best)
            best_losses = np.where(improved, proposed_losses, best_losses)
        return best

    def propose(self, genes: GeneArray) -> GeneArray:
        """Draw a feasible neighbour of each candidate, int32 ``(n, 3)``."""
        parameters = self._parameters
        low = np.maximum(genes[:, 0] - parameters.alpha_radius, parameters.alpha_low)
        high = np.minimum(genes[:, 0] + parameters.alpha_radius, parameters.alpha_high)
        proposed = np.empty_like(genes)
        proposed[:, 0] = self._rng.integers(low, high, endpoint=True)
        for row, (_, x, y) in zip(proposed, genes.tolist(), strict=True):
            row[1:] = self._feasible.near(self._rng, (x, y), parameters.position_radius)
        return proposed

    def _accepted(self, present: FloatArray, proposed: FloatArray) -> npt.NDArray[np.bool_]:
        """Decide which walks move."""
        if self._parameters.temperature == 0:
            return proposed <= present
        worse = np.maximum(proposed - present, 0)
        chance = np.exp(-worse / self._parameters.temperature)
        return self._rng.random(len(present)) < chance
