"""The optic disc: an eye has one, and a plaque of exudates looks like another."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import cv2
import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

#: Of the width of a photograph of the retina, of which a disc is an eighth: parts of a disc that
#: are nearer to each other than this are one.
_NEAR: Final = 1 / 24
#: Area of what passes for a disc, at least, by the square of that width: a sixth of a disc's.
_AREA: Final = 0.002
_COARSE: Final = 4


def rival_discs(disc: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Find what passes for the optic disc in more than one place.

    Parameters
    ----------
    disc
        bool (H, W): what was taken for the disc, in a photograph cut to its retina.

    Returns
    -------
    ndarray
        bool (H, W): px of all regions as large as a disc, if they are several; else none.
    """
    height, width = disc.shape
    small = (max(1, width // _COARSE), max(1, height // _COARSE))
    coarse = cv2.resize(disc.astype(np.uint8), small, interpolation=cv2.INTER_NEAREST)
    reach = 2 * round(width * _NEAR / _COARSE / 2) + 1
    near = cv2.dilate(coarse, cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (reach, reach)))
    _, joined = cv2.connectedComponents(near)
    regions = cv2.resize(joined.astype(np.int32), (width, height), interpolation=cv2.INTER_NEAREST)
    areas = np.bincount(regions[disc], minlength=1)
    large = areas >= _AREA * width**2
    large[0] = False
    if np.count_nonzero(large) < 2:
        return np.zeros_like(disc)
    return disc & large[regions]
