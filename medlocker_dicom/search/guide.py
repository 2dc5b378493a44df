"""What a gradient at the clean image foretells of every placement, to first order."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from medlocker_dicom.search.feasible import Feasible
from medlocker_dicom.search.objective import GeneArray


@dataclass(frozen=True)
class Guide:
    """Foretells placements.

    Attributes
    ----------
    alphas
        int (k,): opacities that are foretold.
    scores
        Gives float32 (k, rows, columns): how the objective changes by a logo of that opacity at
        row y and column x; small is good.
    """

    alphas: npt.NDArray[np.int64]
    scores: Callable[[], npt.NDArray[np.float32]]

    def best(self, feasible: Feasible, count: int, apart: int) -> GeneArray:
        """Pick the foretold best, at most one within `apart` px of another.

        Returns
        -------
        numpy.ndarray
            int32 (at most count, 3), rows ``(alpha, x, y)``, best first; at least one.
        """
        scores = self.scores()
        left = np.full(scores.shape[1:], np.inf, np.float32)
        columns, rows = feasible.positions.T
        left[rows, columns] = scores.min(0)[rows, columns]
        picked: list[tuple[int, int, int]] = []
        while len(picked) < count and np.isfinite(left).any():
            y, x = (int(n) for n in np.unravel_index(int(left.argmin()), left.shape))
            picked.append((int(self.alphas[scores[:, y, x].argmin()]), x, y))
            left[max(y - apart, 0) : y + apart + 1, max(x - apart, 0) : x + apart + 1] = np.inf
        return np.array(picked, np.int32)
