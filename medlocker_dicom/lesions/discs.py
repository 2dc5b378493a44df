"""The optic disc: an eye has one, and a plaque of exudates looks like another."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import cv2
import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

#: Parts of a disc that are nearer to each other than this are one, by the retina's diameter, of
#: which a disc is about a seventh.
_NEAR: Final = 1 / 20
#: Area of what passes for a disc, at least, by the square of the diameter: a sixth of a disc's.
_AREA: Final = 0.003
_COARSE: Final = 4


def rival_discs(disc: NDArray[np.bool_], diameter: int) -> NDArray[np.bool_]:
    """Find what passes for the optic disc in more than one place.

    Parameters
    ----------
    disc
        bool (H, W): what was taken for the disc.
    diameter
        Of the photograph's retina, px.

    Returns
    -------
    ndarray
        bool (H, W): px of all regions as large as a disc, if they are several; else none.
    """
    height, width = disc.shape
    small = (max(1, width // _COARSE), max(1, height // _COARSE))
    coarse = cv2.resize(disc.astype(np.uint8), small, interpolation=cv2.INTER_NEAREST)
    reach = 2 * round(diameter * _NEAR / _COARSE / 2) + 1
    near = cv2.dilate(coarse, cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (reach, reach)))
    count, joined = cv2.connectedComponents(near)
    regions = cv2.resize(joined.astype(np.int32), (width, height), interpolation=cv2.INTER_NEAREST)
    large = np.bincount(regions[disc], minlength=count) >= _AREA * diameter**2
    large[0] = False
    if np.count_nonzero(large) < 2:
        return np.zeros_like(disc)
    rivals: NDArray[np.bool_] = disc & large[regions]
    return rivals
