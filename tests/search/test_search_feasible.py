"""The set of allowed positions and its draws."""

from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from medlocker_dicom.errors import NoFeasiblePositionError, PlacementError
from medlocker_dicom.search import Feasible

MAPS = hnp.arrays(np.bool_, hnp.array_shapes(min_dims=2, max_dims=2, max_side=24)).filter(np.any)


@given(MAPS)
def test_map_and_list_agree(allowed: np.ndarray) -> None:
    """`contains` answers what the map says, whichever way the set was built."""
    from_map = Feasible.from_map(allowed)
    from_list = Feasible(np.argwhere(allowed)[::-1, ::-1])
    rows, columns = allowed.shape
    for y in range(-1, rows + 1):
        for x in range(-1, columns + 1):
            inside = 0 <= y < rows and 0 <= x < columns
            expected = bool(inside and allowed[y, x])
            assert from_map.contains(x, y) is expected
            assert from_list.contains(x, y) is expected
    assert np.array_equal(from_map.positions, from_list.positions)


@given(
    MAPS, st.integers(-30, 60), st.integers(-30, 60), st.integers(0, 40), st.integers(0, 2**32 - 1)
)
def test_near_is_feasible_and_in_the_window(
    allowed: np.ndarray, x: int, y: int, radius: int, seed: int
) -> None:
    """A draw is feasible, and in the window unless that holds no position at all."""
    feasible = Feasible.from_map(allowed)
    found = feasible.near(np.random.default_rng(seed), (x, y), radius)
    assert feasible.contains(*found)
    window = np.abs(feasible.positions - (x, y)).max(axis=1) <= radius
    if window.any():
        assert max(abs(found[0] - x), abs(found[1] - y)) <= radius
    else:
        assert found == feasible.nearest((x, y))


@given(MAPS, st.integers(-30, 60), st.integers(-30, 60))
def test_nearest_is_nearest(allowed: np.ndarray, x: int, y: int) -> None:
    """No feasible position is closer than the one returned."""
    feasible = Feasible.from_map(allowed)
    found = np.array(feasible.nearest((x, y)))
    distances = np.square(feasible.positions - (x, y)).sum(axis=1)
    assert feasible.contains(*found.tolist())
    assert np.square(found - (x, y)).sum() == distances.min()


def test_near_is_uniform() -> None:
    """Each position of a ragged window is drawn equally often (5 sigma)."""
    allowed = np.random.default_rng(1).random((20, 20)) < 0.3
    feasible = Feasible.from_map(allowed)
    inside = [p for p in map(tuple, feasible.positions.tolist()) if max(p) <= 12 and min(p) >= 4]
    rng = np.random.default_rng(2)
    draws = 20000
    counts = Counter(feasible.near(rng, (8, 8), 4) for _ in range(draws))
    mean = draws / len(inside)
    assert sorted(counts) == sorted(inside)
    assert max(abs(count - mean) for count in counts.values()) < 5 * np.sqrt(mean)


def test_sample_is_uniform_over_the_set() -> None:
    """Every position of the set comes up, equally often (5 sigma), and no other."""
    allowed = np.random.default_rng(3).random((9, 13)) < 0.2
    feasible = Feasible.from_map(allowed)
    draws = 20000
    drawn = feasible.sample(np.random.default_rng(4), draws)
    counts = Counter(map(tuple, drawn.tolist()))
    mean = draws / len(feasible)
    assert drawn.dtype == np.int32
    assert drawn.shape == (draws, 2)
    assert sorted(counts) == sorted(map(tuple, feasible.positions.tolist()))
    assert max(abs(count - mean) for count in counts.values()) < 5 * np.sqrt(mean)


def test_repeated_positions_count_once() -> None:
    """A position given twice is not drawn twice as often."""
    assert len(Feasible(np.array([[3, 4], [3, 4], [0, 1]]))) == 2


def test_positions_are_read_only() -> None:
    """The set cannot be changed behind its index."""
    feasible = Feasible(np.array([[3, 4]]))
    with pytest.raises(ValueError, match="read-only"):
        feasible.positions[0, 0] = 9


def test_an_empty_map_is_refused() -> None:
    """A map that allows nothing fails closed, with the error of the policy."""
    with pytest.raises(NoFeasiblePositionError, match="no feasible position"):
        Feasible.from_map(np.zeros((4, 5), dtype=np.bool_))


def test_an_empty_list_is_refused() -> None:
    """So does an empty list."""
    with pytest.raises(NoFeasiblePositionError, match="no feasible position"):
        Feasible(np.zeros((0, 2), dtype=np.int32))


@pytest.mark.parametrize(
    ("positions", "words"),
    [
        (np.zeros((3, 3), dtype=np.int32), "shape"),
        (np.zeros((3, 2)), "type float64"),
        (np.array([[4, 5], [-1, 7]]), r"\(-1, 7\) is outside"),
        (np.array([[100_000, 100_000]]), "too many"),
        (np.array([[2**62, 2**62]]), "too many"),
    ],
)
def test_unusable_positions_are_named(positions: np.ndarray, words: str) -> None:
    """Bad lists are refused before anything of their extent is allocated."""
    with pytest.raises(PlacementError, match=words):
        Feasible(positions)


@pytest.mark.parametrize(
    ("allowed", "words"),
    [
        (np.ones((3, 3), dtype=np.uint8), "type uint8"),
        (np.ones(3, dtype=np.bool_), "shape"),
        (np.broadcast_to(np.True_, (5000, 5000)), "too many"),
    ],
)
def test_unusable_maps_are_named(allowed: np.ndarray, words: str) -> None:
    """Bad maps are refused in words."""
    with pytest.raises(PlacementError, match=words):
        Feasible.from_map(allowed)


@settings(max_examples=20)
@given(st.integers(0, 2**32 - 1))
def test_far_corner_of_a_sparse_map(seed: int) -> None:
    """The one pixel left of a 200 x 200 map is found from the opposite corner."""
    allowed = np.zeros((200, 200), dtype=np.bool_)
    allowed[199, 198] = True
    feasible = Feasible.from_map(allowed)
    assert feasible.near(np.random.default_rng(seed), (0, 0), 50) == (198, 199)
