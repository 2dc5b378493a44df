"""Opacities by another reader, written from keys/keyfile.md alone, one px at a time."""

import hashlib
import struct

import numpy as np
import pytest

from medlocker_dicom.watermark.alpha import alpha_map, grid_shape, pack_grid

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


def opacities(l: Rows, alpha: int, grid: bytes, key: bytes) -> Rows:  # noqa: E741  # as the page
    """Return a of every px of a channel; the key is what is hashed before the lattice's number."""
    height, width = len(l), len(l[0])
    noise = [[0] * width for _ in l]
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
    base = [[0] * width for _ in l]
    for y in range(height):
        for x in range(width):
            level = alpha
            if grid:
                s = cell(width, height, grid[0])
                level = (interpolated(lattice(grid[1:], -(-width // s) + 1), s, y, x) + 8) // 16
            base[y][x] = (2 * l[y][x] * level + 255) // 510
    covered = [noise[y][x] for y in range(height) for x in range(width) if base[y][x]]
    result = [[0] * width for _ in l]
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
