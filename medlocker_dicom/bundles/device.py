"""An ensemble on a GPU: whole populations at once, in half precision."""

from __future__ import annotations

from typing import TYPE_CHECKING

import cv2
import numpy as np
import torch

from medlocker_dicom.bundles.bundle import build_network
from medlocker_dicom.bundles.networks import channels_last
from medlocker_dicom.bundles.preprocess import MEAN, STD

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray
    from torch import nn

    from medlocker_dicom.bundles.models import Classifier


class DeviceEnsemble:
    """Classifiers in torch that grade candidates where these are composed.

    Half precision is enough to tell candidates apart: the one that is taken is graded again, as the
    whole photograph, by the engines of the ensemble.

    Parameters
    ----------
    classifiers
        Of the ensemble.
    weights
        beta, float64 (k,).
    device
        Where the networks go.
    precision
        Theirs.

    Attributes
    ----------
    trusted
        Whether the answers were found to be those of the ensemble's engines; None before.

    Raises
    ------
    BundleFormatError
        A network does not load.
    """

    def __init__(
        self,
        classifiers: Sequence[Classifier],
        weights: NDArray[np.float64],
        device: torch.device,
        precision: torch.dtype = torch.float16,
    ) -> None:
        self.device, self.precision = device, precision
        self.trusted: bool | None = None
        self._classifiers, self._weights = classifiers, weights.tolist()
        self._networks: list[nn.Module] = [
            channels_last(build_network(one.bundle), device).to(precision) for one in classifiers
        ]

    @torch.inference_mode()
    def __call__(self, images: torch.Tensor) -> torch.Tensor:
        """Grade crops float32 (B, 3, S, S), 0 to 255, no smaller than a model's size.

        The answer is the models' mean (eq. 8), float32 (B, classes).
        """
        seen = {one.size: self._normalised(images, one.size) for one in self._classifiers}
        answers = [
            weight * (network(seen[one.size]).float() / one.bundle.temperature).softmax(1)
            for one, network, weight in zip(
                self._classifiers, self._networks, self._weights, strict=True
            )
        ]
        return torch.stack(answers).sum(0)

    def _normalised(self, images: torch.Tensor, size: int) -> torch.Tensor:
        """Bring crops to a model's size, as `preprocess.resample` does, and into its range."""
        side = images.shape[-1]
        if size != side:
            one_each = np.eye(side, dtype=np.float32)
            shares = cv2.resize(one_each, (side, size), interpolation=cv2.INTER_AREA)
            rows = torch.from_numpy(shares).to(self.device)
            images = (rows @ images @ rows.T).round()
        mean, std = (images.new_tensor(one)[:, None, None] for one in (MEAN, STD))
        normal = (images / 255 - mean) / std
        return normal.to(self.precision, memory_format=torch.channels_last)
