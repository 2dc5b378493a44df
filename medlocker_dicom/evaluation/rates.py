"""Shares of a sample, with the interval that a reader should believe."""

from __future__ import annotations

from dataclasses import dataclass
from math import sqrt

#: Standard normal quantile of a two-sided 95 % interval.
Z95 = 1.959963984540054


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
        z2 = Z95 * Z95
        centre = (self.hits + z2 / 2) / (self.n + z2)
        spread = Z95 / (self.n + z2) * sqrt(self.hits * (self.n - self.hits) / self.n + z2 / 4)
        # At the ends the bound is exact; rounding would put it just beside the share.
        low = centre - spread if self.hits else 0.0
        high = centre + spread if self.hits < self.n else 1.0
        return low, high

    def __str__(self) -> str:
        """Such as ``45.0 % (9/20, 95 % interval 25.8-65.8)``."""
        if not self.n:
            return "no cases"
        low, high = self.interval
        return (
            f"{100 * self.share:.1f} % ({self.hits}/{self.n}, "
            f"95 % interval {100 * low:.1f}-{100 * high:.1f})"
        )
