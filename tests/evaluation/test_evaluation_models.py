"""Figures of whole models: masks that fit, scores that count, and words for those that do not."""

from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from medlocker_dicom.bundles.bundle import read_bundle
from medlocker_dicom.bundles.engine import TorchEngine
from medlocker_dicom.bundles.models import Classifier, Segmenter
from medlocker_dicom.bundles.preprocess import retina_at
from medlocker_dicom.errors import MedLockerError, NotFundusError, PictureError, UsageError
from medlocker_dicom.evaluation.models import Masked, grade, measure_segmenter, read_masked
from medlocker_dicom.phantom import Bit, phantom
from tiny_bundles import LESIONS

SIDE = 160


def write(path: Path, pixels: NDArray[Any]) -> Path:
    """Write RGB or single-channel px."""
    bgr = np.ascontiguousarray(pixels[..., ::-1]) if pixels.ndim == 3 else pixels
    assert cv2.imwrite(str(path), bgr)
    return path


@pytest.fixture(scope="module")
def segmenter(tiny_bundles: Path) -> Segmenter:
    """Return a segmenter of five labels at 128 px."""
    bundle = read_bundle(tiny_bundles / "lesion_segmenter")
    return Segmenter(bundle, TorchEngine(bundle))


@pytest.fixture
def image(tmp_path: Path) -> Path:
    """Return a photograph."""
    return write(tmp_path / "eye.png", phantom(np.random.default_rng(0), (SIDE, SIDE)).image)


def test_a_mask_comes_to_the_segmenters_scale(segmenter: Segmenter, tmp_path: Path) -> None:
    """Photograph and mask are brought to it as the product does; all labels are known."""
    shown = phantom(np.random.default_rng(0), (SIDE, SIDE))
    image, mask = write(tmp_path / "eye.png", shown.image), write(tmp_path / "m.png", shown.mask)
    masked = read_masked(image, mask, segmenter)
    wanted = retina_at(shown.image, 128, shown.mask)
    assert np.array_equal(masked.image, wanted[0])
    assert wanted[1] is not None
    assert np.array_equal(masked.mask, wanted[1])
    assert masked.mask.shape == masked.image.shape[:2] != (SIDE, SIDE)
    assert np.any(masked.mask & Bit.OD)
    assert masked.known == (0, 1, 2, 3, 4)


def test_a_black_mask_is_a_healthy_eye(segmenter: Segmenter, image: Path, tmp_path: Path) -> None:
    """No lesions is something that a mask can say."""
    black = write(tmp_path / "black.png", np.zeros((SIDE, SIDE), np.uint8))
    assert not read_masked(image, black, segmenter).mask.any()


def test_a_missing_mask_is_named(segmenter: Segmenter, image: Path, tmp_path: Path) -> None:
    """With its photograph, and a hint that a healthy eye needs one as well."""
    with pytest.raises(UsageError) as caught:
        read_masked(image, tmp_path / "missing.png", segmenter)
    assert str(caught.value) == f"{tmp_path / 'missing.png'}: no mask of eye.png"
    assert caught.value.hint == "a black one says that there are no lesions in the photograph"


WRONG = [
    ("another size", np.zeros((SIDE, SIDE - 1), np.uint8)),
    ("turned", np.zeros((SIDE + 8, SIDE - 8), np.uint8)),
    ("bits of no label", np.eye(SIDE, dtype=np.uint8) * np.uint8(32)),
    ("white for any lesion", np.eye(SIDE, dtype=np.uint8) * np.uint8(255)),
]


@pytest.mark.parametrize("pixels", [w[1] for w in WRONG], ids=[w[0] for w in WRONG])
def test_a_mask_that_does_not_fit_is_refused(
    pixels: NDArray[np.uint8], segmenter: Segmenter, image: Path, tmp_path: Path
) -> None:
    """The message names both files, and the size and bits that are wanted."""
    mask = write(tmp_path / "mask.png", pixels)
    with pytest.raises(UsageError) as caught:
        read_masked(image, mask, segmenter)
    assert str(caught.value) == (
        f"{mask}: not a mask of eye.png: {SIDE} x {SIDE} px and bits 0 to 4 are wanted"
    )
    assert caught.value.hint == "bit n of a px is set where it carries label n of the bundle"


def test_the_highest_label_is_one(segmenter: Segmenter, image: Path, tmp_path: Path) -> None:
    """All bits of all labels at once fit."""
    mask = write(tmp_path / "mask.png", np.full((SIDE, SIDE), 31, np.uint8))
    assert read_masked(image, mask, segmenter).mask.max() == 31


@pytest.mark.parametrize("broken", ["photograph", "mask"])
def test_what_is_no_image_is_named(
    broken: str, segmenter: Segmenter, image: Path, tmp_path: Path
) -> None:
    """Be it the photograph or the mask, the error names that file."""
    text = tmp_path / "text.png"
    text.write_text("no picture")
    mask = write(tmp_path / "mask.png", np.zeros((SIDE, SIDE), np.uint8))
    pair = (text, mask) if broken == "photograph" else (image, text)
    with pytest.raises(PictureError, match=r"text\.png: not an image"):
        read_masked(*pair, segmenter)


def test_a_photograph_without_a_retina_is_named(
    segmenter: Segmenter, tiny_bundles: Path, tmp_path: Path
) -> None:
    """Whether it is graded or comes with a mask, the error names the file that shows none."""
    dark = write(tmp_path / "dark.png", np.full((SIDE, SIDE, 3), 2, np.uint8))
    mask = write(tmp_path / "mask.png", np.zeros((SIDE, SIDE), np.uint8))
    bundle = read_bundle(tiny_bundles / "dr_classifier_tiny")
    with pytest.raises(NotFundusError, match=r"dark\.png: "):
        read_masked(dark, mask, segmenter)
    with pytest.raises(NotFundusError, match=r"dark\.png: "):
        grade(Classifier(bundle, TorchEngine(bundle)), [dark])


def test_a_coloured_mask_is_refused(segmenter: Segmenter, image: Path) -> None:
    """Colours are not guessed at."""
    with pytest.raises(MedLockerError, match=r"eye\.png: not a mask: one channel of 8 bits"):
        read_masked(image, image, segmenter)


def test_photographs_are_graded_as_the_product_does(tiny_bundles: Path, tmp_path: Path) -> None:
    """One row each, in order, float32, of the classifier's own probabilities."""
    bundle = read_bundle(tiny_bundles / "dr_classifier_tiny")
    classifier = Classifier(bundle, TorchEngine(bundle))
    eyes = [phantom(np.random.default_rng(n), (SIDE, SIDE)).image for n in range(3)]
    paths = [write(tmp_path / f"{n}.png", eye) for n, eye in enumerate(eyes)]
    rows = grade(classifier, paths)
    assert rows.dtype == np.float32
    assert rows.shape == (3, 5)
    for row, eye in zip(rows, eyes, strict=True):
        assert row == pytest.approx(classifier.photograph(eye), abs=1e-6)
    with pytest.raises(PictureError, match=r"missing\.png"):
        grade(classifier, [*paths, tmp_path / "missing.png"])


def scripted(answers: Sequence[NDArray[np.float32]], threshold: float = 0.5) -> Any:
    """Stand for a segmenter that gives these scores, one photograph after the other."""
    left = iter(answers)
    return SimpleNamespace(
        bundle=SimpleNamespace(labels=tuple(LESIONS)),
        lesion_labels=[0, 1, 2, 3],
        threshold=threshold,
        scores=lambda _: next(left),
    )


def scores(**marked: slice) -> NDArray[np.float32]:
    """Return scores (5, 4, 4): 7/8 in the named rows of a label, 1/8 elsewhere."""
    planes = np.full((5, 4, 4), 0.125, np.float32)
    for label, rows in marked.items():
        planes[LESIONS.index(label), rows] = 0.875
    return planes


def masked(known: Sequence[int] = range(5), **rows: slice) -> Masked:
    """Return a photograph of 4 x 4 px with labels in some rows."""
    mask = np.zeros((4, 4), np.uint8)
    for label, chosen in rows.items():
        mask[chosen] |= 1 << LESIONS.index(label)
    return Masked(np.zeros((4, 4, 3), np.uint8), mask, tuple(known))


def test_figures_worked_out_by_hand() -> None:
    """Two photographs, counted together: of 8 px with HE 4 are marked, and 4 more without.

    Dice 2 * 4 / (8 + 8); average precision 4/8 up to recall 1/2, and 8/32 for the rest.
    """
    photographs = [masked(HE=slice(0, 1)), masked(HE=slice(0, 1), OD=slice(3, 4))]
    answers = [scores(HE=slice(0, 2)), scores(OD=slice(3, 4))]
    figures = measure_segmenter(scripted(answers), iter(photographs))
    assert list(figures) == LESIONS
    assert figures["HE"] == {"n": 2, "dice": 0.5, "aupr": round(0.5 * 0.5 + 0.5 * 0.25, 4)}
    assert figures["OD"] == {"n": 2, "dice": 1, "aupr": 1}
    assert figures["MA"] == {"n": 2, "dice": None, "aupr": None}


def test_unknown_labels_count_nowhere() -> None:
    """A disc that nobody annotated is neither right nor wrong, and its photograph not counted."""
    photographs = [masked(OD=slice(0, 1)), masked(known=range(4))]
    answers = [scores(OD=slice(0, 1)), scores(OD=slice(2, 4))]
    figures = measure_segmenter(scripted(answers), photographs)
    assert figures["OD"] == {"n": 1, "dice": 1, "aupr": 1}
    assert figures["EX"]["n"] == 2


def test_healthy_eyes_are_told_by_what_is_marked() -> None:
    """Share of px marked as any lesion, once each; the disc is none, and makes no eye ill."""
    photographs = [
        masked(OD=slice(0, 1)),
        masked(known=range(4)),
        masked(SE=slice(0, 1)),
        masked(),
    ]
    answers = [
        scores(OD=slice(0, 4)),
        scores(MA=slice(0, 2), HE=slice(1, 3)),
        scores(SE=slice(0, 4)),
        scores(),
    ]
    figures = measure_segmenter(scripted(answers), photographs)
    assert figures["healthy"] == {"n": 3, "marked_share": 0.25, "without_any": 2}


@pytest.mark.parametrize(
    ("threshold", "dice", "share"),
    [(0.125, round(2 * 4 / (4 + 32), 4), 1), (0.1875, 1, 0), (0.875, 1, 0), (0.9375, 0, 0)],
)
def test_the_segmenters_threshold_counts(threshold: float, dice: float, share: float) -> None:
    """Dice and marked px go by it; a score equal to it is marked."""
    answers = [scores(EX=slice(0, 1)), scores()]
    photographs = [masked(EX=slice(0, 1)), masked()]
    figures = measure_segmenter(scripted(answers, threshold), photographs)
    assert figures["EX"]["dice"] == dice
    assert figures["healthy"]["marked_share"] == share


def test_without_healthy_eyes_nothing_is_said_of_them() -> None:
    """The entry is missing, not zero."""
    figures = measure_segmenter(scripted([scores()]), [masked(MA=slice(0, 1))])
    assert "healthy" not in figures
    assert figures["MA"]["dice"] == 0
