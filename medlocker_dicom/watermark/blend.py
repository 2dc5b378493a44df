"""Alpha blending in integers (equation 1)."""

from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from medlocker_dicom.errors import PixelLayoutError

Sample = TypeVar("Sample", np.uint8, np.uint16)
"""Images hold 8-bit samples in uint8, or 9 to 16 bits in uint16."""

# BT.601 luma in thousandths, the weights of PS3.3 C.7.6.3.1.2 (YBR_FULL).
_LUMA = np.array([299, 587, 114], np.uint32)


def blend(
    original: NDArray[Sample], logo: NDArray[Sample], a: NDArray[np.uint8]
) -> NDArray[Sample]:
    """Blend a logo over the part of an image that it covers.

    Each sample is (2 (255 - a) o + 2 a l + 255) // 510: equation 1 rounded
    half up, in integers, hence the same on every machine.

    Parameters
    ----------
    original
        uint8 or uint16 (..., h, w, C): the covered part of the image.
    logo
        Same dtype, (h, w, C): the logo's colours in the image's sample range.
    a
        uint8 (h, w, C): opacity of each sample, 0 to 255 (`alpha_map`); (h, w, 1) where all
        channels have the same.

    Returns
    -------
    ndarray
        Same shape and dtype as `original`.

    Raises
    ------
    PixelLayoutError
        If the arrays do not fit each other.
    """
    check_fit(original, logo, a)
    opacity = a.astype(np.uint32)
    # At most 510 * 65535 + 255 < 2**25: uint32 cannot overflow.
    total = original * (2 * (255 - opacity)) + (logo * (2 * opacity) + np.uint32(255))
    return (total // np.uint32(510)).astype(original.dtype)


def logo_samples(
    rgba: NDArray[np.uint8], channels: int, bits: int
) -> NDArray[np.uint8] | NDArray[np.uint16]:
    """Bring a logo's colours to the sample range of an image.

    Parameters
    ----------
    rgba
        uint8 (h, w, 4 or 3); alpha is not looked at.
    channels
        3 for RGB, 1 for grey (BT.601 luma).
    bits
        Bits Stored of the image, 8 to 16.

    Returns
    -------
    ndarray
        (h, w, channels) in 0 .. 2**bits - 1; uint8 if `bits` is 8, else uint16.

    Raises
    ------
    PixelLayoutError
        If `channels` or `bits` is anything else.
    """
    if channels not in (1, 3) or not 8 <= bits <= 16:
        raise PixelLayoutError(f"cannot draw a logo in {channels} channels of {bits} bits")
    colour = rgba[..., :3].astype(np.uint32)
    if channels == 1:
        colour = ((colour * _LUMA).sum(axis=-1, keepdims=True, dtype=np.uint32) + 500) // 1000
    scaled = (2 * colour * ((1 << bits) - 1) + 255) // 510
    return scaled.astype(np.uint8) if bits == 8 else scaled.astype(np.uint16)


def check_fit(image: NDArray[Sample], logo: NDArray[Sample], a: NDArray[np.uint8]) -> None:
    """Refuse arrays that do not belong together.

    Parameters
    ----------
    image
        uint8 or uint16 (..., h, w, C).
    logo
        Same dtype, (h, w, C).
    a
        uint8 (h, w, C) or (h, w, 1).

    Raises
    ------
    PixelLayoutError
        If a shape or dtype differs.
    """
    if image.dtype not in (np.uint8, np.uint16) or logo.dtype != image.dtype:
        raise PixelLayoutError(
            f"image and logo are both uint8 or both uint16, not {image.dtype} and {logo.dtype}"
        )
    alike = (*logo.shape[:2], 1)
    if image.shape[-3:] != logo.shape or a.shape not in (logo.shape, alike) or a.dtype != np.uint8:
        raise PixelLayoutError(
            f"image {image.shape}, logo {logo.shape} and alpha {a.dtype} {a.shape} do not fit"
        )
