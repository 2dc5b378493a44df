"""Feasible positions (section 2.2, step 5)."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from medlocker_dicom.lesions.boxes import Box
from medlocker_dicom.lesions.positions import Mode, feasible_positions

SIDE = 24
EVERYWHERE = np.ones((SIDE, SIDE), np.bool_)
BOXES = st.lists(
    st.builds(Box, st.integers(0, 20), st.integers(0, 20), st.integers(1, 9), st.integers(1, 9)),
    max_size=4,
)
SIZES = st.tuples(st.integers(1, 12), st.integers(1, 12))


@given(boxes=BOXES, size=SIZES)
def test_avoid_is_exactly_not_touching(boxes: list[Box], size: tuple[int, int]) -> None:
    """Each allowed logo shares no pixel with a box, and each excluded one does."""
    lesions = np.zeros((SIDE, SIDE), np.bool_)
    for box in boxes:
        lesions[box.y : box.bottom, box.x : box.right] = True
    allowed = feasible_positions(EVERYWHERE, size, boxes, Mode.AVOID)
    width, height = size
    assert allowed.shape == (SIDE - height + 1, SIDE - width + 1)
    for (y, x), free in np.ndenumerate(allowed):
        assert free == (not lesions[y : y + height, x : x + width].any())


@given(box=BOXES.filter(lambda boxes: len(boxes) == 1), size=SIZES)
def test_inside_nests_on_each_axis(box: list[Box], size: tuple[int, int]) -> None:
    """On each axis the shorter of logo and box lies within the other."""
    allowed = feasible_positions(EVERYWHERE, size, box, Mode.INSIDE)
    for (y, x), free in np.ndenumerate(allowed):
        across = (x - box[0].x) * (box[0].right - x - size[0])
        down = (y - box[0].y) * (box[0].bottom - y - size[1])
        assert free == (across >= 0 and down >= 0)


@given(boxes=BOXES, size=SIZES)
def test_anywhere_ignores_boxes(boxes: list[Box], size: tuple[int, int]) -> None:
    """Without a retina condition, every position in the image is allowed."""
    assert feasible_positions(EVERYWHERE, size, boxes, Mode.ANYWHERE).all()


@given(seed=st.integers(0, 2**32 - 1), size=SIZES, share=st.sampled_from([0.0, 0.5, 0.9, 1.0]))
def test_logo_lies_on_the_retina(seed: int, size: tuple[int, int], share: float) -> None:
    """A position is allowed exactly when enough of the logo lies on the retina."""
    fov = np.random.default_rng(seed).random((SIDE, SIDE)) < 0.85
    allowed = feasible_positions(fov, size, (), Mode.AVOID, share)
    width, height = size
    for (y, x), free in np.ndenumerate(allowed):
        under = int(fov[y : y + height, x : x + width].sum())
        assert free == (under * 10 >= round(share * 10) * width * height)


@pytest.mark.parametrize("size", [(25, 3), (3, 25), (99, 99)])
def test_a_logo_larger_than_the_image_has_no_position(size: tuple[int, int]) -> None:
    """The map is then empty, not an error."""
    assert feasible_positions(EVERYWHERE, size, (), Mode.AVOID).size == 0


def test_no_box_to_lie_in_leaves_nothing() -> None:
    """Inside mode without boxes allows no position."""
    assert not feasible_positions(EVERYWHERE, (3, 3), (), Mode.INSIDE).any()


def test_a_box_over_everything_leaves_nothing() -> None:
    """A retina full of lesions gives a map without True, as it stands."""
    found = feasible_positions(EVERYWHERE, (3, 3), [Box(0, 0, SIDE, SIDE)], Mode.AVOID)
    assert found.shape == (22, 22)
    assert not found.any()
