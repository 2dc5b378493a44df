"""The field of view."""

from pathlib import Path

import cv2
import numpy as np
import pytest

from medlocker_dicom.errors import NotFundusError, PixelLayoutError
from medlocker_dicom.lesions.boxes import Box
from medlocker_dicom.lesions.fov import bounding_box, field_of_view

DATA = Path(__file__).resolve().parents[3] / "shared/data"


def _disc(shape: tuple[int, int], centre: tuple[float, float], radius: float) -> np.ndarray:
    y, x = np.mgrid[: shape[0], : shape[1]]
    inside: np.ndarray = (x - centre[0]) ** 2 + (y - centre[1]) ** 2 <= radius**2
    return inside


def _photograph(disc: np.ndarray, level: int) -> np.ndarray:
    """Orange retina with noise on a nearly black ground."""
    rng = np.random.default_rng(7)
    image = rng.integers(0, 3, (*disc.shape, 3), dtype=np.uint8)
    colour = np.array([1.0, 0.5, 0.2]) * level * rng.uniform(0.8, 1.2, (*disc.shape, 1))
    image[disc] = colour[disc].astype(np.uint8)
    return image


def _agreement(one: np.ndarray, two: np.ndarray) -> float:
    return float((one & two).sum() / (one | two).sum())


@pytest.mark.parametrize("level", [12, 40, 200])
@pytest.mark.parametrize("radius", [250, 330, 420])
def test_finds_bright_dark_and_cropped_discs(level: int, radius: int) -> None:
    """Discs of any brightness, whole or cut by the frame, are found to 98 %."""
    disc = _disc((600, 800), (390, 310), radius)
    assert _agreement(field_of_view(_photograph(disc, level)), disc) > 0.98


def test_blocked_pupil_and_tab_make_no_difference() -> None:
    """A dark spot inside counts as retina, a bright tab and letters outside do not."""
    disc = _disc((600, 800), (400, 300), 260)
    image = _photograph(disc, 150)
    image[280:400, 300:420] = 0
    image[290:302, 662:668] = 255
    image[560:575, 20:60] = 255
    assert _agreement(field_of_view(image), disc) > 0.98


def test_without_a_border_all_is_retina() -> None:
    """A photograph that shows retina up to its edges has a mask of True."""
    image = np.random.default_rng(8).integers(60, 200, (300, 400, 3), dtype=np.uint8)
    assert field_of_view(image).all()
    assert field_of_view(np.full((300, 400, 3), 90, np.uint8)).all()


@pytest.mark.parametrize("level", [0, 2])
def test_a_dark_frame_is_no_fundus(level: int) -> None:
    """Nothing to see raises, whatever the sensor's noise floor."""
    with pytest.raises(NotFundusError, match="dark all over"):
        field_of_view(np.full((300, 400, 3), level, np.uint8))


def test_a_spot_is_no_fundus() -> None:
    """A small bright spot on black is no retina."""
    image = np.zeros((300, 400, 3), np.uint8)
    image[100:130, 100:130] = 200
    with pytest.raises(NotFundusError):
        field_of_view(image)


@pytest.mark.parametrize(
    "image",
    [np.zeros((5, 5), np.uint8), np.zeros((5, 5, 4), np.uint8), np.zeros((5, 5, 3), np.uint16)],
)
def test_refuses_other_layouts(image: np.ndarray) -> None:
    """Only 8-bit RGB has a field of view."""
    with pytest.raises(PixelLayoutError):
        field_of_view(image)


def test_bounding_box_is_tight() -> None:
    """The box holds the mask's first and last rows and columns."""
    mask = np.zeros((20, 30), np.bool_)
    mask[4:9, 7] = mask[6, 5:22] = True
    assert bounding_box(mask) == Box(5, 4, 17, 5)


def test_bounding_box_of_nothing_raises() -> None:
    """An empty mask has no box."""
    with pytest.raises(NotFundusError):
        bounding_box(np.zeros((4, 4), np.bool_))


@pytest.mark.skipif(not DATA.is_dir(), reason="needs the photographs in ../shared/data")
@pytest.mark.parametrize("folder", ["idrid_grading", "srahim", "odir", "eyepacs_natural"])
def test_real_photographs(folder: str) -> None:
    """Real retinas are found, fill most of the frame, and hold nearly all bright pixels."""
    paths = sorted((DATA / folder / "images").glob("*.jpg"))[::40][:10]
    assert paths
    for path in paths:
        image = cv2.imread(str(path))
        assert image is not None
        rgb = np.ascontiguousarray(np.asarray(image, np.uint8)[..., ::-1])
        mask = field_of_view(rgb)
        value = rgb.max(axis=-1)
        bright = value > 0.3 * np.percentile(value, 90)
        assert mask.mean() > 0.4
        assert (bright & mask).sum() > 0.98 * bright.sum()
