"""Maps inside a network, by the names of its layers."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import nn


class Feature:
    """Remembers what a named layer gave last."""

    def __init__(self, network: nn.Module, layer: str) -> None:
        self._last = torch.empty(0)
        network.get_submodule(layer).register_forward_hook(self._remember)

    def _remember(self, _module: nn.Module, _inputs: Any, output: torch.Tensor) -> None:
        self._last = output

    def map(self) -> torch.Tensor:
        """(B, C, h, w); the tokens of a transformer laid out as its patches lie."""
        if self._last.ndim == 3:
            batch, tokens, channels = self._last.shape
            side = math.isqrt(tokens - 1)
            return self._last[:, 1:].transpose(1, 2).reshape(batch, channels, side, side)
        return self._last


def channels_of(network: nn.Module, features: Sequence[Feature], size: int) -> tuple[int, ...]:
    """Channels of each map, told by a black image of ``size`` px; leaves the network evaluating."""
    network.eval()
    device = next(network.parameters()).device
    with torch.no_grad():
        network(torch.zeros(1, 3, size, size, device=device))
    return tuple(feature.map().shape[1] for feature in features)
