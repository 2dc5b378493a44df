"""Recipe of the lesion segmenter: patches of IDRiD lesion images and of healthy eyes."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from medlocker_dicom.bundles.preprocess import normalise
from medlocker_dicom.training.augment import recoloured
from medlocker_dicom.training.checkpoint import Checkpoint
from medlocker_dicom.training.classifier import channels_last
from medlocker_dicom.training.photographs import Segmented, load_healthy, load_segmented

if TYPE_CHECKING:
    from numpy.typing import NDArray

LABELS = ("MA", "HE", "EX", "SE", "OD")
DISC = 4
#: About the share of a patch's px that carries a lesion label.
RARE = 0.01


@dataclass
class SegmenterRecipe:
    """Trains the segmenter and keeps its averaged weights.

    Attributes
    ----------
    network
        float32 (B, 3, H, W) -> logits (B, 5, H, W).
    data_dir
        Folder of the photograph sets.
    output_dir
        Gets ``checkpoint.pt`` (to resume), ``model.pt`` and ``log.jsonl``.
    diameter
        Retina diameter in px at which the segmenter sees every photograph.
    """

    network: nn.Module
    data_dir: str
    output_dir: str
    diameter: int = 768
    patch: int = 192
    batch_size: int = 8
    steps: int = 2600
    keep_every: int = 60
    learning_rate: float = 3e-3
    healthy: int = 40
    seed: int = 20240612
    device: str = "cpu"

    def run(self) -> None:
        """Train from the last checkpoint, or from the start, to the last step."""
        torch.manual_seed(self.seed)
        out = Path(self.output_dir)
        out.mkdir(parents=True, exist_ok=True)
        root = Path(self.data_dir)
        images = load_segmented(root, self.diameter) + load_healthy(
            root, self.diameter, self.healthy
        )
        run = _Run(self, [i for i in images if not i.validation], out)
        run.done = run.checkpoint.resume(run.device)
        while run.done < self.steps:
            run.advance(min(self.keep_every, self.steps - run.done))


class _Run:
    def __init__(self, recipe: SegmenterRecipe, images: list[Segmented], out: Path) -> None:
        self.recipe, self.images, self.done = recipe, images, 0
        self.device = torch.device(recipe.device)
        self.network = channels_last(recipe.network, self.device)
        expect_rare(self.network)
        self.optimiser = torch.optim.AdamW(
            self.network.parameters(), lr=recipe.learning_rate, weight_decay=0.01
        )
        self.schedule = torch.optim.lr_scheduler.OneCycleLR(
            self.optimiser, recipe.learning_rate, total_steps=recipe.steps, pct_start=0.1
        )
        self.average = torch.optim.swa_utils.AveragedModel(
            self.network,
            multi_avg_fn=torch.optim.swa_utils.get_ema_multi_avg_fn(0.99),
            use_buffers=True,
        )
        self.checkpoint = Checkpoint(
            out,
            recipe.steps,
            {
                "network": self.network,
                "average": self.average,
                "optimiser": self.optimiser,
                "schedule": self.schedule,
            },
        )

    def advance(self, steps: int) -> None:
        started, losses = time.monotonic(), []
        self.network.train()
        for _ in range(steps):
            rng = np.random.default_rng((self.recipe.seed, self.done))
            losses.append(self.step(rng))
            self.done += 1
        self.checkpoint.keep(
            self.done,
            {
                "step": self.done,
                "loss": float(np.mean(losses)),
                "seconds": round(time.monotonic() - started, 1),
            },
        )

    def step(self, rng: np.random.Generator) -> float:
        drawn = [
            draw_patch(self.images[rng.integers(len(self.images))], self.recipe.patch, rng)
            for _ in range(self.recipe.batch_size)
        ]
        inputs = torch.from_numpy(normalise(np.stack([d[0] for d in drawn]))).to(
            self.device, memory_format=torch.channels_last
        )
        truth = torch.from_numpy(np.stack([d[1] for d in drawn])).to(self.device)
        known = torch.from_numpy(np.stack([d[2] for d in drawn])).to(self.device)
        with torch.autocast(self.device.type, torch.bfloat16):
            logits = self.network(inputs)
        loss = lesion_loss(logits.float(), truth, known)
        self.optimiser.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.network.parameters(), 5.0)
        self.optimiser.step()
        self.schedule.step()
        self.average.update_parameters(self.network)
        return float(loss.detach())


def expect_rare(network: nn.Module) -> None:
    """Start from the probability of a rare label, so that no steps go into learning rarity.

    As Lin et al. 2017 (focal loss) start a detector: the bias of the last convolution is the
    logit of ``RARE``.
    """
    biases = [m.bias for m in network.modules() if isinstance(m, nn.Conv2d) and m.bias is not None]
    nn.init.constant_(biases[-1], math.log(RARE / (1 - RARE)))


def draw_patch(
    item: Segmented, side: int, rng: np.random.Generator
) -> tuple[NDArray[np.uint8], NDArray[np.float32], NDArray[np.float32]]:
    """Draw a patch, two times out of three around a lesion where there is one.

    Returns
    -------
    tuple
        uint8 (side, side, 3) image; float32 (5, side, side) truth; float32 (5,) 1 where
        the label is annotated in this photograph.
    """
    height, width = item.mask.shape
    bits = [bit for bit in range(len(LABELS)) if np.any(item.mask >> bit & 1)]
    if bits and rng.random() < 2 / 3:
        places = np.argwhere(item.mask >> rng.choice(bits) & 1)
        centre = places[rng.integers(len(places))] + rng.integers(-side // 3, side // 3 + 1, 2)
    else:
        centre = np.array([rng.integers(height), rng.integers(width)])
    top = int(np.clip(centre[0] - side // 2, 0, height - side))
    left = int(np.clip(centre[1] - side // 2, 0, width - side))
    image = recoloured(item.image[top : top + side, left : left + side], rng)
    mask = item.mask[top : top + side, left : left + side]
    turns, mirrored = int(rng.integers(4)), bool(rng.random() < 0.5)
    image, mask = np.rot90(image, turns), np.rot90(mask, turns)
    if mirrored:
        image, mask = image[:, ::-1], mask[:, ::-1]
    truth = np.stack([mask >> bit & 1 for bit in range(len(LABELS))]).astype(np.float32)
    known = np.ones(len(LABELS), np.float32)
    known[DISC] = item.discs_known
    return np.ascontiguousarray(image), truth, known


def lesion_loss(logits: torch.Tensor, truth: torch.Tensor, known: torch.Tensor) -> torch.Tensor:
    """Cross entropy a px, and one minus the Dice of each label over the batch.

    Parameters
    ----------
    logits, truth
        float32 (B, 5, H, W).
    known
        float32 (B, 5): 0 where a label is not annotated, which is then left out.
    """
    weight = known[:, :, None, None]
    entropy = functional.binary_cross_entropy_with_logits(logits, truth, reduction="none")
    probability = logits.sigmoid() * weight
    overlap = (probability * truth * weight).sum((0, 2, 3))
    total = (probability + truth * weight).sum((0, 2, 3))
    dice = 1 - (2 * overlap + 1) / (total + 1)
    return 20 * (entropy * weight).mean() + dice.mean()
