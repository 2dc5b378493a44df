"""The vessel tree: trunks along the arcades, branches that taper and wander."""

from dataclasses import dataclass
from itertools import pairwise

import cv2
import numpy as np
import numpy.typing as npt

from medlocker_dicom.phantom.eye import Eye, Floats, Points

STEP = 0.012  # radii between the points of a branch
AVASCULAR = 0.13  # radii around the fovea that no vessel enters
BETWEEN_ARCADES = 0.62  # radii around the fovea where branches run inwards
THINNEST = 0.0035  # radii; a branch ends when it gets thinner
DEEPEST = 4  # generations of branches
SUBPIXEL = 4  # bits of cv2's fixed-point coordinates

# Trunks in radii from the disc: temporal is +u, up is -v. (arcade, width of the vein)
TRUNKS = (
    (((0.0, 0.0), (-0.02, -0.30), (0.16, -0.60), (0.66, -0.86), (1.16, -0.56), (1.62, -0.62)), 1.0),
    (((0.0, 0.0), (-0.02, 0.30), (0.16, 0.66), (0.66, 0.92), (1.16, 0.66), (1.62, 0.74)), 1.0),
    (((0.0, 0.0), (-0.06, -0.18), (-0.16, -0.42), (-0.30, -0.72), (-0.42, -1.1)), 0.7),
    (((0.0, 0.0), (-0.06, 0.18), (-0.14, 0.42), (-0.26, 0.76), (-0.36, 1.1)), 0.7),
)


@dataclass(frozen=True)
class Branch:
    """One vessel between two forks.

    Attributes
    ----------
    points
        Its middle line, float64 ``(n, 2)``, in radii.
    widths
        Its diameter at each point, float64 ``(n,)``, in radii.
    """

    points: Points
    widths: npt.NDArray[np.float64]


def vessel_tree(rng: np.random.Generator, eye: Eye, trunk_width: float) -> list[Branch]:
    """Grow the arteries or the veins of an eye.

    Parameters
    ----------
    rng
        Source of every choice.
    eye
        The layout; trunks leave the disc and arch around the macula.
    trunk_width
        Diameter of the largest trunks at the disc, in radii.

    Returns
    -------
    list of Branch
        Trunks first, then what forks off from them.
    """
    branches: list[Branch] = []
    for arcade, share in TRUNKS:
        trunk = _trunk(rng, eye, np.array(arcade), share * trunk_width)
        branches.append(trunk)
        _fork(rng, eye, trunk, 1, branches)
    for heading in (*rng.uniform(-0.75, 0.75, 3), *(np.pi + rng.uniform(-0.7, 0.7, 2))):
        start = eye.disc + 0.03 * _direction(heading, eye.temporal)
        small = _walk(rng, eye, start, _toward(heading, eye.temporal), 0.26 * trunk_width, 0.8)
        branches.append(small)
        _fork(rng, eye, small, 2, branches)
    return branches


def _direction(heading: float, temporal: int) -> Points:
    return np.array([temporal * np.cos(heading), np.sin(heading)])


def _toward(heading: float, temporal: int) -> float:
    u, v = _direction(heading, temporal)
    return float(np.arctan2(v, u))


def _trunk(rng: np.random.Generator, eye: Eye, controls: Points, width: float) -> Branch:
    """Bend a trunk along its control points, a Bezier curve with some tortuosity."""
    spread = np.linspace(0.012, 0.07, len(controls))[:, None]
    controls = controls * [1, rng.uniform(0.84, 1.06)]
    controls = controls + spread * rng.standard_normal(controls.shape)
    line = np.linspace(0, 1, 160)[:, None]
    layers = [np.broadcast_to(c, (160, 2)) for c in controls]
    while len(layers) > 1:  # de Casteljau
        layers = [(1 - line) * a + line * b for a, b in pairwise(layers)]
    points = layers[0] * [eye.temporal, 1] + eye.disc
    ahead = np.gradient(points, axis=0)
    across = ahead[:, ::-1] * [-1, 1] / np.linalg.norm(ahead, axis=1, keepdims=True)
    run = np.linspace(0, 1, 160)
    sway = np.zeros(160)
    for waves, size in ((2.5, 0.012), (5.5, 0.007), (11.0, 0.0035)):
        sway += size * np.sin(2 * np.pi * (waves * rng.uniform(0.8, 1.25) * run + rng.random()))
    points = points + across * (sway * np.minimum(1, 6 * run))[:, None]
    return Branch(points, width * (1 - 0.68 * run))


def _walk(  # noqa: PLR0913, PLR0917 - the state of a growing tip, passed once
    rng: np.random.Generator,
    eye: Eye,
    start: Points,
    heading: float,
    width: float,
    length: float,
) -> Branch:
    """Grow a branch step by step; it sways, and ends at the fovea or the field's edge."""
    count = max(int(length / STEP), 3)
    points = [start]
    course, turn = heading, 0.0
    for sway in rng.normal(0, 0.055, count):
        here = points[-1]
        outward = here - eye.disc
        pull = 0.15 if np.hypot(*(here - eye.macula)) < BETWEEN_ARCADES else 0.8
        wish = np.array([np.cos(course), np.sin(course)]) + pull * outward / np.hypot(*outward)
        off = np.arctan2(wish[1], wish[0]) - heading
        turn = 0.72 * turn + sway + 0.035 * np.arctan2(np.sin(off), np.cos(off))
        heading += turn
        points.append(here + STEP * np.array([np.cos(heading), np.sin(heading)]))
        away = points[-1] - eye.macula
        if np.hypot(*away) < AVASCULAR or np.hypot(*points[-1]) > 1.05:
            break
    taper = 1 - 0.55 * np.arange(len(points)) / count
    return Branch(np.array(points), width * taper)


def _fork(
    rng: np.random.Generator, eye: Eye, parent: Branch, depth: int, branches: list[Branch]
) -> None:
    """Let branches leave a parent at irregular distances, left and right in turn."""
    spacing = (0.0, 9.0, 12.0, 14.0)[min(depth, 3)]
    side = rng.choice([-1, 1])
    at = 16.0 if depth == 1 else 8.0
    while True:
        at += spacing * rng.uniform(0.6, 1.7)
        index = int(at)
        if index >= len(parent.points) - 2:
            return
        side = -side if rng.random() < 0.8 else side
        width = parent.widths[index] * rng.uniform(0.38, 0.66)
        if width < THINNEST:
            return
        ahead = parent.points[index + 1] - parent.points[index - 1]
        heading = float(np.arctan2(ahead[1], ahead[0])) + side * rng.uniform(0.45, 1.0)
        length = rng.uniform(0.25, 0.6) * 0.8 ** (depth - 1)
        child = _walk(rng, eye, parent.points[index], heading, width, length)
        branches.append(child)
        if depth < DEEPEST:
            _fork(rng, eye, child, depth + 1, branches)


def blood(eye: Eye, branches: list[Branch], widest: float, share: float) -> Floats:
    """Draw how much blood lies in the light's way.

    Parameters
    ----------
    eye
        The layout.
    branches
        The vessels.
    widest
        Diameter in radii at which a vessel counts as full depth.
    share
        Part of the diameter to draw: 1 for the vessel, less for its middle.

    Returns
    -------
    numpy.ndarray
        float32 ``(H, W)``, 0 to 1: 1 in the middle of the largest vessels.
    """
    depth = np.zeros((eye.height, eye.width), dtype=np.uint8)
    for branch in sorted(branches, key=lambda b: float(b.widths[0])):
        for part in _pieces(branch):
            across = part.widths.mean()
            pixels = across * share * eye.radius
            faint = min(pixels, 1.0) * min((across / widest) ** 0.45, 1.0)
            layer_value = round(255 * faint)
            _ribbon(depth, eye, part, share, layer_value)
    return depth.astype(np.float32) / np.float32(255)


def _pieces(branch: Branch) -> list[Branch]:
    """Cut a branch into short overlapping parts of about one width."""
    cuts = range(0, max(len(branch.points) - 2, 1), 6)
    return [Branch(branch.points[i : i + 8], branch.widths[i : i + 8]) for i in cuts]


def _ribbon(
    depth: npt.NDArray[np.uint8], eye: Eye, branch: Branch, share: float, value: int
) -> None:
    """Fill the outline of a branch, at least a pixel wide, keeping what is deeper."""
    points = eye.pixels(branch.points)
    ahead = np.gradient(points, axis=0)
    across = ahead[:, ::-1] * [-1, 1] / np.linalg.norm(ahead, axis=1, keepdims=True)
    half = np.maximum(branch.widths * share * eye.radius, 1.0)[:, None] / 2
    outline = np.concatenate([points + across * half, (points - across * half)[::-1]])
    low = np.floor(outline.min(axis=0)).astype(int) - 2
    high = np.ceil(outline.max(axis=0)).astype(int) + 3
    left, top = np.maximum(low, 0)
    right, bottom = np.minimum(high, [eye.width, eye.height])
    if left >= right or top >= bottom:
        return
    layer = np.zeros((bottom - top, right - left), dtype=np.uint8)
    fixed = np.round((outline - [left, top]) * (1 << SUBPIXEL)).astype(np.int32)
    cv2.fillPoly(layer, [fixed], (value,), cv2.LINE_AA, SUBPIXEL)
    window = depth[top:bottom, left:right]
    np.maximum(window, layer, out=window)
