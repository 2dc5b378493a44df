"""How much of a logo can be read once it is blended. Lock side only: needs OpenCV."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import cv2
import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

#: px of the logo's longer side on a screen that shows a whole photograph.
_SEEN: Final = 256
#: Strokes are what differs from its surroundings, so many parts of the logo's side wide.
_SURROUNDINGS: Final = 4
_FLAT: Final = 1e-6


def legibility(
    original: NDArray[Any],
    locked: NDArray[Any],
    colours: NDArray[Any],
    alpha: NDArray[np.uint8],
) -> float:
    """Compare strokes as they are seen with those of the opaque logo, at the size of a screen.

    Parameters
    ----------
    original, locked
        (h, w, C) of one depth: what was under the logo, and what is there now.
    colours
        (h, w, C): the logo in the same samples.
    alpha
        uint8 (h, w): its own opacity.

    Returns
    -------
    float
        Correlation of the two in luminance, less the mean over a quarter of the logo around each
        px: 1 for all of it, 0 for noise, below for a negative; 1 too for a logo without strokes.
    """
    share = alpha[..., None] / np.float32(255)
    opaque = original * (1 - share) + colours * share
    wanted, seen = (_strokes(image.mean(-1, dtype=np.float32)) for image in (opaque, locked))
    size = float(np.sqrt((wanted**2).mean() * (seen**2).mean()))
    return float((wanted * seen).mean()) / size if size > _FLAT else 1.0


def _strokes(image: NDArray[np.float32]) -> NDArray[np.float32]:
    """Take the surroundings off an image (h, w), brought to a screen's size."""
    scale = min(1.0, _SEEN / max(image.shape))
    height, width = (max(1, round(side * scale)) for side in image.shape)
    small = cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA)
    around = max(1, max(height, width) // _SURROUNDINGS)
    strokes: NDArray[np.float32] = small - cv2.blur(
        small, (around, around), borderType=cv2.BORDER_REFLECT
    )
    return strokes
