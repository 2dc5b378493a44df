"""The strategies by name, and the one call that runs them."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType

import numpy as np

from medlocker_dicom.errors import NoGradientError, PlacementError
from medlocker_dicom.search.evaluator import Evaluator, Improvement
from medlocker_dicom.search.evolution import BasinHopping, crossed, evolve, random_population
from medlocker_dicom.search.feasible import Feasible
from medlocker_dicom.search.guide import Guide
from medlocker_dicom.search.objective import FloatArray, GeneArray, Genes, Outcome
from medlocker_dicom.search.parameters import SearchParameters

Strategy = Callable[[Evaluator, Feasible, np.random.Generator, SearchParameters, Guide], None]
"""Asks the evaluator about candidates until it is finished or has nothing more to ask."""


@dataclass(frozen=True, slots=True)
class SearchResult:
    """What a search found.

    Attributes
    ----------
    best
        The best candidate: one that reached the stop, else one that flips, else
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
    _guide: Guide,
) -> None:
    """Evolve with basin hopping (eq. 4-6): 50 + 3 * (150 + 50) = 650 requests."""
    walk = BasinHopping(evaluator, feasible, rng, parameters)
    evolve(evaluator, feasible, rng, parameters, walk)


def random_mutation(
    evaluator: Evaluator,
    feasible: Feasible,
    rng: np.random.Generator,
    parameters: SearchParameters,
    _guide: Guide,
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
    _guide: Guide,
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
    guide: Guide,
) -> None:
    """Begin where the gradient foretells most, and walk on from the best (eq. 4-6).

    Three eighths of the budget look at the foretold best, well apart; the rest are proposals
    around the best four of them, with ever shorter steps. Where models tell no gradient, chance
    says where to begin.
    """
    count = max(1, min(parameters.population, 3 * evaluator.budget // 8))
    try:
        seeds = guide.best(feasible, count, apart=max(parameters.canvas_width // 16, 1))
    except NoGradientError:
        seeds = random_population(feasible, rng, count, parameters)
    seeds[:, 0] = seeds[:, 0].clip(parameters.alpha_low, parameters.alpha_high)
    losses = evaluator.losses(seeds)
    kept = np.argsort(losses, kind="stable")[:4]
    parents, losses = seeds[kept], losses[kept]
    step = float(parameters.step)
    while not evaluator.finished and evaluator.requests < 2 * evaluator.budget:
        closer = replace(parameters, step=max(round(step), 1))
        mutants = BasinHopping(evaluator, feasible, rng, closer).propose(parents)
        children = crossed(parents, mutants, feasible, rng, parameters.crossover_rate)
        child_losses = evaluator.losses(children)
        better = child_losses <= losses
        parents = np.where(better[:, None], children, parents)
        losses = np.where(better, child_losses, losses)
        step *= 0.9


STRATEGIES: Mapping[str, Strategy] = MappingProxyType(
    {
        "guided": guided,
        "paper": paper,
        "random-mutation": random_mutation,
        "random-placement": random_placement,
    }
)
"""Every strategy by its name."""


def search(  # noqa: PLR0913, PLR0917  each is another part of a search
    strategy: str,
    evaluator: Evaluator,
    feasible: Feasible,
    rng: np.random.Generator,
    parameters: SearchParameters,
    guide: Guide,
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
    guide
        What a gradient foretells; asked by the strategies that need it alone.

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
    STRATEGIES[strategy](evaluator, feasible, rng, parameters, guide)
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
