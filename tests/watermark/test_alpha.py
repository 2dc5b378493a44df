"""The list L: opacity of every pixel."""

import hashlib
import time

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from medlocker_dicom.errors import PacketError, PlacementError
from medlocker_dicom.watermark.alpha import alpha_map, dither, plain_map

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
    found = alpha_map(ramp.astype(np.uint8), alpha, SEED)
    assert hashlib.sha256(found.tobytes()).hexdigest()[:16] == start


@given(
    base=arrays(np.uint8, array_shapes(min_dims=2, max_dims=2, max_side=40)),
    seed=st.binary(min_size=32, max_size=32),
)
def test_transparent_and_opaque_stay(base: np.ndarray, seed: bytes) -> None:
    """Transparent pixels stay 0, opaque 255, and covered ones stay covered."""
    a = dither(base, seed)
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
        kept = 255.0 - alpha_map(logo_alpha, alpha, seed)
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


def test_large_logos_are_fast() -> None:
    """A 1072 x 1072 logo takes less than 0.3 s (best of 5, on a busy machine too)."""
    logo_alpha = np.full((1072, 1072), 255, np.uint8)
    times = []
    for _ in range(5):
        start = time.perf_counter()
        alpha_map(logo_alpha, 150, SEED)
        times.append(time.perf_counter() - start)
    assert min(times) < 0.3


def test_refuses_what_no_packet_of_ours_holds() -> None:
    """A wrong seed length, rule or alpha is refused without showing the seed."""
    logo_alpha = np.full((2, 2), 255, np.uint8)
    with pytest.raises(PacketError, match="31 bytes") as caught:
        alpha_map(logo_alpha, 150, b"secret!" + bytes(24))
    assert "secret" not in str(caught.value)
    with pytest.raises(PacketError, match="unknown dither rule 'mlv2'"):
        alpha_map(logo_alpha, 150, SEED, "mlv2")
    with pytest.raises(PlacementError, match="256"):
        alpha_map(logo_alpha, 256, SEED)
