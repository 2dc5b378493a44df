"""Recipe of the DR classifiers.

A student learns from the graded photographs and from a teacher. Its maps at four sizes have to
predict the teacher's of the same input (hints, Romero et al. 2015), which teaches edges, vessels
and lesions faster than a few thousand graded eyes can. Its grades follow those that the teacher
gave to a larger rendering of the same view (``album.py``). Stages of growing input size; weights
are averaged and the averaged ones are kept.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from medlocker_dicom.bundles.networks import channels_last
from medlocker_dicom.bundles.preprocess import normalise
from medlocker_dicom.training.album import open_album
from medlocker_dicom.training.augment import recoloured
from medlocker_dicom.training.checkpoint import Checkpoint
from medlocker_dicom.training.descent import Descent, half_precision
from medlocker_dicom.training.features import Feature, channels_of
from medlocker_dicom.training.grading import grade_loss, held_out_figures
from medlocker_dicom.training.peers import find_peers
from medlocker_dicom.training.photographs import load_crops
from medlocker_dicom.training.teacher import load_teacher

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from medlocker_dicom.training.album import Album
    from medlocker_dicom.training.peers import PeerTeacher
    from medlocker_dicom.training.teacher import Teacher

#: px of a crop that a student's view is drawn from.
CROP = 320
#: The eight ways to turn and mirror a square.
POSES = 8


@dataclass(frozen=True)
class Stage:
    """Some epochs at one input size.

    Attributes
    ----------
    size
        Side of the input in px.
    epochs
        How many.
    hint
        Weight of the loss on the teacher's maps.
    taught
        Weight of the loss on the teacher's grades.
    """

    size: int
    epochs: int
    hint: float
    taught: float


@dataclass
class ClassifierRecipe:
    """Trains a classifier and keeps its averaged weights.

    Attributes
    ----------
    network
        float32 (B, 3, S, S) -> logits (B, 5).
    hint_layers
        Names of four submodules whose outputs have to predict the teacher's maps, at about 1/4,
        1/8, 1/16 and 1/32 of the side: (B, C, h, w), or (B, 1 + h * w, C) of a transformer.
    data_dir
        Folder of the photograph sets.
    output_dir
        Gets ``checkpoint.pt`` (to resume), ``model.pt`` and ``log.jsonl``.
    teacher_dir
        The teacher's folder, which every student may share; made where it is not there.
    stages
        ``[size, epochs, hint, taught]`` each.
    views
        Of the album.
    peers
        Bundles that teach in the teacher's stead; the first one's maps are those to predict.
    peer_layers
        Of the first, as `hint_layers`.
    """

    network: nn.Module
    hint_layers: list[str]
    data_dir: str
    output_dir: str
    teacher_dir: str
    stages: list[list[float]]
    views: int = 49152
    samples_an_epoch: int = 8192
    batch_size: int = 32
    learning_rate: float = 2e-3
    weight_decay: float = 0.05
    halved: bool = True
    seed: int = 20240611
    device: str = "cpu"
    peers: list[str] = field(default_factory=list)
    peer_layers: list[str] = field(default_factory=list)

    def run(self) -> None:
        """Train from the last checkpoint, or from the start, to the end of the stages."""
        out, device = Path(self.output_dir), torch.device(self.device)
        out.mkdir(parents=True, exist_ok=True)
        crops = load_crops(Path(self.data_dir), CROP, Path(self.teacher_dir))
        folder = Path(self.teacher_dir)
        peers = find_peers(self.peers, self.peer_layers) if self.peers else None
        album = open_album(crops, folder, self.views, device, peers)
        torch.manual_seed(self.seed)  # here, as the album may have had a teacher to train
        teacher = peers.load(device) if peers else load_teacher(folder, device)
        run = _Run(self, album, teacher, out)
        run.done = run.checkpoint.resume(device)
        for epoch, stage in enumerate(self.epochs()):
            if epoch >= run.done:
                run.epoch(epoch, stage)

    def epochs(self) -> list[Stage]:
        """One stage for each epoch, in order."""
        plan = [Stage(int(size), int(epochs), *weights) for size, epochs, *weights in self.stages]
        return [stage for stage in plan for _ in range(stage.epochs)]


class _Run:
    def __init__(
        self, recipe: ClassifierRecipe, album: Album, teacher: Teacher | PeerTeacher, out: Path
    ) -> None:
        self.recipe, self.album, self.teacher, self.done = recipe, album, teacher, 0
        self.device = torch.device(recipe.device)
        self.student = channels_last(recipe.network, self.device)
        self.features = [Feature(self.student, name) for name in recipe.hint_layers]
        self.hints = nn.ModuleList(self._hints(recipe.epochs()[0].size)).to(self.device)
        groups = [([*self.student.parameters(), *self.hints.parameters()], recipe.learning_rate)]
        self.batches = min(recipe.samples_an_epoch, len(album.rows)) // recipe.batch_size
        steps = len(recipe.epochs()) * self.batches
        self.descent = Descent(self.student, groups, steps, decay=recipe.weight_decay, memory=0.995)
        self.checkpoint = Checkpoint(out, recipe.stages, self.descent.parts | {"hints": self.hints})

    def _hints(self, size: int) -> list[nn.Module]:
        """One 1 x 1 convolution for each map, from the student's channels to the teacher's."""
        return [
            nn.Conv2d(own, channels, 1)
            for own, channels in zip(
                channels_of(self.student, self.features, size), self.teacher.channels, strict=True
            )
        ]

    def epoch(self, number: int, stage: Stage) -> None:
        recipe = self.recipe
        rng = np.random.default_rng((recipe.seed, number))
        torch.manual_seed(recipe.seed + number)  # of dropout: a resumed run draws the same
        started = time.monotonic()
        self.student.train()
        shape = (self.batches, recipe.batch_size)
        order = rng.choice(len(self.album.rows), shape, replace=False)
        losses = [self.step(numbers, stage, rng) for numbers in order]
        self.done = number + 1
        row: dict[str, Any] = {"epoch": number, "size": stage.size}
        row |= dict(zip(("grade", "hint", "taught"), np.mean(losses, 0).round(4), strict=True))
        row["seconds"] = round(time.monotonic() - started, 1)
        if self.done % 4 == 0 or self.done == len(recipe.epochs()):
            average = self.descent.average
            row |= held_out_figures(average, self.album.crops, stage.size, self.device)
        self.checkpoint.keep(self.done, row)

    def step(
        self, numbers: NDArray[np.int64], stage: Stage, rng: np.random.Generator
    ) -> tuple[float, float, float]:
        """One step; the losses on the grades, the teacher's maps and the teacher's grades."""
        album, poses = self.album, rng.integers(POSES, size=len(numbers))
        views = [
            recoloured(_posed(album.view(n, stage.size), p), rng)
            for n, p in zip(numbers, poses, strict=True)
        ]
        rows = album.rows[numbers]
        grades = torch.tensor([album.crops.items[n].grade for n in rows], device=self.device)
        inputs = torch.from_numpy(normalise(np.stack(views))).to(
            self.device, memory_format=torch.channels_last
        )
        with torch.no_grad(), half_precision(self.device):
            wanted = self.teacher.maps(inputs)
        with half_precision(self.device, wanted=self.recipe.halved):
            logits = self.student(inputs).float()
            guesses = [
                hint(feature.map()) for hint, feature in zip(self.hints, self.features, strict=True)
            ]
        graded = grade_loss(logits, grades)
        hints = [feature_loss(*pair) for pair in zip(guesses, wanted, strict=True)]
        hinted = torch.stack(hints).sum()
        likely = torch.from_numpy(album.logits[numbers].astype(np.float32)).softmax(1)
        taught = functional.cross_entropy(logits, likely.to(self.device))
        self.descent.step(graded + stage.hint * hinted + stage.taught * taught)
        return graded.item(), hinted.item(), taught.item()


def _posed(picture: NDArray[Any], pose: int) -> NDArray[Any]:
    """Turn (h, w, ...) by quarter turns, and mirror it from pose 4 on."""
    quarter = np.rot90(picture, pose % 4)
    return np.ascontiguousarray(quarter[:, ::-1] if pose >= 4 else quarter)


def feature_loss(predicted: torch.Tensor, wanted: torch.Tensor) -> torch.Tensor:
    """Mean squared error of maps, each channel of the wanted one standardised over the batch.

    Parameters
    ----------
    predicted
        float (B, C, h, w).
    wanted
        float (B, C, h', w'), brought to (h, w) first.

    Returns
    -------
    torch.Tensor
        1 for a prediction of the mean.
    """
    sized = functional.interpolate(
        wanted.float(), predicted.shape[-2:], mode="bilinear", antialias=True
    )
    standard = functional.batch_norm(sized, None, None, training=True)
    return functional.mse_loss(predicted.float(), standard)
