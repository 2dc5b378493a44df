"""Exact recovery (equation 9 with the residual)."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from medlocker_dicom.errors import PacketError
from medlocker_dicom.watermark.blend import blend
from medlocker_dicom.watermark.recover import residual, restore

O, L = (plane[..., np.newaxis] for plane in np.mgrid[0:256, 0:256].astype(np.uint8))  # noqa: E741


def _bound(a: int) -> int:
    """g: how many values share one locked value at most."""
    return 256 if a == 255 else -(-255 // (255 - a))


def test_every_8_bit_triple_comes_back() -> None:
    """All 2**24 (original, logo, alpha) triples round-trip with residuals below g."""
    for alpha in range(256):
        a = np.full((256, 256, 1), alpha, np.uint8)
        locked = blend(O, L, a)
        rest = residual(O, locked, L, a)
        assert rest.max() < _bound(alpha)
        assert np.array_equal(restore(locked, rest, L, a), O)


@pytest.mark.parametrize("alpha", [0, 1, 100, 150, 200, 230, 250, 254])
def test_residuals_out_of_their_interval_raise(alpha: int) -> None:
    """One more than the largest residual of a locked value never gives pixels."""
    a = np.full((1, 256, 1), alpha, np.uint8)
    for logo_value in (0, 77, 255):
        logo = np.full((1, 256, 1), logo_value, np.uint8)
        ramp = np.arange(256, dtype=np.uint8)[np.newaxis, :, np.newaxis]
        locked = blend(ramp, logo, a)
        rest = residual(ramp, locked, logo, a)
        for column in range(256):
            same = locked[0, :, 0] == locked[0, column, 0]
            wrong = rest.copy()
            wrong[0, column] = rest[0, same].max() + 1
            with pytest.raises(PacketError):
                restore(locked, wrong, logo, a)


@given(data=st.data())
def test_16_bit_samples_come_back(data: st.DataObject) -> None:
    """16-bit images round-trip for every alpha, several frames included."""
    original = data.draw(arrays(np.uint16, (2, 3, 4, 3)))
    logo = data.draw(arrays(np.uint16, (3, 4, 3)))
    opacities = st.sampled_from([0, 1, 100, 200, 254, 255])
    a = data.draw(arrays(np.uint8, (3, 4, data.draw(st.sampled_from([1, 3]))), elements=opacities))
    locked = blend(original, logo, a)
    rest = residual(original, locked, logo, a)
    assert np.array_equal(restore(locked, rest, logo, a), original)


def test_every_alpha_at_16_bits() -> None:
    """All 256 alphas with random and extreme 16-bit samples round-trip below g."""
    rng = np.random.default_rng(3)
    a = np.repeat(np.arange(256, dtype=np.uint8)[:, None, None], 2000, axis=1)
    original, logo = rng.integers(0, 65536, (2, 256, 2000, 1), dtype=np.uint16)
    original[:, :4] = [[[0], [0], [65535], [65535]]]
    logo[:, :4] = [[[0], [65535], [0], [65535]]]
    locked = blend(original, logo, a)
    rest = residual(original, locked, logo, a)
    assert np.array_equal(restore(locked, rest, logo, a), original)
    assert all(rest[alpha].max() < _bound(alpha) for alpha in range(255))


def test_opaque_pixels_are_stored() -> None:
    """At alpha 255 nothing is left in the image, and the residual is the pixel."""
    original = np.array([[[9, 200, 0]]], np.uint8)
    logo, a = np.full((1, 1, 3), 40, np.uint8), np.full((1, 1, 1), 255, np.uint8)
    locked = blend(original, logo, a)
    assert np.array_equal(locked, logo)
    assert np.array_equal(residual(original, locked, logo, a), original)


def test_opaque_pixels_that_changed_raise() -> None:
    """An opaque pixel that no longer shows the logo is noticed."""
    logo, a = np.full((1, 1, 3), 40, np.uint8), np.full((1, 1, 1), 255, np.uint8)
    with pytest.raises(PacketError, match="does not belong"):
        restore(logo + np.uint8(1), np.zeros((1, 1, 3), np.uint8), logo, a)


def test_residual_of_other_frames_is_refused() -> None:
    """A residual for another number of frames is not broadcast."""
    logo, a = np.zeros((1, 1, 3), np.uint8), np.zeros((1, 1, 1), np.uint8)
    with pytest.raises(PacketError, match="the residual is"):
        restore(np.zeros((2, 1, 1, 3), np.uint8), np.zeros((1, 1, 3), np.uint8), logo, a)
