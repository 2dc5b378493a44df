"""From lesion masks to boxes (section 2.2, steps 2 to 4)."""

from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from medlocker_dicom.lesions.boxes import Box, hull, lesion_boxes, merge_boxes, overlap

MASKS = Path(__file__).resolve().parents[3] / "shared/data/idrid_lesions/masks"

BOXES = st.builds(
    Box, st.integers(0, 30), st.integers(0, 30), st.integers(1, 20), st.integers(1, 20)
)


def _mask(*boxes: Box, shape: tuple[int, int] = (2848, 4288)) -> np.ndarray:
    mask = np.zeros(shape, np.bool_)
    for box in boxes:
        mask[box.y : box.bottom, box.x : box.right] = True
    return mask


def test_nothing_gives_no_box() -> None:
    """An empty mask has no boxes."""
    assert lesion_boxes(np.zeros((100, 100), np.bool_)) == ()


def test_reach_at_full_size() -> None:
    """At the paper's size a lesion's box grows by 45 pixels on every side."""
    lesion = Box(2000, 1000, 300, 200)
    assert lesion_boxes(_mask(lesion)) == (Box(1955, 955, 390, 290),)


def test_reach_scales_with_the_image() -> None:
    """At a quarter of the width the reach is a quarter."""
    lesion = Box(500, 250, 75, 50)
    assert lesion_boxes(_mask(lesion, shape=(712, 1072))) == (Box(489, 239, 97, 72),)


def test_small_regions_are_dropped_unless_told() -> None:
    """A lone lesion below 0.41 % of the image goes, as in the paper; 0 keeps it."""
    mask = _mask(Box(1000, 1000, 10, 10))
    assert lesion_boxes(mask) == ()
    assert lesion_boxes(mask, 0) == (Box(955, 955, 100, 100),)


def test_threshold_is_inclusive() -> None:
    """A region of exactly the threshold is dropped (step 3: A <= lambda)."""
    mask = _mask(Box(1000, 1000, 10, 10))
    assert lesion_boxes(mask, 100 * 100 / mask.size) == ()
    assert len(lesion_boxes(mask, (100 * 100 - 1) / mask.size)) == 1


def test_neighbours_grow_together() -> None:
    """Two lesions less than two reaches apart are one region; farther ones are two."""
    one = Box(1000, 1000, 200, 200)
    assert len(lesion_boxes(_mask(one, Box(1289, 1000, 200, 200)))) == 1
    assert len(lesion_boxes(_mask(one, Box(1291, 1000, 200, 200)))) == 2


@given(boxes=st.lists(BOXES, max_size=12))
def test_merging_reaches_a_fixpoint_that_covers(boxes: list[Box]) -> None:
    """Merged boxes cover all given ones, and no two overlap by more than half."""
    merged = merge_boxes(boxes)
    assert all(any(hull(box, big) == big for big in merged) for box in boxes)
    for index, one in enumerate(merged):
        assert all(overlap(one, two) <= 0.5 for two in merged[index + 1 :])
    assert merge_boxes(merged) == merged
    assert merge_boxes(reversed(boxes)) == merged


@given(one=BOXES, two=BOXES)
def test_overlap_counts_pixels(one: Box, two: Box) -> None:
    """Intersection over union is what counting pixels gives."""
    first, second = (_mask(box, shape=(50, 50)) for box in (one, two))
    assert overlap(one, two) == pytest.approx((first & second).sum() / (first | second).sum())


@pytest.mark.skipif(not MASKS.is_dir(), reason="needs the photographs in ../shared/data")
def test_real_lesions_are_covered() -> None:
    """With threshold 0, boxes cover every lesion pixel of real masks."""
    paths = sorted(MASKS.iterdir())[:6]
    assert paths
    for path in paths:
        bits = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
        assert bits is not None
        mask = (np.asarray(bits, np.uint8) & 0b1111) > 0
        covered = _mask(*lesion_boxes(mask, 0), shape=mask.shape)
        assert mask.any()
        assert not (mask & ~covered).any()
