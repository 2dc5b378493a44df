"""Blending (equation 1) and the logo's colours in the image's range."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from medlocker_dicom.errors import PixelLayoutError
from medlocker_dicom.watermark.blend import blend, logo_samples


def zeros(*shape: int) -> np.ndarray:
    """Return black, or transparent, uint8."""
    return np.zeros(shape, np.uint8)


def test_equals_pillow_paste() -> None:
    """Eight-bit blending is what Pillow's paste with a mask does."""
    rng = np.random.default_rng(1)
    original, logo = rng.integers(0, 256, (2, 300, 400, 3), dtype=np.uint8)
    a = rng.integers(0, 256, (300, 400, 1), dtype=np.uint8)
    pasted = Image.fromarray(original)
    pasted.paste(Image.fromarray(logo), (0, 0), Image.fromarray(a[..., 0]))
    assert np.array_equal(blend(original, logo, a), np.asarray(pasted))


@given(o=st.integers(0, 65535), l=st.integers(0, 65535), a=st.integers(0, 255))
def test_rounds_equation_1_at_16_bits(o: int, l: int, a: int) -> None:  # noqa: E741  # equation 1's name
    """A 16-bit sample is equation 1, rounded half up, without overflow."""
    locked = blend(
        np.full((1, 1, 1), o, np.uint16),
        np.full((1, 1, 1), l, np.uint16),
        np.full((1, 1, 1), a, np.uint8),
    )
    assert locked.item() == (2 * (255 - a) * o + 2 * a * l + 255) // 510
    assert abs(locked.item() - ((1 - a / 255) * o + a / 255 * l)) <= 0.5 + 1e-9


def test_blends_every_frame_alike() -> None:
    """Leading dimensions are frames: each gets the same logo."""
    rng = np.random.default_rng(2)
    frames = rng.integers(0, 256, (3, 8, 9, 3), dtype=np.uint8)
    logo = rng.integers(0, 256, (8, 9, 3), dtype=np.uint8)
    a = rng.integers(0, 256, (8, 9, 3), dtype=np.uint8)
    together = blend(frames, logo, a)
    assert all(np.array_equal(together[i], blend(frames[i], logo, a)) for i in range(3))
    for c in range(3):
        one = np.s_[..., c : c + 1]
        assert np.array_equal(together[one], blend(frames[one], logo[one], a[one]))


@pytest.mark.parametrize(
    ("image", "logo", "a"),
    [
        (zeros(4, 5, 3), zeros(4, 5, 3).astype(np.uint16), zeros(4, 5, 3)),
        (zeros(4, 5, 3), zeros(4, 5, 1), zeros(4, 5, 1)),
        (zeros(4, 5, 3), zeros(4, 5, 3), zeros(5, 4, 3)),
        (zeros(4, 5, 3), zeros(4, 5, 3), zeros(4, 5)),
        (zeros(4, 5, 3), zeros(4, 5, 3), zeros(4, 5, 2)),
        (zeros(4, 5, 3).astype(np.int16), zeros(4, 5, 3).astype(np.int16), zeros(4, 5, 3)),
        (zeros(4, 5, 3), zeros(4, 5, 3), zeros(4, 5, 3).astype(np.int16)),
    ],
)
def test_refuses_arrays_that_do_not_fit(
    image: np.ndarray,
    logo: np.ndarray,
    a: np.ndarray,
) -> None:
    """Different shapes or dtypes are refused, never broadcast."""
    with pytest.raises(PixelLayoutError):
        blend(image, logo, a)


def test_logo_colours_span_the_range() -> None:
    """White is the largest sample at every depth and black is 0; colours keep their order."""
    rgba = np.zeros((1, 256, 4), np.uint8)
    rgba[0, :, :3] = np.arange(256)[:, np.newaxis]
    for bits in range(8, 17):
        samples = logo_samples(rgba, 3, bits)
        assert samples.dtype == (np.uint8 if bits == 8 else np.uint16)
        assert samples[0, 0, 0] == 0
        assert samples[0, -1, 0] == 2**bits - 1
        assert np.all(np.diff(samples[0, :, 0].astype(np.int64)) > 0)


def test_grey_logo_is_luma() -> None:
    """In one channel green is brighter than red, red than blue, and grey stays grey."""
    rgba = np.zeros((1, 4, 4), np.uint8)
    rgba[0, 0, 0] = rgba[0, 1, 1] = rgba[0, 2, 2] = 255
    rgba[0, 3, :3] = 100
    assert logo_samples(rgba, 1, 8)[0, :, 0].tolist() == [76, 150, 29, 100]


@pytest.mark.parametrize(("channels", "bits"), [(2, 8), (3, 7), (3, 17)])
def test_refuses_other_layouts(channels: int, bits: int) -> None:
    """Only 1 or 3 channels of 8 to 16 bits can be drawn on."""
    with pytest.raises(PixelLayoutError, match=f"{channels} channels of {bits} bits"):
        logo_samples(np.zeros((1, 1, 4), np.uint8), channels, bits)
