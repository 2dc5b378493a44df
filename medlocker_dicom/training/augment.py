"""Random views of photographs: geometry and colour, on uint8 arrays."""

from __future__ import annotations

from typing import TYPE_CHECKING

import cv2
import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

#: Brightest channel, 0 to 255, up to which a px is no retina.
DARK = 20
#: px around what is cloned whose gradients stay those of the host.
RIM = 3


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


def posed(size: int, centre: tuple[float, float], rng: np.random.Generator) -> NDArray[np.float64]:
    """Draw a pose: any turn, mirrored or not, a fifth larger or smaller.

    Parameters
    ----------
    size
        Side in px of the patch that is looked at.
    centre
        (x, y) in the image, which comes to the middle of the patch.
    rng
        Source of randomness.

    Returns
    -------
    ndarray
        float64 (2, 3): from patch to image coordinates, for ``cv2.WARP_INVERSE_MAP``.
    """
    angle, scale = rng.uniform(-np.pi, np.pi), np.exp(rng.uniform(-0.2, 0.2))
    turn = scale * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    if rng.random() < 0.5:
        turn[:, 0] *= -1
    middle = (size - 1) / 2
    shift = np.asarray(centre) - turn @ np.array([middle, middle])
    return np.column_stack([turn, shift])


def transplanted(
    lesions: NDArray[np.uint8], mask: NDArray[np.uint8], onto: NDArray[np.uint8]
) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
    """Blend lesions into another retina by the Poisson equation (Perez et al. 2003).

    The gradients of the lesions are kept, the colours follow the retina that they come to.

    Parameters
    ----------
    lesions
        uint8 (S, S, 3): the patch that has them.
    mask
        uint8 (S, S): non-zero on the lesions.
    onto
        uint8 (S, S, 3): the patch that gets them.

    Returns
    -------
    tuple
        uint8 (S, S, 3), and bool (S, S): where lesions were taken over. None are at the border,
        as the equation needs, or beside the retina.
    """
    around = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (11, 11))
    taken = cv2.dilate((mask > 0).astype(np.uint8), around)
    taken[:2], taken[-2:], taken[:, :2], taken[:, -2:] = 0, 0, 0, 0
    beside = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (9, 9))
    retina = cv2.erode((onto.max(2) > DARK).astype(np.uint8), beside)
    taken = np.asarray(taken, np.uint8) * np.asarray(retina, np.uint8)
    kept = np.asarray(cv2.erode(taken, np.ones((2 * RIM + 1, 2 * RIM + 1), np.uint8)), np.bool_)
    if not kept.any():
        return onto, kept
    x, y, width, height = cv2.boundingRect(taken)
    centre = (x + width // 2, y + height // 2)
    blended = cv2.seamlessClone(lesions, onto, taken * np.uint8(255), centre, cv2.NORMAL_CLONE)
    return np.asarray(blended, np.uint8), kept
