"""Random views: shape and dtype, the seed decides, geometry and colour stay what they are."""

from collections.abc import Callable

import numpy as np
import pytest
from numpy.typing import NDArray
from training_sets import eye

from medlocker_dicom.training.augment import recoloured, turned

Image = NDArray[np.uint8]
View = Callable[[Image, np.random.Generator], Image]


def shrunk(rgb: Image, rng: np.random.Generator) -> Image:
    """Return a turned view of 48 px."""
    return turned(rgb, 48, rng)


VIEWS = pytest.mark.parametrize("view", [shrunk, recoloured])


@VIEWS
def test_the_seed_decides(view: View) -> None:
    """Equal seeds give equal views, other seeds other ones; the picture itself stays."""
    picture = eye(0).image
    before = picture.copy()
    views = [view(picture, np.random.default_rng(seed)) for seed in range(6)]
    for seed, seen in enumerate(views):
        assert np.array_equal(seen, view(picture, np.random.default_rng(seed)))
    assert len({seen.tobytes() for seen in views}) == len(views)
    assert np.array_equal(picture, before)


@VIEWS
def test_black_stays_black(view: View) -> None:
    """No view makes light where there is none."""
    black = np.zeros((64, 64, 3), np.uint8)
    assert not any(view(black, np.random.default_rng(seed)).any() for seed in range(20))


@pytest.mark.parametrize("size", [31, 64, 300])
def test_turned_has_the_wanted_size(size: int) -> None:
    """A crop is shrunk or enlarged to the size asked for."""
    seen = turned(eye(0).image, size, np.random.default_rng(1))
    assert seen.dtype == np.uint8
    assert seen.shape == (size, size, 3)


def test_turned_keeps_the_retina_in_view() -> None:
    """A disc stays one of 0.9 to 1.15 times its share, centred to a twentieth and some px."""
    size, y, x = 80, *np.mgrid[-1:1:160j, -1:1:160j]
    disc = np.repeat(np.uint8(255) * (np.hypot(x, y) < 0.6)[..., None], 3, axis=2)
    for seed in range(40):
        lit = np.argwhere(turned(disc, size, np.random.default_rng(seed))[..., 0] > 127)
        scale = np.sqrt(len(lit) / (np.pi * (0.6 * size / 2) ** 2))
        assert 0.88 < scale < 1.17
        assert np.abs(lit.mean(0) - (size - 1) / 2).max() < 0.05 * size + 2


def test_turned_rotates_and_mirrors() -> None:
    """Over the seeds a corner mark reaches every quadrant, in both orientations."""
    marks = np.zeros((96, 96, 3), np.uint8)
    marks[20:32, 44:52, 0] = 255  # above the centre
    marks[44:52, 64:76, 1] = 255  # right of it
    quadrants, senses = set(), set()
    for seed in range(60):
        seen = turned(marks, 96, np.random.default_rng(seed))
        above, right = (np.argwhere(seen[..., c] > 100).mean(0) - 47.5 for c in (0, 1))
        quadrants.add((above[0] > 0, above[1] > 0))
        senses.add(above[0] * right[1] - above[1] * right[0] > 0)
    assert len(quadrants) == 4
    assert len(senses) == 2


def test_recoloured_keeps_the_order_of_levels() -> None:
    """Without a neighbour to blur with, a brighter grey stays at least as bright, channelwise."""
    levels = np.arange(0, 256, 5, dtype=np.uint8)
    for seed in range(30):
        curves = []
        for level in levels:
            flat = np.full((4, 4, 3), level, np.uint8)
            seen = recoloured(flat, np.random.default_rng(seed))
            assert seen.dtype == np.uint8
            assert seen.shape == flat.shape
            assert (seen == seen[0, 0]).all()
            curves.append(seen[0, 0].astype(int))
        assert np.diff(curves, axis=0).min() >= 0


def test_recoloured_takes_a_window_of_a_larger_picture() -> None:
    """A window of a picture, not contiguous in memory, gives what its copy gives."""
    window = eye(0).image[30:90, 40:90]
    seen = recoloured(window, np.random.default_rng(3))
    assert np.array_equal(seen, recoloured(window.copy(), np.random.default_rng(3)))
    assert seen.shape == (60, 50, 3)
