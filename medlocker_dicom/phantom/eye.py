"""Where things are in a generated eye, and how it is measured."""

from dataclasses import dataclass
from enum import IntFlag
from functools import cached_property
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from medlocker_dicom.errors import PixelLayoutError

Floats = npt.NDArray[np.float32]
"""A picture or a map, float32 ``(H, W)`` or ``(H, W, 3)`` RGB, mostly 0 to 1."""

Points = npt.NDArray[np.float64]
"""Points of the eye, float64 ``(n, 2)``, rows ``(u, v)`` in units of the field's radius."""

SMALLEST_SIDE = 96  # px; below that a microaneurysm has no pixel of its own
LARGEST_SIDE = 4608  # px; the sides of a 21-megapixel camera, about 3 GB while it is drawn


class Bit(IntFlag):
    """Bits of the ground truth, in the order of IDRiD's classes."""

    MA = 1
    """Microaneurysm."""
    HE = 2
    """Haemorrhage."""
    EX = 4
    """Hard exudate."""
    SE = 8
    """Soft exudate (cotton wool spot)."""
    OD = 16
    """Optic disc."""


@dataclass(frozen=True)
class Eye:
    """Layout of one eye.

    Points of the eye are in units of the field's radius, measured from the
    field's centre, u to the right and v down.

    Attributes
    ----------
    height, width
        Size of the photograph in pixels.
    temporal
        Direction from the disc to the macula: 1 to the right, -1 to the left.
    disc, macula
        Centres, float64 ``(2,)``.
    disc_axes
        Half-axes of the disc, horizontal and vertical, in radii.
    """

    height: int
    width: int
    temporal: int
    disc: Points
    macula: Points
    disc_axes: tuple[float, float]

    @property
    def radius(self) -> float:
        """Radius of the field of view in pixels; wide images cut its top and bottom."""
        return min(0.48 * self.width, 0.56 * self.height)

    @property
    def centre(self) -> Points:
        """Centre of the field of view in pixels, ``(x, y)``."""
        return np.array([(self.width - 1) / 2, (self.height - 1) / 2])

    @cached_property
    def grid(self) -> tuple[Floats, Floats]:
        """Coordinates u and v of every pixel, float32 ``(H, W)`` each."""
        x, y = self.centre
        u = (np.arange(self.width, dtype=np.float32) - np.float32(x)) / np.float32(self.radius)
        v = (np.arange(self.height, dtype=np.float32) - np.float32(y)) / np.float32(self.radius)
        full = np.meshgrid(u, v)
        return full[0], full[1]

    @cached_property
    def field(self) -> Floats:
        """Coverage of each pixel by the field of view, 0 to 1; the edge is soft."""
        inside = (1 - np.hypot(*self.grid)) * np.float32(self.radius / 1.5)
        return np.clip(inside, 0, 1)

    def distance(self, point: Points) -> Floats:
        """Distance of every pixel from a point, in radii, float32 ``(H, W)``."""
        u, v = self.grid
        away: Floats = np.hypot(u - np.float32(point[0]), v - np.float32(point[1]))
        return away

    def pixels(self, points: Points) -> Points:
        """Convert points of the eye to pixel coordinates ``(x, y)``."""
        return np.asarray(points) * self.radius + self.centre


def rgb(red: float, green: float, blue: float) -> Floats:
    """Make a colour that multiplies or adds to a picture, float32 ``(3,)``."""
    return np.array([red, green, blue], dtype=np.float32)


def random_eye(rng: np.random.Generator, size: tuple[int, int]) -> Eye:
    """Lay out an eye, left or right, its macula near the middle of the field.

    Parameters
    ----------
    rng
        Source of every choice.
    size
        ``(H, W)`` in pixels, each 96 to 4608.

    Raises
    ------
    PixelLayoutError
        The size is out of range.
    """
    height, width = size
    if not (min(size) >= SMALLEST_SIDE and max(size) <= LARGEST_SIDE):
        raise PixelLayoutError(
            f"no phantom of {width} x {height} pixels",
            f"sides may be {SMALLEST_SIDE} to {LARGEST_SIDE} pixels",
        )
    temporal = int(rng.choice([-1, 1]))
    macula = np.array([temporal * rng.uniform(0.02, 0.12), rng.uniform(0.0, 0.08)])
    apart = np.array([-temporal * rng.uniform(0.68, 0.76), -rng.uniform(0.05, 0.13)])
    across = rng.uniform(0.13, 0.15)
    axes = (across, across * rng.uniform(1.05, 1.16))
    return Eye(height, width, temporal, macula + apart, macula, axes)


def noise(rng: np.random.Generator, shape: tuple[int, ...], grain: float) -> Floats:
    """Draw smooth noise, about standard normal.

    Parameters
    ----------
    rng
        Source of the values.
    shape
        ``(H, W)`` of the result.
    grain
        Size of a speck in pixels.

    Returns
    -------
    numpy.ndarray
        float32 `shape`.
    """
    cells = [max(int(np.ceil(side / max(grain, 1.0))), 2) + 3 for side in shape]
    coarse = rng.standard_normal(cells).astype(np.float32)
    scale = max(grain, 1.0)
    place = np.array([[1 / scale, 0, 1], [0, 1 / scale, 1]], dtype=np.float64)
    flags = cv2.INTER_CUBIC | cv2.WARP_INVERSE_MAP
    drawn: npt.NDArray[Any] = cv2.warpAffine(coarse, place, shape[::-1], flags=flags)
    smooth = drawn.astype(np.float32)
    return smooth / np.float32(max(float(smooth.std()), 1e-6))
