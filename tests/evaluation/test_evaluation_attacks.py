"""Attacks do what an attacker would, and no less."""

from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray

from medlocker_dicom.evaluation.attacks import (
    MARGIN,
    PIPELINES,
    RESTORERS,
    colour_prior,
    edges_of,
    known_logo,
    matted,
    matting,
    pasted,
    scene_of,
    telea,
    wiener,
)
from medlocker_dicom.phantom import phantom
from medlocker_dicom.watermark.alpha import RULE, alpha_map, plain_map
from medlocker_dicom.watermark.blend import blend, logo_samples
from medlocker_dicom.watermark.logo import Logo
from medlocker_dicom.watermark.png import default_logo
from medlocker_dicom.watermark.scale import scale_logo

SIDE = 400


@pytest.fixture(scope="module")
def eye() -> NDArray[np.uint8]:
    """Return a phantom."""
    return phantom(np.random.default_rng(5), (SIDE, SIDE)).image


@pytest.fixture(scope="module")
def logo() -> Logo:
    """Return our logo at the size that it has on the phantom."""
    return scale_logo(default_logo(), SIDE, SIDE, 4.0)


def locked_at(
    eye: NDArray[np.uint8], logo: Logo, x: int, y: int, rule: str = ""
) -> NDArray[np.uint8]:
    """Blend the logo, with the dither of a rule that only the key tells, or without."""
    alpha = plain_map(logo.alpha, 150)[..., np.newaxis]
    if rule:
        alpha = alpha_map(logo.alpha, 150, b"seed" * 8, rule=rule)
    window = np.s_[y : y + logo.height, x : x + logo.width]
    result = eye.copy()
    colours = logo_samples(logo.rgba, 3, 8).astype(np.uint8)
    result[window] = blend(eye[window], colours, alpha)
    return result


def test_a_uniform_opacity_is_inverted(eye: NDArray[np.uint8], logo: Logo) -> None:
    """Without the dither whoever knows the logo gets the eye back, but for rounding."""
    locked = locked_at(eye, logo, 120, 140)
    scene, _ = scene_of(locked, eye, logo, (120, 140))
    assert scene.psnr(known_logo(scene)) > 35
    assert scene.psnr(scene.locked) < 20


@pytest.mark.parametrize("attack", [name for name in RESTORERS if name.startswith("A1 +")])
def test_the_dither_withstands_a_known_logo(
    eye: NDArray[np.uint8], logo: Logo, attack: str
) -> None:
    """With it, equation 9 over all opacities stays below 22 dB, cleaned or not."""
    locked = locked_at(eye, logo, 120, 140, RULE)
    scene, _ = scene_of(locked, eye, logo, (120, 140))
    assert scene.psnr(known_logo(scene)) < 22
    assert scene.psnr(RESTORERS[attack](scene)) < 22


def test_what_cannot_be_lifted_is_painted_over(eye: NDArray[np.uint8], logo: Logo) -> None:
    """Where a logo is all but opaque, whoever lifts it does no worse than who paints over it."""
    x, y = 120, 140
    clear = np.where(np.arange(logo.width) < logo.width // 2, 255, 100).astype(np.uint8)
    alpha = np.where(logo.alpha > 0, np.minimum(logo.alpha, clear), 0).astype(np.uint8)
    locked = eye.copy()
    window = np.s_[y : y + logo.height, x : x + logo.width]
    colours = logo_samples(logo.rgba, 3, 8).astype(np.uint8)
    locked[window] = blend(eye[window], colours, alpha[..., np.newaxis])
    scene, _ = scene_of(locked, eye, logo, (x, y))
    assert scene.psnr(colour_prior(scene)) > scene.psnr(telea(scene)) > 25
    assert scene.psnr(known_logo(scene)) < 20


def test_windows_do_not_reach_beyond_the_logo(
    eye: NDArray[np.uint8], logo: Logo, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is corrected as one with its neighbours changes no px beside the logo."""
    monkeypatch.setattr("medlocker_dicom.evaluation.attacks._WINDOWS", (3,))
    scene, _ = scene_of(locked_at(eye, logo, 120, 140, "mlv1"), eye, logo, (120, 140))
    guess = colour_prior(scene)
    assert np.array_equal(guess[~scene.covered], scene.locked[~scene.covered])
    assert scene.psnr(guess) > scene.psnr(scene.locked) + 10


def test_colours_that_go_together_tell_nothing_of_three_opacities(
    eye: NDArray[np.uint8], logo: Logo
) -> None:
    """With one opacity for all channels they lift the logo; with one for each, painting is more."""
    one, three = (
        scene_of(locked_at(eye, logo, 120, 140, rule), eye, logo, (120, 140))[0]
        for rule in ("mlv1", RULE)
    )
    assert one.psnr(colour_prior(one)) > 30
    assert three.psnr(telea(three)) > three.psnr(colour_prior(three)) + 4


@pytest.mark.parametrize("own", [255, 128])
@pytest.mark.parametrize("grey", [False, True])
def test_statistics_tell_a_little_more_than_painting(
    eye: NDArray[np.uint8], logo: Logo, own: int, *, grey: bool
) -> None:
    """They correct what is painted over, by less than is told where there is no dither."""
    if grey:
        eye = np.ascontiguousarray(np.broadcast_to(eye[..., 1:2], eye.shape))
    rgba = logo.rgba.copy()
    rgba[..., 3] = np.minimum(rgba[..., 3], own)
    faint, channels = Logo(rgba), 1 if grey else 3
    colours = logo_samples(faint.rgba, channels, 8).astype(np.uint8)
    opacity = alpha_map(faint.alpha, 150, b"seed" * 8, channels=channels)
    window = np.s_[140 : 140 + logo.height, 120 : 120 + logo.width]
    locked = eye.copy()
    locked[window] = blend(eye[window][..., :channels], colours, opacity)
    scene, _ = scene_of(locked, eye, faint, (120, 140))
    assert scene.grey == grey
    assert 1 <= len(scene.elsewhere()) <= 6
    painted, guess = telea(scene), wiener(scene)
    assert np.array_equal(guess[~scene.covered], painted[~scene.covered])
    assert not np.array_equal(guess, painted)
    assert scene.psnr(painted) <= scene.psnr(guess) < scene.psnr(painted) + 8


def test_a_thief_tries_keys_with_lists(eye: NDArray[np.uint8], logo: Logo) -> None:
    """What shines through is of the bounds of lists, and varies more; of grey, alike in all."""
    for grey in (False, True):
        shown = eye if not grey else np.ascontiguousarray(np.repeat(eye[..., 1:2], 3, -1))
        locked = locked_at(shown, logo, 120, 140, RULE)
        scene, _ = scene_of(locked, shown, logo, (120, 140))
        scene = replace(scene, grey=grey)
        solid = scene.logo_alpha == 255
        one, many = (np.stack(scene.shades(listed=kind))[:, solid] for kind in (False, True))
        assert one.shape == many.shape
        assert many.std() > 1.1 * one.std()
        assert (np.ptp(many, -1).max() == 0) == grey
        assert not np.array_equal(many[0], many[1])


def test_without_other_parts_statistics_tell_nothing(eye: NDArray[np.uint8], logo: Logo) -> None:
    """Where a photograph shows no retina beside the logo, what is painted over stays."""
    locked = locked_at(eye, logo, 120, 140, RULE)
    where = np.ones((SIDE, SIDE), np.bool_)
    where[128 : 152 + logo.height, 108 : 132 + logo.width] = False
    locked[where] = 0
    scene, _ = scene_of(locked, eye, logo, (120, 140))
    assert scene.elsewhere() == []
    assert np.array_equal(wiener(scene), telea(scene))


def test_a_scene_is_cut_to_the_edges_of_all(eye: NDArray[np.uint8], logo: Logo) -> None:
    """At a photograph's edge there is less to be seen beside a logo: all of them keep as little."""
    room = SIDE - logo.height
    places = [(4, 120), (120, 140), (120, room - 2), (150, 100)]
    assert edges_of(eye, logo, places[0]).tolist() == [[12, 12], [4, 12]]
    assert edges_of(eye, logo, places[2]).tolist() == [[12, 2], [12, 12]]
    pairs = [(eye, locked_at(eye, logo, *place, RULE)) for place in places]
    shapes: list[tuple[int, ...]] = []

    def ask(views: list[NDArray[np.uint8]]) -> None:
        shapes.extend(view.shape for view in views)

    found = matted(pairs, [logo] * 4, places, ask)
    assert len(found) == len(shapes) == 4
    for (_, locked), place, one in zip(pairs, places, found, strict=True):
        scene, _ = scene_of(locked, eye, logo, place)
        assert (one["psnr"] or 0) > scene.psnr(scene.locked) + 3


@pytest.mark.parametrize("side", [300, 2000])
def test_a_retina_is_made_smaller_before_it_is_restored(side: int) -> None:
    """One of 512 px or less is halved, so that something is lost of it."""
    rgb = np.random.default_rng(0).integers(0, 255, (side, side, 3), np.uint8)
    (back,) = PIPELINES["A9 resized to 512 px or half, and back"](rgb)
    assert back.shape == rgb.shape
    assert back.std() < 0.8 * rgb.std()


@pytest.mark.parametrize("attack", RESTORERS)
@pytest.mark.parametrize("place", [(120, 140), (0, 0), (300, 300)])
def test_restorers_touch_the_logo_alone(
    eye: NDArray[np.uint8], logo: Logo, attack: str, place: tuple[int, int]
) -> None:
    """What a guess is pasted into differs from the locked photograph under the logo alone."""
    locked = locked_at(eye, logo, *place, RULE)
    scene, where = scene_of(locked, eye, logo, place)
    guess = RESTORERS[attack](scene)
    assert guess.dtype == np.uint8
    assert guess.shape == scene.locked.shape
    under = np.zeros((SIDE, SIDE), np.bool_)
    under[place[1] : place[1] + logo.height, place[0] : place[0] + logo.width] = logo.alpha > 0
    result = pasted(locked, scene, guess, where)
    changed = (result != locked).any(-1)
    assert changed.any()
    assert not (changed & ~under).any()


def test_a_large_scene_is_worked_on_small(eye: NDArray[np.uint8]) -> None:
    """Beyond 512 px it shrinks, and the guess grows back to the photograph."""
    large = np.repeat(np.repeat(eye, 8, 0), 8, 1)
    logo = scale_logo(default_logo(), 8 * SIDE, 8 * SIDE, 4.0)
    locked = locked_at(large, logo, 1000, 1100, RULE)
    scene, where = scene_of(locked, large, logo, (1000, 1100))
    assert max(scene.locked.shape) == 512
    result = pasted(locked, scene, telea(scene), where)
    assert result.shape == large.shape
    outside = np.ones(result.shape[:2], np.bool_)
    outside[1100 - MARGIN : 1900 + MARGIN, 1000 - MARGIN : 1800 + MARGIN] = False
    assert np.array_equal(result[outside], locked[outside])


@pytest.mark.parametrize("rule", ["", RULE])
def test_a_logo_is_learnt_from_many_photographs(logo: Logo, rule: str) -> None:
    """Matting lifts it, and the key does not help: the dither differs, and so averages out."""
    eyes = [phantom(np.random.default_rng(n), (SIDE, SIDE)).image for n in range(8)]
    rng = np.random.default_rng(1)
    gains, scenes = [], []
    for eye in eyes:
        x, y = (int(n) for n in rng.integers(100, 200, 2))
        scenes.append(scene_of(locked_at(eye, logo, x, y, rule), eye, logo, (x, y))[0])
    for scene, guess in zip(scenes, matting(scenes), strict=True):
        assert guess.shape == scene.locked.shape
        gains.append(scene.psnr(guess) - scene.psnr(scene.locked))
    assert np.mean(gains) > 10


@pytest.mark.parametrize("name", PIPELINES)
def test_pipelines_show_an_eye(eye: NDArray[np.uint8], name: str) -> None:
    """Each gives squares of 8 bits that still show what was there, changed."""
    before = eye.copy()
    views = PIPELINES[name](eye)
    assert np.array_equal(eye, before)
    assert len({view.shape for view in views}) == 1
    for view in views:
        assert view.dtype == np.uint8
        assert view.shape[0] == view.shape[1]
        assert view.shape[2] == 3
        assert view.std() > 10
