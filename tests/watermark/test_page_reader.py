"""Another reader of what takes the logo off, written from keys/keyfile.md alone, px by px."""

import hashlib
import lzma
import struct
import zlib
from dataclasses import replace
from math import ceil

import numpy as np
import pytest

from medlocker_dicom.pipeline.compose import blend_into
from medlocker_dicom.watermark.alpha import alpha_map, grid_shape, pack_grid
from medlocker_dicom.watermark.codec import encode_residual
from medlocker_dicom.watermark.logo import Logo, pack_logo
from medlocker_dicom.watermark.placement import Placement

SEED = bytes(range(32))
OCTAVES = ((4, 10), (8, 8), (16, 5), (32, 3), (None, 2))

Rows = list[list[int]]


def cell(width: int, height: int, cells: int) -> int:
    """Return s."""
    return max(1, -(-max(width, height) // cells))


def interpolated(nodes: Rows, s: int, y: int, x: int) -> int:
    """Return I."""
    if s == 1:
        return 16 * nodes[y][x]
    r, p, q, o = y // s, y % s, x // s, x % s
    near, far = ((nodes[r][c] * 16 * (s - p) + nodes[r + 1][c] * 16 * p) // s for c in (q, q + 1))
    return (near * 16 * (s - o) + far * 16 * o) // s // 16


def lattice(content: bytes, columns: int) -> Rows:
    """Cut bytes into rows."""
    return [list(content[at : at + columns]) for at in range(0, len(content), columns)]


def opacities(own: Rows, alpha: int, grid: bytes, key: bytes) -> Rows:
    """Return a of every px of a channel; the key is what is hashed before the lattice's number."""
    height, width = len(own), len(own[0])
    noise = [[0] * width for _ in own]
    for i, (cells, weight) in enumerate(OCTAVES):
        s = cell(width, height, cells) if cells else 1
        rows, columns = -(-height // s) + 1, -(-width // s) + 1
        stream = hashlib.shake_256(key + struct.pack(">BII", i, rows, columns))
        nodes = [
            [2 * b - 255 for b in row] for row in lattice(stream.digest(rows * columns), columns)
        ]
        for y in range(height):
            for x in range(width):
                noise[y][x] += weight * interpolated(nodes, s, y, x)
    base = [[0] * width for _ in own]
    for y in range(height):
        for x in range(width):
            level = alpha
            if grid:
                s = cell(width, height, grid[0])
                level = (interpolated(lattice(grid[1:], -(-width // s) + 1), s, y, x) + 8) // 16
            base[y][x] = (2 * own[y][x] * level + 255) // 510
    covered = [noise[y][x] for y in range(height) for x in range(width) if base[y][x]]
    result = [[0] * width for _ in own]
    for y in range(height):
        for x in range(width):
            b = base[y][x]
            if b == 0:
                continue
            less = sum(other < noise[y][x] for other in covered)
            same = sum(other == noise[y][x] for other in covered)
            u = (2 * less + same - len(covered)) * 16384 // len(covered)
            m = min((255 - b) * 154, b * (256 if u > 0 else 154)) * u
            result[y][x] = b + (2 * m + 4194304) // 8388608
    return result


@pytest.mark.parametrize("shape", [(9, 14), (21, 20), (3, 40)])
@pytest.mark.parametrize(
    ("rule", "cells"),
    [("mlv1", 0), ("mlv2", 4), ("mlv2", 11), ("mlv3", 0), ("mlv3", 4), ("mlv3", 11)],
)
def test_the_page_is_enough(shape: tuple[int, int], rule: str, cells: int) -> None:
    """By every rule, with a grid or without, the page's way gives the same opacities."""
    rng = np.random.default_rng(cells)
    logo_alpha = rng.integers(0, 256, shape, np.uint8)
    logo_alpha[rng.random(shape) < 0.3] = 0
    planes = 3 if rule == "mlv3" else 1
    nodes = rng.integers(100, 256, (planes, *grid_shape(shape, max(cells, 4))), np.uint8)
    grid = pack_grid(cells, nodes) if cells else b""
    found = alpha_map(logo_alpha, 140, SEED, rule=rule, grid=grid)
    assert found.shape == (*shape, planes)
    for k in range(planes):
        key = b"medlocker dither mlv1\0" + SEED
        if rule == "mlv3":
            key = b"medlocker dither mlv3\0" + SEED + bytes([k])
        part = grid[:1] + nodes[k].tobytes() if grid else b""
        assert found[..., k].tolist() == opacities(logo_alpha.tolist(), 140, part, key)


LZMA2 = [{"id": lzma.FILTER_LZMA2, "dict_size": 1 << 23}]


def residuals(data: bytes, count: int) -> list[int]:
    """Unpack as the page says."""
    coder, d = data[0], data[1]
    packed = (
        lzma.decompress(data[2:], lzma.FORMAT_RAW, filters=LZMA2)
        if coder == 0
        else zlib.decompress(data[2:], -15)
    )
    assert len(packed) == ceil(count * d / 8)
    if d == 16:
        return [low + 256 * high for low, high in zip(packed[:count], packed[count:], strict=True)]
    samples = [byte >> shift & (1 << d) - 1 for byte in packed for shift in range(0, 8, d)]
    assert not any(samples[count:])
    return samples[:count]


@pytest.mark.parametrize(("channels", "bits"), [(3, 8), (1, 8), (1, 12), (3, 16)])
@pytest.mark.parametrize(
    ("own", "place", "depth"),
    [
        (255, Placement(3, 2, 255), 8),
        (255, Placement(3, 2, 180, b"8"), 8),
        (70, Placement(3, 2, 100), 1),
        (120, Placement(3, 2, 200), 2),
        (240, Placement(3, 2, 230), 4),
    ],
)
def test_the_page_is_enough_to_take_a_logo_off(
    channels: int, bits: int, own: int, place: Placement, depth: int
) -> None:
    """From the packet's fields and the locked samples, to the original ones."""
    rng = np.random.default_rng(bits + own)
    rgba = rng.integers(0, 256, (13, 17, 4), np.uint8)
    rgba[..., 3] = np.minimum(rgba[..., 3], own)
    rgba[rng.random((13, 17)) < 0.3, 3] = 0
    rgba[rng.random((13, 17)) < 0.3, 3] = own
    logo = Logo(rgba)
    nodes = rng.integers(100, 256, (channels, *grid_shape((13, 17), 8)), np.uint8)
    if place.grid:
        place = replace(place, grid=pack_grid(8, nodes))
    dtype = np.uint8 if bits == 8 else np.uint16
    original = rng.integers(0, 1 << bits, (20, 24, channels), dtype)
    locked = original.copy()
    mark = blend_into(locked, place, logo, SEED, bits)
    assert mark.rule == "mlv3"
    assert depth == 8 or mark.residual[1] == depth
    assert not np.array_equal(locked, original)

    planes = pack_logo(logo)
    assert planes[:4] == b"MLL1"
    rows, columns = struct.unpack(">II", planes[4:12])
    px = lzma.decompress(planes[12:], lzma.FORMAT_RAW, filters=LZMA2)
    part = [px[n::4] for n in range(4)]
    digest = hashlib.sha256(b"medlocker logo v1\0" + planes[4:12] + b"".join(part))
    assert digest.digest() == mark.logo_sha256
    planes_own = lattice(part[3], columns)
    size = (len(mark.grid) - 1) // channels
    rest = iter(residuals(mark.residual, rows * columns * channels))
    top = (1 << bits) - 1
    for k in range(channels):
        grid = mark.grid[:1] + mark.grid[1 + k * size :][:size] if mark.grid else b""
        key = b"medlocker dither mlv3\0" + mark.seed + bytes([k])
        opacity = opacities(planes_own, mark.alpha, grid, key)
        for y in range(rows):
            for x in range(columns):
                red, green, blue = (part[n][y * columns + x] for n in range(3))
                grey = (299 * red + 587 * green + 114 * blue + 500) // 1000
                v = grey if channels == 1 else (red, green, blue)[k]
                a, l = opacity[y][x], (2 * v * top + 255) // 510  # noqa: E741  # as the page
                seen = int(locked[mark.y + y, mark.x + x, k])
                lowest = 0
                if a < 255:  # the lowest o with (2 (255 - a) o + 2 a l + 255) // 510 == seen
                    lowest = max(0, -((255 + 2 * a * l - 510 * seen) // (2 * (255 - a))))
                o = lowest + next(rest)
                assert (2 * (255 - a) * o + 2 * a * l + 255) // 510 == seen
                locked[mark.y + y, mark.x + x, k] = o
    assert np.array_equal(locked, original)


@pytest.mark.parametrize("d", [1, 2, 4, 8, 16])
def test_the_page_reads_every_coder(d: int) -> None:
    """What repeats itself is coded by the one, what has its own frequencies by the other."""
    rng = np.random.default_rng(d)
    repeated = np.full((60, 61, 3), (1 << d) - 1, np.uint16)
    uneven = np.minimum(rng.geometric(0.4, (60, 61, 3)), (1 << d) - 1).astype(np.uint16)
    uneven[0, 0] = (1 << d) - 1
    coders = []
    for samples in (repeated, uneven):
        data = encode_residual(samples if d == 16 else samples.astype(np.uint8))
        coders.append(data[0])
        assert data[1] == d
        assert residuals(data, samples.size) == np.moveaxis(samples, -1, 0).ravel().tolist()
    assert coders == [0, 0 if d in {1, 16} else 1]
