"""The lesion segmenter's network."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from monai.networks.nets.basic_unetplusplus import BasicUNetPlusPlus
from torch.nn import functional

if TYPE_CHECKING:
    from collections.abc import Sequence

#: Brings local contrast to about the spread of the normalised colours.
CONTRAST_GAIN = 4.0
#: px a side that the segmenter takes as one place of many channels.
BLOCK = 2


class LesionUNetPlusPlus(BasicUNetPlusPlus):
    """UNet++ (Zhou et al. 2018) as MONAI builds it, on blocks of 2 x 2 px with local contrast.

    Lesions differ from the retina around them far more than from the retina at large, so
    each px comes with its difference to the mean of its neighbourhood (after Graham 2015).
    The px of a block become channels and come apart again at the end (Shi et al. 2016):
    nothing is lost, and the network sees twice as far for the same cost.

    Parameters
    ----------
    labels
        Output channels: MA, HE, EX, SE and the optic disc.
    features
        Channels of the five levels, and of the last one before the output.
    """

    def __init__(
        self, labels: int = 5, features: Sequence[int] = (32, 32, 64, 96, 128, 32)
    ) -> None:
        super().__init__(
            spatial_dims=2,
            in_channels=6 * BLOCK**2,
            out_channels=labels * BLOCK**2,
            features=tuple(features),
            norm=("batch", {}),
            act=("relu", {"inplace": True}),
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map float32 (B, 3, H, W) normalised RGB to logits (B, labels, H, W).

        H and W are multiples of 32 px.
        """
        seen = torch.cat([x, CONTRAST_GAIN * (x - neighbourhood(x))], dim=1)
        logits = super().forward(functional.pixel_unshuffle(seen, BLOCK))[0]
        return functional.pixel_shuffle(logits, BLOCK)


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
