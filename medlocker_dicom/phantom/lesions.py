"""Lesions of diabetic retinopathy: where they lie and how they look."""

from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from medlocker_dicom.phantom.eye import Bit, Eye, Floats, Points, rgb

TRIES = 40  # places tried for one lesion before it is left out
SHARP = 4  # subsamples a pixel side when an outline is filled


@dataclass(frozen=True)
class Look:
    """How a kind of lesion changes the light.

    Attributes
    ----------
    own
        Its colour where it is opaque, RGB 0 to 1.
    passed
        Share of the retina's light that a full lesion lets through, RGB.
    blur
        Softness of its border, in its own radii.
    """

    own: tuple[float, float, float]
    passed: tuple[float, float, float]
    blur: float


LOOKS = {
    Bit.MA: Look((0.03, 0.0, 0.0), (0.70, 0.45, 0.48), 0.25),
    Bit.HE: Look((0.05, 0.0, 0.0), (0.60, 0.36, 0.40), 0.17),
    Bit.EX: Look((0.93, 0.80, 0.33), (0.06, 0.06, 0.1), 0.10),
    Bit.SE: Look((1.0, 0.79, 0.56), (0.38, 0.38, 0.38), 0.40),
}


@dataclass
class Canvas:
    """The picture while lesions are laid on it.

    Attributes
    ----------
    eye
        The layout.
    picture
        float32 ``(H, W, 3)`` RGB, changed in place.
    mask
        uint8 ``(H, W)`` of `Bit`, changed in place.
    barred
        bool ``(H, W)``: where no lesion is centred.
    """

    eye: Eye
    picture: Floats
    mask: npt.NDArray[np.uint8]
    barred: npt.NDArray[np.bool_]


def add_lesions(rng: np.random.Generator, canvas: Canvas) -> None:
    """Lay lesions of every kind on the retina.

    Lesions of different kinds never share a pixel, and none meets the disc, so
    every bit of the mask says what is seen there.
    """
    macula, disc = canvas.eye.macula, canvas.eye.disc
    for _ in range(rng.integers(1, 4)):
        _scatter(rng, canvas, Bit.SE, disc, (0.32, 0.62), (0.028, 0.048))
    for _ in range(rng.integers(2, 5)):
        _exudates(rng, canvas)
    for _ in range(rng.integers(6, 15)):
        _scatter(rng, canvas, Bit.HE, macula, (0.2, 0.72), (0.009, 0.030))
    for _ in range(rng.integers(10, 28)):
        _scatter(rng, canvas, Bit.MA, macula, (0.14, 0.7), (0.0045, 0.0075))


def _ring(rng: np.random.Generator, middle: Points, reach: tuple[float, float]) -> Points:
    angle = rng.uniform(0, 2 * np.pi)
    away = rng.uniform(*reach)
    return middle + away * np.array([np.cos(angle), np.sin(angle)])


def _scatter(  # noqa: PLR0913, PLR0917 - one row of the table in `add_lesions`
    rng: np.random.Generator,
    canvas: Canvas,
    kind: Bit,
    middle: Points,
    reach: tuple[float, float],
    sizes: tuple[float, float],
) -> None:
    """Lay one lesion somewhere in a ring around a point, if there is room."""
    size = sizes[0] * (sizes[1] / sizes[0]) ** rng.random()
    stretch = rng.uniform(1.0, 1.25) if kind is Bit.MA else rng.uniform(1.0, 1.5)
    outline = _outline(rng, size, stretch, 0.05 if kind is Bit.MA else 0.17)
    for _ in range(TRIES):
        if _stamp(canvas, kind, _ring(rng, middle, reach), outline, size):
            return


def _exudates(rng: np.random.Generator, canvas: Canvas) -> None:
    """Lay a cluster of hard exudates, a part of a ring or a heap."""
    centre = _ring(rng, canvas.eye.macula, (0.16, 0.42))
    begin, sweep = rng.uniform(0, 2 * np.pi), rng.uniform(1.5, 5.0)
    wide = rng.uniform(0.05, 0.13)
    ring = rng.random() < 0.5
    for _ in range(rng.integers(14, 40)):
        if ring:
            angle = begin + sweep * rng.random()
            spot = centre + wide * np.array([np.cos(angle), np.sin(angle)])
            spot = spot + rng.normal(0, 0.012, 2)
        else:
            spot = centre + rng.normal(0, wide * 0.6, 2)
        size = 0.0035 * np.exp(abs(rng.normal(0, 0.75)))
        outline = _outline(rng, size, rng.uniform(1, 1.7), 0.22)
        _stamp(canvas, Bit.EX, spot, outline, size)


def _outline(rng: np.random.Generator, size: float, stretch: float, rough: float) -> Points:
    """Draw a closed, bumpy outline around the origin, float64 ``(48, 2)``, in radii."""
    angle = np.linspace(0, 2 * np.pi, 48, endpoint=False)
    away = np.ones(48)
    for waves in range(2, 7):
        away += rough / waves**0.7 * rng.normal() * np.cos(waves * angle + rng.uniform(0, 6.3))
    away = size * np.clip(away, 0.4, 1.8)
    flat = np.stack([away * np.cos(angle) * stretch, away * np.sin(angle) / stretch**0.5], axis=1)
    turn = rng.uniform(0, np.pi)
    spin = np.array([[np.cos(turn), np.sin(turn)], [-np.sin(turn), np.cos(turn)]])
    turned: Points = flat @ spin
    return turned


def _stamp(canvas: Canvas, kind: Bit, spot: Points, outline: Points, size: float) -> bool:
    """Lay a lesion at a point unless something else is there; say whether it was."""
    eye = canvas.eye
    x, y = eye.pixels(spot)
    pixels = outline * eye.radius
    pixels = pixels * max(1.0, 1.6 / max(float(np.abs(pixels).max(axis=0).min()), 1e-6))
    blur = max(LOOKS[kind].blur * size * eye.radius, 0.35)
    reach = int(np.ceil(np.abs(pixels).max() + 3 * blur)) + 1
    left, top = int(x) - reach, int(y) - reach
    right, bottom = int(x) + reach + 1, int(y) + reach + 1
    if left < 0 or top < 0 or right > eye.width or bottom > eye.height:
        return False
    if np.hypot(*spot) > 0.92 or canvas.barred[round(y), round(x)]:
        return False
    pixels += np.array([x - left, y - top])
    covered = _coverage(pixels, bottom - top, blur)
    inside = covered >= 0.5
    near = np.asarray(cv2.dilate(inside.astype(np.uint8), np.ones((5, 5), np.uint8)), dtype=bool)
    window = canvas.mask[top:bottom, left:right]
    if not inside.any() or (window[near] & (0xFF ^ int(kind))).any():
        return False
    window[inside] |= np.uint8(int(kind))
    _blend(canvas.picture[top:bottom, left:right], covered, LOOKS[kind])
    return True


def _coverage(outline: Points, side: int, blur: float) -> Floats:
    """Fill an outline given in pixels of a square window, float32 ``(side, side)``."""
    fine = np.zeros((side * SHARP, side * SHARP), dtype=np.uint8)
    # a pixel's centre is at its integer coordinate, hence the half pixel on both scales
    fixed = np.round(((outline + 0.5) * SHARP - 0.5) * 16).astype(np.int32)
    cv2.fillPoly(fine, [fixed], (255,), cv2.LINE_8, 4)
    small = cv2.resize(fine, (side, side), interpolation=cv2.INTER_AREA)
    soft = cv2.GaussianBlur(small.astype(np.float32) / 255, (0, 0), blur)
    return np.asarray(soft, dtype=np.float32)


def _blend(window: Floats, covered: Floats, look: Look) -> None:
    """Mix a lesion into the picture, in place."""
    passed = rgb(*look.passed)
    share = covered[..., None]
    window *= 1 - share * (1 - passed)
    window += share * (1 - passed) * rgb(*look.own)
