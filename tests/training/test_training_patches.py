"""Patches for the segmenter: image and truth turn together, lesions are looked for and moved."""

import numpy as np
import pytest

from medlocker_dicom.training import segmenter
from medlocker_dicom.training.augment import DARK
from medlocker_dicom.training.photographs import Segmented
from medlocker_dicom.training.segmenter import (
    DISC,
    LABELS,
    TRANSPLANTED,
    Patch,
    Patches,
    SegmenterRecipe,
)
from training_sets import eye

SIDE = 48
SHARES = SegmenterRecipe.shares


def lit(discs_known: bool = True) -> Segmented:  # noqa: FBT001, FBT002  the field under test
    """Return a picture that is white exactly where its mask is set: no view of it is its own."""
    mask = np.zeros((90, 110), np.uint8)
    mask[8:20, 8:26] = 1
    mask[30:60, 40:49] = 4
    mask[70:80, 60:100] = 16
    image = np.repeat((mask > 0)[..., None] * np.uint8(255), 3, axis=2)
    return Segmented("lit", image, mask, discs_known, validation=False)


def healthy(colour: tuple[int, int, int] = (150, 100, 60)) -> Segmented:
    """Return a retina of one colour, without lesions; its disc is not annotated."""
    image = np.full((200, 220, 3), colour, np.uint8)
    return Segmented("healthy", image, np.zeros((200, 220), np.uint8), False, False)  # noqa: FBT003


def spots() -> Segmented:
    """Return a retina with one dark spot of 5 x 5 px for each label, far from each other."""
    image, mask = np.full((400, 600, 3), 120, np.uint8), np.zeros((400, 600), np.uint8)
    for bit in range(len(LABELS)):
        place = np.s_[200:205, 80 + 110 * bit : 85 + 110 * bit]
        image[place], mask[place] = 40, 1 << bit
    return Segmented("spots", image, mask, True, False)  # noqa: FBT003


def drawn(images: list[Segmented], count: int, side: int = SIDE) -> list[Patch]:
    """Return patches of that many seeds."""
    patches = Patches(images, side, SHARES)
    return [patches.draw(np.random.default_rng(seed)) for seed in range(count)]


def test_image_and_truth_stay_aligned() -> None:
    """Whatever the turn, the size, the colours or the blur, truth lies on what is white."""
    differ, whole = set(), 0
    for patch in drawn([lit()], 80):
        assert patch.image.shape == (SIDE, SIDE, 3)
        assert patch.image.dtype == np.uint8
        assert patch.truth.shape == (5, SIDE, SIDE)
        assert patch.truth.dtype == patch.known.dtype == np.float32
        assert set(np.unique(patch.truth)) <= {0, 1}
        assert not patch.truth[[1, 3]].any()
        white, true = patch.image.max(2) > 100, patch.truth.max(0) > 0
        # a turned edge runs through px, which belong to either side
        edge = np.zeros_like(true)
        edge[1:] |= true[1:] != true[:-1]
        edge[:-1] |= true[1:] != true[:-1]
        edge[:, 1:] |= true[:, 1:] != true[:, :-1]
        edge[:, :-1] |= true[:, 1:] != true[:, :-1]
        assert np.array_equal(white[~edge], true[~edge])
        differ.add(patch.truth.tobytes())
        whole += bool(0.6 < patch.truth[0].sum() / (12 * 18) < 1.6)
    assert len(differ) > 60
    assert whole > 5


def test_the_seed_decides() -> None:
    """Equal seeds draw the same patch, other seeds other ones; the photograph stays."""
    shown = eye(0)
    item = Segmented("eye", shown.image.copy(), shown.mask.copy(), True, False)  # noqa: FBT003
    first, again = (drawn([item, healthy()], 8) for _ in range(2))
    for one, other in zip(first, again, strict=True):
        assert np.array_equal(one.image, other.image)
        assert np.array_equal(one.truth, other.truth)
        assert np.array_equal(one.known, other.known)
    assert len({patch.image.tobytes() for patch in first}) == 8
    assert np.array_equal(item.image, shown.image)
    assert np.array_equal(item.mask, shown.mask)


@pytest.mark.parametrize("discs_known", [True, False])
def test_discs_count_where_they_are_annotated(discs_known: bool) -> None:  # noqa: FBT001  the field
    """The four lesions are always known, the disc as the photograph says."""
    for patch in drawn([lit(discs_known)], 6):
        assert patch.known.tolist() == [1, 1, 1, 1, float(discs_known)]


def test_labels_are_drawn_by_their_shares() -> None:
    """Of equally small lesions of each label, each is met about as often as its share says."""
    met = np.mean([patch.truth.any((1, 2)) for patch in drawn([spots()], 800)], axis=0)
    # an offset in a corner of a small pose misses; a place drawn at random rarely hits
    assert met == pytest.approx(SHARES, abs=0.05)
    assert met.sum() < 0.95
    assert met[DISC] > 0.01


def test_a_label_that_nobody_carries_leaves_its_share_to_any_place() -> None:
    """Without soft exudates, say, the others are met no less; nothing breaks."""
    item = spots()
    item.mask[item.mask == 8] = 0
    met = np.mean([patch.truth.any((1, 2)) for patch in drawn([item], 400)], axis=0)
    assert met[3] == 0
    assert met[:3] == pytest.approx(SHARES[:3], abs=0.07)


def test_lesions_are_looked_for_one_by_one() -> None:
    """A lesion of four px is met as often as one of four thousand of the same label."""
    image, mask = np.full((500, 500, 3), 90, np.uint8), np.zeros((500, 500), np.uint8)
    mask[40:42, 40:42] = 1
    mask[400:464, 400:464] = 1
    item = Segmented("two", image, mask, True, False)  # noqa: FBT003
    sizes = np.array([patch.truth[0].sum() for patch in drawn([item], 600)])
    small, large = np.mean((sizes > 0) & (sizes < 20)), np.mean(sizes > 100)
    assert small == pytest.approx(SHARES[0] / 2, abs=0.05)
    assert large > 0.1


def test_lesions_move_into_healthy_eyes_alone() -> None:
    """About a quarter of the patches around lesions: on the host's colours, its disc unknown."""
    patches = drawn([spots(), healthy((30, 60, 200))], 600)
    ours = [p for p in patches if p.truth[:DISC].any()]
    moved = [p for p in ours if not p.known[DISC]]
    assert len(moved) / len(ours) == pytest.approx(TRANSPLANTED, abs=0.08)
    tints = []
    for patch in moved:
        assert not patch.truth[DISC].any()
        red, _, blue = patch.image.reshape(-1, 3).mean(0)
        tints.append(blue / red)
        inside = patch.truth.any(0)
        outside = np.median(patch.image[~inside], axis=0)
        assert patch.image[inside].sum(1).min() < 0.9 * outside.sum()
    assert min(tints) > 1.1  # as in the host, though a view may fade; lesions came from grey
    assert np.median(tints) > 2
    for patch in ours:
        if patch.known[DISC]:
            means = patch.image.reshape(-1, 3).mean(0)
            assert means.max() < 2 * means.min()


def test_discs_do_not_move(monkeypatch: pytest.MonkeyPatch) -> None:
    """A bright disc beside a dark lesion stays where it was; the lesion alone is moved."""
    monkeypatch.setattr(segmenter, "TRANSPLANTED", 1.0)
    image, mask = np.full((90, 90, 3), 110, np.uint8), np.zeros((90, 90), np.uint8)
    for rows, level, bit in ((np.s_[30:36], 60, 1), (np.s_[48:66], 230, DISC)):
        image[rows, 40:50], mask[rows, 40:50] = level, 1 << bit
    item = Segmented("both", image, mask, True, False)  # noqa: FBT003
    host = healthy((110, 110, 110))
    moved = [p for p in drawn([item, host], 60) if p.truth[1].any() and not p.known[DISC]]
    assert len(moved) > 10
    for patch in moved:
        assert not patch.truth[DISC].any()
        assert patch.image.max() < 1.5 * np.median(patch.image[patch.image.max(2) > DARK])


def test_without_healthy_eyes_lesions_stay() -> None:
    """Whoever has a disc alone is a host as little as whoever has lesions."""
    discs = np.zeros((90, 110), np.uint8)
    discs[30:50, 40:60] = 1 << DISC
    disc = Segmented("disc", lit().image, discs, True, False)  # noqa: FBT003
    patches = Patches([lit(), disc], SIDE, SHARES)
    assert patches.healthy == []
    assert all(p.known[DISC] for p in drawn([lit(), disc], 60))


def test_what_does_not_fit_is_not_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lesions that blending leaves out are no truth: on a dark host none are left."""
    monkeypatch.setattr(segmenter, "TRANSPLANTED", 1.0)
    patches = drawn([spots(), healthy((3, 2, 1))], 120)
    assert not any(p.truth[:DISC].any() for p in patches)
    assert any(p.truth[DISC].any() for p in patches)


def test_a_healthy_eye_and_an_exact_fit() -> None:
    """Without lesions any place will do, also where the patch is the whole photograph."""
    image = np.full((SIDE, SIDE, 3), 90, np.uint8)
    item = Segmented("healthy", image, np.zeros((SIDE, SIDE), np.uint8), False, False)  # noqa: FBT003
    for patch in drawn([item], 10):
        assert patch.image.shape == image.shape
        assert not patch.truth.any()
        assert patch.image.any()


def test_any_place_is_one_on_the_retina() -> None:
    """In a photograph that is black but for a disc, the middles of patches lie on it."""
    y, x = np.mgrid[:300, :300]
    on = np.hypot(y - 80, x - 200) < 45
    image = np.repeat(on[..., None] * np.uint8(140), 3, axis=2)
    item = Segmented("dark", image, np.zeros((300, 300), np.uint8), False, False)  # noqa: FBT003
    middles = [p.image[SIDE // 2, SIDE // 2].max() for p in drawn([item], 60)]
    # a tenth of the photograph is retina: in twenty tries one is missed at times
    assert np.mean([level > 40 for level in middles]) > 0.75
