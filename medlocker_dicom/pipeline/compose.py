"""The exact blend on the full image, and what it takes to undo it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from medlocker_dicom.keyfile import (
    FrameMark,
)
from medlocker_dicom.watermark.alpha import RULE, alpha_map
from medlocker_dicom.watermark.blend import blend, logo_samples
from medlocker_dicom.watermark.codec import encode_residual
from medlocker_dicom.watermark.recover import residual

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from medlocker_dicom.watermark.logo import Logo
    from medlocker_dicom.watermark.placement import Placement


def blend_into(
    frame: NDArray[Any], placement: Placement, logo: Logo, seed: bytes, bits: int
) -> FrameMark:
    """Blend the logo into a frame (H, W, C) in place (eq. 1); what is lost goes into the mark."""
    covered = compose(frame, placement, logo, seed, bits)
    lost = encode_residual(
        residual(covered.original, covered.locked, covered.colours, covered.opacity)
    )
    return FrameMark(
        x=placement.x,
        y=placement.y,
        alpha=placement.alpha,
        rule=RULE,
        grid=placement.grid,
        seed=seed,
        logo_sha256=logo.sha256,
        logo=0,
        residual=lost,
    )


@dataclass(frozen=True)
class Covered:
    """The part of a frame under the logo.

    Attributes
    ----------
    original, locked
        (h, w, C), before and after.
    colours
        (h, w, C): the logo in the frame's samples.
    opacity
        uint8 (h, w, C): the list L.
    """

    original: NDArray[Any]
    locked: NDArray[Any]
    colours: NDArray[Any]
    opacity: NDArray[np.uint8]


def compose(
    frame: NDArray[Any], placement: Placement, logo: Logo, seed: bytes, bits: int
) -> Covered:
    """Blend the logo into a frame (H, W, C) in place (eq. 1)."""
    window = np.s_[placement.y : placement.y + logo.height, placement.x : placement.x + logo.width]
    channels = frame.shape[-1]
    opacity = alpha_map(logo.alpha, placement.alpha, seed, grid=placement.grid, channels=channels)
    # 8 bits may be stored in 16.
    colours = logo_samples(logo.rgba, channels, bits).astype(frame.dtype)
    original = frame[window].copy()
    locked = blend(original, colours, opacity)
    frame[window] = locked
    return Covered(original, locked, colours, opacity)
