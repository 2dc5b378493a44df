"""Gradient descent as all our recipes do it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import nn

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

#: Norm above which gradients are clipped.
STEEPEST = 5.0


class Descent:
    """AdamW on a one-cycle schedule, with clipped gradients and averaged weights.

    Parameters
    ----------
    network
        Its weights are averaged (EMA) into ``average``.
    groups
        Parameters, and the highest learning rate that they see; those of ``network`` among them.
    steps
        How many there will be.
    decay
        Weight decay.
    memory
        Share of the average that one step leaves in place, 0 to 1.
    """

    def __init__(
        self,
        network: nn.Module,
        groups: Sequence[tuple[Iterable[nn.Parameter], float]],
        steps: int,
        *,
        decay: float,
        memory: float,
    ) -> None:
        self.network = network
        chosen = [[p for p in parameters if p.requires_grad] for parameters, _ in groups]
        self._parameters = [p for group in chosen for p in group]
        self._optimiser = torch.optim.AdamW(
            [{"params": group} for group in chosen], weight_decay=decay
        )
        self._schedule = torch.optim.lr_scheduler.OneCycleLR(
            self._optimiser, [rate for _, rate in groups], total_steps=steps, pct_start=0.1
        )
        self._average = torch.optim.swa_utils.AveragedModel(
            network,
            multi_avg_fn=torch.optim.swa_utils.get_ema_multi_avg_fn(memory),
            use_buffers=True,
        )

    @property
    def average(self) -> nn.Module:
        """The network with averaged weights."""
        module: nn.Module = self._average.module
        return module

    @property
    def parts(self) -> dict[str, Any]:
        """What a checkpoint keeps."""
        return {
            "network": self.network,
            "average": self._average,
            "optimiser": self._optimiser,
            "schedule": self._schedule,
        }

    def step(self, loss: torch.Tensor) -> float:
        """Go one step down a loss; its value."""
        self._optimiser.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(self._parameters, STEEPEST)
        self._optimiser.step()
        self._schedule.step()
        self._average.update_parameters(self.network)
        return float(loss.detach())


def half_precision(device: torch.device, *, wanted: bool = True) -> torch.autocast:
    """Compute in bfloat16 while the context lasts, where the device does so itself.

    A CPU that has no instructions for it takes ten times as long as in float32.
    """
    able = device.type != "cpu" or torch.cpu._is_avx512_bf16_supported()  # noqa: SLF001  no other name
    return torch.autocast(device.type, torch.bfloat16, enabled=wanted and able)
