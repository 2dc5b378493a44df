"""Recipe of the lesion segmenter: patches of IDRiD lesion images and of healthy eyes.

Patches are drawn by lesion, so that a microaneurysm counts as much as an exudate a
hundred times its area. Some lesions are blended into healthy retinas (the paper's reference
[27]), so that the network learns lesions and not the cameras that saw them.
"""

from __future__ import annotations

import math
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import cv2
import numpy as np
import torch
from torch import nn
from torch.nn import functional

from medlocker_dicom.bundles.networks import channels_last
from medlocker_dicom.bundles.preprocess import normalise
from medlocker_dicom.training.augment import DARK, posed, recoloured, transplanted
from medlocker_dicom.training.checkpoint import Checkpoint
from medlocker_dicom.training.descent import Descent, half_precision
from medlocker_dicom.training.photographs import Segmented, load_healthy, load_segmented

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

LABELS = ("MA", "HE", "EX", "SE", "OD")
DISC = 4
#: About the share of a patch's px that carries a lesion label.
RARE = 0.01
#: Share of the patches around lesions whose lesions move into a healthy retina.
TRANSPLANTED = 0.25


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
    start
        A ``model.pt`` of this network to start from; empty starts at random.
    shares
        Of the patches, around lesions of each label; the rest lie anywhere.
    diameter
        Retina diameter in px at which the segmenter sees every photograph.
    healthy
        How many grade-0 photographs are looked at.
    """

    network: nn.Module
    data_dir: str
    output_dir: str
    start: str = ""
    shares: tuple[float, ...] = (0.3, 0.2, 0.15, 0.13, 0.04)
    diameter: int = 1152
    patch: int = 192
    batch_size: int = 8
    steps: int = 6500
    keep_every: int = 100
    learning_rate: float = 3e-3
    healthy: int = 60
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
        self.recipe, self.done = recipe, 0
        self.patches = Patches(images, recipe.patch, recipe.shares)
        self.device = torch.device(recipe.device)
        self.network = channels_last(recipe.network, self.device)
        if recipe.start:
            self.network.load_state_dict(torch.load(recipe.start, weights_only=True))
        else:
            expect_rare(self.network)
        self.descent = Descent(
            self.network,
            [(self.network.parameters(), recipe.learning_rate)],
            recipe.steps,
            decay=0.01,
            memory=0.99,
        )
        self.checkpoint = Checkpoint(out, recipe.steps, self.descent.parts)

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
        drawn = [self.patches.draw(rng) for _ in range(self.recipe.batch_size)]
        inputs = torch.from_numpy(normalise(np.stack([d.image for d in drawn]))).to(
            self.device, memory_format=torch.channels_last
        )
        truth = torch.from_numpy(np.stack([d.truth for d in drawn])).to(self.device)
        known = torch.from_numpy(np.stack([d.known for d in drawn])).to(self.device)
        with half_precision(self.device):
            logits = self.network(inputs)
        return self.descent.step(lesion_loss(logits.float(), truth, known))


def expect_rare(network: nn.Module) -> None:
    """Start from the probability of a rare label, so that no steps go into learning rarity.

    As Lin et al. 2017 (focal loss) start a detector: the bias of the last convolution is the
    logit of ``RARE``.
    """
    biases = [m.bias for m in network.modules() if isinstance(m, nn.Conv2d) and m.bias is not None]
    nn.init.constant_(biases[-1], math.log(RARE / (1 - RARE)))


@dataclass(frozen=True)
class Patch:
    """What the network sees, and what it should say.

    Attributes
    ----------
    image
        uint8 (S, S, 3) RGB.
    truth
        float32 (5, S, S), 0 or 1.
    known
        float32 (5,), 1 where the label is annotated in this photograph.
    """

    image: NDArray[np.uint8]
    truth: NDArray[np.float32]
    known: NDArray[np.float32]


class Patches:
    """Draws patches of photographs.

    Parameters
    ----------
    images
        At least one; those without any lesion receive transplanted ones.
    side
        px.
    shares
        Of the patches, around lesions of each label; the rest lie anywhere.
    """

    def __init__(self, images: list[Segmented], side: int, shares: Sequence[float]) -> None:
        self.images, self.side, self.shares = images, side, shares
        self.healthy = [n for n, item in enumerate(images) if not item.mask.any()]
        self._centres = [
            [_centres(item.mask, bit) for item in images] for bit in range(len(LABELS))
        ]

    def draw(self, rng: np.random.Generator) -> Patch:
        """Draw one patch."""
        likely = [*self.shares, 1 - sum(self.shares)]
        label = int(rng.choice(len(likely), p=likely))
        shown = [
            n for n in range(len(self.images)) if label < DISC + 1 and len(self._centres[label][n])
        ]
        if not shown:
            number = int(rng.integers(len(self.images)))
            return self._patch(number, *self._seen(number, self._anywhere(number, rng), rng), rng)
        number = int(rng.choice(shown))
        centre = rng.permutation(self._centres[label][number])[0]
        near = centre + rng.integers(-self.side // 3, self.side // 3 + 1, 2)
        image, mask = self._seen(number, (near[0], near[1]), rng)
        if label == DISC or not self.healthy or rng.random() >= TRANSPLANTED:
            return self._patch(number, image, mask, rng)
        host = int(rng.choice(self.healthy))
        lesions = mask & ~np.uint8(1 << DISC)
        ground, _ = self._seen(host, self._anywhere(host, rng), rng)
        blended, taken = transplanted(image, lesions, ground)
        return self._patch(host, blended, np.where(taken, lesions, 0).astype(np.uint8), rng)

    def _anywhere(self, number: int, rng: np.random.Generator) -> tuple[float, float]:
        """Draw a place on the retina."""
        image = self.images[number].image
        for _ in range(20):
            y, x = rng.integers(image.shape[0]), rng.integers(image.shape[1])
            if image[y, x].max() > DARK:
                break
        return float(x), float(y)

    def _seen(
        self, number: int, centre: tuple[float, float], rng: np.random.Generator
    ) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
        """Look at a place in a random pose."""
        item, size = self.images[number], (self.side, self.side)
        pose = posed(self.side, centre, rng)
        image = cv2.warpAffine(
            item.image, pose, size, flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
        )
        mask = cv2.warpAffine(item.mask, pose, size, flags=cv2.INTER_NEAREST | cv2.WARP_INVERSE_MAP)
        return np.asarray(image, np.uint8), np.asarray(mask, np.uint8)

    def _patch(
        self,
        number: int,
        image: NDArray[np.uint8],
        mask: NDArray[np.uint8],
        rng: np.random.Generator,
    ) -> Patch:
        truth = np.stack([mask >> bit & 1 for bit in range(len(LABELS))]).astype(np.float32)
        known = np.ones(len(LABELS), np.float32)
        known[DISC] = self.images[number].discs_known
        return Patch(recoloured(image, rng), truth, known)


def _centres(mask: NDArray[np.uint8], bit: int) -> NDArray[np.float64]:
    """(x, y) of each connected part of what carries a bit."""
    plane = (mask >> bit & 1).astype(np.uint8)
    _, _, _, centres = cv2.connectedComponentsWithStats(plane, connectivity=8)
    return np.asarray(centres[1:], np.float64)


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
