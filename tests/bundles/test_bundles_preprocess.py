"""What models see of a photograph: the retina, square, at their size, nothing invented."""

from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from medlocker_dicom.bundles.picture import read_rgb
from medlocker_dicom.bundles.preprocess import (
    MEAN,
    STD,
    Crop,
    crop_to_retina,
    cut,
    normalise,
    resample,
    retina_at,
    retina_crop,
)
from medlocker_dicom.phantom import phantom


def disc(shape: tuple[int, int], centre: tuple[int, int], radius: int) -> NDArray[np.uint8]:
    """Draw a grey disc on black: uint8 (H, W, 3); centre as x, y."""
    image = np.zeros((*shape, 3), np.uint8)
    cv2.circle(image, centre, radius, (150, 150, 150), -1)
    return image


@pytest.mark.parametrize(
    ("shape", "centre", "radius"),
    [((300, 420), (210, 150), 120), ((640, 400), (200, 350), 150), ((900, 900), (500, 420), 380)],
)
def test_the_crop_is_the_retinas_square(
    shape: tuple[int, int], centre: tuple[int, int], radius: int
) -> None:
    """The window lies around the disc, square, to 1 % of its side."""
    crop = retina_crop(disc(shape, centre, radius))
    slack = 0.01 * 2 * radius + 2
    assert abs(crop.x - (centre[0] - radius)) <= slack
    assert abs(crop.y - (centre[1] - radius)) <= slack
    assert abs(crop.side - (2 * radius + 1)) <= 2 * slack


def test_a_retina_cut_by_the_frame() -> None:
    """Of a disc that the frame cuts at top and bottom, the window reaches beyond the frame."""
    crop = retina_crop(disc((300, 500), (250, 150), 200))
    assert crop.y < 0
    assert crop.y + crop.side > 300
    assert abs(crop.side - 401) <= 8


@given(
    st.integers(1, 30),
    st.integers(1, 30),
    st.integers(-40, 40),
    st.integers(-40, 40),
    st.integers(1, 50),
)
def test_cut_pads_with_black(height: int, width: int, x: int, y: int, side: int) -> None:
    """Each px of the window is the image's where there is one, else black; far outside too."""
    image = np.random.default_rng(0).integers(1, 256, (height, width, 3), dtype=np.uint8)
    window = cut(image, Crop(x, y, side))
    wide = np.zeros((height + 200, width + 200, 3), np.uint8)
    wide[100 : 100 + height, 100 : 100 + width] = image
    assert np.array_equal(window, wide[100 + y : 100 + y + side, 100 + x : 100 + x + side])


def test_crops_of_one_eye_at_two_resolutions_agree() -> None:
    """An eye and its half-size copy give nearly the same crop."""
    eye = phantom(np.random.default_rng(3), (600, 600)).image
    half = resample(eye, (300, 300))
    one, two = crop_to_retina(eye, 96).astype(int), crop_to_retina(half, 96).astype(int)
    assert np.abs(one - two).mean() < 2


def test_a_border_changes_no_crop() -> None:
    """A black margin around the photograph leaves the crop as it was, to a px."""
    eye = phantom(np.random.default_rng(4), (400, 400)).image
    wide = np.pad(eye, ((30, 50), (200, 90), (0, 0)))
    apart = np.abs(crop_to_retina(eye, 64).astype(int) - crop_to_retina(wide, 64).astype(int))
    assert apart.mean() < 2


def test_a_real_photograph_is_cropped_to_its_retina(shared_data: Path) -> None:
    """The crop of a real photograph is nearly as full as a disc in a square is."""
    for path in sorted((shared_data / "idrid_grading" / "images").glob("*.jpg"))[::100]:
        lit = (crop_to_retina(read_rgb(path), 224).max(axis=2) > 20).mean()
        assert 0.6 < lit < 0.9, path.name


def test_normalise_is_its_formula() -> None:
    """(value / 255 - mean) / deviation by channel, planes first."""
    pixels = np.random.default_rng(0).integers(0, 256, (2, 5, 7, 3), dtype=np.uint8)
    planes = normalise(pixels)
    assert planes.dtype == np.float32
    assert planes.flags.c_contiguous
    for channel in range(3):
        expected = (pixels[..., channel] / 255 - MEAN[channel]) / STD[channel]
        np.testing.assert_allclose(planes[:, channel], expected, atol=1e-5)


def test_resample_averages_down() -> None:
    """Shrinking takes the mean of what a px covers, and keeps a flat image flat."""
    fine = np.zeros((8, 8, 3), np.uint8)
    fine[::2] = 200
    assert np.array_equal(resample(fine, (4, 4)), np.full((4, 4, 3), 100))
    assert np.array_equal(resample(np.full((5, 7, 3), 9, np.uint8), (21, 15)).ravel(), [9] * 945)


def test_retina_at_gives_the_wanted_diameter() -> None:
    """The retina of the resampled photograph is as wide as asked for, aspect kept."""
    eye = disc((600, 800), (400, 300), 250)
    for diameter in (128, 512, 1024):
        image, mask = retina_at(eye, diameter, None)
        assert mask is None
        assert abs(retina_crop(image).side - diameter) <= 0.02 * diameter + 2
        assert image.shape[1] / image.shape[0] == pytest.approx(4 / 3, rel=0.01)


def test_retina_at_keeps_tiny_lesions() -> None:
    """Each 6 px lesion of a photograph that shrinks to a quarter is there, and no other is."""
    eye = disc((1200, 1200), (600, 600), 560)
    mask = np.zeros((1200, 1200), np.uint8)
    rng = np.random.default_rng(1)
    places = rng.integers(300, 900, (40, 2))
    for n, (x, y) in enumerate(places):
        cv2.circle(mask, (int(x), int(y)), 3, 1 << (n % 4), -1)
    image, small = retina_at(eye, 280, mask)
    assert small is not None
    assert small.shape == image.shape[:2]
    scale = small.shape[0] / 1200
    for x, y in places:
        row, column = round(y * scale), round(x * scale)
        bits = mask[y, x]
        near = np.bitwise_or.reduce(small[row - 1 : row + 2, column - 1 : column + 2].ravel())
        assert near & bits == bits
    assert np.count_nonzero(small) < 40 * 9
    assert not small[:50].any()


def test_retina_at_keeps_bits_apart() -> None:
    """Labels that overlap stay both; growing keeps a mask's share of the image."""
    eye = disc((200, 200), (100, 100), 95)
    mask = np.zeros((200, 200), np.uint8)
    mask[60:100, 60:100] |= 1
    mask[80:120, 80:120] |= 16
    for diameter in (96, 400):
        _, out = retina_at(eye, diameter, mask)
        assert out is not None
        for bit in (1, 16):
            assert np.mean(out & bit > 0) == pytest.approx(0.04, rel=0.15)
        assert np.mean(out == 17) == pytest.approx(0.01, rel=0.3)
