"""The objective's memory, meter, budget and stop."""

from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from search_landscapes import TARGET, Array, Bowl, Rugged

from medlocker_dicom.errors import BundleError, PlacementError
from medlocker_dicom.search import Evaluator, Genes, Objective, Stop


def bowl_evaluator(model: Bowl | None = None, **options: Any) -> Evaluator:
    """Make an evaluator of a bowl for label 0."""
    return Evaluator(model or Bowl(), 0, **options)


def candidates(count: int, seed: int = 0) -> Array:
    """Draw candidates, some of them twice."""
    rng = np.random.default_rng(seed)
    drawn = rng.integers((100, 0, 0), (256, 169, 169), size=(count, 3))
    repeats = rng.integers(count, size=count // 4)
    drawn[rng.integers(count, size=count // 4)] = drawn[repeats]
    return drawn.astype(np.int32)


def test_outcome_of_five_classes() -> None:
    """Probability, margin and decision are those of the softmax row."""
    row = np.array([[0.3, 0.1, 0.4, 0.15, 0.05]])
    judge = Evaluator(lambda _: row, 0)
    assert judge.losses(np.array([[100, 1, 2]], dtype=np.int32)) == pytest.approx([0.3])
    (outcome,) = judge.ranking()
    assert outcome.genes == Genes(alpha=100, x=1, y=2)
    assert outcome.margin == pytest.approx(0.1)
    assert outcome.flipped


def test_a_tie_is_decided_like_argmax() -> None:
    """At equal probabilities the lower class is the decision."""
    even = np.full((1, 2), 0.5)
    genes = np.array([[100, 0, 0]], dtype=np.int32)
    for label, flipped in ((0, False), (1, True)):
        judge = Evaluator(lambda _: even, label)
        judge.losses(genes)
        assert judge.ranking()[0].flipped is flipped


def test_repeats_cost_nothing() -> None:
    """A candidate is computed once, within a call and across calls."""
    bowl = Bowl()
    judge = bowl_evaluator(bowl, batch_size=7)
    genes = np.array([[100, 1, 1], [101, 2, 2], [100, 1, 1]], dtype=np.int32)
    first = judge.losses(genes)
    again = judge.losses(genes[::-1])
    assert first[0] == first[2]
    assert np.array_equal(first[::-1], again)
    assert len(bowl.seen) == judge.queries == judge.forward_passes == 2
    assert judge.requests == 6


def test_budget_is_never_exceeded() -> None:
    """Neither queries nor forward passes go beyond the budget; the rest is inf."""
    bowl = Bowl()
    judge = bowl_evaluator(bowl, batch_size=8, budget=21)
    genes = candidates(60)
    losses = np.concatenate([judge.losses(part) for part in np.split(genes, 3)])
    assert judge.finished
    assert judge.queries == len(bowl.seen) == 21
    unseen = np.isinf(losses)
    assert unseen.any()
    assert len({tuple(g) for g in genes[~unseen].tolist()}) == 21


@pytest.mark.parametrize("objective", list(Objective))
@pytest.mark.parametrize(
    "stop", [Stop.FIRST_FLIP, Stop.at_margin(0.1), Stop.NEVER], ids=["flip", "margin", "never"]
)
def test_batch_size_changes_nothing_but_forward_passes(stop: Stop, objective: Objective) -> None:
    """Losses, ranking, history and counts are the same at every batch size."""

    def run(batch_size: int) -> tuple[object, int, int]:
        judge = Evaluator(
            Rugged(), 0, batch_size=batch_size, budget=90, stop=stop, objective=objective
        )
        losses = [judge.losses(candidates(40, seed)).tolist() for seed in range(4)]
        told = (losses, judge.ranking(), judge.history, judge.requests, judge.finished)
        return told, judge.queries, judge.forward_passes

    expected, queries, passes = run(1)
    assert passes == queries
    for batch_size in (2, 5, 16, 64, 4096):
        told, same, computed = run(batch_size)
        assert told == expected
        assert same == queries
        assert queries <= computed < queries + batch_size


def test_stop_at_the_first_flip() -> None:
    """What lies behind the first flip in the same chunk is computed but never seen."""
    bowl = Bowl()
    genes = np.array([[255, 160, 0], TARGET, TARGET, [161, 41, 121]], dtype=np.int32)
    judge = bowl_evaluator(bowl, batch_size=4, stop=Stop.FIRST_FLIP)
    losses = judge.losses(genes)
    assert np.isfinite(losses).tolist() == [True, True, False, False]
    assert judge.finished
    assert judge.queries == judge.requests == 2
    assert judge.forward_passes == len(bowl.seen) == 3
    assert judge.ranking()[0].genes == TARGET
    assert np.isinf(judge.losses(genes)).all(), "a finished search looks at nothing more"


def test_stop_at_a_margin() -> None:
    """A flip with too small a margin does not end the search."""
    edge = (160, 40 + 84, 120)  # f_t = 0.95 - 0.9 (1 - 84/169) = 0.497
    genes = np.array([edge, TARGET], dtype=np.int32)
    judge = bowl_evaluator(stop=Stop.at_margin(0.5))
    judge.losses(genes[:1])
    assert judge.ranking()[0].flipped
    assert not judge.finished
    judge.losses(genes[1:])
    assert judge.finished


def test_what_does_not_hold_does_not_end_the_search() -> None:
    """Of candidates that reach the stop, the first that holds ends it, and leads the ranking."""
    asked = []

    def holds(genes: Genes) -> bool:
        asked.append(genes)
        return len(asked) == 2

    better, worse = Genes(*TARGET), Genes(161, 41, 121)
    genes = np.array([[255, 160, 0], better, worse, [162, 42, 120]], dtype=np.int32)
    judge = bowl_evaluator(stop=Stop.FIRST_FLIP, holds=holds)
    assert np.isfinite(judge.losses(genes)).tolist() == [True, True, True, False]
    assert asked == [better, worse]
    assert judge.finished
    first, second, _ = judge.ranking()
    assert (first.genes, second.genes) == (worse, better)
    assert first.probability > second.probability


def test_history_gets_better() -> None:
    """Each entry ranks above the one before, and the last one is the best."""
    judge = Evaluator(Rugged(), 0, budget=200)
    judge.losses(candidates(300))
    ranks = [(not h.outcome.flipped, h.outcome.probability) for h in judge.history]
    queries = [h.queries for h in judge.history]
    assert len(ranks) > 2
    assert all(later < earlier for earlier, later in pairwise(ranks))
    assert queries == sorted(set(queries))
    assert judge.history[-1].outcome == judge.ranking()[0]


def test_a_flip_outranks_a_lower_probability() -> None:
    """With five classes the best is one that flips, though f_t is lower elsewhere."""
    rows = np.array([[0.34, 0.33, 0.33, 0, 0], [0.4, 0.5, 0.1, 0, 0]])
    judge = Evaluator(lambda genes: rows[genes[:, 1]], 0)
    judge.losses(np.array([[100, 0, 0], [100, 1, 0]], dtype=np.int32))
    assert [o.flipped for o in judge.ranking()] == [True, False]


def test_margin_objective_orders_by_margin() -> None:
    """The margin objective prefers the stronger rival to the weaker label."""
    rows = np.array([[0.25, 0.3, 0.25, 0.2], [0.3, 0.6, 0.1, 0.0]])
    genes = np.array([[100, 0, 0], [100, 1, 0]], dtype=np.int32)
    by_margin = Evaluator(lambda g: rows[g[:, 1]], 0, objective=Objective.MARGIN)
    by_probability = Evaluator(lambda g: rows[g[:, 1]], 0)
    assert by_margin.losses(genes) == pytest.approx([-0.05, -0.3])
    assert by_probability.losses(genes) == pytest.approx([0.25, 0.3])
    assert by_margin.ranking()[0].genes.x == 1
    assert by_probability.ranking()[0].genes.x == 0


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (np.full((3, 2), 0.5), "shape"),
        (np.full(2, 0.5), "shape"),
        (np.full((2, 1), 1.0), "1 classes"),
        (np.array([[0.5, 0.5], [np.nan, 0.5]]), "no probabilities"),
        (np.array([[3.0, -2.0], [0.5, 0.5]]), "no probabilities"),
    ],
)
def test_a_failing_model_ends_the_search(answer: Array, words: str) -> None:
    """Shapes and values that are no softmax raise; nothing is counted as seen."""
    judge = Evaluator(lambda _: answer, 0)
    with pytest.raises(BundleError, match=words):
        judge.losses(np.array([[100, 0, 0], [100, 1, 0]], dtype=np.int32))
    assert judge.queries == 0


@pytest.mark.parametrize("label", [-1, 2])
def test_label_must_be_a_class(label: int) -> None:
    """A label the ensemble does not have is refused, negative ones too."""
    with pytest.raises(BundleError, match=f"label {label}"):
        Evaluator(Bowl(), label).losses(np.array([[100, 0, 0]], dtype=np.int32))


@pytest.mark.parametrize("options", [{"batch_size": 0}, {"batch_size": 5000}, {"budget": 0}])
def test_ranges_are_held(options: Any) -> None:
    """Sizes out of range are refused by name."""
    with pytest.raises(PlacementError, match=str(next(iter(options.values())))):
        bowl_evaluator(**options)
