"""Random views: shape and dtype, the seed decides, geometry and colour stay what they are."""

from collections.abc import Callable

import cv2
import numpy as np
import pytest

from medlocker_dicom.training.augment import DARK, RIM, posed, recoloured, transplanted, turned
from training_sets import Image, eye

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


@pytest.mark.parametrize("size", [31, 192])
def test_posed_brings_the_centre_to_the_middle(size: int) -> None:
    """The middle of the patch shows what is asked for, whatever the pose."""
    middle = np.array([(size - 1) / 2, (size - 1) / 2, 1])
    for seed in range(40):
        pose = posed(size, (123.5, -7), np.random.default_rng(seed))
        assert pose.shape == (2, 3)
        np.testing.assert_allclose(pose @ middle, (123.5, -7), atol=1e-9)


def test_posed_is_a_similarity() -> None:
    """It keeps angles, enlarges alike in all directions by a fifth at most, and mirrors half."""
    turns = [posed(64, (0, 0), np.random.default_rng(seed))[:, :2] for seed in range(200)]
    scales = np.sqrt([abs(np.linalg.det(turn)) for turn in turns])
    for turn, scale in zip(turns, scales, strict=True):
        np.testing.assert_allclose(turn.T @ turn, scale**2 * np.eye(2), atol=1e-12)
    assert np.exp(-0.2) <= scales.min() < 0.9
    assert 1.1 < scales.max() <= np.exp(0.2)
    assert 0.4 < np.mean([np.linalg.det(turn) < 0 for turn in turns]) < 0.6
    quadrants = {(turn[0, 0] > 0, turn[1, 0] > 0) for turn in turns}
    assert len(quadrants) == 4


def test_posed_looks_where_it_says() -> None:
    """Warped as the docstring says, the point asked for lies in the patch's middle."""
    dot = np.zeros((80, 120), np.uint8)
    dot[50:53, 90:93] = 255
    for seed in range(10):
        pose = posed(41, (91, 51), np.random.default_rng(seed))
        seen = cv2.warpAffine(dot, pose, (41, 41), flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP)
        assert np.abs(np.argwhere(np.asarray(seen) > 100).mean(0) - 20).max() < 0.6


def flat(colour: tuple[int, int, int]) -> Image:
    """Return a picture of one colour."""
    return np.full((64, 64, 3), colour, np.uint8)


def lesion(place: tuple[int, int]) -> tuple[Image, Image]:
    """Return a retina with a dark spot of 8 x 8 px, and the spot's mask."""
    image, mask = flat((180, 110, 70)), np.zeros((64, 64), np.uint8)
    spot = np.s_[place[0] : place[0] + 8, place[1] : place[1] + 8]
    image[spot], mask[spot] = (100, 50, 30), 2
    return image, mask


def test_lesions_onto_their_own_eye_change_nothing() -> None:
    """The Poisson equation gives back the picture that its gradients are of, to one level."""
    for seed in range(4):
        shown = eye(seed)
        mask = np.asarray(shown.mask & 15, np.uint8)
        same, kept = transplanted(shown.image, mask, shown.image)
        assert (kept & (mask > 0)).any()
        assert np.abs(same.astype(int) - shown.image).max() <= 1


@pytest.mark.parametrize("radius", [0, 1, 2, 5, 9])
def test_transplanted_lesions_take_the_hosts_colour(radius: int) -> None:
    """A spot stays as much darker as it was, but on the host's ground, not on its own."""
    y, x = np.mgrid[:64, :64]
    spot = np.hypot(y - 30, x - 33) <= radius
    image, host = flat((180, 110, 70)), flat((90, 140, 160))
    image[spot] = (100, 50, 30)
    blended, kept = transplanted(image, np.asarray(spot * np.uint8(2), np.uint8), host)
    wanted = np.where(spot[..., None], (10, 80, 120), host)
    assert blended.dtype == np.uint8
    assert kept.dtype == np.bool_
    assert kept[spot].all()
    assert np.abs(blended.astype(int) - wanted).max() <= 1


def test_lesions_stay_off_what_is_no_retina() -> None:
    """None come onto black, or beside it, or to the border; black stays black."""
    image, mask = flat((180, 110, 70)), np.full((64, 64), 2, np.uint8)
    host = flat((90, 140, 160))
    host[:, 40:] = DARK
    blended, kept = transplanted(image, mask, host)
    rows, columns = np.nonzero(kept)
    # cloning needs 2 px at the border, and 4 beside black keep clear; its rim shows the host
    assert (rows.min(), rows.max()) == (2 + RIM, 61 - RIM)
    assert (columns.min(), columns.max()) == (2 + RIM, 35 - RIM)
    assert np.array_equal(blended[:, 40:], host[:, 40:])


@pytest.mark.parametrize("place", [(28, 50), (56, 28), (28, 36)])
def test_without_a_place_the_host_stays(place: tuple[int, int]) -> None:
    """A lesion that would come to lie beside the retina is left out."""
    image, mask = lesion(place)
    host = flat((90, 140, 160))
    host[40:], host[:, 40:] = 0, 0
    blended, kept = transplanted(image, mask, host)
    assert not kept[mask > 0].any()
    assert np.array_equal(blended[40:], host[40:])
    assert np.array_equal(blended[:, 40:], host[:, 40:])


def test_lesions_have_room_or_are_left_out() -> None:
    """However narrow the strip of retina, nothing breaks, and what is told of is shown."""
    image, mask = lesion((28, 28))
    found = []
    for width in range(40):
        host = flat((90, 140, 160))
        host[:, : 32 - width // 2], host[:, 32 + width - width // 2 :] = 0, 0
        blended, kept = transplanted(image, mask, host)
        found.append(bool(kept.any()))
        changed = np.abs(blended.astype(int) - host).max(2) > 0
        assert found[-1] == changed.any()
        assert not changed[host.max(2) == 0].any()
    assert found == sorted(found)
    assert found[-1]
    assert not found[10]
