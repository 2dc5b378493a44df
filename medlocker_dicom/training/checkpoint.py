"""A training run on disk: resumable, and its averaged weights ready for a bundle."""

from __future__ import annotations

import json
import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from medlocker_dicom.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from torch import nn

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Checkpoint:
    """What a run keeps.

    Attributes
    ----------
    out
        Gets ``checkpoint.pt`` (to resume), ``model.pt`` (averaged weights, half precision)
        and ``log.jsonl``.
    plan
        What the learning rate's schedule follows; another plan is another run.
    parts
        By name, what has ``state_dict`` and ``load_state_dict``; ``average`` is among them.
    """

    out: Path
    plan: Any
    parts: Mapping[str, Any]

    def resume(self, device: torch.device) -> int:
        """Load the parts' last states.

        Returns
        -------
        int
            How much was done; 0 without a checkpoint.

        Raises
        ------
        UsageError
            The checkpoint is that of another plan.
        """
        path = self.out / "checkpoint.pt"
        if not path.exists():
            return 0
        state = torch.load(path, map_location=device, weights_only=True)
        if state["plan"] != self.plan:
            raise UsageError(
                f"{path}: of a run by another plan, {state['plan']}",
                "choose a new output_dir, or the same plan",
            )
        for name, part in self.parts.items():
            part.load_state_dict(state[name])
        return int(state["done"])

    def keep(self, done: int, row: dict[str, Any]) -> None:
        """Write the parts' states and the averaged weights; add a row to the log."""
        state = {name: part.state_dict() for name, part in self.parts.items()}
        # The checkpoint comes last: a run that ends here in between does its last part again.
        for name, content in (
            ("model", half_precision(self.parts["average"].module)),
            ("checkpoint", state | {"done": done, "plan": self.plan}),
        ):
            part = self.out / f"{name}.part"
            torch.save(content, part)
            part.replace(self.out / f"{name}.pt")
        text = json.dumps(row)
        with (self.out / "log.jsonl").open("a") as stream:
            stream.write(text + "\n")
        log.info("%s", text)


def half_precision(network: nn.Module) -> dict[str, torch.Tensor]:
    """State of a network with its floating weights in float16, where they fit.

    Variances that batch normalisation saw can be beyond float16: in it they would be infinite, and
    what they divide would vanish.
    """
    return {name: _halved(value.cpu()) for name, value in network.state_dict().items()}


def _halved(value: torch.Tensor) -> torch.Tensor:
    half = value.half()
    fits = value.is_floating_point() and bool(half.isfinite().all())
    return half if fits else value
