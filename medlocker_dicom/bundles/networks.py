"""Networks by the paper's names, built without reaching for weights of others."""

from __future__ import annotations

import importlib
import sys
from typing import TYPE_CHECKING

import torch
from monai.networks.nets.basic_unetplusplus import BasicUNetPlusPlus
from torch.nn import functional

if TYPE_CHECKING:
    from types import ModuleType

    from torch import nn

#: Brings local contrast to about the spread of the normalised colours.
CONTRAST_GAIN = 4.0

# The library handle must stay alive as long as the operators are wanted.
_operators: torch.library.Library | None = None


def torchvision_models() -> ModuleType:
    """Import ``torchvision.models``, also beside a torch built for CPU alone.

    The torchvision wheel registers its operators from a CUDA-linked library;
    beside a CPU-only torch its import fails because the schemas of ``nms`` and
    ``qnms`` are unknown. Declaring them is enough for every classification
    network, none of which calls them.

    Returns
    -------
    module
        ``torchvision.models``.
    """
    global _operators  # noqa: PLW0603  one declaration a process is all torch allows
    try:
        return importlib.import_module("torchvision.models")
    except RuntimeError as error:
        if "torchvision::" not in str(error):
            raise
    for name in [name for name in sys.modules if name.partition(".")[0] == "torchvision"]:
        del sys.modules[name]
    _operators = torch.library.Library("torchvision", "DEF")
    for name in ("nms", "qnms"):
        _operators.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    return importlib.import_module("torchvision.models")


def resnet18(num_classes: int = 5) -> nn.Module:
    """Build ResNet18 (He et al. 2016), randomly initialised.

    Parameters
    ----------
    num_classes
        Outputs of the last layer; 5 ICDR grades by default.

    Returns
    -------
    nn.Module
        float32 (B, 3, H, W) normalised RGB -> float32 (B, num_classes) logits.
    """
    network: nn.Module = torchvision_models().resnet18(weights=None, num_classes=num_classes)
    return network


class LesionUNetPlusPlus(BasicUNetPlusPlus):
    """UNet++ (Zhou et al. 2018) as MONAI builds it, which also sees the local contrast.

    Lesions differ from the retina around them far more than from the retina at large, so
    each px comes with its difference to the mean of its neighbourhood (after Graham 2015).

    Parameters
    ----------
    labels
        Output channels: MA, HE, EX, SE and the optic disc.
    """

    def __init__(self, labels: int = 5) -> None:
        super().__init__(
            spatial_dims=2,
            in_channels=6,
            out_channels=labels,
            features=(16, 16, 32, 64, 128, 16),
            norm=("batch", {}),
            act=("relu", {"inplace": True}),
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map float32 (B, 3, H, W) normalised RGB to logits (B, labels, H, W).

        H and W are multiples of 16 px.
        """
        seen = torch.cat([x, CONTRAST_GAIN * (x - neighbourhood(x))], dim=1)
        logits: torch.Tensor = super().forward(seen)[0]
        return logits


def neighbourhood(x: torch.Tensor) -> torch.Tensor:
    """Mean of the 40 x 40 px around each px, smoothly interpolated from a grid of 8 px.

    Parameters
    ----------
    x
        float (B, C, H, W), H and W multiples of 8 px.
    """
    blocks = functional.avg_pool2d(x, 8)
    means = functional.avg_pool2d(blocks, 5, stride=1, padding=2, count_include_pad=False)
    return functional.interpolate(means, scale_factor=8.0, mode="bilinear")
