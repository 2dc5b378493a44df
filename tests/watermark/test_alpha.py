"""The list L: opacity of every sample."""

import hashlib
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from medlocker_dicom.errors import PacketError, PlacementError
from medlocker_dicom.watermark.alpha import (
    _expanded,
    alpha_map,
    dither,
    grid_shape,
    pack_grid,
    plain_map,
)

SEED = bytes(range(32))


@pytest.mark.parametrize(
    ("shape", "alpha", "start"),
    [
        ((56, 56), 100, "8d70c8f1939ad6e0"),
        ((61, 97), 180, "9b52498039082bba"),
        ((300, 7), 254, "5dcf912898845e1a"),
    ],
)
def test_known_maps(shape: tuple[int, int], alpha: int, start: str) -> None:
    """The rule mlv1 never changes: maps of earlier packets stay the same."""
    ramp = np.arange(shape[0] * shape[1], dtype=np.int64).reshape(shape) % 256
    found = alpha_map(ramp.astype(np.uint8), alpha, SEED, rule="mlv1")
    assert hashlib.sha256(found.tobytes()).hexdigest()[:16] == start


@pytest.mark.parametrize(
    ("shape", "alpha", "channels", "start"),
    [
        ((56, 56), 100, 3, "2fa9140ac89f2ae2"),
        ((61, 97), 180, 3, "e032d50102f04167"),
        ((61, 97), 180, 1, "0408e9671d779ad7"),
        ((300, 7), 254, 3, "1cba36970612491a"),
    ],
)
def test_known_maps_of_channels(
    shape: tuple[int, int], alpha: int, channels: int, start: str
) -> None:
    """The rule mlv3 never changes either."""
    ramp = np.arange(shape[0] * shape[1], dtype=np.int64).reshape(shape) % 256
    found = alpha_map(ramp.astype(np.uint8), alpha, SEED, channels=channels)
    assert found.shape == (*shape, channels)
    assert hashlib.sha256(found.tobytes()).hexdigest()[:16] == start


@given(
    base=arrays(np.uint8, array_shapes(min_dims=2, max_dims=2, max_side=40)),
    key=st.binary(min_size=32, max_size=60),
)
def test_transparent_and_opaque_stay(base: np.ndarray, key: bytes) -> None:
    """Transparent pixels stay 0, opaque 255, and covered ones stay covered."""
    a = dither(base, key)
    assert np.all(a[base == 255] == 255)
    assert np.all(a[base == 0] == 0)
    assert np.all(a[base > 2] > 0)


@pytest.mark.parametrize("alpha", [100, 150, 200, 230, 250])
@pytest.mark.parametrize("side", [56, 240, 1072])
def test_no_seed_is_weak(alpha: int, side: int) -> None:
    """The transmittance varies by at least 0.3 of its mean, coarse part at least 0.2."""
    logo_alpha = np.full((side, side), 255, np.uint8)
    for number in range(3):
        seed = hashlib.sha256(b"%d" % number).digest()
        for kept in np.moveaxis(255.0 - alpha_map(logo_alpha, alpha, seed), -1, 0):
            assert kept.std() / kept.mean() > 0.3
            cell = side // 14
            fit = kept[: 14 * cell, : 14 * cell].reshape(14, cell, 14, cell).mean(axis=(1, 3))
            assert fit.std() / fit.mean() > 0.2


def test_seeds_differ_everywhere() -> None:
    """One bit of the seed changes the whole map."""
    logo_alpha = np.full((200, 200), 255, np.uint8)
    one, two = (alpha_map(logo_alpha, 150, bytes([n]) + bytes(31)) for n in (0, 1))
    difference = one.astype(int) - two
    assert (difference == 0).mean() < 0.05
    assert abs(np.corrcoef(one.ravel(), two.ravel())[0, 1]) < 0.5


def test_channels_tell_nothing_of_each_other() -> None:
    """By the present rule each channel has an opacity of its own; by the earlier ones, none has."""
    logo_alpha = np.full((300, 300), 255, np.uint8)
    for number in range(8):
        seed = hashlib.sha256(b"%d" % number).digest()
        channels = alpha_map(logo_alpha, 150, seed).reshape(-1, 3)
        for one, two in ((0, 1), (0, 2), (1, 2)):  # chance: the coarse part has few nodes
            assert abs(np.corrcoef(channels[:, one], channels[:, two])[0, 1]) < 0.6
        assert np.mean(channels.max(1).astype(int) - channels.min(1) > 20) > 0.8
    assert alpha_map(logo_alpha, 150, SEED, rule="mlv1").shape == (300, 300, 1)


def test_mean_stays_near_alpha() -> None:
    """The logo stays about as visible as alpha says, and a little more when faint."""
    logo_alpha = np.full((240, 240), 255, np.uint8)
    assert 100 <= alpha_map(logo_alpha, 100, SEED).mean() <= 115
    for alpha in (150, 200, 250):
        assert abs(alpha_map(logo_alpha, alpha, SEED).mean() - alpha) < 6
    assert alpha_map(logo_alpha, 100, SEED).min() >= 40


def test_plain_map_rounds_half_up() -> None:
    """Without dither a pixel is logo_alpha * alpha / 255, rounded half up."""
    every = np.arange(256, dtype=np.uint8)[np.newaxis]
    exact = np.arange(256) * 170 / 255
    assert np.array_equal(plain_map(every, 170)[0], np.floor(exact + 0.5))


def test_refuses_what_no_packet_of_ours_holds() -> None:
    """A wrong seed length, rule or alpha is refused without showing the seed."""
    logo_alpha = np.full((2, 2), 255, np.uint8)
    with pytest.raises(PacketError, match="31 bytes") as caught:
        alpha_map(logo_alpha, 150, b"secret!" + bytes(24))
    assert "secret" not in str(caught.value)
    with pytest.raises(PacketError, match="unknown dither rule 'mlv4'"):
        alpha_map(logo_alpha, 150, SEED, rule="mlv4")
    with pytest.raises(PlacementError, match="256"):
        alpha_map(logo_alpha, 256, SEED)


def test_known_map_of_a_grid_of_channels() -> None:
    """The rule mlv3 never changes with a grid either."""
    ramp = np.arange(61 * 97, dtype=np.int64).reshape(61, 97) % 256
    found = alpha_map(ramp.astype(np.uint8), 100, SEED, grid=grid_of((61, 97), 56, 5))
    assert hashlib.sha256(found.tobytes()).hexdigest()[:16] == "0dac804a19bbd818"


def grid_of(shape: tuple[int, int], cells: int, seed: int, channels: int = 3) -> bytes:
    """Draw a grid for a logo of this shape."""
    rng = np.random.default_rng(seed)
    return pack_grid(cells, rng.integers(100, 256, (channels, *grid_shape(shape, cells)), np.uint8))


@pytest.mark.parametrize(
    ("shape", "cells", "start"),
    [
        ((56, 56), 28, "70f99951196f9776"),
        ((61, 97), 28, "335b6323c35b6acf"),
        ((300, 7), 4, "3b0635fc8ee7b484"),
        ((20, 30), 64, "292dd5e682ef9891"),
    ],
)
def test_known_maps_of_grids(shape: tuple[int, int], cells: int, start: str) -> None:
    """The rule mlv2 never changes: maps of earlier packets stay the same."""
    ramp = np.arange(shape[0] * shape[1], dtype=np.int64).reshape(shape) % 256
    found = alpha_map(
        ramp.astype(np.uint8), 100, SEED, rule="mlv2", grid=grid_of(shape, cells, 5, 1)
    )
    assert hashlib.sha256(found.tobytes()).hexdigest()[:16] == start


@pytest.mark.parametrize("channels", [1, 3])
def test_each_channel_has_its_own_part_of_the_grid(channels: int) -> None:
    """A channel's opacities follow its own nodes, and its own noise, alone."""
    logo_alpha = np.full((90, 70), 255, np.uint8)
    grid = grid_of((90, 70), 8, 3, channels)
    whole = alpha_map(logo_alpha, 100, SEED, grid=grid, channels=channels)
    size = (len(grid) - 1) // channels
    for channel in range(channels):
        nodes = grid[1 + channel * size :][:size]
        alone = alpha_map(
            logo_alpha, 100, SEED, grid=grid[:1] + channels * nodes, channels=channels
        )
        assert np.array_equal(alone[..., channel], whole[..., channel])


@pytest.mark.parametrize("cells", [4, 28, 64])
@pytest.mark.parametrize("shape", [(1, 1), (9, 200), (240, 238), (33, 64)])
def test_an_even_grid_is_one_alpha(shape: tuple[int, int], cells: int) -> None:
    """A grid whose nodes are all alike expands to what their opacity alone does."""
    logo_alpha = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
    for alpha in (100, 177, 255):
        for channels in (1, 3):
            nodes = np.full((channels, *grid_shape(shape, cells)), alpha, np.uint8)
            grid = pack_grid(cells, nodes)
            assert np.array_equal(
                alpha_map(logo_alpha, 100, SEED, grid=grid, channels=channels),
                alpha_map(logo_alpha, alpha, SEED, channels=channels),
            )


def test_grids_are_linear_between_their_nodes() -> None:
    """On a node the opacity is the node's, between two of them it goes straight."""
    nodes = np.full((5, 5), 100, np.uint8)
    nodes[2, 2] = 200
    shape = (40, 40)  # cells of 10 px
    (level,) = _expanded(pack_grid(4, nodes), shape, 1)
    opacity = plain_map(np.full(shape, 255, np.uint8), level)
    assert opacity[20, 20] == 200
    assert opacity[20, [15, 18, 25]].tolist() == [150, 180, 150]
    assert opacity[15, 15] == 125
    assert opacity[20, 10] == opacity[9, 20] == 100


@pytest.mark.parametrize(
    ("rule", "change"),
    [
        ("mlv3", lambda grid: grid[:-1]),
        ("mlv3", lambda grid: grid + b"\x80"),
        ("mlv3", lambda grid: b"\x03" + grid[1:]),
        ("mlv3", lambda grid: b"\xff" + grid[1:]),
        ("mlv3", lambda grid: b"\x1b" + grid[1:]),
        ("mlv3", lambda grid: grid[: 1 + (len(grid) - 1) // 3]),
        ("mlv2", lambda grid: grid),
        ("mlv2", lambda _: b""),
        ("mlv1", lambda grid: grid),
        ("mlv4", lambda grid: grid),
    ],
)
def test_other_grids_are_refused(rule: str, change: Callable[[bytes], bytes]) -> None:
    """A grid of another logo, a damaged one, and one that its rule does not expand."""
    logo_alpha = np.full((56, 56), 255, np.uint8)
    alpha_map(logo_alpha, 100, SEED, grid=grid_of((56, 56), 28, 5))
    with pytest.raises(PacketError):
        alpha_map(logo_alpha, 100, SEED, rule=rule, grid=change(grid_of((56, 56), 28, 5)))
