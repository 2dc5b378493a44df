"""The list L itself as the thing searched: opacities of the logo's parts, by gradient.

Over (alpha, x, y) alone every search ends at the same rate. The key holds the opacity of every
pixel (eq. 9), so a grid of opacities within the same bounds costs neither exactness nor legibility.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

from medlocker_dicom.search.objective import Genes

ALPHA_LIST = "alpha-list"
"""Name of the strategy: places by `guided`, then the list at the best of them."""

Floats = npt.NDArray[np.float32]

Gradient = Callable[[Floats], Floats]
"""An image float32 (S, S, 3), 0 to 255, to the gradient of an objective by it."""


class Listable(Protocol):
    """What a logo with a grid of opacities is blended into."""

    def listed(self, xy: tuple[int, int], alphas: Floats) -> tuple[Floats, Floats]:
        """Blend with opacities (h, w): the image, and its slope by opacity (h, w, 3)."""
        ...

    def lattice(self, cells: int) -> tuple[Floats, Floats]:
        """Shares of a grid's nodes in the rows and the columns of the logo."""
        ...


@dataclass(frozen=True, slots=True)
class ListParameters:
    """How the list is searched.

    Attributes
    ----------
    cells
        Of the grid along the logo's longer side.
    steps
        Gradient steps from each start.
    starts
        Placements that are gone on from.
    rate
        Length of the first steps, in levels of 255; the last ones are short.
    low, high
        Opacities allowed.
    """

    cells: int = 28
    steps: int = 16
    starts: int = 3
    rate: float = 24.0
    low: int = 100
    high: int = 255


def optimise(
    canvas: Listable, gradient: Gradient, start: Genes, parameters: ListParameters
) -> npt.NDArray[np.uint8]:
    """Search the grid of opacities at one place, by Adam (Kingma and Ba 2015) within the bounds.

    Parameters
    ----------
    canvas
        Blends.
    gradient
        Of what is to become small; asked once a step, and may see the image by another view
        each time.
    start
        Place, and opacity to begin with.
    parameters
        The numbers.

    Returns
    -------
    ndarray
        uint8 (rows, columns): the nodes of the grid.
    """
    rows, columns = canvas.lattice(parameters.cells)
    nodes = np.full((rows.shape[1], columns.shape[1]), start.alpha, np.float32)
    mean, square = np.zeros_like(nodes), np.zeros_like(nodes)
    for step in range(parameters.steps):
        alphas = (rows @ nodes @ columns.T).clip(parameters.low, parameters.high)
        image, slope = canvas.listed((start.x, start.y), alphas)
        pull = gradient(image)
        height, width = alphas.shape
        under = pull[start.y : start.y + height, start.x : start.x + width]
        by_node = rows.T @ (under * slope).sum(-1) @ columns
        mean = 0.8 * mean + 0.2 * by_node
        square = 0.95 * square + 0.05 * by_node**2
        ahead = mean / (1 - 0.8 ** (step + 1))
        size = np.sqrt(square / (1 - 0.95 ** (step + 1))) + 1e-12
        rate = parameters.rate * (0.1 + 0.9 * np.cos(np.pi * step / (2 * parameters.steps)))
        nodes = (nodes - rate * ahead / size).clip(parameters.low, parameters.high)
    return np.rint(nodes).astype(np.uint8)
