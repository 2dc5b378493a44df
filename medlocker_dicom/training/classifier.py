"""Recipe of the DR classifiers.

Stages of growing input size. In some of them the network also learns from a
teacher, an ImageNet EfficientNet-Lite0 (Apache-2.0 weights from the package
index) with a linear probe: its feature map, which teaches edges, vessels and
texture faster than a few thousand graded eyes can, and the probe's grades of
the very view that the network sees (Beyer et al. 2022). Weights are averaged
(EMA) and the averaged ones are kept.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from medlocker_dicom.bundles.preprocess import normalise, resample
from medlocker_dicom.training.augment import recoloured, turned
from medlocker_dicom.training.checkpoint import Checkpoint
from medlocker_dicom.training.measures import grading_figures
from medlocker_dicom.training.photographs import EQUALISED, Crops, load_crops
from medlocker_dicom.training.teacher import CHANNELS, SIDE, Backbone, fit_probe

if TYPE_CHECKING:
    from numpy.typing import NDArray

GRADES = 5


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
        Weight of the loss on the teacher's feature map.
    taught
        Weight of the loss on the teacher's grades. With both weights 0, no teacher is needed.
    """

    size: int
    epochs: int
    hint: float = 0.0
    taught: float = 0.0


@dataclass
class ClassifierRecipe:
    """Trains a classifier and keeps its averaged weights.

    Attributes
    ----------
    network
        float32 (B, 3, S, S) -> logits (B, 5); its submodule ``feature_layer`` gives
        the last feature map, as ``layer4`` does in a ResNet.
    data_dir
        Folder of the photograph sets.
    output_dir
        Gets ``checkpoint.pt`` (to resume), ``model.pt`` and ``log.jsonl``.
    stages
        ``[size, epochs, hint, taught]`` each.
    start
        A ``model.pt`` of this network to start from; empty starts at random.
    """

    network: nn.Module
    data_dir: str
    output_dir: str
    stages: list[list[float]]
    start: str = ""
    samples_an_epoch: int = 4096
    batch_size: int = 32
    learning_rate: float = 1e-3
    weight_decay: float = 0.05
    crop: int = 320
    seed: int = 20240611
    device: str = "cpu"
    feature_layer: str = "layer4"

    def run(self) -> None:
        """Train from the last checkpoint, or from the start, to the end of the stages."""
        torch.manual_seed(self.seed)
        out = Path(self.output_dir)
        out.mkdir(parents=True, exist_ok=True)
        crops = load_crops(Path(self.data_dir), self.crop, out)
        run = _Run(self, crops, out)
        run.done = run.checkpoint.resume(run.device)
        for epoch, stage in enumerate(self.epochs()):
            if epoch >= run.done:
                run.epoch(epoch, stage)

    def epochs(self) -> list[Stage]:
        """One stage for each epoch, in order."""
        plan = [Stage(int(size), int(epochs), *weights) for size, epochs, *weights in self.stages]
        return [stage for stage in plan for _ in range(stage.epochs)]


class _Run:
    def __init__(self, recipe: ClassifierRecipe, crops: Crops, out: Path) -> None:
        self.recipe, self.crops = recipe, crops
        self.done = 0
        self.device = torch.device(recipe.device)
        self.student = channels_last(recipe.network, self.device)
        if recipe.start:
            self.student.load_state_dict(torch.load(recipe.start, weights_only=True))
        self.hint = nn.Conv2d(_channels(self.student, recipe), CHANNELS, 1).to(self.device)
        self.features = _Features(self.student, recipe.feature_layer)
        parameters = [*self.student.parameters(), *self.hint.parameters()]
        self.optimiser = torch.optim.AdamW(
            parameters, lr=recipe.learning_rate, weight_decay=recipe.weight_decay
        )
        steps = len(recipe.epochs()) * (recipe.samples_an_epoch // recipe.batch_size)
        self.schedule = torch.optim.lr_scheduler.OneCycleLR(
            self.optimiser, recipe.learning_rate, total_steps=steps, pct_start=0.1
        )
        self.average = torch.optim.swa_utils.AveragedModel(
            self.student,
            multi_avg_fn=torch.optim.swa_utils.get_ema_multi_avg_fn(0.995),
            use_buffers=True,
        )
        self.checkpoint = Checkpoint(
            out,
            recipe.stages,
            {
                "student": self.student,
                "hint": self.hint,
                "average": self.average,
                "optimiser": self.optimiser,
                "schedule": self.schedule,
            },
        )
        self.train = np.array([n for n, i in enumerate(crops.items) if not i.validation])
        self.held = np.array([n for n, i in enumerate(crops.items) if i.validation])
        self.weights = sampling_weights(crops, self.train)
        self.backbone, self.probe = None, None
        if any(s.hint or s.taught for s in recipe.epochs()):
            self.backbone = Backbone(self.device)
        if any(s.taught for s in recipe.epochs()) and self.backbone:
            natural = [n for n in self.train if crops.items[n].source != EQUALISED]
            grades = np.array([crops.items[n].grade for n in natural])
            self.probe = fit_probe(self.backbone, crops.pixels[natural], grades)

    def epoch(self, number: int, stage: Stage) -> None:
        recipe = self.recipe
        rng = np.random.default_rng((recipe.seed, number))
        started, losses = time.monotonic(), []
        self.student.train()
        for _ in range(recipe.samples_an_epoch // recipe.batch_size):
            rows = rng.choice(self.train, recipe.batch_size, p=self.weights)
            losses.append(self.step(rows, stage, rng))
        self.done = number + 1
        row: dict[str, Any] = {
            "epoch": number,
            "size": stage.size,
            "hint": stage.hint,
            "loss": float(np.mean(losses)),
            "seconds": round(time.monotonic() - started, 1),
        }
        if number % 2 or self.done == len(recipe.epochs()):
            row |= self.validate(stage.size)
        self.checkpoint.keep(self.done, row)

    def step(self, rows: NDArray[np.int64], stage: Stage, rng: np.random.Generator) -> float:
        taught = stage.hint or stage.taught
        side = max(stage.size, SIDE) if taught else stage.size
        views = np.stack([turned(self.crops.pixels[n], side, rng) for n in rows])
        seen = np.stack([recoloured(resample(v, (stage.size, stage.size)), rng) for v in views])
        grades = torch.tensor([self.crops.items[n].grade for n in rows], device=self.device)
        inputs = torch.from_numpy(normalise(seen)).to(
            self.device, memory_format=torch.channels_last
        )
        with torch.autocast(self.device.type, torch.bfloat16):
            logits = self.student(inputs)
            hint = self.hint(self.features.last) if stage.hint else None
        loss = grade_loss(logits.float(), grades)
        if taught and self.backbone:
            maps = self.backbone(views)
            if hint is not None:
                loss = loss + stage.hint * feature_loss(hint.float(), maps)
            if stage.taught and self.probe:
                loss = loss + stage.taught * functional.cross_entropy(
                    logits.float(), self.probe(maps)
                )
        self.optimiser.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(self.student.parameters(), 5.0)
        self.optimiser.step()
        self.schedule.step()
        self.average.update_parameters(self.student)
        return float(loss.detach())

    def validate(self, size: int) -> dict[str, Any]:
        averaged = self.average.module
        probabilities = predict(averaged, self.crops.pixels[self.held], size, self.device)
        grades = np.array([self.crops.items[n].grade for n in self.held])
        sources = np.array([self.crops.items[n].source for n in self.held])
        natural = sources != EQUALISED
        figures: dict[str, Any] = {"val": grading_figures(probabilities[natural], grades[natural])}
        for source in np.unique(sources):
            chosen = sources == source
            figures[str(source)] = grading_figures(probabilities[chosen], grades[chosen])
        return figures


class _Features:
    """Remembers the last feature map that passed a named layer."""

    def __init__(self, network: nn.Module, layer: str) -> None:
        self.last = torch.empty(0)
        network.get_submodule(layer).register_forward_hook(self._remember)

    def _remember(self, _module: nn.Module, _inputs: Any, output: torch.Tensor) -> None:
        self.last = output


def _channels(network: nn.Module, recipe: ClassifierRecipe) -> int:
    features = _Features(network, recipe.feature_layer)
    network.eval()
    with torch.no_grad():
        network(torch.zeros(1, 3, 64, 64, device=recipe.device))
    network.get_submodule(recipe.feature_layer)._forward_hooks.clear()  # noqa: SLF001  ours
    return int(features.last.shape[1])


def sampling_weights(crops: Crops, rows: NDArray[np.int64]) -> NDArray[np.float64]:
    """Probability of each row: rare grades more often, by the root of their rarity."""
    grades = np.array([crops.items[n].grade for n in rows])
    counts = np.bincount(grades, minlength=GRADES)
    trust = np.array([0.1 if crops.items[n].source == EQUALISED else 1.0 for n in rows])
    clinic = np.array([2.5 if crops.items[n].source == "idrid_grading" else 1.0 for n in rows])
    weights = trust * clinic / np.sqrt(counts[grades])
    result: NDArray[np.float64] = weights / weights.sum()
    return result


def grade_loss(logits: torch.Tensor, grades: torch.Tensor) -> torch.Tensor:
    """Cross entropy with smoothed labels, and the squared error of the expected grade."""
    scale = torch.arange(GRADES, device=logits.device, dtype=logits.dtype)
    expected = (logits.softmax(1) * scale).sum(1)
    error = functional.mse_loss(expected, grades.to(logits.dtype))
    return functional.cross_entropy(logits, grades, label_smoothing=0.05) + 0.15 * error


def feature_loss(predicted: torch.Tensor, wanted: torch.Tensor) -> torch.Tensor:
    """One minus the cosine of feature vectors, averaged over places.

    Parameters
    ----------
    predicted
        float (B, C, h, w).
    wanted
        float (B, C, h', w'), averaged to (h, w) first.
    """
    height, width = predicted.shape[-2:]
    wanted = functional.adaptive_avg_pool2d(wanted, (height, width))
    return (1 - functional.cosine_similarity(predicted, wanted, dim=1)).mean()


@torch.no_grad()
def predict(
    network: nn.Module, crops: NDArray[np.uint8], size: int, device: torch.device
) -> NDArray[np.float32]:
    """Softmax probabilities float32 (n, 5) of uint8 (n, S, S, 3) crops at ``size`` px."""
    network.eval()
    rows = []
    for start in range(0, len(crops), 32):
        views = np.stack([resample(c, (size, size)) for c in crops[start : start + 32]])
        logits = network(torch.from_numpy(normalise(views)).to(device))
        rows.append(logits.float().softmax(1).cpu().numpy())
    return np.concatenate(rows)


def channels_last(network: nn.Module, device: torch.device) -> nn.Module:
    """Move a network to a device, in the memory layout that convolutions like best."""
    moved = network.to(device)
    moved.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # missing in torch's types
    return moved
