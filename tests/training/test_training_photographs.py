"""Photograph sets on disk: which are listed, held out, left out, and how they are read."""

import logging
from pathlib import Path

import cv2
import numpy as np
import pytest

from medlocker_dicom.bundles.picture import read_rgb
from medlocker_dicom.bundles.preprocess import crop_to_retina
from medlocker_dicom.errors import PictureError
from medlocker_dicom.phantom import Bit
from medlocker_dicom.training.photographs import (
    GRADED_SETS,
    Graded,
    difference_hash,
    drop_near_duplicates,
    held_out_by_number,
    list_graded,
    load_crops,
    load_healthy,
    load_segmented,
)
from training_sets import SIDE, Shot, eye, graded, rings, write_graded, write_lesions


def names_of(items: list[Graded]) -> list[str]:
    """Return the files' names, in order."""
    return [item.path.name for item in items]


def test_sets_are_listed_in_order(tmp_path: Path) -> None:
    """Set by set, each in the order of its table, with its grade, path and split."""
    dot = rings(0, 0, 8)
    sets = {
        "odir": [Shot("z.png", 3, "val", dot), Shot("a.png", 1, "train", dot)],
        "idrid_grading": [Shot("IDRiD_007.png", 2, None, dot), Shot("IDRiD_005.png", 4, None, dot)],
        "eyepacs_equalised": [Shot("q.png", 0, "train", dot)],
    }
    root = write_graded(tmp_path, sets)
    assert list_graded(root) == [
        Graded(root / source / "images" / name, source, grade, held_out)
        for source, name, grade, held_out in [
            ("idrid_grading", "IDRiD_007.png", 2, False),
            ("idrid_grading", "IDRiD_005.png", 4, True),
            ("odir", "z.png", 3, True),
            ("odir", "a.png", 1, False),
            ("eyepacs_equalised", "q.png", 0, False),
        ]
    ]


@pytest.mark.parametrize("source", GRADED_SETS)
def test_a_missing_set_is_named(source: str, tmp_path: Path) -> None:
    """A folder without one of the sets is refused, not silently listed in part."""
    (write_graded(tmp_path, {}) / source / "labels.csv").unlink()
    with pytest.raises(FileNotFoundError, match=source):
        list_graded(tmp_path)


@pytest.mark.parametrize(
    ("name", "held_out"),
    [
        ("IDRiD_005.jpg", True),
        ("IDRiD_100.jpg", True),
        ("IDRiD_10.jpg", True),
        ("IDRiD_001.jpg", False),
        ("IDRiD_054.jpg", False),
        ("IDRiD_051.png", False),
        ("unnumbered.jpg", False),
    ],
)
def test_every_fifth_number_is_held_out(name: str, held_out: bool) -> None:  # noqa: FBT001  expected value
    """The whole number counts, not its last digits or the file's type."""
    assert held_out_by_number(name) is held_out


def test_hash_tells_pictures_apart_but_not_their_copies() -> None:
    """Exposure changes no bit; another eye changes more bits than duplicates may differ in."""
    one, other = eye(0).image, eye(1).image
    dimmed = np.asarray(one // 2 * 2, np.uint8)
    assert 0 <= difference_hash(one) < 1 << 256
    assert (difference_hash(one) ^ difference_hash(dimmed)).bit_count() <= 12
    assert (difference_hash(one) ^ difference_hash(other)).bit_count() > 40


def test_near_duplicates_go_from_training_alone() -> None:
    """Only training photographs of the same set, within the bits allowed, are dropped."""
    held = graded(1, validation=True)
    twin = graded(1, validation=True)
    near, far = graded(2), graded(3)
    abroad = graded(4, "srahim")
    items = [near, held, abroad, far, twin]
    hashes = [0b111, 0, 0, 0b1111, 0]
    assert drop_near_duplicates(items, hashes, most_bits=3) == [held, abroad, far, twin]
    assert drop_near_duplicates(items, hashes, most_bits=2) == items
    assert drop_near_duplicates([near, far], [0, 0]) == [near, far]


def test_a_re_encoded_copy_of_a_held_out_picture_is_not_trained_on(tmp_path: Path) -> None:
    """Its stronger JPEG is dropped; another eye, and the copy in another set, are kept."""
    sets = {
        "odir": [
            Shot("copy.jpg", 2, "train", eye(0).image, 85),
            Shot("other.jpg", 1, "train", eye(1).image),
            Shot("held.jpg", 2, "val", eye(0).image),
        ],
        "srahim": [Shot("elsewhere.jpg", 2, "train", eye(0).image, 85)],
    }
    root = write_graded(tmp_path, sets)
    crops = load_crops(root, 64, None)
    assert names_of(crops.items) == ["elsewhere.jpg", "other.jpg", "held.jpg"]
    assert crops.pixels.dtype == np.uint8
    assert crops.pixels.shape == (3, 64, 64, 3)
    for item, pixels in zip(crops.items, crops.pixels, strict=True):
        assert np.array_equal(pixels, crop_to_retina(read_rgb(item.path), 64))


def test_a_dark_photograph_is_left_out_and_named(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A picture that shows no retina is warned of by its path, and the rest stay in step."""
    sets = {
        "odir": [
            Shot("before.png", 1, "train", eye(0).image),
            Shot("dark.png", 3, "train", np.full((SIDE, SIDE, 3), 2, np.uint8)),
            Shot("after.png", 4, "val", eye(1).image),
        ]
    }
    root = write_graded(tmp_path, sets)
    with caplog.at_level(logging.WARNING):
        crops = load_crops(root, 64, None)
    assert [(i.path.name, i.grade) for i in crops.items] == [("before.png", 1), ("after.png", 4)]
    assert np.array_equal(crops.pixels[1], crop_to_retina(eye(1).image, 64))
    warnings = [record.getMessage() for record in caplog.records]
    assert len(warnings) == 1
    assert str(root / "odir" / "images" / "dark.png") in warnings[0]


def test_crops_are_kept_between_runs(tmp_path: Path) -> None:
    """A second run reads no picture; another size or another list crops anew."""
    shots = [Shot(f"{n}.png", n, "train", rings(n, n)) for n in range(3)]
    root, cache = write_graded(tmp_path / "data", {"odir": shots}), tmp_path / "cache"
    first = load_crops(root, 32, cache)
    assert load_crops(root, 40, cache).pixels.shape == (3, 40, 40, 3)
    (root / "odir" / "images" / "0.png").unlink()
    second = load_crops(root, 32, cache)
    assert second.items == first.items
    assert np.array_equal(second.pixels, first.pixels)
    assert not list(cache.glob("*.part"))
    with pytest.raises(PictureError, match=r"0\.png: cannot be read"):
        load_crops(root, 36, cache)


def test_lesion_images_come_with_their_masks(tmp_path: Path) -> None:
    """Sorted, at the wanted diameter, each mask over its own picture, every fifth held out."""
    root = write_lesions(tmp_path, {5: eye(0), 2: eye(1)})
    second, fifth = load_segmented(root, 160)
    assert [second.name, fifth.name] == ["IDRiD_02.jpg", "IDRiD_05.jpg"]
    assert [second.validation, fifth.validation] == [False, True]
    for item, shown in ((second, eye(1)), (fifth, eye(0))):
        assert item.image.dtype == item.mask.dtype == np.uint8
        assert item.image.shape == (*item.mask.shape, 3)
        assert item.discs_known
        side = crop_to_retina(shown.image, SIDE).shape[0]
        assert abs(item.mask.shape[0] - 160 * SIDE / side) < SIDE / 10
        size = (item.mask.shape[1], item.mask.shape[0])
        disc = (shown.mask & Bit.OD > 0).astype(np.uint8)
        wanted = cv2.resize(disc, size, interpolation=cv2.INTER_LINEAR).astype(bool)
        assert (wanted & (item.mask & Bit.OD > 0)).sum() > 0.8 * wanted.sum()
        for bit in (Bit.MA, Bit.EX):
            assert np.any(item.mask & bit)


def test_a_missing_mask_is_named(tmp_path: Path) -> None:
    """A lesion image without its mask is an error that names the mask."""
    root = write_lesions(tmp_path, {5: eye(0), 2: eye(1)})
    (mask,) = (root / "idrid_lesions" / "masks").glob("*02.png")
    mask.unlink()
    with pytest.raises(PictureError, match=r"IDRiD_02\.png: cannot be read"):
        load_segmented(root, 160)


def test_healthy_eyes_are_grade_0_of_idrid(tmp_path: Path) -> None:
    """No other grade or set, no more than asked for, no lesion, and their discs are unknown."""
    grades = {1: 0, 2: 3, 4: 0, 5: 0, 7: 0}
    sets = {
        "idrid_grading": [
            Shot(f"IDRiD_{n:03}.png", grade, None, eye(0).image) for n, grade in grades.items()
        ],
        "odir": [Shot("odir.png", 0, "train", eye(0).image)],
    }
    root = write_graded(tmp_path, sets)
    items = load_healthy(root, 100, 3)
    assert [item.name for item in items] == ["IDRiD_001.png", "IDRiD_004.png", "IDRiD_005.png"]
    assert [item.validation for item in items] == [False, False, True]
    assert len(load_healthy(root, 100, 10)) == 4
    for item in items:
        assert item.image.shape == (*item.mask.shape, 3)
        assert not item.mask.any()
        assert not item.discs_known
