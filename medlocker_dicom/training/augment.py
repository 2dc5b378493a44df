"""Random views of photographs: geometry and colour, on uint8 arrays."""

from __future__ import annotations

from typing import TYPE_CHECKING

import cv2
import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray


def turned(rgb: NDArray[np.uint8], size: int, rng: np.random.Generator) -> NDArray[np.uint8]:
    """Rotate, mirror, scale and shift a square crop.

    Parameters
    ----------
    rgb
        uint8 (S, S, 3).
    size
        Side of the result in px.
    rng
        Source of randomness.

    Returns
    -------
    ndarray
        uint8 (size, size, 3); what turns in from outside is black.
    """
    side = rgb.shape[0]
    angle = rng.uniform(-180, 180)
    scale = size / side * rng.uniform(0.9, 1.15)
    matrix = cv2.getRotationMatrix2D((side / 2, side / 2), angle, scale)
    shift = size / 2 - side / 2 + rng.uniform(-0.05, 0.05, 2) * size
    matrix[:, 2] += shift
    if rng.random() < 0.5:
        matrix[0] *= -1
        matrix[0, 2] += size
    return np.asarray(cv2.warpAffine(rgb, matrix, (size, size), flags=cv2.INTER_LINEAR), np.uint8)


def recoloured(rgb: NDArray[np.uint8], rng: np.random.Generator) -> NDArray[np.uint8]:
    """Change exposure, contrast, gamma and the balance of the channels.

    Parameters
    ----------
    rgb
        uint8 (H, W, 3).
    rng
        Source of randomness.

    Returns
    -------
    ndarray
        uint8 (H, W, 3); black stays black.
    """
    levels = np.arange(256) / 255
    gamma = np.exp(rng.uniform(-0.3, 0.3)) * np.exp(rng.uniform(-0.1, 0.1, 3))
    gain = np.exp(rng.uniform(-0.2, 0.2)) * np.exp(rng.uniform(-0.12, 0.12, 3))
    curves = 255 * gain * levels[:, None] ** gamma
    table = np.clip(np.rint(curves), 0, 255).astype(np.uint8)[None]
    coloured = np.asarray(cv2.LUT(rgb, table), np.uint8)
    if rng.random() < 0.2:
        grey = cv2.cvtColor(cv2.cvtColor(coloured, cv2.COLOR_RGB2GRAY), cv2.COLOR_GRAY2RGB)
        share = rng.uniform(0.2, 0.8)
        coloured = np.asarray(cv2.addWeighted(coloured, 1 - share, grey, share, 0), np.uint8)
    if rng.random() < 0.15:
        coloured = np.asarray(cv2.GaussianBlur(coloured, (3, 3), rng.uniform(0.3, 1.0)), np.uint8)
    return coloured
