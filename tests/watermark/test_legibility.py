"""Legibility follows what an eye can read."""

import numpy as np
import pytest
from numpy.typing import NDArray

from medlocker_dicom.phantom import phantom
from medlocker_dicom.watermark.alpha import alpha_map, grid_shape, pack_grid
from medlocker_dicom.watermark.blend import blend, logo_samples
from medlocker_dicom.watermark.legibility import legibility
from medlocker_dicom.watermark.logo import Logo
from medlocker_dicom.watermark.png import default_logo
from medlocker_dicom.watermark.scale import scale_logo

SIDE = 600


@pytest.fixture(scope="module")
def under() -> NDArray[np.uint8]:
    """Return a piece of an eye, as large as the logo."""
    eye = phantom(np.random.default_rng(5), (SIDE, SIDE)).image
    return eye[220 : 220 + logo().height, 200 : 200 + logo().width]


def logo() -> Logo:
    """Return our logo at the size that it has on the eye."""
    return scale_logo(default_logo(), SIDE, SIDE, 4.0)


def read(under: NDArray[np.uint8], opacity: NDArray[np.uint8]) -> float:
    """Blend and read."""
    colours = logo_samples(logo().rgba, under.shape[-1], 8).astype(np.uint8)
    return legibility(under, blend(under, colours, opacity), colours, logo().alpha)


def test_the_opaque_logo_is_read_whole(under: NDArray[np.uint8]) -> None:
    """Opaque, all of it; absent, next to nothing."""
    opaque = logo().alpha[..., np.newaxis]
    assert read(under, opaque) > 0.999
    assert abs(read(under, np.zeros_like(opaque))) < 0.2


def test_fainter_and_noisier_is_less(under: NDArray[np.uint8]) -> None:
    """Each step towards noise is read worse, and one opacity with its dither is read well."""
    rng = np.random.default_rng(1)
    noise = np.repeat(rng.uniform(-1, 1, (1, *grid_shape(logo().alpha.shape, 28))), 3, 0)
    found = [
        read(
            under,
            alpha_map(
                logo().alpha,
                150,
                bytes(32),
                grid=pack_grid(28, np.rint(178 + reach * noise).astype(np.uint8)),
            ),
        )
        for reach in (0, 25, 50, 77)
    ]
    assert found == sorted(found, reverse=True)
    assert found[0] > 0.8
    assert found[0] - found[-1] > 0.015


def test_depth_and_channels_do_not_matter(under: NDArray[np.uint8]) -> None:
    """16 bits are read as 8, grey as colour of three equal channels."""
    grey = under[..., 1:2]
    opacity = alpha_map(logo().alpha, 160, bytes(32))
    three = read(np.repeat(grey, 3, -1), opacity[..., :1])
    wide = grey.astype(np.uint16) << 8
    colours = logo_samples(logo().rgba, 1, 16).astype(np.uint16)
    sixteen = legibility(wide, blend(wide, colours, opacity[..., :1]), colours, logo().alpha)
    assert three == pytest.approx(sixteen, abs=0.02)


def test_a_logo_without_strokes_cannot_be_illegible() -> None:
    """A plain square over a plain ground has nothing to read."""
    ground = np.full((40, 40, 3), 90, np.uint8)
    opaque = np.full((40, 40), 255, np.uint8)
    assert legibility(ground, ground, ground, opaque) == 1.0
