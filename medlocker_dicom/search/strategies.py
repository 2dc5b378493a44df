"""The strategies by name, and the one call that runs them."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType

import numpy as np

from medlocker_dicom.errors import PlacementError
from medlocker_dicom.search.evaluator import Evaluator, Improvement
from medlocker_dicom.search.evolution import BasinHopping, evolve, random_population
from medlocker_dicom.search.feasible import Feasible
from medlocker_dicom.search.objective import FloatArray, GeneArray, Genes, Outcome
from medlocker_dicom.search.parameters import SearchParameters
from medlocker_dicom.search.surrogate import Surrogate

Strategy = Callable[[Evaluator, Feasible, np.random.Generator, SearchParameters], None]
"""Asks the evaluator about candidates until it is finished or has nothing more to ask."""

ROUND = 8
"""Candidates that `guided` picks at once."""

DRAWN, BEST, NEIGHBOURS, NEAR = 400, 4, 12, (2, 5, 10)
"""It picks from so many draws, and so many neighbours of each of the best by each step."""


@dataclass(frozen=True, slots=True)
class SearchResult:
    """What a search found.

    Attributes
    ----------
    best
        The best candidate: the one that ended the search, else one that flips, else
        the one of least objective.
    probability, margin, flipped
        Its outcome, as in `Outcome`.
    queries
        Distinct candidates looked at, at most the evaluator's budget.
    requests
        Candidates asked about, repeats included (nominally 650).
    forward_passes
        Candidates computed, those behind the stop included.
    history
        Each candidate that became the best.
    candidates
        The best distinct ones, best first, `SearchParameters.keep` or as many as
        there are: for ranking again at full size.
    """

    best: Genes
    probability: float
    margin: float
    flipped: bool
    queries: int
    requests: int
    forward_passes: int
    history: tuple[Improvement, ...]
    candidates: tuple[Outcome, ...]


def paper(
    evaluator: Evaluator,
    feasible: Feasible,
    rng: np.random.Generator,
    parameters: SearchParameters,
) -> None:
    """Evolve with basin hopping (eq. 4-6): 50 + 3 * (150 + 50) = 650 requests."""
    walk = BasinHopping(evaluator, feasible, rng, parameters)
    evolve(evaluator, feasible, rng, parameters, walk)


def random_mutation(
    evaluator: Evaluator,
    feasible: Feasible,
    rng: np.random.Generator,
    parameters: SearchParameters,
) -> None:
    """Evolve with mutants drawn anew (the paper's table 3), for as many requests.

    A mutant costs none here, so the same budget lasts ``N_g (N_iter + 1)``
    generations: 50 + 12 * 50 = 650.
    """

    def anywhere(parents: GeneArray, _losses: FloatArray) -> GeneArray:
        return random_population(feasible, rng, len(parents), parameters)

    generations = parameters.generations * (parameters.proposals + 1)
    longer = replace(parameters, generations=generations)
    evolve(evaluator, feasible, rng, longer, anywhere)


def random_placement(
    evaluator: Evaluator,
    feasible: Feasible,
    rng: np.random.Generator,
    parameters: SearchParameters,
) -> None:
    """Try independent uniform draws, as many as the paper's strategy asks for."""
    left = parameters.nominal_budget
    while left and not evaluator.finished:
        count = min(parameters.population, left)
        evaluator.losses(random_population(feasible, rng, count, parameters))
        left -= count


def guided(
    evaluator: Evaluator,
    feasible: Feasible,
    rng: np.random.Generator,
    parameters: SearchParameters,
) -> None:
    """Ask, in rounds, where a model of the losses so far expects most improvement.

    The first round is drawn by chance. Every later one is picked from uniform draws and from
    neighbours, near and far, of the best few (as eq. 4 proposes them).
    """
    genes = random_population(feasible, rng, ROUND, parameters)
    losses = evaluator.losses(genes)
    while not evaluator.finished:
        best = genes[np.argsort(losses, kind="stable")[:BEST]]
        drawn = [random_population(feasible, rng, DRAWN, parameters)]
        for step in NEAR:
            closer = replace(parameters, step=step)
            walk = BasinHopping(evaluator, feasible, rng, closer)
            drawn.append(walk.propose(np.repeat(best, NEIGHBOURS, axis=0)))
        candidates = np.unique(np.concatenate(drawn), axis=0)
        asked = (candidates[:, None] == genes).all(-1).any(-1)
        candidates = candidates[~asked]
        if not len(candidates):
            return
        surrogate = Surrogate(genes, losses, parameters.canvas_width)
        picked = candidates[surrogate.most_promising(candidates, ROUND)]
        genes = np.concatenate([genes, picked])
        losses = np.concatenate([losses, evaluator.losses(picked)])


STRATEGIES: Mapping[str, Strategy] = MappingProxyType(
    {
        "guided": guided,
        "paper": paper,
        "random-mutation": random_mutation,
        "random-placement": random_placement,
    }
)
"""Every strategy by its name."""


def search(
    strategy: str,
    evaluator: Evaluator,
    feasible: Feasible,
    rng: np.random.Generator,
    parameters: SearchParameters,
) -> SearchResult:
    """Search the placement that leads the ensemble away from the label.

    Parameters
    ----------
    strategy
        A name in `STRATEGIES`.
    evaluator
        A fresh one: ensemble, label, budget and stop.
    feasible
        The allowed positions.
    rng
        Source of every random choice; the same seed gives the same result.
    parameters
        The numbers of the search.

    Returns
    -------
    SearchResult
        Its counts and candidates are those of the evaluator.

    Raises
    ------
    PlacementError
        There is no such strategy.
    BundleError
        The ensemble's answer is unusable.
    """
    if strategy not in STRATEGIES:
        raise PlacementError(
            f"no search strategy is called {strategy!r}", f"choose from {', '.join(STRATEGIES)}"
        )
    STRATEGIES[strategy](evaluator, feasible, rng, parameters)
    ranking = evaluator.ranking()
    best = ranking[0]
    return SearchResult(
        best=best.genes,
        probability=best.probability,
        margin=best.margin,
        flipped=best.flipped,
        queries=evaluator.queries,
        requests=evaluator.requests,
        forward_passes=evaluator.forward_passes,
        history=evaluator.history,
        candidates=tuple(ranking[: parameters.keep]),
    )
