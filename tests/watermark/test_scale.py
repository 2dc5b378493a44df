"""Scaling the logo to an image (equation 2)."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from medlocker_dicom.errors import LogoError
from medlocker_dicom.watermark.logo import Logo
from medlocker_dicom.watermark.scale import scale_logo, scaled_size


def _disc(size: int, hidden: int) -> Logo:
    """Opaque red disc on transparent ground of colour `hidden`."""
    y, x = np.mgrid[:size, :size] - (size - 1) / 2
    rgba = np.full((size, size, 4), hidden, np.uint8)
    rgba[..., 3] = 0
    rgba[x**2 + y**2 < (0.4 * size) ** 2] = (200, 0, 0, 255)
    return Logo(rgba)


@pytest.mark.parametrize(
    ("logo", "image", "sl", "size"),
    [
        ((1024, 1024), (224, 224), 4, (56, 56)),
        ((1024, 1024), (4288, 2848), 4, (712, 712)),
        ((1000, 300), (4288, 2848), 4, (1072, 321)),
        ((300, 1000), (4288, 2848), 4, (213, 712)),
        ((3, 7), (10, 10), 4, (1, 2)),
        ((1000, 1), (40, 40), 4, (10, 1)),
        ((7, 7), (49, 49), 7.0, (7, 7)),
        ((10, 10), (100, 100), 1, (100, 100)),
    ],
)
def test_sizes(
    logo: tuple[int, int], image: tuple[int, int], sl: float, size: tuple[int, int]
) -> None:
    """Sizes follow equation 2, rounded down, at least one pixel."""
    shape = (logo[1], logo[0], 4)
    assert scaled_size(Logo(np.full(shape, 255, np.uint8)), *image, sl) == size


@given(
    size=st.tuples(st.integers(1, 60), st.integers(1, 60)),
    image=st.tuples(st.integers(4, 300), st.integers(4, 300)),
    sl=st.floats(1, 9),
)
def test_never_larger_than_a_share(
    size: tuple[int, int], image: tuple[int, int], sl: float
) -> None:
    """Neither side takes more than 1 / sl of the image, but for the one-pixel floor."""
    found = scaled_size(Logo(np.full((*size, 4), 255, np.uint8)), *image, sl)
    for side, whole in zip(found, image, strict=True):
        assert side == 1 or side * sl <= whole * (1 + 1e-12)


def test_hidden_colours_do_not_bleed() -> None:
    """The colour of transparent pixels makes no difference and leaves no fringe."""
    white, black = (scale_logo(_disc(400, hidden), 224, 224, 4) for hidden in (255, 0))
    assert white.sha256 == black.sha256
    solid = white.rgba[white.alpha > 20].astype(int)
    assert np.abs(solid[:, :3] - (200, 0, 0)).max() <= 1


def test_lanczos_leaves_no_ripple() -> None:
    """Beside the shape nothing is covered: no faint rings far from the edge."""
    scaled = scale_logo(_disc(400, 0), 224, 224, 4)
    y, x = np.mgrid[:56, :56] - 27.5
    assert not scaled.alpha[x**2 + y**2 > (0.4 * 56 + 1.5) ** 2].any()
    assert scaled.alpha[x**2 + y**2 < (0.4 * 56 - 1.5) ** 2].min() > 240


@pytest.mark.parametrize("sl", [0.5, 0.9])
def test_larger_than_the_image_is_refused(sl: float) -> None:
    """A factor below 1 would not fit."""
    with pytest.raises(LogoError, match="does not fit into an image of 100 x 100"):
        scale_logo(_disc(50, 0), 100, 100, sl)


@pytest.mark.parametrize("sl", [0, -4, float("nan"), float("inf")])
def test_refuses_factors_that_are_none(sl: float) -> None:
    """Zero, negative and unreal factors are named."""
    with pytest.raises(LogoError, match=f"factor {sl}"):
        scale_logo(_disc(50, 0), 100, 100, sl)
