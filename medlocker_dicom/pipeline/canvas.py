"""The search's canvas: candidates composed at the size that the models see.

The exact blend runs on the full image; composing hundreds of candidates there
would cost most of the search. Instead the logo's opacity and its premultiplied
colour are averaged down once to the canvas, where a candidate is one multiply
and add. What a search finds here is verified on the full image afterwards.
"""

from __future__ import annotations

from math import ceil
from typing import TYPE_CHECKING

import cv2
import numpy as np

from medlocker_dicom.bundles.preprocess import Crop, cut, resample
from medlocker_dicom.watermark.alpha import alpha_map, grid_cell, grid_shape
from medlocker_dicom.watermark.blend import logo_samples
from medlocker_dicom.watermark.placement import ALPHA_MAX, ALPHA_MIN, Placement

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from medlocker_dicom.watermark.logo import Logo

#: Opacities at which the logo is averaged down; between them planes are interpolated.
KNOTS = np.linspace(ALPHA_MIN, ALPHA_MAX, 6).round().astype(int)


class Canvas:
    """An image and a logo at the models' scale.

    Parameters
    ----------
    display
        uint8 (H, W, 3): the whole photograph.
    crop
        The retina's window in it.
    size
        Side of the canvas in px.
    logo
        Scaled to the photograph.
    seed
        Of the dither.
    channels
        C of the photograph as it is stored, 1 or 3.

    Attributes
    ----------
    levels
        uint8 (size, size, 3): the retina without a logo.
    logo_size
        Width and height in px of the canvas.
    planes
        float32 (len(KNOTS), h', w', 6): at each of `KNOTS`, the logo's colours times their
        opacities, and these.
    """

    def __init__(  # noqa: PLR0913 - a photograph, a logo, and how they meet
        self,
        display: NDArray[np.uint8],
        crop: Crop,
        size: int,
        logo: Logo,
        seed: bytes,
        *,
        channels: int = 3,
    ) -> None:
        self.size, self.channels = size, channels
        self._crop = crop
        self._scale = crop.side / size
        self.levels = resample(cut(display, crop), (size, size))
        self._base = self.levels.astype(np.float32)
        # Whole px of the canvas, the last one partly empty: rounding the logo's size instead
        # would stretch it, and move its far edges by half a px.
        width = min(size, ceil(logo.width / self._scale))
        height = min(size, ceil(logo.height / self._scale))
        self.logo_size = (width, height)
        self._logo_shape = logo.alpha.shape
        under = (
            max(logo.height, round(height * self._scale)),
            max(logo.width, round(width * self._scale)),
        )
        colours = logo_samples(logo.rgba, channels, 8)
        planes = []
        for alpha in KNOTS:
            opacity = alpha_map(logo.alpha, int(alpha), seed, channels=channels) / np.float32(255)
            halves = []  # cv2 shrinks at most four channels at once
            for half in (opacity * colours, opacity):
                large = np.zeros((*under, 3), np.float32)
                large[: logo.height, : logo.width] = half
                halves.append(cv2.resize(large, self.logo_size, interpolation=cv2.INTER_AREA))
            planes.append(np.concatenate(halves, -1))
        self.planes: NDArray[np.float32] = np.stack(planes).astype(np.float32)

    def allowed(self, feasible: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """Bring a map of allowed positions to the canvas.

        Parameters
        ----------
        feasible
            bool (H - h + 1, W - w + 1) of the photograph.

        Returns
        -------
        ndarray
            bool (size - h' + 1, size - w' + 1): exactly the canvas positions whose
            placement on the photograph is allowed.
        """
        rows = self._full(np.arange(self.size - self.logo_size[1] + 1), self._crop.y)
        columns = self._full(np.arange(self.size - self.logo_size[0] + 1), self._crop.x)
        height, width = feasible.shape
        inside = ((rows >= 0) & (rows < height))[:, None] & ((columns >= 0) & (columns < width))
        picked = feasible[np.ix_(rows.clip(0, height - 1), columns.clip(0, width - 1))]
        result: NDArray[np.bool_] = picked & inside
        return result

    def placement(self, alpha: int, x: int, y: int, grid: bytes = b"") -> Placement:
        """Bring a canvas position to the photograph."""
        there = (
            int(self._full(np.array(x), self._crop.x)),
            int(self._full(np.array(y), self._crop.y)),
        )
        return Placement(*there, alpha, grid)

    def compose(self, genes: NDArray[np.int32]) -> NDArray[np.uint8]:
        """Compose candidates.

        Parameters
        ----------
        genes
            int (n, 3): alpha, x, y on the canvas.

        Returns
        -------
        ndarray
            uint8 (n, size, size, 3).
        """
        width, height = self.logo_size
        composed = np.repeat(self.levels[None], len(genes), axis=0)
        for image, (alpha, x, y) in zip(composed, genes.tolist(), strict=True):
            plane = self._plane(alpha)
            under = self._base[y : y + height, x : x + width]
            mixed = under * (1 - plane[..., 3:]) + plane[..., :3]
            image[y : y + height, x : x + width] = np.clip(np.rint(mixed), 0, 255).astype(np.uint8)
        return composed

    def listed(
        self, xy: tuple[int, int], alphas: NDArray[np.float32]
    ) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Compose one candidate whose opacity differs from px to px.

        Parameters
        ----------
        xy
            Column and row on the canvas.
        alphas
            float32 (h', w', C) of `logo_size`: ALPHA_MIN to ALPHA_MAX.

        Returns
        -------
        tuple
            float32 (size, size, 3), 0 to 255; and how the samples under the logo change with
            their opacity, float32 (h', w', 3).
        """
        (x, y), (width, height) = xy, self.logo_size
        wide = np.tile(np.broadcast_to(alphas, (height, width, 3)), 2)  # of colours, of opacities
        upper = np.clip(np.searchsorted(KNOTS, wide), 1, len(KNOTS) - 1)
        high = np.take_along_axis(self.planes, upper[None], 0)[0]
        low = np.take_along_axis(self.planes, upper[None] - 1, 0)[0]
        slope = (high - low) / (KNOTS[upper] - KNOTS[upper - 1]).astype(np.float32)
        plane = low + slope * (wide - KNOTS[upper - 1].astype(np.float32))
        image = self._base.copy()
        under = self._base[y : y + height, x : x + width]
        image[y : y + height, x : x + width] = under * (1 - plane[..., 3:]) + plane[..., :3]
        return image, slope[..., :3] - under * slope[..., 3:]

    def lattice(self, cells: int) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """How a grid of opacities spreads over the logo's px.

        Returns
        -------
        tuple
            float32 (h', rows) and (w', columns): opacities are ``rows @ nodes @ columns.T``.
        """
        cell = grid_cell(self._logo_shape, cells)
        rows, columns = grid_shape(self._logo_shape, cells)
        return (
            self._hats(self.logo_size[1], rows, self._logo_shape[0], cell),
            self._hats(self.logo_size[0], columns, self._logo_shape[1], cell),
        )

    def _hats(self, count: int, nodes: int, extent: int, cell: int) -> NDArray[np.float32]:
        """Share of each node in each px of one axis, float32 (count, nodes)."""
        middle = ((np.arange(count) + 0.5) * self._scale - 0.5).clip(0, extent - 1) / cell
        shares: NDArray[np.float32] = np.maximum(
            0, 1 - np.abs(middle[:, None] - np.arange(nodes))
        ).astype(np.float32)
        return shares

    def _plane(self, alpha: int) -> NDArray[np.float32]:
        upper = int(np.clip(np.searchsorted(KNOTS, alpha), 1, len(KNOTS) - 1))
        low, high = KNOTS[upper - 1], KNOTS[upper]
        share = np.float32((alpha - low) / (high - low))
        plane: NDArray[np.float32] = (1 - share) * self.planes[upper - 1] + share * self.planes[
            upper
        ]
        return plane

    def _full(self, position: NDArray[np.int64], start: int) -> NDArray[np.int64]:
        # Divided last: a product with the scale, itself rounded, would miss halves.
        there = np.rint(position * self._crop.side / self.size)
        result: NDArray[np.int64] = start + there.astype(np.int64)
        return result
