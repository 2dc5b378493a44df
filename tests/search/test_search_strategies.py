"""The strategies: what they ask, in what order, and what they find."""

import dataclasses
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from search_landscapes import TARGET, WIDTH, Array, Bowl, Rugged, islands, open_canvas

from medlocker_dicom.errors import PlacementError
from medlocker_dicom.search import (
    STRATEGIES,
    Evaluator,
    Feasible,
    SearchParameters,
    SearchResult,
    Stop,
    search,
)

PAPER = SearchParameters()
NAMES = sorted(STRATEGIES)
PAPERS = sorted(STRATEGIES.keys() - {"guided"})
OPEN = open_canvas()
ISLANDS = islands()


def run(
    strategy: str,
    model: Bowl | Rugged,
    feasible: Feasible,
    seed: int = 0,
    parameters: SearchParameters = PAPER,
    **options: object,
) -> SearchResult:
    if strategy == "guided":  # learns from what it asked, and is made for few
        options = {"budget": 100} | options
    judge = Evaluator(model, 0, **options)  # type: ignore[arg-type]  # forwarded options
    return search(strategy, judge, feasible, np.random.default_rng(seed), parameters)


@pytest.mark.parametrize("strategy", PAPERS)
def test_nominal_budget_is_the_papers(strategy: str) -> None:
    """Each of the paper's strategies asks 650 times; what was asked before costs no query."""
    result = run(strategy, bowl := Bowl(), OPEN)
    assert PAPER.nominal_budget == result.requests == 650
    assert result.queries == result.forward_passes == len(np.unique(bowl.seen, axis=0))
    assert result.queries <= 650


def test_papers_distinct_count() -> None:
    """CR = 0.9 repeats about 0.9^3 of the children: 490 to 560 of 650 are distinct."""
    counts = [run("paper", Bowl(), OPEN, seed).queries for seed in range(5)]
    assert min(counts) >= 490
    assert max(counts) <= 560


@pytest.mark.parametrize("strategy", NAMES)
@given(
    density=st.floats(0.001, 1),
    seed=st.integers(0, 2**32 - 1),
    budget=st.integers(1, 200),
    temperature=st.sampled_from([0.0, 1.0]),
)
@settings(max_examples=25, deadline=None)
def test_only_feasible_candidates_within_budget(
    strategy: str, density: float, seed: int, budget: int, temperature: float
) -> None:
    """Whatever the map, no forbidden position, alpha or query too many is computed."""
    allowed = np.random.default_rng(seed).random((40, 60)) < density
    allowed[7, 11] = True
    model = Bowl()
    parameters = SearchParameters(
        population=12, temperature=temperature, alpha_low=120, alpha_high=180
    )
    result = run(strategy, model, Feasible.from_map(allowed), seed, parameters, budget=budget)
    alphas, xs, ys = model.seen.T
    assert allowed[ys, xs].all()
    assert alphas.min() >= 120
    assert alphas.max() <= 180
    assert result.queries == len(model.seen) <= budget


@pytest.mark.parametrize("strategy", NAMES)
def test_same_seed_same_result(strategy: str) -> None:
    """The seed decides everything; another seed asks other candidates."""
    one, two, other = Bowl(), Bowl(), Bowl()
    assert run(strategy, one, ISLANDS, 3) == run(strategy, two, ISLANDS, 3)
    run(strategy, other, ISLANDS, 4)
    assert np.array_equal(one.seen, two.seen)
    assert not np.array_equal(one.seen[:99], other.seen[:99])


@pytest.mark.parametrize("stop", [Stop.FIRST_FLIP, Stop.at_margin(0.2), Stop.NEVER])
@pytest.mark.parametrize("strategy", NAMES)
def test_same_result_at_any_batch_size(strategy: str, stop: Stop) -> None:
    """Batches change the number of forward passes and nothing else."""
    results = [
        run(strategy, Rugged(), OPEN, 5, batch_size=size, stop=stop, budget=300)
        for size in (1, 7, 64)
    ]
    alike = [dataclasses.replace(result, forward_passes=0) for result in results]
    assert alike[0] == alike[1] == alike[2]
    assert results[0].forward_passes == results[0].queries
    assert results[2].forward_passes >= results[0].forward_passes


@pytest.mark.parametrize("strategy", NAMES)
def test_first_flip_ends_the_search(strategy: str) -> None:
    """The result is the candidate that flipped, and it was the last query."""
    result = run(strategy, Bowl(), OPEN, stop=Stop.FIRST_FLIP)
    assert result.flipped
    assert result.history[-1].queries == result.queries < 650
    assert sum(outcome.flipped for outcome in result.candidates) == 1


def test_paper_descends_the_bowl() -> None:
    """On a smooth bowl the paper's strategy ends nearer the bottom than chance does."""
    better = [
        run("paper", Bowl(), OPEN, seed).probability
        < run("random-placement", Bowl(), OPEN, seed).probability
        for seed in range(20)
    ]
    assert sum(better) >= 15
    best = run("paper", Bowl(), OPEN, 0).best
    assert np.abs((np.array(best) - TARGET) / (155, WIDTH, WIDTH)).max() < 0.1


@pytest.mark.parametrize("budget", [24, 64])
def test_guided_is_worth_many_queries(budget: int) -> None:
    """On a smooth bowl it ends deeper than the others do with four times as many, on average."""

    def depth(strategy: str, queries: int) -> float:
        found = [run(strategy, Bowl(), OPEN, seed, budget=queries) for seed in range(10)]
        return float(np.mean([result.probability for result in found]))

    guided = depth("guided", budget)
    assert guided < min(depth("random-placement", 4 * budget), depth("paper", 4 * budget)) - 0.02


def test_paper_proposes_near_and_random_mutation_anywhere() -> None:
    """The first 50 proposals stay within the steps of their parents in `paper` alone."""
    near = {}
    for strategy in ("paper", "random-mutation"):
        model = Bowl()
        run(strategy, model, OPEN, 1, batch_size=50)
        moves = np.abs(model.calls[1].astype(int) - model.calls[0][: len(model.calls[1])])
        near[strategy] = bool((moves <= (20, 50, 50)).all())
    assert near == {"paper": True, "random-mutation": False}


def test_random_placement_ignores_what_it_sees() -> None:
    """Its draws are the same under quite another objective; the others' are not."""

    def same(strategy: str) -> bool:
        one, two = Bowl(0.9), Bowl(-0.04)
        run(strategy, one, OPEN)
        run(strategy, two, OPEN)
        return np.array_equal(one.seen, two.seen)

    assert {name: same(name) for name in NAMES} == {
        "guided": False,
        "paper": False,
        "random-mutation": False,
        "random-placement": True,
    }


def test_temperature_accepts_worse_steps() -> None:
    """At a high temperature the walks move on where greedy ones stay."""
    greedy, hot = Bowl(), Bowl()
    run("paper", greedy, OPEN, 2, batch_size=50)
    run("paper", hot, OPEN, 2, SearchParameters(temperature=1e6), batch_size=50)
    assert np.array_equal(greedy.seen[:100], hot.seen[:100])
    rows: list[Array] = [model.seen[50:150] for model in (greedy, hot)]
    steps = [np.abs(r[50:].astype(int) - r[:50]) for r in rows]
    from_the_proposal = [float((s <= (20, 50, 50)).all(axis=1).mean()) for s in steps]
    assert from_the_proposal[1] == 1.0
    assert from_the_proposal[0] < 1.0


@pytest.mark.parametrize("strategy", NAMES)
def test_candidates_are_distinct_and_in_order(strategy: str) -> None:
    """At least 8 distinct candidates come back, best first, led by the best."""
    result = run(strategy, Bowl(), OPEN)
    genes = [outcome.genes for outcome in result.candidates]
    losses = [outcome.probability for outcome in result.candidates]
    assert len(set(genes)) == len(genes) == PAPER.keep >= 8
    assert losses == sorted(losses)
    assert genes[0] == result.best


def test_one_position_left() -> None:
    """With a single position only alpha is searched, and the search ends."""
    for strategy in NAMES:
        result = run(strategy, Bowl(), Feasible(np.array([[9, 4]])))
        assert (result.best.x, result.best.y) == (9, 4)
        assert result.queries <= 156
        assert result.requests == 650 or strategy == "guided"
        assert result.queries > 10


def test_steps_follow_the_canvas() -> None:
    """Position steps scale with the width, alpha's does not."""
    assert (PAPER.alpha_radius, PAPER.position_radius) == (20, 50)
    wide = SearchParameters(canvas_width=448)
    assert (wide.alpha_radius, wide.position_radius) == (20, 100)
    assert SearchParameters(canvas_width=8, step=1).position_radius == 1
    assert SearchParameters(step=0).position_radius == 0


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("population", 0),
        ("crossover_rate", 1.5),
        ("crossover_rate", float("nan")),
        ("alpha_low", 256),
        ("alpha_high", 99),
        ("temperature", -1.0),
        ("keep", 7),
        ("canvas_width", 0),
    ],
)
def test_parameters_hold_their_ranges(name: str, value: float) -> None:
    """A value out of range is refused by its name."""
    with pytest.raises(PlacementError, match=f"{name} is {value}"):
        SearchParameters(**{name: value})  # type: ignore[arg-type]  # one field at a time


def test_unknown_strategy_is_named() -> None:
    """The message quotes the name, the hint lists those there are."""
    with pytest.raises(PlacementError, match="'annealing'") as caught:
        run("annealing", Bowl(), OPEN)
    assert caught.value.hint == "choose from guided, paper, random-mutation, random-placement"


def test_search_imports_no_engine() -> None:
    """The package needs no network, no image and no instance."""
    heavy = "torch, monai, cv2, PIL, SimpleITK, matplotlib, pydicom"
    code = (
        f"import sys, medlocker_dicom.search; print({{*'{heavy}'.split(', ')}} & {{*sys.modules}})"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
