"""Rates and their Wilson intervals: published values, edges, and what every interval obeys."""

from fractions import Fraction
from math import isnan
from statistics import NormalDist

import pytest
from hypothesis import given
from hypothesis import strategies as st

from medlocker_dicom.evaluation.rates import Rate

ROUNDING = 1e-12
COUNTS = st.integers(1, 5000).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n)))


@pytest.mark.parametrize(
    ("hits", "n", "low", "high"),
    [
        # Newcombe 1998, Statistics in Medicine 17:857, table I, method 3
        (81, 263, 0.2553, 0.3662),
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0.0000, 0.1611),
        (1, 29, 0.0061, 0.1718),
        # as binomtest of scipy.stats computes them
        (0, 10, 0.0000, 0.2775),
        (5, 10, 0.2366, 0.7634),
        (10, 10, 0.7225, 1.0000),
        (82, 100, 0.7333, 0.8830),
    ],
)
def test_published_values(hits: int, n: int, low: float, high: float) -> None:
    """The bounds are those in print, to the four digits printed."""
    assert [round(bound, 4) for bound in Rate(hits, n).interval] == [low, high]


@given(COUNTS)
def test_bounds_solve_the_score_equation(counts: tuple[int, int]) -> None:
    """Each bound p, in exact arithmetic, is where (share - p)² is z² p (1 - p) / n."""
    hits, n = counts
    share, z2 = Fraction(hits, n), Fraction(NormalDist().inv_cdf(0.975)) ** 2
    for bound in map(Fraction, Rate(hits, n).interval):
        assert abs((share - bound) ** 2 - z2 * bound * (1 - bound) / n) < ROUNDING


@given(COUNTS)
def test_interval_holds_the_share(counts: tuple[int, int]) -> None:
    """The share lies between the bounds, and they between 0 and 1."""
    rate = Rate(*counts)
    low, high = rate.interval
    assert 0 <= low < high <= 1
    assert low <= rate.share <= high


@given(COUNTS)
def test_misses_mirror_hits(counts: tuple[int, int]) -> None:
    """Counting the misses instead mirrors the interval."""
    hits, n = counts
    low, high = Rate(hits, n).interval
    assert Rate(n - hits, n).interval == pytest.approx((1 - high, 1 - low), abs=ROUNDING)


@given(COUNTS, st.integers(2, 20))
def test_more_cases_narrow_the_interval(counts: tuple[int, int], more: int) -> None:
    """The same share of more cases is known better."""
    hits, n = counts
    few, many = (Rate(hits * k, n * k).interval for k in (1, more))
    assert many[1] - many[0] < few[1] - few[0]


@given(COUNTS.filter(lambda counts: counts[0] < counts[1]))
def test_one_more_hit_raises_both_bounds(counts: tuple[int, int]) -> None:
    """Both bounds grow with the hits."""
    hits, n = counts
    fewer, more = Rate(hits, n).interval, Rate(hits + 1, n).interval
    assert fewer[0] < more[0]
    assert fewer[1] < more[1]


def test_no_cases() -> None:
    """Of no cases nothing is known: no share, the whole range, and words instead of numbers."""
    rate = Rate(0, 0)
    assert isnan(rate.share)
    assert rate.interval == (0, 1)
    assert str(rate) == "no cases"


def test_reads_as_a_sentence_part() -> None:
    """Share, counts and interval stand in one line, in percent."""
    assert str(Rate(9, 20)) == "45.0 % (9/20, 95 % interval 25.8-65.8)"
    assert str(Rate(0, 20)) == "0.0 % (0/20, 95 % interval 0.0-16.1)"
