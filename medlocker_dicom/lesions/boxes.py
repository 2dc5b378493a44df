"""From a lesion mask to the boxes that a logo keeps clear of (section 2.2, steps 2 to 4)."""

from collections.abc import Iterable
from dataclasses import dataclass
from math import sqrt
from typing import Any

import cv2
import numpy as np
import SimpleITK as sitk  # noqa: N813  # the name that its documentation uses
from numpy.typing import NDArray

PAPER_PIXELS = 4288 * 2848
"""Size of the images for which the paper states its kernel and threshold."""
PAPER_REACH = 45
"""Ten iterations of a 10 x 10 kernel grow a pixel to 91 x 91."""
PAPER_MIN_AREA_FRACTION = 5e4 / PAPER_PIXELS
"""The paper's threshold of 5e4 pixels: 0.41 % of the image."""
MAX_OVERLAP = 0.5
"""Boxes of a larger intersection over union are merged."""


@dataclass(frozen=True, order=True)
class Box:
    """A rectangle of pixels: columns x .. x + width - 1, rows y .. y + height - 1."""

    x: int
    y: int
    width: int
    height: int

    @property
    def right(self) -> int:
        """First column beyond the box."""
        return self.x + self.width

    @property
    def bottom(self) -> int:
        """First row beyond the box."""
        return self.y + self.height

    @property
    def area(self) -> int:
        """Pixels in the box."""
        return self.width * self.height


def lesion_boxes(
    mask: NDArray[np.bool_], min_area_fraction: float = PAPER_MIN_AREA_FRACTION
) -> tuple[Box, ...]:
    """Group lesion pixels into boxes (steps 2 to 4).

    Parameters
    ----------
    mask
        bool (H, W): lesion pixels of any kind (step 1).
    min_area_fraction
        Dilated regions of at most this share of the image are dropped
        (step 3). The paper's value leaves small lone lesions unprotected;
        0 protects every one.

    Returns
    -------
    tuple of Box
        Sorted boxes in pixels of the mask, no two of which overlap by an
        intersection over union above 0.5.

    Notes
    -----
    The paper dilates by a 10 x 10 kernel ten times on 4288 x 2848 pixels; here
    the reach scales with the square root of the pixel count, as the threshold
    scales with the count, and is the same on both sides. Equation 7 takes the
    larger width and height, which need not cover both boxes: here it is the hull.
    """
    if not mask.any():
        return ()
    reach = max(1, round(PAPER_REACH * sqrt(mask.size / PAPER_PIXELS)))
    kernel = np.ones((2 * reach + 1, 2 * reach + 1), np.uint8)
    grown = np.asarray(cv2.dilate(mask.astype(np.uint8), kernel), np.uint8)
    return merge_boxes(_regions(grown, min_area_fraction * mask.size))


def merge_boxes(boxes: Iterable[Box]) -> tuple[Box, ...]:
    """Merge boxes by their hull until none overlaps another by more than half (step 4).

    Parameters
    ----------
    boxes
        Any boxes.

    Returns
    -------
    tuple of Box
        Sorted boxes that cover the given ones.
    """
    todo = sorted(set(boxes), reverse=True)
    done: list[Box] = []
    while todo:
        box = todo.pop()
        twin = next((other for other in done if overlap(box, other) > MAX_OVERLAP), None)
        if twin is None:
            done.append(box)
        else:
            done.remove(twin)
            todo.append(hull(box, twin))
    return tuple(sorted(done))


def overlap(one: Box, two: Box) -> float:
    """Compute the intersection over union of two boxes.

    Parameters
    ----------
    one, two
        Boxes in the same image.

    Returns
    -------
    float
        0 to 1.
    """
    width = min(one.right, two.right) - max(one.x, two.x)
    height = min(one.bottom, two.bottom) - max(one.y, two.y)
    shared = max(width, 0) * max(height, 0)
    return shared / (one.area + two.area - shared) if shared else 0.0


def hull(one: Box, two: Box) -> Box:
    """Return the smallest box that covers two.

    Parameters
    ----------
    one, two
        Boxes in the same image.

    Returns
    -------
    Box
        Their common bounding box.
    """
    x, y = min(one.x, two.x), min(one.y, two.y)
    return Box(x, y, max(one.right, two.right) - x, max(one.bottom, two.bottom) - y)


def _regions(grown: NDArray[np.uint8], min_area: float) -> list[Box]:
    """Boxes of the connected regions (corners connect) that are larger than `min_area`."""
    image = sitk.GetImageFromArray(grown)
    # SimpleITK ships no types; its second argument connects corners.
    labels: Any = sitk.ConnectedComponent(image, True)  # type: ignore[no-untyped-call]  # noqa: FBT003
    shapes: Any = sitk.LabelShapeStatisticsImageFilter()  # type: ignore[no-untyped-call]
    shapes.ComputePerimeterOff()
    shapes.Execute(labels)
    return [
        Box(*shapes.GetBoundingBox(label))
        for label in shapes.GetLabels()
        if shapes.GetNumberOfPixels(label) > min_area
    ]
