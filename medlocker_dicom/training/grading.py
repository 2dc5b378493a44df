"""What teacher and students share: which photographs, which loss, which figures."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch.nn import functional

from medlocker_dicom.bundles.networks import GRADES
from medlocker_dicom.bundles.preprocess import normalise, resample
from medlocker_dicom.evaluation.measures import grading_figures
from medlocker_dicom.training.photographs import EQUALISED

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import nn

    from medlocker_dicom.training.photographs import Crops


def training_rows(crops: Crops) -> NDArray[np.int64]:
    """Rows of the photographs that are trained on."""
    return np.array([n for n, item in enumerate(crops.items) if not item.validation])


def sampling_weights(crops: Crops, rows: NDArray[np.int64]) -> NDArray[np.float64]:
    """Probability of each row: rare grades more often, by the root of their rarity.

    Photographs of unnatural colour count a tenth; IDRiD's, the best graded, two and a half.
    """
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


@torch.no_grad()
def predict(
    network: nn.Module, crops: NDArray[np.uint8], size: int, device: torch.device
) -> NDArray[np.float32]:
    """Softmax probabilities float32 (n, 5) of uint8 (n, S, S, 3) crops at ``size`` px."""
    network.eval()
    rows = []
    for start in range(0, len(crops), 32):
        views = np.stack([resample(c, (size, size)) for c in crops[start : start + 32]])
        inputs = torch.from_numpy(normalise(views)).to(device)
        rows.append(network(inputs).float().softmax(1).cpu().numpy())
    return np.concatenate(rows)


def held_out_figures(
    network: nn.Module, crops: Crops, size: int, device: torch.device
) -> dict[str, Any]:
    """Figures on the held-out photographs: ``val`` of all natural ones, and those of each set."""
    held = np.array([n for n, item in enumerate(crops.items) if item.validation])
    probabilities = predict(network, crops.pixels[held], size, device)
    grades = np.array([crops.items[n].grade for n in held])
    sources = np.array([crops.items[n].source for n in held])
    natural = sources != EQUALISED
    figures: dict[str, Any] = {"val": grading_figures(probabilities[natural], grades[natural])}
    for source in np.unique(sources):
        chosen = sources == source
        figures[str(source)] = grading_figures(probabilities[chosen], grades[chosen])
    return figures
