"""Exact inverse of the blend (equation 9, with what its rounding loses).

A locked value has at most g = ceil(255 / (255 - a)) preimages, a run of
neighbouring values. The residual counts from the lowest of them, so that
interval arithmetic in integers gives every original sample back.
"""

import numpy as np
from numpy.typing import NDArray

from medlocker_dicom.errors import PacketError
from medlocker_dicom.watermark.blend import Sample, blend, check_fit


def residual(
    original: NDArray[Sample],
    locked: NDArray[Sample],
    logo: NDArray[Sample],
    a: NDArray[np.uint8],
) -> NDArray[Sample]:
    """Compute what equation 9 needs beside the locked pixels to be exact.

    Parameters
    ----------
    original
        uint8 or uint16 (..., h, w, C): the covered part of the image.
    locked
        Same shape and dtype: `blend(original, logo, a)`.
    logo
        Same dtype, (h, w, C).
    a
        uint8 (h, w, C) or (h, w, 1), 0 to 255.

    Returns
    -------
    ndarray
        Like `original`: 0 .. g - 1 where a < 255, the sample itself where
        a = 255, since nothing of it is left in the image.

    Raises
    ------
    PixelLayoutError
        If the arrays do not fit each other.
    """
    check_fit(original, logo, a)
    check_fit(locked, logo, a)
    rest = original.astype(np.int32) - _lowest(locked, logo, a)
    return rest.astype(original.dtype)


def restore(
    locked: NDArray[Sample],
    residual: NDArray[Sample],
    logo: NDArray[Sample],
    a: NDArray[np.uint8],
) -> NDArray[Sample]:
    """Take the logo off, exactly.

    Parameters
    ----------
    locked
        uint8 or uint16 (..., h, w, C): the covered part of the locked image.
    residual
        Same shape and dtype, from `residual`.
    logo
        Same dtype, (h, w, C).
    a
        uint8 (h, w, C) or (h, w, 1), 0 to 255.

    Returns
    -------
    ndarray
        The original samples.

    Raises
    ------
    PacketError
        If some residual leads to a value that does not blend to the locked
        one. (A wrong residual inside its interval can only be noticed by the
        digest of the whole image.)
    PixelLayoutError
        If the arrays do not fit each other.
    """
    check_fit(locked, logo, a)
    check_fit(residual, logo, a)
    if locked.shape != residual.shape:
        raise PacketError(f"the residual is {residual.shape}, the locked part {locked.shape}")
    value = _lowest(locked, logo, a) + residual
    if value.max(initial=0) > np.iinfo(locked.dtype).max:
        raise PacketError("the residual leads out of the sample range")
    original = value.astype(locked.dtype)
    if not np.array_equal(blend(original, logo, a), locked):
        raise PacketError("the residual does not belong to these locked pixels")
    return original


def _lowest(
    locked: NDArray[Sample], logo: NDArray[Sample], a: NDArray[np.uint8]
) -> NDArray[np.int32]:
    """Lowest value that blends to `locked` or above, 0 where a = 255."""
    opacity = a.astype(np.int32)
    # o >= (510 I - 255 - 2 a l) / (2 (255 - a)); all below 2**25 in magnitude.
    numerator = locked.astype(np.int32) * 510 - (logo * (2 * opacity) + 255)
    divisor = 2 * (255 - opacity)
    ceiling = -(-numerator // np.maximum(divisor, 1))
    return np.where(divisor == 0, 0, np.maximum(ceiling, 0)).astype(np.int32)
