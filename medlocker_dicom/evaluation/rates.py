"""Shares of a sample, with the interval that a reader should believe."""

from __future__ import annotations

from dataclasses import dataclass

from scipy.stats import binomtest


@dataclass(frozen=True)
class Rate:
    """``hits`` of ``n``, with a 95 % Wilson score interval.

    Attributes
    ----------
    hits, n
        Counts; n may be 0.
    """

    hits: int
    n: int

    @property
    def share(self) -> float:
        """Hits over n; NaN where n is 0."""
        return self.hits / self.n if self.n else float("nan")

    @property
    def interval(self) -> tuple[float, float]:
        """Bounds of the interval (Wilson 1927), 0 to 1; the whole range where n is 0."""
        if not self.n:
            return 0.0, 1.0
        bounds = binomtest(self.hits, self.n).proportion_ci(0.95, method="wilson")
        return float(bounds.low), float(bounds.high)

    @property
    def reach(self) -> tuple[float, float]:
        """How far the interval reaches below and above the share, as charts draw it."""
        low, high = self.interval
        return self.share - low, high - self.share

    def __str__(self) -> str:
        """Such as ``45.0 % (9/20, 95 % interval 25.8-65.8)``."""
        if not self.n:
            return "no cases"
        low, high = self.interval
        return (
            f"{100 * self.share:.1f} % ({self.hits}/{self.n}, "
            f"95 % interval {100 * low:.1f}-{100 * high:.1f})"
        )
