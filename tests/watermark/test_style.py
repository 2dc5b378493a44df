"""A logo drawn anew: in one colour, as lines, as dots; its shape stays its own."""

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from medlocker_dicom.errors import LogoError, UsageError
from medlocker_dicom.watermark.logo import Logo
from medlocker_dicom.watermark.png import default_logo
from medlocker_dicom.watermark.scale import scale_logo
from medlocker_dicom.watermark.style import PALETTE, Look, Style, drawn, ink_of, read_look

WIDTH = 2000  # of the photograph: a grain of 3 is 6 px
GRAIN_PX = 6


@pytest.fixture(scope="module")
def badge() -> Logo:
    """Return our logo, white with a navy rim and name, at 500 px."""
    return scale_logo(default_logo(), WIDTH, WIDTH, 4)


@pytest.fixture(scope="module")
def disc() -> Logo:
    """Return a logo of one tone: a disc of radius 80 px."""
    plane = np.zeros((200, 200), np.uint8)
    cv2.circle(plane, (100, 100), 80, 255, -1)
    rgba = np.zeros((200, 200, 4), np.uint8)
    rgba[plane > 0] = (10, 200, 30, 255)
    return Logo(rgba)


def opacity(logo: Logo) -> NDArray[np.float64]:
    return logo.alpha / 255.0


def dots(logo: Logo) -> NDArray[np.int32]:
    """Measure the dots: width, height and area of each."""
    _, _, stats, _ = cv2.connectedComponentsWithStats((logo.alpha > 127).astype(np.uint8))
    return np.asarray(stats[1:, 2:5], np.int32)


@pytest.mark.parametrize("look", [Look(), Look(grain=9)])
def test_solid_in_its_own_colour_is_the_logo(badge: Logo, look: Look) -> None:
    """The default changes nothing."""
    assert drawn(badge, look, WIDTH) is badge


@pytest.mark.parametrize("style", Style)
@pytest.mark.parametrize("colour", PALETTE)
def test_one_colour_of_the_same_size(badge: Logo, style: Style, colour: str) -> None:
    """Every px that is seen has the colour; what is not seen holds nothing."""
    logo = drawn(badge, Look(style, colour), WIDTH)
    assert logo.rgba.shape == badge.rgba.shape
    assert (logo.rgba[logo.alpha > 0, :3] == PALETTE[colour]).all()
    assert not logo.rgba[logo.alpha == 0].any()


def test_of_two_tones_the_rarer_is_the_ink(badge: Logo, disc: Logo) -> None:
    """Rim and name of ours, not its white; a logo of one tone is all ink."""
    ink = ink_of(badge)
    dark = badge.rgba[..., :3].max(-1) < 120
    assert ink[(badge.alpha == 255) & dark].min() == 1
    assert ink[badge.rgba[..., :3].min(-1) > 200].max() == 0
    assert 0.1 < ink.sum() / opacity(badge).sum() < 0.5
    np.testing.assert_array_equal(ink_of(disc), opacity(disc).astype(np.float32))


def test_own_colour_is_the_inks(badge: Logo, disc: Logo) -> None:
    """Without a colour, lines are in the mean colour of what they are drawn from."""
    lines = drawn(disc, Look(Style.OUTLINE), WIDTH)
    assert (lines.rgba[lines.alpha > 0, :3] == (10, 200, 30)).all()
    lines = drawn(badge, Look(Style.OUTLINE), WIDTH)
    assert (lines.rgba[lines.alpha > 0, :3].max(0) < (60, 70, 120)).all()


def test_an_outline_is_as_wide_as_its_grain(disc: Logo) -> None:
    """A ring: its area is its length times its width, and nothing is in the middle."""
    ring = opacity(drawn(disc, Look(Style.OUTLINE), WIDTH))
    assert ring.sum() == pytest.approx(2 * np.pi * (80 - GRAIN_PX / 2) * GRAIN_PX, rel=0.08)
    assert ring[100 - 60 : 100 + 60, 100].max() == 0


@pytest.mark.parametrize("grain", [3.0, 4.5])
def test_dots_are_round_apart_and_as_wide_as_their_grain(disc: Logo, grain: float) -> None:
    """They go round the edge; of one size, none touches another."""
    logo = drawn(disc, Look(Style.DOTTED, "dark-red", grain), WIDTH)
    found, wide = dots(logo), grain * WIDTH / 1000
    around = 2 * np.pi * (80 - wide / 2)
    assert around / (2.2 * wide) < len(found) < around / (1.3 * wide)
    assert np.abs(found[:, :2] - wide).max() <= 1.5
    assert np.abs(found[:, 2] / (np.pi * wide**2 / 4) - 1).max() < 0.25


def test_dots_keep_the_logos_shape(badge: Logo) -> None:
    """Seen from afar they are the ink, and they cover far less than the badge."""
    ink = ink_of(badge)
    logo = drawn(badge, Look(Style.DOTTED, "dark-red", 2.5), WIDTH)
    afar = [cv2.GaussianBlur(one, (0, 0), 8) for one in (ink, opacity(logo).astype(np.float32))]
    assert np.corrcoef(afar[0].ravel(), afar[1].ravel())[0, 1] > 0.8
    assert opacity(logo).sum() < 0.3 * opacity(badge).sum()
    assert opacity(logo)[ink == 0].sum() < 0.35 * opacity(logo).sum()


def test_equal_logos_are_drawn_alike(badge: Logo) -> None:
    """Nothing is left to chance."""
    look = Look(Style.DOTTED, "yellow")
    assert drawn(badge, look, WIDTH).sha256 == drawn(badge, look, WIDTH).sha256


def test_a_faint_logo_leaves_nothing_to_draw() -> None:
    """A shade that is nowhere half opaque has no ink for lines."""
    faint = Logo(np.full((40, 40, 4), 60, np.uint8))
    with pytest.raises(LogoError, match="transparent"):
        drawn(faint, Look(Style.DOTTED), WIDTH)


@pytest.mark.parametrize(
    ("text", "look"),
    [
        ("solid", Look()),
        ("dotted", Look(Style.DOTTED)),
        ("outline,own,2", Look(Style.OUTLINE, grain=2)),
        ("dotted,dark-red", Look(Style.DOTTED, "dark-red")),
        ("solid,white,20", Look(Style.SOLID, "white", 20)),
        ("dotted,,4.5", Look(Style.DOTTED, grain=4.5)),
    ],
)
def test_a_look_is_read(text: str, look: Look) -> None:
    """Style, colour, grain; what is left out has its default."""
    assert read_look(text) == look
    assert read_look(look.words) == look


@pytest.mark.parametrize(
    "text",
    [
        "",
        "striped",
        "dotted,blue",
        "dotted,dark-red,0.5",
        "dotted,own,21",
        "dotted,own,3,4",
        "dotted,own,nan",
        "dotted,own,wide",
        "DOTTED",
        "dotted dark-red",
    ],
)
def test_an_unknown_look_is_named(text: str) -> None:
    """The hint lists what there is."""
    with pytest.raises(UsageError, match="look") as caught:
        read_look(text)
    assert "dotted,dark-red,3" in caught.value.hint
