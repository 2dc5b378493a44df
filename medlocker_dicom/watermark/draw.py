"""Draws MedLocker's own logo: a padlock whose body carries the name, in a ring.

Run ``python -m medlocker_dicom.watermark.draw FILE`` to write the PNG that is
shipped beside this module. Shapes are compared in exact arithmetic (sums,
products and comparisons of multiples of 1/8), so every machine draws the same
pixels. The logo's pixels are 1024 x 1024; one unit is one pixel.
"""

import io
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

SIZE = 1024
WHITE = (255, 255, 255)
NAVY = (14, 30, 92)

_SAMPLES = 4  # a side of each pixel: 16 steps of edge coverage
_OUTLINE = 14
_STROKE = 13  # half the width of a letter's stroke
_CAP, _X = 164, 108  # height of capitals and of small letters
_BASELINE = 671
_BAR = (16, 472, 1008, 710)  # left, top, right, bottom of the padlock's body

Grid = NDArray[np.float64]
Mask = NDArray[np.bool_]
Shape = Callable[[Grid, Grid], Mask]


def draw_logo() -> NDArray[np.uint8]:
    """Draw the logo.

    Returns
    -------
    ndarray
        uint8 (1024, 1024, 4) RGBA on a transparent ground.
    """
    step = (np.arange(SIZE * _SAMPLES) + 0.5) / _SAMPLES
    x, y = step[np.newaxis, :], step[:, np.newaxis]
    solid = _emblem(0)(x, y)
    outlined = _emblem(_OUTLINE)(x, y)
    letters = np.zeros_like(solid)
    rows = slice((_BASELINE - _CAP - 20) * _SAMPLES, (_BASELINE + 20) * _SAMPLES)
    for shape in _name():
        letters[rows] |= shape(x, y[rows])
    white, cover = _coverage(solid & ~letters), _coverage(outlined)
    colour = np.array(NAVY, np.int64) * (cover - white) + np.array(WHITE, np.int64) * white
    rgb = (2 * colour + cover) // np.maximum(2 * cover, 1)
    alpha = (cover * 255 + _SAMPLES**2 // 2) // _SAMPLES**2
    return np.concatenate([rgb, alpha], axis=-1).astype(np.uint8)


def png_bytes(rgba: NDArray[np.uint8]) -> bytes:
    """Encode an RGBA image as PNG.

    Parameters
    ----------
    rgba
        uint8 (N, M, 4).

    Returns
    -------
    bytes
        The PNG file.
    """
    out = io.BytesIO()
    Image.fromarray(rgba, "RGBA").save(out, "PNG", optimize=True)
    return out.getvalue()


def _coverage(mask: Mask) -> NDArray[np.int64]:
    """Count the covered samples of each pixel; (1024, 1024, 1), 0 to 16."""
    blocks = mask.reshape(SIZE, _SAMPLES, SIZE, _SAMPLES)
    count: NDArray[np.int64] = blocks.sum(axis=(1, 3), dtype=np.int64)
    return count[..., np.newaxis]


def _emblem(grow: int) -> Shape:
    """Ring, shackle and body, grown by so many units on every side."""
    left, top, right, bottom = _BAR
    ring = _annulus(512, 512, 440 - grow, 494 + grow)
    body = _box(left - grow, top - grow, right + grow, bottom + grow)
    arch = _all(_annulus(512, 330, 116 - grow, 176 + grow), _box(0, 0, SIZE, 330))
    legs = _any(_box(336 - grow, 330, 396 + grow, top), _box(628 - grow, 330, 688 + grow, top))
    return _any(ring, body, arch, legs)


@dataclass(frozen=True)
class _Pen:
    """Strokes relative to a letter's left edge on the baseline, y upwards."""

    left: int

    def line(self, x0: float, y0: float, x1: float, y1: float) -> Shape:
        ax, ay = self.left + x0, _BASELINE - y0
        bx, by = self.left + x1, _BASELINE - y1
        return _capsule(ax, ay, bx, by, _STROKE)

    def ring(self, cx: float, cy: float, radius: float) -> Shape:
        return _annulus(self.left + cx, _BASELINE - cy, radius - _STROKE, radius + _STROKE)

    def window(self, x0: float, y0: float, x1: float, y1: float) -> Shape:
        return _box(self.left + x0, _BASELINE - y1, self.left + x1, _BASELINE - y0)


def _name() -> Iterator[Shape]:
    """Strokes of the letters of MedLocker, set from left to right."""
    glyphs: tuple[tuple[Callable[[_Pen], Shape], int], ...] = (
        (_m, 152),
        (_e, _X),
        (_d, _X),
        (_l, 92),
        (_o, _X),
        (_c, 96),
        (_k, 100),
        (_e, _X),
        (_r, 68),
    )
    gap = 2
    left = (SIZE - sum(width + gap for _, width in glyphs) + gap) // 2
    for glyph, width in glyphs:
        yield glyph(_Pen(left))
        left += width + gap


_RADIUS = _X / 2 - _STROKE


def _m(pen: _Pen) -> Shape:
    low, high = _STROKE, _CAP - _STROKE
    return _any(
        pen.line(18, low, 18, high),
        pen.line(18, high, 76, 60),
        pen.line(76, 60, 134, high),
        pen.line(134, high, 134, low),
    )


def _e(pen: _Pen) -> Shape:
    bowl = pen.ring(_X / 2, _X / 2, _RADIUS)
    gap = pen.window(60, 24, 120, _X / 2 - 6)
    return _any(_all(bowl, _not(gap)), pen.line(20, _X / 2, _X - 20, _X / 2))


def _d(pen: _Pen) -> Shape:
    return _any(
        pen.ring(_X / 2, _X / 2, _RADIUS),
        pen.line(_X - _STROKE, _STROKE, _X - _STROKE, _CAP - _STROKE),
    )


def _l(pen: _Pen) -> Shape:
    low = _STROKE
    return _any(pen.line(24, _CAP - _STROKE, 24, low), pen.line(24, low, 82, low))


def _o(pen: _Pen) -> Shape:
    return pen.ring(_X / 2, _X / 2, _RADIUS)


def _c(pen: _Pen) -> Shape:
    return _all(pen.ring(_X / 2, _X / 2, _RADIUS), _not(pen.window(68, 26, 120, _X - 26)))


def _k(pen: _Pen) -> Shape:
    return _any(
        pen.line(20, _STROKE, 20, _CAP - _STROKE),
        pen.line(24, 46, 80, _X - _STROKE),
        pen.line(42, 60, 84, _STROKE),
    )


def _r(pen: _Pen) -> Shape:
    arc = _all(pen.ring(20 + 43, 56, 43), pen.window(0, 70, 72, 130))
    return _any(pen.line(20, _STROKE, 20, _X - _STROKE), arc)


def _box(left: float, top: float, right: float, bottom: float) -> Shape:
    return lambda x, y: (x >= left) & (x < right) & (y >= top) & (y < bottom)


def _annulus(cx: float, cy: float, inner: float, outer: float) -> Shape:
    def inside(x: Grid, y: Grid) -> Mask:
        square = (x - cx) ** 2 + (y - cy) ** 2
        return (square >= inner * inner) & (square <= outer * outer)

    return inside


def _capsule(ax: float, ay: float, bx: float, by: float, radius: float) -> Shape:
    """All points within `radius` of a segment."""
    dx, dy = bx - ax, by - ay
    length = dx * dx + dy * dy

    def inside(x: Grid, y: Grid) -> Mask:
        along = (x - ax) * dx + (y - ay) * dy
        across = (x - ax) * dy - (y - ay) * dx
        beside = (along >= 0) & (along <= length) & (across**2 <= radius * radius * length)
        ends = [(x - px) ** 2 + (y - py) ** 2 for px, py in ((ax, ay), (bx, by))]
        return beside | (np.minimum(*ends) <= radius * radius)

    return inside


def _any(*shapes: Shape) -> Shape:
    return lambda x, y: np.logical_or.reduce([shape(x, y) for shape in shapes])


def _all(*shapes: Shape) -> Shape:
    return lambda x, y: np.logical_and.reduce([shape(x, y) for shape in shapes])


def _not(shape: Shape) -> Shape:
    return lambda x, y: ~shape(x, y)


if __name__ == "__main__":
    Path(sys.argv[1]).write_bytes(png_bytes(draw_logo()))
