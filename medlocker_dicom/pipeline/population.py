"""Who answers a search: the networks beside the eye, or a GPU that takes a population at once."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING, Final

import numpy as np
import torch

from medlocker_dicom.bundles.device import WITHOUT, computing
from medlocker_dicom.errors import DeviceError
from medlocker_dicom.pipeline.canvas import KNOTS

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from medlocker_dicom.bundles.device import DeviceEnsemble
    from medlocker_dicom.bundles.models import Ensemble
    from medlocker_dicom.pipeline.canvas import Canvas
    from medlocker_dicom.search.objective import GeneArray, Probabilities

CLOSE: Final = 0.02
"""Probability by which half precision may differ: more than it does."""


def asked(ensemble: Ensemble, canvas: Canvas) -> Probabilities:
    """Give what tells the ensemble's probabilities of a canvas' candidates.

    Where the ensemble is on a GPU, the first candidate of each search is asked of the engines too,
    which is not counted.

    Raises
    ------
    DeviceError
        The GPU has no room for the networks. The answer raises it too: if the GPU fails, or says
        another thing than the engines.
    """
    device = ensemble.on_device
    if device is None:
        near = ensemble.near(canvas.levels)
        return lambda genes: near.probabilities(canvas.compose(genes))
    population = Population(canvas, device)
    agreed = False

    def together(genes: GeneArray) -> NDArray[np.float64]:
        nonlocal agreed
        found = population.probabilities(genes)
        if not agreed:
            known = ensemble.probabilities(canvas.compose(genes[:1]))
            apart = float(np.abs(found[:1] - known).max())
            if not apart <= CLOSE:
                raise DeviceError(
                    f"{device.device}: probabilities differ by {apart:.2g} from the CPU's", WITHOUT
                )
            agreed = True
        return found

    return together


class Population:
    """A canvas on a device, where candidates are composed and graded all at once.

    Parameters
    ----------
    canvas
        The eye and the logo.
    ensemble
        Who grades, and where.
    """

    def __init__(self, canvas: Canvas, ensemble: DeviceEnsemble) -> None:
        self._canvas, self._ensemble = canvas, ensemble

    def probabilities(self, genes: GeneArray) -> NDArray[np.float64]:
        """Ask about candidates int32 (n, 3); float64 (n, classes).

        Raises
        ------
        DeviceError
            The GPU fails, or a network is too wide for its precision.
        """
        with computing(self._ensemble.device):
            answer = self._ensemble(self.compose(genes).permute(0, 3, 1, 2))
            result: NDArray[np.float64] = answer.cpu().numpy().astype(np.float64)
        if not np.isfinite(result).all():
            raise DeviceError(f"{self._ensemble.device}: answers that are no numbers", WITHOUT)
        return result

    def compose(self, genes: GeneArray) -> torch.Tensor:
        """Compose candidates as `Canvas.compose` does; float32 (n, size, size, 3)."""
        alpha, x, y = torch.from_numpy(genes).to(self._ensemble.device).long().T.contiguous()
        upper = torch.searchsorted(self._knots, alpha).clamp(1, len(KNOTS) - 1)
        low, high = self._knots[upper - 1], self._knots[upper]
        share = ((alpha - low) / (high - low)).float()[:, None, None, None]
        plane = (1 - share) * self._planes[upper - 1] + share * self._planes[upper]
        width, height = self._canvas.logo_size
        rows = (y[:, None] + torch.arange(height, device=y.device))[:, :, None]
        columns = (x[:, None] + torch.arange(width, device=x.device))[:, None, :]
        mixed = self._base[rows, columns] * (1 - plane[..., 3:]) + plane[..., :3]
        images = self._base.repeat(len(genes), 1, 1, 1)
        images[torch.arange(len(genes), device=x.device)[:, None, None], rows, columns] = (
            mixed.round().clamp(0, 255)
        )
        return images

    @cached_property
    def _base(self) -> torch.Tensor:
        return torch.from_numpy(self._canvas.levels).to(self._ensemble.device).float()

    @cached_property
    def _planes(self) -> torch.Tensor:
        return torch.from_numpy(self._canvas.planes).to(self._ensemble.device)

    @cached_property
    def _knots(self) -> torch.Tensor:
        return torch.from_numpy(KNOTS).to(self._ensemble.device)
