"""Generated fundus photographs and their ground truth."""

import subprocess
import sys
from functools import cache
from typing import Any

import cv2
import numpy as np
import pytest

from medlocker_dicom.errors import PixelLayoutError
from medlocker_dicom.phantom import Bit, Phantom, phantom

LESIONS = Bit.MA | Bit.HE | Bit.EX | Bit.SE
SEEDS = range(4)


@cache
def made(seed: int, size: tuple[int, int] = (384, 384), **options: Any) -> Phantom:
    return phantom(np.random.default_rng(seed), size, **options)


def marked(drawn: Phantom, bits: Bit) -> Any:
    """Where the mask has any of the bits, bool (H, W)."""
    return (drawn.mask & np.uint8(int(bits))) != 0


def test_same_seed_same_bytes() -> None:
    """Image and mask are decided by the seed alone."""
    one, again, other = made(1), made.__wrapped__(1), made(2)
    assert one.image.tobytes() == again.image.tobytes()
    assert one.mask.tobytes() == again.mask.tobytes()
    assert one.image.tobytes() != other.image.tobytes()


@pytest.mark.parametrize("size", [(96, 96), (128, 200), (356, 536), (400, 300)])
def test_size_and_type(size: tuple[int, int]) -> None:
    """Any shape comes back as uint8 RGB with a mask of the same size."""
    drawn = made(3, size)
    assert drawn.image.shape == (*size, 3)
    assert drawn.mask.shape == size
    assert drawn.image.dtype == drawn.mask.dtype == np.uint8


@pytest.mark.parametrize("size", [(95, 512), (512, 9000)])
def test_size_out_of_range_is_refused(size: tuple[int, int]) -> None:
    """A size too small to show a lesion, or too large to hold, is named."""
    with pytest.raises(PixelLayoutError, match=f"{size[1]} x {size[0]}"):
        made(0, size)


@pytest.mark.parametrize("seed", SEEDS)
def test_every_kind_is_there_and_none_overlap(seed: int) -> None:
    """A diseased eye shows all four kinds; each pixel has at most one of the five bits."""
    mask = made(seed).mask
    assert set(np.unique(mask).tolist()) == {0, *(int(bit) for bit in Bit)}


@pytest.mark.parametrize("seed", SEEDS)
def test_a_healthy_eye_has_only_the_disc(seed: int) -> None:
    """Without lesions the mask holds OD and nothing else, one ellipse of 1-4 %."""
    mask = made(seed, lesions=False).mask
    assert set(np.unique(mask).tolist()) == {0, int(Bit.OD)}
    count, _ = cv2.connectedComponents(mask)
    assert count == 2
    assert 0.01 < (mask > 0).mean() < 0.04


@pytest.mark.parametrize("seed", SEEDS)
def test_lesions_are_all_that_differs_from_the_healthy_eye(seed: int) -> None:
    """Outside a lesion's soft border the two pictures of a seed are the same."""
    ill, healthy = made(seed), made(seed, lesions=False)
    lesion = marked(ill, LESIONS)
    change = np.abs(ill.image.astype(int) - healthy.image).max(axis=2)
    around = cv2.dilate(lesion.astype(np.uint8), np.ones((25, 25), np.uint8)) > 0
    assert change[~around].max() <= 1
    assert np.median(change[lesion]) > 20


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize(
    ("bit", "direction"), [(Bit.MA, -1), (Bit.HE, -1), (Bit.EX, 1), (Bit.SE, 1)]
)
def test_each_lesion_stands_out_the_right_way(seed: int, bit: Bit, direction: int) -> None:
    """Every red lesion is darker in green than the healthy eye, every pale one brighter."""
    ill, healthy = made(seed), made(seed, lesions=False)
    change = (ill.image.astype(int) - healthy.image)[..., 1]
    count, labels = cv2.connectedComponents(marked(ill, bit).astype(np.uint8))
    assert count > 1
    for label in range(1, count):
        assert direction * change[labels == label].mean() > 8


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("size", [(384, 384), (356, 536)])
def test_everything_marked_is_in_the_field_of_view(seed: int, size: tuple[int, int]) -> None:
    """Marks lie on the lit retina, at least 4 % of the radius from its edge."""
    drawn = made(seed, size)
    lit = (drawn.image.max(axis=2) > 0).astype(np.uint8)
    margin = round(0.04 * 0.48 * min(size))
    bordered = cv2.copyMakeBorder(lit, 1, 1, 1, 1, cv2.BORDER_REPLICATE)
    inner = cv2.erode(bordered, np.ones((2 * margin + 1,) * 2, np.uint8))[1:-1, 1:-1]
    assert lit[0, 0] == lit[-1, -1] == 0
    assert (inner[drawn.mask > 0] == 1).all()


@pytest.mark.parametrize("seed", SEEDS)
def test_the_disc_is_bright_and_the_retina_red(seed: int) -> None:
    """The disc outshines the retina in green; red leads green leads blue on average."""
    drawn = made(seed, lesions=False)
    disc = marked(drawn, Bit.OD)
    retina = (drawn.image.max(axis=2) > 0) & ~disc
    red, green, blue = drawn.image[retina].mean(axis=0)
    assert drawn.image[disc][:, 1].mean() > 1.4 * green
    assert red > 1.3 * green > 1.3 * blue


def test_the_recipients_modules_do_not_import_it() -> None:
    """OpenCV stays with the lock side: errors and the package root do without phantom."""
    code = "import sys, medlocker_dicom, medlocker_dicom.errors; print('cv2' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
