"""Resize a logo to an image (equation 2). Lock side only: needs Pillow."""

from fractions import Fraction
from math import floor, isfinite

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from medlocker_dicom.errors import LogoError
from medlocker_dicom.watermark.logo import Logo, size_fits

_FAINTEST = 8
"""Opacity below which a pixel is left out: 3 %, the ripple of Lanczos around edges."""


def scaled_size(logo: Logo, width: int, height: int, sl: float) -> tuple[int, int]:
    """Compute the logo's size on an image (equation 2).

    Parameters
    ----------
    logo
        The logo, M x N pixels.
    width, height
        W and H of the image, in pixels.
    sl
        Scaling factor: the logo takes at most 1 / sl of either side.

    Returns
    -------
    tuple of int
        Width and height in pixels: rounded down, at least 1.

    Raises
    ------
    LogoError
        If sl is not positive, or the scaled logo is larger than the image.
    """
    if not isfinite(sl) or sl <= 0:
        raise LogoError(f"the logo's scaling factor {sl} is not positive", "4 is the usual one")
    exact = Fraction(sl)
    factor = min(Fraction(width) / (exact * logo.width), Fraction(height) / (exact * logo.height))
    size = (max(1, floor(factor * logo.width)), max(1, floor(factor * logo.height)))
    if size[0] > width or size[1] > height or not size_fits(*size):
        raise LogoError(
            f"the logo scaled to {size[0]} x {size[1]} pixels does not fit "
            f"into an image of {width} x {height}",
            "use a scaling factor of 1 or more; 4 is the usual one",
        )
    return size


def scale_logo(logo: Logo, width: int, height: int, sl: float) -> Logo:
    """Resize a logo for an image by Lanczos (equation 2).

    Parameters
    ----------
    logo
        The logo as loaded.
    width, height
        W and H of the image, in pixels.
    sl
        Scaling factor: 4 makes the logo a quarter as wide as the image.

    Returns
    -------
    Logo
        The scaled logo, whose `sha256` the packet names.

    Raises
    ------
    LogoError
        If sl is not positive, the scaled logo is larger than the image, or
        nothing of it can be seen at that size.
    """
    size = scaled_size(logo, width, height, sl)
    alpha = logo.alpha.astype(np.float32)
    opacity = _lanczos(alpha, size)
    planes = [_lanczos(logo.rgba[..., c] * alpha, size) for c in range(3)]
    # Colours weigh by their opacity, so that the colour of transparent pixels does
    # not bleed into edges. Dividing by the opacity before it is clipped keeps the
    # colour right where Lanczos overshoots (Pillow's own RGBA resize is 16 off there).
    seen = opacity >= _FAINTEST
    rgba = np.zeros((size[1], size[0], 4), np.float32)
    rgba[seen, 3] = opacity[seen]
    for c, plane in enumerate(planes):
        rgba[seen, c] = plane[seen] / opacity[seen]
    return Logo(np.rint(np.clip(rgba, 0, 255)).astype(np.uint8))


def _lanczos(plane: NDArray[np.float32], size: tuple[int, int]) -> NDArray[np.float32]:
    image = Image.fromarray(np.ascontiguousarray(plane), "F")
    return np.asarray(image.resize(size, Image.Resampling.LANCZOS), np.float32)
