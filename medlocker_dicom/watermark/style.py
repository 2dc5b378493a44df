"""The look of a logo: as it is, or drawn anew in lines or dots. Lock side only: needs OpenCV.

Strokes in the colour and grain of a lesion are there to reach graders that a search has not seen;
they also cover less. The logo stays a logo: its shape is its own.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from types import MappingProxyType
from typing import TYPE_CHECKING, Final

import cv2
import numpy as np

from medlocker_dicom.errors import UsageError
from medlocker_dicom.watermark.logo import Logo

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

OWN = "own"
PALETTE: Mapping[str, tuple[int, int, int]] = MappingProxyType(
    {"dark-red": (112, 18, 16), "yellow": (245, 225, 120), "white": (255, 255, 255)}
)
"""Colours by name, RGB: of haemorrhages, of exudates, of nothing in a retina."""

_LEAST, _MOST = 1.0, 20.0
_FINEST_PX = 1.5
_PITCH = 1.55  # from dot to dot, in diameters
_TWO_TONES = 64  # levels of luminance between a logo's darkest and its lightest
_SAMPLES = 4
_OPAQUE = 0.5


class Style(StrEnum):
    """How a logo is drawn."""

    SOLID = "solid"
    """As it is; with a colour, its ink alone."""
    OUTLINE = "outline"
    """The edge of its ink, as lines."""
    DOTTED = "dotted"
    """The same, as dots."""


@dataclass(frozen=True)
class Look:
    """What a logo looks like.

    Attributes
    ----------
    style
        How it is drawn.
    colour
        A name in `PALETTE`, or ``own``.
    grain
        Width of lines and dots, in thousandths of the photograph's.
    """

    style: Style = Style.SOLID
    colour: str = OWN
    grain: float = 3.0

    @property
    def words(self) -> str:
        """As `read_look` reads it."""
        return f"{self.style},{self.colour},{self.grain:g}"


AS_IT_IS: Final = Look()


def read_look(text: str) -> Look:
    """Read an option: style, colour, grain, each with its default.

    Raises
    ------
    UsageError
        It is none.
    """
    unknown = UsageError(
        f"look {text!r} is unknown",
        f"say {', '.join(Style)}; then a colour ({', '.join([OWN, *PALETTE])}); then the width "
        f"of strokes, {_LEAST:g} to {_MOST:g} thousandths of the photograph's: dotted,dark-red,3",
    )
    style, colour, grain = [*text.split(",", 2), "", ""][:3]
    try:
        look = Look(Style(style), colour or OWN, float(grain or Look.grain))
    except ValueError:
        raise unknown from None
    if look.colour not in {OWN, *PALETTE} or not _LEAST <= look.grain <= _MOST:
        raise unknown
    return look


def drawn(logo: Logo, look: Look, width: int) -> Logo:
    """Draw a logo.

    Parameters
    ----------
    logo
        Scaled to the photograph.
    look
        How.
    width
        Of the photograph, in pixels.

    Returns
    -------
    Logo
        Of the same size.

    Raises
    ------
    LogoError
        Nothing of it is left.
    """
    if look.style is Style.SOLID and look.colour == OWN:
        return logo
    ink = ink_of(logo)
    grain = max(look.grain * width / 1000, _FINEST_PX)
    opacity = ink
    if look.style is not Style.SOLID:
        opacity = (_lines if look.style is Style.OUTLINE else _dots)(ink, grain)
    rgba = np.zeros_like(logo.rgba)
    rgba[..., 3] = np.rint(opacity * 255)
    seen = rgba[..., 3] > 0
    rgba[seen, :3] = PALETTE.get(look.colour) or _mean_colour(logo, ink)
    return Logo(rgba)


def ink_of(logo: Logo) -> NDArray[np.float32]:
    """Find what a logo is written in: of two tones the one that covers less, else all of it.

    Returns
    -------
    ndarray
        float32 (N, M), 0 to 1.
    """
    opacity = (logo.alpha / 255).astype(np.float32)
    seen = opacity > _OPAQUE
    tones = cv2.cvtColor(np.ascontiguousarray(logo.rgba[..., :3]), cv2.COLOR_RGB2GRAY)
    levels = tones[seen]
    if not levels.size or int(levels.max()) - int(levels.min()) < _TWO_TONES:
        return opacity
    between, _ = cv2.threshold(levels.reshape(-1, 1), 0, 255, cv2.THRESH_OTSU)
    dark = seen & (tones <= between)
    rarer = dark if 2 * dark.sum() <= seen.sum() else seen & ~dark
    ink: NDArray[np.float32] = np.where(rarer, opacity, 0).astype(np.float32)
    return ink


def _lines(ink: NDArray[np.float32], grain: float) -> NDArray[np.float32]:
    depth = _depth(ink)
    lines: NDArray[np.float32] = np.clip(grain + 0.5 - depth, 0, 1) * ink
    return lines


def _dots(ink: NDArray[np.float32], grain: float) -> NDArray[np.float32]:
    """Set dots along strokes: in the middle of thin ones, inside the edge of wide ones."""
    depth = _depth(ink)
    ridge = (depth > 0) & (depth >= cv2.dilate(depth, np.ones((3, 3)))) & (depth <= grain)
    near = cv2.dilate(ridge.astype(np.uint8), _disc(grain)) > 0
    line = ridge | ((np.abs(depth - grain / 2) <= 0.75) & ~near)
    height, width = ink.shape
    fine = np.zeros((height * _SAMPLES, width * _SAMPLES), np.uint8)
    radius = round(grain * _SAMPLES / 2)
    for y, x in _along(np.argwhere(line), _PITCH * grain):
        centre = (int((x + 0.5) * _SAMPLES), int((y + 0.5) * _SAMPLES))
        cv2.circle(fine, centre, radius, 255, -1)
    coarse = cv2.resize(fine, (width, height), interpolation=cv2.INTER_AREA)
    return (coarse / 255).astype(np.float32)


def _along(points: NDArray[np.int64], pitch: float) -> list[tuple[int, int]]:
    """Pick points at a distance from each other, each the nearest to the last that is left."""
    picked: list[tuple[int, int]] = []
    last = points[:1].sum(0)
    while len(points):
        last = points[((points - last) ** 2).sum(1).argmin()]
        picked.append((int(last[0]), int(last[1])))
        points = points[((points - last) ** 2).sum(1) > pitch**2]
    return picked


def _depth(ink: NDArray[np.float32]) -> NDArray[np.float32]:
    """Distance of each px of the ink from its edge; the logo's border is one."""
    inside = np.pad((ink > _OPAQUE).astype(np.uint8), 1)
    return cv2.distanceTransform(inside, cv2.DIST_L2, 5)[1:-1, 1:-1].astype(np.float32)


def _disc(radius: float) -> NDArray[np.uint8]:
    side = 2 * int(radius) + 1
    return cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (side, side)).astype(np.uint8)


def _mean_colour(logo: Logo, ink: NDArray[np.float32]) -> NDArray[np.uint8]:
    weight = ink[..., None] / max(float(ink.sum()), 1e-6)
    colour: NDArray[np.uint8] = np.rint((logo.rgba[..., :3] * weight).sum((0, 1))).astype(np.uint8)
    return colour
