"""The list L: the opacity of every sample, with a keyed dither.

With a public logo and one opacity for all pixels, anyone can undo equation 1.
So each pixel's opacity moves by noise that only the seed gives, in each channel
by its own: with one opacity for three channels, how an eye's colours go together
tells it. The noise is the sum of value noise on lattices from a quarter of the
logo's side down to single pixels; its coarse part outlives blur and median filters.

What an attacker who assumes opacity A0 restores is wrong by the ratio of the
transmittances (255 - a) / (255 - A0), so the dither's reach is a share of the
transmittance. It therefore shrinks towards alpha = 255 and never saturates:
there nothing of the original is left that would need hiding.

Everything is integer arithmetic on SHAKE-256 output: one seed, one map, on
every platform and numpy.
"""

import hashlib
import struct
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from medlocker_dicom.errors import PacketError, PlacementError

RULE = "mlv3"
"""Expands an opacity or a grid, and a seed; another expansion gets another name."""
SEED_BYTES = 32
CELLS = range(4, 65)
"""Cells that a grid may have along the longer side of a logo."""

# Earlier rules, of which packets are about: all channels alike, without a grid or with one.
_EARLIER = {"mlv1": False, "mlv2": True}
_EARLIER_DOMAIN = b"medlocker dither mlv1\0"
_DOMAIN = b"medlocker dither mlv3\0"
# Reach of the dither in 1/256: both ways at most this share of the transmittance;
# up at most the opacity itself and down a share of it, so that faint edges stay
# faint and no part of a faint logo vanishes.
_OF_TRANSMITTANCE = 154
_OPACITY_UP = 256
_OPACITY_DOWN = 154
# (cells along the longer side, weight); 0 cells stands for single pixels.
_OCTAVES = ((4, 10), (8, 8), (16, 5), (32, 3), (0, 2))
_LEVELS = 1 << 14


def alpha_map(  # noqa: PLR0913 - what a packet tells of a frame, in its order
    logo_alpha: NDArray[np.uint8],
    alpha: int,
    seed: bytes,
    *,
    rule: str = RULE,
    grid: bytes = b"",
    channels: int = 3,
) -> NDArray[np.uint8]:
    """Expand alpha or grid, and seed, to the opacity of every sample of the logo.

    Parameters
    ----------
    logo_alpha
        uint8 (N, M): the scaled logo's alpha plane.
    alpha
        Opacity of the placement, 0 to 255. Of no effect where there is a grid.
    seed
        32 secret bytes.
    rule
        Name of the expansion: "mlv3", or of earlier packets "mlv1" (never with a grid) or
        "mlv2" (always with one), by which all channels are alike.
    grid
        Of `pack_grid`, or empty.
    channels
        C, of the image.

    Returns
    -------
    ndarray
        uint8 (N, M, C), or (N, M, 1) by a rule of all channels alike; 0 to 255, and 0 wherever the
        logo is transparent.

    Raises
    ------
    PlacementError
        If alpha is out of range.
    PacketError
        If the seed's length is wrong, the rule is unknown, or the grid is not one for this logo.
    """
    if not 0 <= alpha <= 255:
        raise PlacementError(f"alpha {alpha} is not between 0 and 255")
    if len(seed) != SEED_BYTES:
        raise PacketError(f"the dither seed holds {len(seed)} bytes, not {SEED_BYTES}")
    if rule == RULE:
        keys = [_DOMAIN + seed + bytes([channel]) for channel in range(channels)]
    elif rule not in _EARLIER:
        raise PacketError(f"unknown dither rule {rule!r}", "a newer version may know it")
    elif _EARLIER[rule] == bool(grid):
        keys = [_EARLIER_DOMAIN + seed]
    else:
        raise PacketError(f"rule {rule} {'has no' if grid else 'needs a'} grid")
    if grid:
        expanded = _expanded(grid, logo_alpha.shape, len(keys))
        bases = [plain_map(logo_alpha, level) for level in expanded]
    else:
        bases = [plain_map(logo_alpha, alpha)] * len(keys)
    return np.stack([dither(base, key) for base, key in zip(bases, keys, strict=True)], -1)


def grid_cell(shape: tuple[int, ...], cells: int) -> int:
    """Side of a grid's cell in pixels, for a logo (N, M) with so many cells along its side."""
    return max(1, -(-max(shape) // cells))


def grid_shape(shape: tuple[int, ...], cells: int) -> tuple[int, int]:
    """Rows and columns of a grid's nodes, which lie on the corners of its cells."""
    cell = grid_cell(shape, cells)
    return -(-shape[0] // cell) + 1, -(-shape[1] // cell) + 1


def pack_grid(cells: int, nodes: NDArray[np.uint8]) -> bytes:
    """Pack a grid of opacities: its number of cells, and its nodes in reading order.

    Parameters
    ----------
    cells
        Along the longer side of the logo, one of `CELLS`.
    nodes
        uint8 (C, rows, columns) of `grid_shape`: opacities before the dither, linear in between.
    """
    return bytes([cells]) + nodes.tobytes()


def _expanded(grid: bytes, shape: tuple[int, ...], planes: int) -> list[NDArray[np.uint32]]:
    """Interpolate a grid; for each plane uint32 (N, M), 0 to 255, rounded half up."""
    cells = grid[0]
    rows, columns = grid_shape(shape, cells) if cells in CELLS else (0, 0)
    if planes * rows * columns != len(grid) - 1 or cells not in CELLS:
        raise PacketError(f"an alpha grid of {len(grid)} bytes is not one for this logo")
    nodes = np.frombuffer(grid, np.uint8, offset=1).reshape(planes, rows, columns)
    cell = grid_cell(shape, cells)
    fine = (_interpolate(plane, cell, *shape) for plane in nodes.astype(np.int32))
    return [((plane + 8) // 16).astype(np.uint32) for plane in fine]


def plain_map(logo_alpha: NDArray[np.uint8], alpha: int | NDArray[np.uint32]) -> NDArray[np.uint8]:
    """Scale the logo's own alpha by the placement's, without dither.

    Parameters
    ----------
    logo_alpha
        uint8 (N, M).
    alpha
        0 to 255, for all pixels or for each, uint32 (N, M).

    Returns
    -------
    ndarray
        uint8 (N, M): logo_alpha * alpha / 255, rounded half up.
    """
    return ((logo_alpha.astype(np.uint32) * (2 * alpha) + 255) // 510).astype(np.uint8)


def dither(base: NDArray[np.uint8], key: bytes) -> NDArray[np.uint8]:
    """Move every opacity by keyed multi-scale noise.

    Parameters
    ----------
    base
        uint8 (N, M): opacities before the dither, from `plain_map`.
    key
        What the noise is expanded from.

    Returns
    -------
    ndarray
        uint8 (N, M); 0 where `base` is 0, 255 where it is 255.
    """
    level = base.astype(np.int32)
    spread = _uniform(_noise(base.shape, key), base > 0)
    share = np.where(spread > 0, np.int32(_OPACITY_UP), np.int32(_OPACITY_DOWN))
    # At most 255 * _OF_TRANSMITTANCE * _LEVELS, twice that below 2**31: int32 cannot overflow.
    move = np.minimum((255 - level) * _OF_TRANSMITTANCE, level * share) * spread
    unit = 256 * _LEVELS
    return (level + (2 * move + unit) // (2 * unit)).astype(np.uint8)


@lru_cache(maxsize=3)  # a lock asks for the channels of its logo again and again
def _noise(shape: tuple[int, ...], key: bytes) -> NDArray[np.int32]:
    """Sum the octaves; int32 (N, M), a few times 2**15 in magnitude, read-only."""
    height, width = shape
    total = np.zeros((height, width), np.int32)
    for index, (cells, weight) in enumerate(_OCTAVES):
        cell = max(1, -(-max(height, width) // cells)) if cells else 1
        rows, columns = -(-height // cell) + 1, -(-width // cell) + 1
        total += weight * _interpolate(_lattice(key, index, rows, columns), cell, height, width)
    total.setflags(write=False)
    return total


def _lattice(key: bytes, octave: int, rows: int, columns: int) -> NDArray[np.int32]:
    """Expand the key to the nodes of one octave; int32 (rows, columns), odd, -255 to 255."""
    header = struct.pack(">BII", octave, rows, columns)
    stream = hashlib.shake_256(key + header).digest(rows * columns)
    nodes = np.frombuffer(stream, np.uint8).reshape(rows, columns)
    return 2 * nodes.astype(np.int32) - 255


def _interpolate(nodes: NDArray[np.int32], cell: int, height: int, width: int) -> NDArray[np.int32]:
    """Interpolate nodes that lie `cell` pixels apart; int32, 16 times the nodes' range."""
    down = _between(nodes, cell, height)
    return _between(down.T, cell, width).T // 16 if cell > 1 else 16 * nodes[:height, :width]


def _between(nodes: NDArray[np.int32], cell: int, count: int) -> NDArray[np.int32]:
    """Interpolate along the first axis; int32 (count, ...), 16 times the nodes' range."""
    place = np.arange(count, dtype=np.int32)
    before, part = place // cell, (place % cell)[:, np.newaxis]
    return (nodes[before] * (16 * (cell - part)) + nodes[before + 1] * (16 * part)) // cell


def _uniform(noise: NDArray[np.int32], cover: NDArray[np.bool_]) -> NDArray[np.int32]:
    """Replace noise by its rank over the covered pixels, -_LEVELS to _LEVELS.

    Whatever the seed, the dither is then spread evenly and its mean is zero:
    no seed is a weak one.
    """
    spread = np.zeros(noise.shape, np.int32)
    values = noise[cover]
    if values.size:
        values -= values.min()
        counts = np.bincount(values)
        twice_rank = 2 * np.cumsum(counts) - counts
        spread[cover] = ((twice_rank - values.size) * _LEVELS // values.size)[values]
    return spread
