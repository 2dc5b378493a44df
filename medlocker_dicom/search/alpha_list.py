"""The list L itself as the thing searched: opacities of the logo's parts, by gradient.

Over (alpha, x, y) alone every search ends at the same rate. The key holds the opacity of every
sample (eq. 9), so a grid of opacities within the same bounds, one for each channel, costs neither
exactness nor legibility.
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

Loss = Callable[[Floats], float]
"""The same to an objective; small is good."""

_WIDER = 1.5


class Listable(Protocol):
    """What a logo with a grid of opacities is blended into."""

    @property
    def channels(self) -> int:
        """How many opacities a px has: 1 or 3."""
        ...

    def listed(self, xy: tuple[int, int], alphas: Floats) -> tuple[Floats, Floats]:
        """Blend with opacities (h, w, C): the image, and its slope by opacity (h, w, 3)."""
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
        Gradients, or losses, that are asked for.
    rate
        Length of the first steps, in levels of 255; the last ones are short.
    blind_cells, blind_rate
        The same where no gradient is to be had: fewer numbers, found by trial.
    low, high
        Opacities allowed.
    """

    cells: int = 56
    steps: int = 16
    rate: float = 40.0
    blind_cells: int = 8
    blind_rate: float = 48.0
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
        uint8 (C, rows, columns): the nodes of the grid.
    """
    rows, columns = canvas.lattice(parameters.cells)
    nodes = np.full((canvas.channels, rows.shape[1], columns.shape[1]), start.alpha, np.float32)
    mean, square = np.zeros_like(nodes), np.zeros_like(nodes)
    for step in range(parameters.steps):
        image, slope = canvas.listed((start.x, start.y), _spread(nodes, rows, columns, parameters))
        height, width = slope.shape[:2]
        pull = gradient(image)[start.y : start.y + height, start.x : start.x + width] * slope
        if canvas.channels == 1:
            pull = pull.sum(-1, keepdims=True)
        by_node = rows.T @ np.moveaxis(pull, -1, 0) @ columns
        mean = 0.8 * mean + 0.2 * by_node
        square = 0.95 * square + 0.05 * by_node**2
        ahead = mean / (1 - 0.8 ** (step + 1))
        size = np.sqrt(square / (1 - 0.95 ** (step + 1))) + 1e-12
        rate = parameters.rate * (0.1 + 0.9 * np.cos(np.pi * step / (2 * parameters.steps)))
        nodes = (nodes - rate * ahead / size).clip(parameters.low, parameters.high)
    return np.rint(nodes).astype(np.uint8)


def evolve_list(
    canvas: Listable,
    loss: Loss,
    start: Genes,
    parameters: ListParameters,
    rng: np.random.Generator,
) -> npt.NDArray[np.uint8]:
    """Search the grid of opacities where models tell no gradient: an evolution of one parent.

    Its steps grow with success and shrink without, so that one child in five succeeds
    (Rechenberg 1973).

    Parameters
    ----------
    canvas
        Blends.
    loss
        What is to become small; asked `ListParameters.steps` times.
    start
        Place, and opacity to begin with.
    parameters
        The numbers.
    rng
        Of the children.

    Returns
    -------
    ndarray
        uint8 (C, rows, columns): the nodes of the grid of `ListParameters.blind_cells`, the same
        for each channel.
    """
    rows, columns = canvas.lattice(parameters.blind_cells)

    def judged(nodes: Floats) -> float:
        alphas = _spread(nodes, rows, columns, parameters)
        return loss(canvas.listed((start.x, start.y), alphas)[0])

    parent = np.full((1, rows.shape[1], columns.shape[1]), start.alpha, np.float32)
    least, rate = judged(parent), parameters.blind_rate
    for _ in range(parameters.steps - 1):
        moves = rate * rng.standard_normal(parent.shape, np.float32)
        child = (parent + moves).clip(parameters.low, parameters.high)
        found = judged(child)
        if found <= least:
            parent, least, rate = child, found, rate * _WIDER
        else:
            rate *= _WIDER**-0.25
    return np.rint(np.repeat(parent, canvas.channels, 0)).astype(np.uint8)


def _spread(nodes: Floats, rows: Floats, columns: Floats, parameters: ListParameters) -> Floats:
    """Spread a grid (C, rows, columns) over the logo's px: (h, w, C)."""
    alphas = (rows @ nodes @ columns.T).clip(parameters.low, parameters.high)
    return np.moveaxis(alphas, 0, -1)
