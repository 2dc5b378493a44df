"""Synthetic ensembles and canvases on which a search can be judged exactly."""

from typing import Any

import numpy as np
import numpy.typing as npt

from medlocker_dicom.search import Feasible

Array = npt.NDArray[Any]
WIDTH = 169  # positions of a 56 px logo on a 224 px canvas
TARGET = (160, 40, 120)  # alpha, x, y of the bowl's bottom


class Bowl:
    """Two classes; class 0 is least likely at `TARGET`, and every call is kept."""

    def __init__(self, depth: float = 0.9) -> None:
        self.depth = depth
        self.calls: list[Array] = []

    def __call__(self, genes: Array) -> Array:
        self.calls.append(np.array(genes))
        distance = np.linalg.norm((genes - TARGET) / (155, WIDTH, WIDTH), axis=1)
        probability = 0.95 - self.depth * np.clip(1 - distance, 0, 1)
        return np.stack([probability, 1 - probability], axis=1)

    @property
    def seen(self) -> Array:
        """All candidates computed so far, in order."""
        return np.concatenate(self.calls)


class Rugged:
    """Five classes; a fixed random value at every candidate, smooth nowhere."""

    def __call__(self, genes: Array) -> Array:
        """Return the hash-like softmax of each candidate."""
        mixed = genes @ np.array([[7919, 104729, 1299709, 15485863, 32452843]]).repeat(3, axis=0)
        mixed = mixed * 2654435761 + (genes[:, :1] * 31 + genes[:, 1:2] * 17) * 97
        logits = (mixed % 1009) / 1009 * 3 + np.array([2.0, 0, 0, 0, 0])
        raised = np.exp(logits)
        softmax: Array = raised / raised.sum(axis=1, keepdims=True)
        return softmax


def open_canvas() -> Feasible:
    """Every position allowed."""
    return Feasible.from_map(np.ones((WIDTH, WIDTH), dtype=np.bool_))


def islands() -> Feasible:
    """Two far islands and a single pixel: a WSM map with few positions left."""
    allowed = np.zeros((WIDTH, WIDTH), dtype=np.bool_)
    allowed[5:25, 5:15] = True
    allowed[110:130, 120:168] = True
    allowed[168, 0] = True
    return Feasible.from_map(allowed)
