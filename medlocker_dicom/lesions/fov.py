"""The field of view: which pixels of a fundus photograph show the retina."""

import cv2
import numpy as np
from numpy.typing import NDArray

from medlocker_dicom.errors import NotFundusError, PixelLayoutError
from medlocker_dicom.lesions.boxes import Box

Image = NDArray[np.uint8]

_SIDE = 320
"""Longer side of the copy that is looked at, in pixels."""
_SPECK = 17
"""Tabs, letters and specks up to this many pixels of the copy are no retina."""
_LEAST_RISE, _RISE = 4, 0.1
"""The retina is this much brighter than the border: in levels, and as a share of its own."""
_DARK = 0.4
"""A border is darker than this share of the retina."""
_LEAST_SHARE = 0.05
"""A retina fills at least this share of the photograph."""


def field_of_view(rgb: Image) -> NDArray[np.bool_]:
    """Find the retina.

    The brightest large region is taken on a small copy and made convex: a
    field of view is a disc, or a disc cut by straight edges. What is darker
    inside it (vignetting, a blocked pupil) therefore belongs to it.

    Parameters
    ----------
    rgb
        uint8 (H, W, 3) RGB.

    Returns
    -------
    ndarray
        bool (H, W); all True for a photograph without a dark border.

    Raises
    ------
    NotFundusError
        If nothing rises from the dark.
    PixelLayoutError
        If the array is no 8-bit RGB image.
    """
    if rgb.dtype != np.uint8 or rgb.ndim != 3 or rgb.shape[2] != 3 or not rgb.size:
        raise PixelLayoutError(
            f"a field of view needs uint8 (H, W, 3), not {rgb.dtype} {rgb.shape}"
        )
    value = _small_value(rgb)
    outline = _outline(value)
    height, width = rgb.shape[:2]
    scale = np.array([width / value.shape[1], height / value.shape[0]])
    # An outline along the frame reaches to the frame.
    last = np.array(value.shape[::-1]) - 1
    outward = np.where(outline == last, 0.5, np.where(outline == 0, -0.5, 0.0))
    corners = (outline + 0.5 + outward) * scale - 0.5
    mask = np.zeros((height, width), np.uint8)
    # Four bits after the point keep the edge smooth at full size.
    cv2.fillConvexPoly(mask, np.rint(corners * 16).astype(np.int32), 1, cv2.LINE_8, 4)
    return mask.astype(np.bool_)


def bounding_box(mask: NDArray[np.bool_]) -> Box:
    """Return the smallest box that covers a mask.

    Parameters
    ----------
    mask
        bool (H, W), for instance from `field_of_view`.

    Returns
    -------
    Box
        In pixels of the mask.

    Raises
    ------
    NotFundusError
        If the mask is empty.
    """
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    if not rows.size:
        raise NotFundusError("the field of view is empty")
    x, y = int(columns[0]), int(rows[0])
    return Box(x, y, int(columns[-1]) - x + 1, int(rows[-1]) - y + 1)


def _small_value(rgb: Image) -> Image:
    """Largest channel of a small copy, without specks of noise."""
    height, width = rgb.shape[:2]
    factor = min(1.0, _SIDE / max(height, width))
    size = (max(1, round(width * factor)), max(1, round(height * factor)))
    small = cv2.resize(rgb, size, interpolation=cv2.INTER_AREA)
    return np.asarray(cv2.medianBlur(np.asarray(small, np.uint8).max(axis=-1), 5), np.uint8)


def _outline(value: Image) -> NDArray[np.int32]:
    """Corners of the retina on the small copy; int32 (n, 2) as x, y."""
    dark, bright = (float(level) for level in np.percentile(value, (1, 90)))
    # Without a border, the darkest pixels are retina as well.
    dark = min(dark, _DARK * bright)
    rise = max(_LEAST_RISE, _RISE * (bright - dark))
    if bright < dark + rise:
        raise NotFundusError(
            "the photograph is dark all over", "no retina was found; look at the image"
        )
    lit = (value >= dark + rise).astype(np.uint8)
    kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (_SPECK, _SPECK))
    opened = cv2.morphologyEx(lit, cv2.MORPH_OPEN, kernel)
    contours, _ = cv2.findContours(opened, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    areas = [cv2.contourArea(contour) for contour in contours]
    if max(areas, default=0) < _LEAST_SHARE * value.size:
        raise NotFundusError("no retina was found in the photograph", "look at the image")
    hull = cv2.convexHull(contours[int(np.argmax(areas))])
    return np.asarray(hull, np.int32).reshape(-1, 2)
