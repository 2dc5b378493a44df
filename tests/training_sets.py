"""Small photograph sets as the training code expects them on disk, and networks to train."""

import csv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import nn

from medlocker_dicom.phantom import Phantom, phantom
from medlocker_dicom.training import album, teacher
from medlocker_dicom.training.photographs import GRADED_SETS, Crops, Graded
from medlocker_dicom.training.teacher import TeacherRecipe

SIDE = 192
"""Side of the generated eyes in px: large enough to survive JPEG recognisably."""
LOOK = 64
"""Side in px of what a quickened teacher looks at."""
HINTS = ["features.0", "features.2", "features.3", "features.5"]
"""Layers of a `TinyGrader` that can learn from the teacher's maps."""
Image = NDArray[np.uint8]


@dataclass(frozen=True)
class Shot:
    """A picture of a set; without a split its set goes by the file's number."""

    name: str
    grade: int
    split: str | None
    image: Image
    quality: int = 95


@cache
def eye(seed: int, side: int = SIDE) -> Phantom:
    """Return a generated eye with lesions."""
    return phantom(np.random.default_rng(seed), (side, side))


def rings(grade: int, seed: int, side: int = 48) -> Image:
    """Return a retina-like disc with as many dark rings as its grade, unevenly lit by its seed."""
    y, x = np.mgrid[-1 : 1 : side * 1j, -1 : 1 : side * 1j]
    radius = np.hypot(x, y)
    rng = np.random.default_rng(seed)
    light = cv2.resize(rng.uniform(0.4, 1, (8, 8)), (side, side), interpolation=cv2.INTER_CUBIC)
    level = 220 * light * (1 - 0.7 * (np.sin(np.pi * grade * radius) ** 2 > 0.5))
    coloured = (level * (radius < 0.97))[..., None] * (1, 0.6, 0.4)
    return np.asarray(coloured.clip(0, 255), np.uint8)


def spotted(side: int = 150) -> Phantom:
    """Return a retina-like disc with a large spot for each label, each of a colour of its own."""
    y, x = np.mgrid[-1 : 1 : side * 1j, -1 : 1 : side * 1j]
    image, mask = np.zeros((side, side, 3), np.uint8), np.zeros((side, side), np.uint8)
    image[np.hypot(x, y) < 0.98] = (150, 90, 60)
    colours = ((60, 0, 0), (90, 30, 120), (250, 230, 0), (220, 220, 220), (0, 160, 90))
    for bit, colour in enumerate(colours):
        angle = 2 * np.pi * bit / len(colours)
        spot = np.hypot(x - 0.55 * np.cos(angle), y - 0.55 * np.sin(angle)) < 0.28
        image[spot], mask[spot] = colour, 1 << bit
    return Phantom(image, mask)


def write_image(path: Path, rgb: Image, quality: int = 95) -> Path:
    """Write a picture in the format that its name says."""
    path.parent.mkdir(parents=True, exist_ok=True)
    bgr = np.ascontiguousarray(rgb[..., ::-1]) if rgb.ndim == 3 else rgb
    options = [cv2.IMWRITE_JPEG_QUALITY, quality] if path.suffix == ".jpg" else []
    assert cv2.imwrite(str(path), bgr, options)
    return path


def write_graded(root: Path, sets: Mapping[str, Sequence[Shot]]) -> Path:
    """Write every graded set; those not named have no pictures."""
    for source in GRADED_SETS:
        shots = sets.get(source, ())
        (root / source / "images").mkdir(parents=True)
        split = ["split"] if any(shot.split for shot in shots) else []
        with (root / source / "labels.csv").open("w", newline="") as stream:
            table = csv.writer(stream)
            table.writerow(["file", "grade", *split])
            for shot in shots:
                write_image(root / source / "images" / shot.name, shot.image, shot.quality)
                table.writerow([shot.name, shot.grade, *([shot.split] if split else [])])
    return root


def write_lesions(root: Path, eyes: Mapping[int, Phantom]) -> Path:
    """Write photographs and masks of lesions by their IDRiD number."""
    folder = root / "idrid_lesions"
    for number, shown in eyes.items():
        write_image(folder / "images" / f"IDRiD_{number:02}.jpg", shown.image)
        write_image(folder / "masks" / f"IDRiD_{number:02}.png", shown.mask)
    return root


def graded(grade: int, source: str = "odir", *, validation: bool = False) -> Graded:
    """Return an entry whose file is never read."""
    return Graded(Path("unread.jpg"), source, grade, validation)


def ringed(count: int, held_out: int = 5, side: int = 80) -> Crops:
    """Return crops of `rings`, every grade as often; the first ones are held out."""
    items = [graded(n % 5, validation=n < held_out) for n in range(count)]
    return Crops(items, np.stack([rings(n % 5, n, side) for n in range(count)]))


def quicken(patch: pytest.MonkeyPatch) -> None:
    """Let the teacher of an album look at `LOOK` px, and learn from eight views of it alone."""
    for module in (album, teacher):
        patch.setattr(module, "SIDE", LOOK)
    quick = partial(TeacherRecipe, epochs=2, samples_an_epoch=4, batch_size=4)
    patch.setattr(album, "TeacherRecipe", quick)


class TinyGrader(nn.Module):
    """A classifier of some hundred weights, with dropout; `HINTS` are four of its layers."""

    def __init__(self, seed: int = 0) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.features = nn.Sequential(
            nn.Conv2d(3, 12, 5, stride=2, padding=2),
            nn.BatchNorm2d(12),
            nn.ReLU(),
            nn.Conv2d(12, 16, 3, stride=2, padding=1),
            nn.BatchNorm2d(16),
            nn.ReLU(),
        )
        self.head = nn.Sequential(nn.Dropout(0.1), nn.Linear(16, 5))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map (B, 3, S, S) to logits (B, 5)."""
        logits: torch.Tensor = self.head(self.features(x).mean((2, 3)))
        return logits


def tiny_segmenter(seed: int = 0) -> nn.Module:
    """Return a network of some hundred weights from (B, 3, H, W) to logits (B, 5, H, W)."""
    torch.manual_seed(seed)
    return nn.Sequential(
        nn.Conv2d(3, 12, 3, padding=1),
        nn.BatchNorm2d(12),
        nn.ReLU(),
        nn.Conv2d(12, 12, 5, padding=2),
        nn.BatchNorm2d(12),
        nn.ReLU(),
        nn.Conv2d(12, 5, 1),
    )


def state_of(path: Path) -> dict[str, Any]:
    """Read a file of tensors and plain values."""
    value: dict[str, Any] = torch.load(path, weights_only=True)
    return value


def same(one: Any, other: Any) -> bool:
    """Tell whether two saved states hold equal values, tensors bit by bit."""
    if isinstance(one, torch.Tensor):
        return one.dtype == other.dtype and torch.equal(one, other)
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same(one[k], other[k]) for k in one)
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(map(same, one, other))
    return bool(one == other)
