"""What every model sees of a photograph: the retina, square, at the model's size."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import cv2
import numpy as np

from medlocker_dicom.lesions.fov import bounding_box, field_of_view

if TYPE_CHECKING:
    from numpy.typing import NDArray

#: Mean and standard deviation of RGB in 0..1 that all our classifiers expect.
MEAN = (0.43, 0.31, 0.23)
STD = (0.30, 0.25, 0.24)
_LEVELS = np.arange(256, dtype=np.float32)[:, None] / np.float32(255)
#: float32 (3, 256, 1): what each channel's levels become.
_NORMAL = (
    ((_LEVELS - np.asarray(MEAN, np.float32)) / np.asarray(STD, np.float32)).T[..., None].copy()
)


@dataclass(frozen=True)
class Crop:
    """A square window around the retina; it may reach beyond the image.

    Attributes
    ----------
    x, y
        Top-left corner in image px; may be negative.
    side
        Side in image px, at least 1.
    """

    x: int
    y: int
    side: int


def retina_crop(rgb: NDArray[np.uint8]) -> Crop:
    """Find the smallest centred square that holds the field of view.

    Parameters
    ----------
    rgb
        uint8 (H, W, 3).
    """
    box = bounding_box(field_of_view(rgb))
    side = max(box.width, box.height, 1)
    x = box.x - (side - box.width) // 2
    y = box.y - (side - box.height) // 2
    return Crop(x, y, side)


def cut(rgb: NDArray[np.uint8], crop: Crop) -> NDArray[np.uint8]:
    """Cut a window out of an image; what lies outside the image is black.

    Parameters
    ----------
    rgb
        uint8 (H, W, ...).
    crop
        The window.

    Returns
    -------
    ndarray
        uint8 (side, side, ...).
    """
    height, width = rgb.shape[:2]
    top, left = max(crop.y, 0), max(crop.x, 0)
    bottom, right = min(crop.y + crop.side, height), min(crop.x + crop.side, width)
    window = np.zeros((crop.side, crop.side, *rgb.shape[2:]), rgb.dtype)
    if top >= bottom or left >= right:
        return window
    window[top - crop.y : bottom - crop.y, left - crop.x : right - crop.x] = rgb[
        top:bottom, left:right
    ]
    return window


def crop_to_retina(rgb: NDArray[np.uint8], size: int) -> NDArray[np.uint8]:
    """Crop to the retina and resample to ``size`` px by area averaging.

    Parameters
    ----------
    rgb
        uint8 (H, W, 3).
    size
        Side of the result in px.

    Returns
    -------
    ndarray
        uint8 (size, size, 3).
    """
    return resample(cut(rgb, retina_crop(rgb)), (size, size))


def resample(image: NDArray[np.uint8], size: tuple[int, int]) -> NDArray[np.uint8]:
    """Resample to (width, height): area averaging down, linear up."""
    shrinks = size[0] < image.shape[1]
    how = cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
    return np.asarray(cv2.resize(image, size, interpolation=how), np.uint8)


def normalise(rgb: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Bring crops into the classifiers' range.

    Parameters
    ----------
    rgb
        uint8 (B, size, size, 3).

    Returns
    -------
    ndarray
        float32 (B, 3, size, size), about zero mean and unit variance.
    """
    normal = np.empty((len(rgb), 3, *rgb.shape[1:3]), np.float32)
    for planes, image in zip(normal, rgb, strict=True):
        for plane, channel, levels in zip(planes, cv2.split(image), _NORMAL, strict=True):
            cv2.LUT(channel, levels, dst=plane)
    return normal


def retina_at(
    rgb: NDArray[np.uint8], diameter: int, mask: NDArray[np.uint8] | None
) -> tuple[NDArray[np.uint8], NDArray[np.uint8] | None]:
    """Resample a whole photograph so that its retina is ``diameter`` px wide.

    Parameters
    ----------
    rgb
        uint8 (H, W, 3).
    diameter
        Wanted side of the retina's window in px.
    mask
        uint8 (H, W) bit mask of the same photograph, or None.

    Returns
    -------
    tuple
        uint8 (H', W', 3) and, where a mask was given, uint8 (H', W'): a bit is
        set where at least 30 % of the area under a px carries it, so that small
        lesions survive.
    """
    scale = diameter / retina_crop(rgb).side
    size = (max(1, round(rgb.shape[1] * scale)), max(1, round(rgb.shape[0] * scale)))
    image = resample(rgb, size)
    if mask is None:
        return image, None
    small = np.zeros(image.shape[:2], np.uint8)
    for bit in range(8):
        plane = (mask >> bit & 1).astype(np.float32)
        if plane.any():
            how = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
            share = cv2.resize(plane, size, interpolation=how)
            small |= ((share >= 0.3).astype(np.uint8) << bit).astype(np.uint8)
    return image, small
