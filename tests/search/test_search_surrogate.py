"""The model of the losses: what it foretells, and what it would ask next."""

import numpy as np
import pytest

from medlocker_dicom.search.objective import FloatArray, GeneArray
from medlocker_dicom.search.surrogate import MEMORY, Surrogate

WIDTH = 200


def genes(count: int, seed: int) -> GeneArray:
    """Draw candidates."""
    rng = np.random.default_rng(seed)
    return rng.integers((100, 0, 0), (256, WIDTH, WIDTH), (count, 3)).astype(np.int32)


def bowl(rows: GeneArray) -> FloatArray:
    """Give losses that are least at column 50, row 120."""
    found: FloatArray = np.linalg.norm((rows[:, 1:] - (50, 120)) / WIDTH, axis=1)
    return found


def test_the_most_promising_are_good() -> None:
    """Of many candidates it picks one that is among the best, without having asked any of them."""
    asked, others = genes(40, 0), genes(500, 1)
    first = Surrogate(asked, bowl(asked), WIDTH).most_promising(others, 1)
    assert (bowl(others) < bowl(others[first])).mean() < 0.02


def test_picks_differ_and_lie_apart() -> None:
    """A round's picks are distinct rows, and tell more than one place."""
    asked, others = genes(12, 2), genes(300, 3)
    picked = Surrogate(asked, bowl(asked), WIDTH).most_promising(others, 8)
    assert len(set(picked.tolist())) == 8
    places = others[picked][:, 1:]
    gaps = np.abs(places[:, None] - places[None]).max(-1)[~np.eye(8, dtype=bool)]
    assert gaps.max() > 20


def test_no_more_than_there_are() -> None:
    """Where fewer are left than wanted, all are picked, each once."""
    asked = genes(9, 4)
    picked = Surrogate(asked, bowl(asked), WIDTH).most_promising(genes(3, 5), 8)
    assert sorted(picked.tolist()) == [0, 1, 2]


@pytest.mark.parametrize("losses", [np.zeros(9), np.full(9, 0.25)])
def test_equal_losses_foretell_nothing(losses: FloatArray) -> None:
    """Where all turned out alike it still picks, far from what was asked."""
    asked, others = genes(9, 6), genes(200, 7)
    picked = Surrogate(asked, losses, WIDTH).most_promising(others, 4)
    apart = np.abs(others[picked][:, None] - asked).max(-1).min(-1)
    near = np.abs(others[:, None] - asked).max(-1).min(-1)
    assert apart.min() > np.median(near)


def test_only_the_best_are_learnt_from() -> None:
    """However many were asked, the cost is bounded, and worse ones change nothing."""
    many, others = genes(MEMORY + 50, 8), genes(100, 9)
    losses = bowl(many)
    worst = np.argsort(losses)[MEMORY:]
    picked = Surrogate(many, losses, WIDTH).most_promising(others, 8)
    losses[worst] += 5
    assert np.array_equal(Surrogate(many, losses, WIDTH).most_promising(others, 8), picked)
