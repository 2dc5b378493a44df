"""Classifier, ensemble (eq. 8) and segmenter, on engines whose answers are known."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from medlocker_dicom.bundles.bundle import Bundle, Kind
from medlocker_dicom.bundles.models import STRIDE, WINDOW, Classifier, Ensemble, Segmenter
from medlocker_dicom.bundles.preprocess import crop_to_retina, normalise, resample
from medlocker_dicom.phantom import phantom

GRADES = ("0", "1", "2", "3", "4")
LESIONS = ("MA", "HE", "EX", "SE", "OD")


def bundle(kind: Kind, labels: tuple[str, ...], size: int) -> Bundle:
    """Return a bundle that is nowhere on disk."""
    return Bundle(Path("nowhere"), "nowhere", kind, labels, size, "0" * 64, {}, {})


def linear(seed: int) -> Any:
    """Return an engine that weighs channel means: float32 (B, 3, H, W) to (B, 5)."""
    weights = np.random.default_rng(seed).normal(size=(3, 5)).astype(np.float32)
    return lambda inputs: inputs.mean((2, 3)) @ weights


def grader(seed: int, size: int = 64) -> Classifier:
    """Return a classifier with such an engine."""
    return Classifier(bundle("dr-classifier", GRADES, size), linear(seed))


def crops(count: int, size: int = 64) -> NDArray[np.uint8]:
    """Return crops of noise, each of its own brightness."""
    rng = np.random.default_rng(0)
    noise = rng.integers(0, 256, (count, size, size, 3)) * rng.uniform(0, 1, (count, 1, 1, 3))
    return noise.astype(np.uint8)


def test_probabilities_are_the_softmax() -> None:
    """Rows are exp(z) over its sum, also for logits that would overflow."""
    one = crops(3)
    logits = linear(1)(normalise(one)).astype(np.float64)
    expected = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    np.testing.assert_allclose(grader(1).probabilities(one), expected, rtol=1e-12)
    huge = Classifier(
        bundle("dr-classifier", GRADES, 64), lambda x: 1e6 * linear(1)(x)
    ).probabilities(one)
    np.testing.assert_allclose(huge.sum(1), 1)
    assert np.array_equal(huge.argmax(1), expected.argmax(1))


@pytest.mark.parametrize("temperature", [0.01, 0.5, 3.0, 100.0])
def test_the_temperature_calibrates(temperature: float) -> None:
    """Logits are divided by it before the softmax: other probabilities, the same grades."""
    images = crops(20)
    plain = grader(1).probabilities(images)
    tempered = replace(bundle("dr-classifier", GRADES, 64), temperature=temperature)
    warm = Classifier(tempered, linear(1)).probabilities(images)
    powers = plain ** (1 / temperature)
    np.testing.assert_allclose(warm, powers / powers.sum(1, keepdims=True), rtol=1e-5)
    assert np.array_equal(warm.argmax(1), plain.argmax(1))
    spread = (warm.max(1) - warm.min(1)) - (plain.max(1) - plain.min(1))
    assert (spread < 0).all() if temperature > 1 else (spread > 0).all()


def test_crops_of_another_size_are_resampled() -> None:
    """Crops from a larger canvas are averaged down to the model's size."""
    large = crops(2, 128)
    small = np.stack([resample(crop, (64, 64)) for crop in large])
    assert np.array_equal(grader(1).probabilities(large), grader(1).probabilities(small))


def test_a_photograph_is_graded_by_its_crop() -> None:
    """The whole photograph goes through the retina's crop at the model's size."""
    eye = phantom(np.random.default_rng(2), (300, 400)).image
    by_hand = grader(1).probabilities(crop_to_retina(eye, 64)[None])[0]
    assert np.array_equal(grader(1).photograph(eye), by_hand)


@given(st.lists(st.floats(0.01, 100), min_size=3, max_size=3))
def test_the_ensemble_is_the_weighted_mean(weights: list[float]) -> None:
    """Equation 8: the sum of beta_i f_i, beta normalised to one; rows still sum to one."""
    graders = [grader(seed, size) for seed, size in ((1, 64), (2, 64), (3, 32))]
    images = crops(4)
    beta = np.array(weights) / sum(weights)
    expected = sum(b * g.probabilities(images) for b, g in zip(beta, graders, strict=True))
    mean = Ensemble(graders, weights).probabilities(images)
    np.testing.assert_allclose(mean, expected, rtol=1e-12)
    np.testing.assert_allclose(mean.sum(1), 1, rtol=1e-12)


def test_equal_weights_by_default() -> None:
    """Without weights each model counts alike, and the largest input sets the canvas."""
    graders = [grader(1, 32), grader(2, 64)]
    ensemble = Ensemble(graders)
    assert ensemble.weights.tolist() == [0.5, 0.5]
    assert ensemble.size == 64
    eye = phantom(np.random.default_rng(2), (200, 200)).image
    each = ensemble.photograph(eye)
    assert np.array_equal(each, np.stack([g.photograph(eye) for g in graders]))


def pointwise(inputs: NDArray[np.float32]) -> NDArray[np.float32]:
    """Answer each px by its own colour: (B, 3, H, W) to (B, 5, H, W)."""
    weights = np.random.default_rng(0).normal(size=(5, 3)).astype(np.float32)
    return np.asarray(np.einsum("lc,bchw->blhw", weights, inputs), np.float32)


def blurred(inputs: NDArray[np.float32]) -> NDArray[np.float32]:
    """Answer each px by the 9 x 9 px around it, black beyond the window as a network pads."""
    planes = [
        cv2.blur(plane, (9, 9), borderType=cv2.BORDER_CONSTANT) for plane in pointwise(inputs)[0]
    ]
    return np.stack(planes)[None]


def segmenter(engine: Any, labels: tuple[str, ...] = LESIONS, size: int = 64) -> Segmenter:
    """Return a segmenter with that engine."""
    return Segmenter(bundle("lesion-segmenter", labels, size), engine)


def sigmoid(logits: NDArray[np.float32]) -> NDArray[np.float64]:
    """Return the logistic function."""
    return np.asarray(1 / (1 + np.exp(-logits.astype(np.float64))))


@pytest.mark.parametrize(
    "shape", [(40, 50), (512, 512), (513, 512), (300, 900), (700, 1030), (1024, 896)]
)
def test_windows_join_to_a_single_pass(shape: tuple[int, int]) -> None:
    """Of a network that looks at single px, windows give what one pass over the whole gives."""
    image = np.random.default_rng(1).integers(1, 256, (*shape, 3), dtype=np.uint8)
    whole = sigmoid(pointwise(normalise(image[None]))[0])
    scores = segmenter(pointwise, ("MA", "HE", "EX", "SE", "NV")).scores(image)
    assert scores.shape == (5, *shape)
    np.testing.assert_allclose(scores, whole, atol=1e-5)


def test_windows_join_in_the_interior() -> None:
    """Of a network that looks around, they do wherever no window's border is within its reach."""
    image = np.random.default_rng(1).integers(1, 256, (700, 900, 3), dtype=np.uint8)
    whole = sigmoid(blurred(normalise(image[None]))[0])
    scores = segmenter(blurred, ("MA", "HE", "EX", "SE", "NV")).scores(image)
    far = np.ones(image.shape[:2], bool)
    for axis, length in enumerate(image.shape[:2]):
        for start in {0, STRIDE if length - WINDOW > STRIDE else 0, length - WINDOW}:
            for border in (start, start + WINDOW):
                near = slice(max(0, border - 4), border + 4)
                far[near if axis == 0 else np.s_[:, near]] = False
    assert far.mean() > 0.9
    np.testing.assert_allclose(scores[:, far], whole[:, far], atol=1e-5)
    # at a seam, the neighbour's view counts
    assert np.abs(scores - whole)[:, 8:-8, 8:-8].max() < 1e-3


def test_black_windows_cost_nothing() -> None:
    """Windows without any light are not asked about, and hold no lesion."""
    asked = []

    def count(inputs: NDArray[np.float32]) -> NDArray[np.float32]:
        asked.append(1)
        return np.full((1, 5, *inputs.shape[2:]), 40, np.float32)

    image = np.zeros((512, 1400, 3), np.uint8)
    image[:, :300] = 90
    scores = segmenter(count).scores(image)
    assert len(asked) == 1
    assert (scores[:, :, :300] == 1).all()
    assert (scores[:, :, 520:] == 0).all()


def bright_is_disc(inputs: NDArray[np.float32]) -> NDArray[np.float32]:
    """Take what is bright for the disc, the third label, and nothing for the others."""
    out = np.full((1, 3, *inputs.shape[2:]), -9, np.float32)
    out[0, 2][inputs[0].mean(0) > 0] = 9
    return out


@pytest.mark.parametrize("labels", [("MA", "EX", "OD"), ("EX", "HE", "OD"), ("MA", "HE", "OD")])
@pytest.mark.parametrize("places", [(100,), (100, 500)])
def test_a_second_disc_is_a_plaque(labels: tuple[str, ...], places: tuple[int, ...]) -> None:
    """Two regions that pass for the disc are exudates, both; one is not, and no other label is."""
    image = np.full((600, 800, 3), 20, np.uint8)
    for left in places:
        image[250:350, left : left + 100] = 250
    scores = segmenter(bright_is_disc, labels, 600).scores(image)
    bright = image[..., 0] == 250
    assert (scores[2][bright] > 0.99).all()
    for label, plane in zip(labels[:2], scores, strict=False):
        plaque = label == "EX" and len(places) == 2
        assert ((plane > 0.99) == (bright & plaque)).all()


def test_the_disc_is_no_lesion() -> None:
    """A px that is optic disc alone is kept out of the lesions, by name and not by position."""

    def marks(inputs: NDArray[np.float32]) -> NDArray[np.float32]:
        out = np.full((1, 3, *inputs.shape[2:]), -9, np.float32)
        out[:, 0] = 9
        out[:, 2, :20] = 9
        return out

    eye = phantom(np.random.default_rng(2), (160, 160)).image
    with_disc = segmenter(marks, ("OD", "MA", "HE"))
    assert with_disc.labels_of(eye)[0].all()
    lesions = with_disc.lesions(eye)
    assert lesions.shape == (160, 160)
    assert lesions.dtype == np.bool_
    assert 0 < lesions.mean() < 0.5


def test_labels_return_to_the_photographs_size() -> None:
    """A bright spot found at the model's scale lies where it is in the photograph."""

    def bright(inputs: NDArray[np.float32]) -> NDArray[np.float32]:
        light = inputs[:, :1] * 0.30 + 0.43
        return np.repeat((light - 0.9) * 200, 5, axis=1).astype(np.float32)

    eye = np.zeros((900, 1200, 3), np.uint8)
    cv2.circle(eye, (600, 450), 420, (120, 80, 60), -1)
    cv2.circle(eye, (700, 300), 20, (255, 255, 255), -1)
    found = segmenter(bright, size=300).lesions(eye)
    truth = eye[..., 0] == 255
    assert (found & truth).sum() / (found | truth).sum() > 0.75
