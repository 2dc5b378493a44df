"""Patches for the segmenter: image and truth turn together, lesions are looked for."""

import numpy as np
import pytest
from training_sets import eye

from medlocker_dicom.training.photographs import Segmented
from medlocker_dicom.training.segmenter import draw_patch

SIDE = 48


def lit(discs_known: bool = True) -> Segmented:  # noqa: FBT001, FBT002  the field under test
    """Return a picture that is white exactly where its mask is set: no view of it is its own."""
    mask = np.zeros((90, 110), np.uint8)
    mask[8:20, 8:26] = 1
    mask[30:60, 40:49] = 4
    mask[70:80, 60:100] = 16
    image = np.repeat((mask > 0)[..., None] * np.uint8(255), 3, axis=2)
    return Segmented("lit", image, mask, discs_known, validation=False)


def test_image_and_truth_stay_aligned() -> None:
    """Whatever the turn, the mirror, the colours or the blur, truth lies on what is white."""
    item, drawn, whole = lit(), set(), 0
    for seed in range(80):
        image, truth, known = draw_patch(item, SIDE, np.random.default_rng(seed))
        assert image.shape == (SIDE, SIDE, 3)
        assert image.dtype == np.uint8
        assert image.flags.c_contiguous
        assert truth.shape == (5, SIDE, SIDE)
        assert truth.dtype == known.dtype == np.float32
        assert set(np.unique(truth)) <= {0, 1}
        assert not truth[[1, 3]].any()
        # at a straight edge a blur leaves white above this level, and black below it
        assert np.array_equal(image.max(2) > 84, truth.any(0))
        drawn.add(truth.tobytes())
        whole += bool(truth[0].sum() == 12 * 18)
    assert len(drawn) > 60
    assert whole > 5


def test_the_seed_decides() -> None:
    """Equal seeds draw the same patch, other seeds other ones; the photograph stays."""
    shown = eye(0)
    item = Segmented("eye", shown.image.copy(), shown.mask.copy(), True, False)  # noqa: FBT003
    patches = [draw_patch(item, SIDE, np.random.default_rng(seed)) for seed in range(5)]
    for seed, patch in enumerate(patches):
        again = draw_patch(item, SIDE, np.random.default_rng(seed))
        for part in range(3):
            assert np.array_equal(patch[part], again[part])
    assert len({patch[0].tobytes() for patch in patches}) == 5
    assert np.array_equal(item.image, shown.image)
    assert np.array_equal(item.mask, shown.mask)


@pytest.mark.parametrize("discs_known", [True, False])
def test_discs_count_where_they_are_annotated(discs_known: bool) -> None:  # noqa: FBT001  the field
    """The four lesions are always known, the disc as the photograph says."""
    _, _, known = draw_patch(lit(discs_known), SIDE, np.random.default_rng(0))
    assert known.tolist() == [1, 1, 1, 1, float(discs_known)]


def test_lesions_are_looked_for() -> None:
    """Two draws in three hold the one lesion px of a large photograph, chance adds few."""
    mask = np.zeros((400, 500), np.uint8)
    mask[390, 20] = 2
    item = Segmented("one", np.zeros((400, 500, 3), np.uint8), mask, True, False)  # noqa: FBT003
    hits = [
        bool(draw_patch(item, SIDE, np.random.default_rng(seed))[1][1].any()) for seed in range(400)
    ]
    assert 0.6 < np.mean(hits) < 0.75


def test_rare_labels_are_looked_for_as_often() -> None:
    """Where one label has a hundred times the px of another, both are met often."""
    mask = np.zeros((600, 600), np.uint8)
    mask[500:600, :] = 4
    mask[10:12, 10:12] = 1
    item = Segmented("two", np.zeros((600, 600, 3), np.uint8), mask, True, False)  # noqa: FBT003
    truths = [draw_patch(item, SIDE, np.random.default_rng(seed))[1] for seed in range(300)]
    assert np.mean([truth[0].any() for truth in truths]) > 0.25
    assert np.mean([truth[2].any() for truth in truths]) > 0.25


def test_a_healthy_eye_and_an_exact_fit() -> None:
    """Without lesions any place will do, also where the patch is the whole photograph."""
    image = np.full((SIDE, SIDE, 3), 90, np.uint8)
    item = Segmented("healthy", image, np.zeros((SIDE, SIDE), np.uint8), False, False)  # noqa: FBT003
    for seed in range(10):
        patch, truth, _ = draw_patch(item, SIDE, np.random.default_rng(seed))
        assert patch.shape == image.shape
        assert not truth.any()
