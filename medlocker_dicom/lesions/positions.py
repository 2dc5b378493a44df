"""Where the logo may lie (section 2.2, step 5)."""

from collections.abc import Iterable
from enum import StrEnum
from math import ceil

import cv2
import numpy as np
from numpy.typing import NDArray

from medlocker_dicom.lesions.boxes import Box

Allowed = NDArray[np.bool_]


class Mode(StrEnum):
    """How the logo relates to the lesion boxes."""

    AVOID = "avoid"
    """It meets no box: the paper's WSM-out, and the default of the product."""
    ANYWHERE = "anywhere"
    """Boxes do not matter: the paper's WAP."""
    INSIDE = "inside"
    """It lies in a box, or over it where it is larger: WSM-in, for evaluation."""


def feasible_positions(
    fov: NDArray[np.bool_],
    logo_size: tuple[int, int],
    boxes: Iterable[Box],
    mode: Mode,
    min_on_retina: float = 0.9,
) -> Allowed:
    """Map the positions of the logo's top-left pixel that are allowed.

    Parameters
    ----------
    fov
        bool (H, W): the retina, from `field_of_view`.
    logo_size
        Width w and height h of the scaled logo, in pixels.
    boxes
        Lesion boxes in pixels of `fov`.
    mode
        Whether to avoid them.
    min_on_retina
        Smallest share of the logo's rectangle that lies on the retina: beside
        it, a logo can be cropped away.

    Returns
    -------
    ndarray
        bool (H - h + 1, W - w + 1), indexed [y, x]; without True where no
        position is feasible, and of size 0 where the logo exceeds the image.
    """
    width, height = logo_size
    shape = (max(0, fov.shape[0] - height + 1), max(0, fov.shape[1] - width + 1))
    if 0 in shape:
        return np.zeros(shape, np.bool_)
    allowed = _on_retina(fov, width, height, min_on_retina)
    if mode is Mode.AVOID:
        for box in boxes:
            allowed[_touching(box, width, height)] = False
    elif mode is Mode.INSIDE:
        allowed &= _inside(boxes, width, height, shape)
    return allowed


def _on_retina(fov: NDArray[np.bool_], width: int, height: int, share: float) -> Allowed:
    """Count retina pixels under the logo at every position by an integral image."""
    total = np.asarray(cv2.integral(fov.astype(np.uint8)), np.int32)
    under = total[height:, width:] - total[:-height, width:]
    under += total[:-height, :-width] - total[height:, :-width]
    # A share of 0.9 is not exact in binary: half a millionth of a pixel is forgiven.
    return np.asarray(under >= ceil(share * width * height - 5e-7), np.bool_)


def _touching(box: Box, width: int, height: int) -> tuple[slice, slice]:
    """Positions at which logo and box share a pixel: bx - w < x < bx + bw, and so for y."""
    return (
        slice(max(0, box.y - height + 1), max(0, box.bottom)),
        slice(max(0, box.x - width + 1), max(0, box.right)),
    )


def _inside(boxes: Iterable[Box], width: int, height: int, shape: tuple[int, int]) -> Allowed:
    allowed = np.zeros(shape, np.bool_)
    for box in boxes:
        rows, columns = _nested(box.y, box.height, height), _nested(box.x, box.width, width)
        allowed[rows, columns] = True
    return allowed


def _nested(start: int, length: int, logo: int) -> slice:
    """Positions along one axis at which the shorter of box and logo lies within the other."""
    low, high = sorted((start, start + length - logo))
    return slice(max(0, low), max(0, high + 1))
