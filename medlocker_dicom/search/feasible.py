"""The positions that are allowed, and uniform draws from them."""

from typing import Any

import numpy as np
import numpy.typing as npt

from medlocker_dicom.errors import NoFeasiblePositionError, PlacementError

Positions = npt.NDArray[np.int32]
"""Positions, ``int32 (k, 2)``: one row ``(x, y)`` each, in pixels."""

MAXIMUM_CELLS = 1 << 24  # a map of 4096 x 4096; 64 MiB of counts


class Feasible:
    """A set of allowed upper-left positions of the logo (eq. 3, WSM step 5).

    Draws go straight to feasible positions: none is proposed and rejected, so
    their cost does not depend on how few positions are left.

    Parameters
    ----------
    positions
        Integer ``(k, 2)``, rows ``(x, y)`` in pixels, none negative, in any
        order. Repeats count once.

    Attributes
    ----------
    positions : numpy.ndarray
        int32 ``(k, 2)``, distinct, in reading order, read-only.

    Raises
    ------
    NoFeasiblePositionError
        There is no position.
    PlacementError
        The array is none of that shape, or its extent is too large.
    """

    def __init__(self, positions: npt.NDArray[np.integer[Any]]) -> None:
        given = np.asarray(positions)
        if given.ndim != 2 or given.shape[1] != 2 or given.dtype.kind not in "iu":
            raise PlacementError(
                f"positions have shape {given.shape} and type {given.dtype}",
                "give integers of shape (k, 2), one row (x, y) a position",
            )
        if len(given) == 0:
            raise _none_left()
        if int(given.min()) < 0:
            raise PlacementError(
                f"position {tuple(given[given.min(axis=1) < 0][0].tolist())} is outside the canvas",
                "count from 0 at the upper left",
            )
        width, height = (int(extent) + 1 for extent in given.max(axis=0))
        _check_extent(height, width)
        allowed = np.zeros((height, width), dtype=np.bool_)
        allowed[given[:, 1], given[:, 0]] = True
        self._index(allowed)

    @classmethod
    def from_map(cls, allowed: npt.NDArray[np.bool_]) -> "Feasible":
        """Take the allowed positions from a map.

        Parameters
        ----------
        allowed
            bool ``(rows, cols)``; ``allowed[y, x]`` says whether the logo's
            upper-left pixel may be there.

        Raises
        ------
        NoFeasiblePositionError
            Nothing is allowed.
        PlacementError
            The map is none of that shape and type, or too large.
        """
        if allowed.ndim != 2 or allowed.dtype != np.bool_:
            raise PlacementError(
                f"map of positions has shape {allowed.shape} and type {allowed.dtype}",
                "give bool (rows, cols)",
            )
        _check_extent(*allowed.shape)
        if not allowed.any():
            raise _none_left()
        made = cls.__new__(cls)
        made._index(allowed)  # noqa: SLF001 - another constructor of the same class
        return made

    def _index(self, allowed: npt.NDArray[np.bool_]) -> None:
        """Count the feasible positions that precede each cell in reading order."""
        rows, columns = allowed.shape
        ys, xs = np.nonzero(allowed)
        self.positions: Positions = np.stack([xs, ys], axis=1).astype(np.int32)
        self.positions.setflags(write=False)
        within = np.zeros((rows, columns + 1), dtype=np.int32)
        np.cumsum(allowed, axis=1, out=within[:, 1:])
        before = np.concatenate(([0], np.cumsum(within[:-1, -1])))
        self._before = within + before[:, None].astype(np.int32)

    def __len__(self) -> int:
        """Return how many positions there are."""
        return len(self.positions)

    def contains(self, x: int, y: int) -> bool:
        """Whether ``(x, y)`` is allowed; False anywhere outside the map."""
        rows, columns = self._before.shape
        if not (0 <= x < columns - 1 and 0 <= y < rows):
            return False
        return bool(self._before[y, x] < self._before[y, x + 1])

    def sample(self, rng: np.random.Generator, count: int) -> Positions:
        """Draw positions uniformly, each independent of the others.

        Returns
        -------
        numpy.ndarray
            int32 ``(count, 2)``, rows ``(x, y)``.
        """
        return self.positions[rng.integers(len(self.positions), size=count)]

    def near(self, rng: np.random.Generator, xy: tuple[int, int], radius: int) -> tuple[int, int]:
        """Draw uniformly from the positions with ``|dx|, |dy| <= radius``.

        Parameters
        ----------
        rng
            Source of the draw; exactly one integer is drawn from it.
        xy
            Centre, in pixels; it need not be feasible and counts if it is.
        radius
            Half the side of the window, in pixels, at least 0.

        Returns
        -------
        tuple of int
            A feasible ``(x, y)``; the `nearest` one where the window holds none.
        """
        x, y = xy
        rows, cells = self._before.shape
        left, right = _clipped(x - radius, x + radius + 1, cells - 1)
        top, bottom = _clipped(y - radius, y + radius + 1, rows)
        starts = self._before[top:bottom, left]
        ends = np.cumsum(self._before[top:bottom, right] - starts)
        total = int(ends[-1]) if len(ends) else 0
        drawn = int(rng.integers(max(total, 1)))
        if total == 0:
            return self.nearest(xy)
        row = int(np.searchsorted(ends, drawn, side="right"))
        rest = drawn - (int(ends[row - 1]) if row else 0)
        found = self.positions[int(starts[row]) + rest]
        return int(found[0]), int(found[1])

    def nearest(self, xy: tuple[int, int]) -> tuple[int, int]:
        """Return the feasible position with the least Euclidean distance.

        The first in reading order where several are equally near.
        """
        if self.contains(*xy):
            return xy
        offsets = self.positions - np.asarray(xy, dtype=np.int64)
        found = self.positions[int(np.argmin(np.einsum("ij,ij->i", offsets, offsets)))]
        return int(found[0]), int(found[1])


def _clipped(start: int, end: int, limit: int) -> tuple[int, int]:
    """Return ``start:end`` cut to ``0:limit``, never reversed."""
    first = min(max(start, 0), limit)
    return first, max(min(end, limit), first)


def _check_extent(rows: int, columns: int) -> None:
    if rows * columns > MAXIMUM_CELLS:
        raise PlacementError(
            f"positions extend over {columns} x {rows} pixels, too many to search",
            "search on the image at model scale",
        )


def _none_left() -> NoFeasiblePositionError:
    return NoFeasiblePositionError(
        "no feasible position for the logo",
        "use a smaller logo or allow positions that the policy forbids now",
    )
