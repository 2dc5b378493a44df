"""Gradients of the ensemble, by the px that it sees."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from medlocker_dicom.bundles.bundle import find_bundle
from medlocker_dicom.bundles.engine import TorchEngine
from medlocker_dicom.bundles.gradients import Gradients, View, draw_view
from medlocker_dicom.bundles.models import Classifier, Ensemble
from medlocker_dicom.bundles.preprocess import crop_to_retina
from medlocker_dicom.errors import BundleFormatError, NoGradientError
from medlocker_dicom.phantom import phantom
from tiny_bundles import write_classifier, write_without_gradient


@pytest.fixture(scope="module")
def ensemble(tiny_bundles: Path) -> Ensemble:
    """Return an ensemble of one real, tiny network."""
    bundle = find_bundle("dr_classifier_tiny", [tiny_bundles], ())
    return Ensemble([Classifier(bundle, TorchEngine(bundle))])


@pytest.fixture(scope="module")
def crop() -> NDArray[np.uint8]:
    """Return an eye as the network sees it."""
    return crop_to_retina(phantom(np.random.default_rng(4), (160, 160)).image, 64)


def objective(ensemble: Ensemble, image: NDArray[np.float64], target: int) -> float:
    """Compute the objective from the engine's probabilities."""
    (classifier,) = ensemble.classifiers
    logs = np.log(classifier.probabilities(np.rint(image).astype(np.uint8)[None])[0])
    return float(np.log1p(np.exp(logs[target] - np.delete(logs, target).max() + 1)))


@pytest.mark.parametrize("target", range(5))
def test_the_gradient_foretells_the_engine(
    ensemble: Ensemble, crop: NDArray[np.uint8], target: int
) -> None:
    """A level against the gradient lower the objective by what the gradient says."""
    gradient = Gradients(ensemble.classifiers, ensemble.weights)(
        crop.astype(np.float32), target, View(), 0
    )
    assert gradient.shape == crop.shape
    step = np.zeros(crop.shape)
    best = np.argsort(-np.abs(gradient).ravel())[:12]
    step.ravel()[best] = -np.sign(gradient.ravel()[best])
    step *= (crop > 0) & (crop < 255)
    before = objective(ensemble, crop.astype(np.float64), target)
    after = objective(ensemble, crop + step, target)
    foretold = float((gradient * step).sum())
    assert foretold < 0
    assert after - before == pytest.approx(foretold, rel=0.3)


def test_views_are_seen(ensemble: Ensemble, crop: NDArray[np.uint8]) -> None:
    """What a pipeline cuts off has no gradient; each of its parts changes what is left."""
    ask = Gradients(ensemble.classifiers, ensemble.weights)
    image = crop.astype(np.float32)
    plain = ask(image, 0, View(), 0)
    cut = ask(image, 0, View(extent=0.75, across=0.0, down=1.0), 0)
    assert not cut[:16].any()
    assert not cut[:, 48:].any()
    assert cut[16:, :48].any()
    for change in ({"scale": 0.5}, {"gain": 0.8}, {"shift": 30.0}, {"quality": 20}):
        other = ask(image, 0, replace(View(), **change), 0)
        assert other.shape == plain.shape
        assert not np.allclose(other, plain, rtol=1e-3), change
    assert np.array_equal(ask(image, 0, View(), 0), plain)


def test_drawn_views_differ_and_follow_the_seed() -> None:
    """Every draw is another one, and the same seed gives the same."""
    one, two = np.random.default_rng(1), np.random.default_rng(1)
    views = [draw_view(one) for _ in range(20)]
    assert len(set(views)) == 20
    assert views == [draw_view(two) for _ in range(20)]
    assert all(0.9 <= view.extent <= 1 and 0.5 <= view.scale <= 1 for view in views)


def test_a_network_that_does_not_run_is_named(tiny_bundles: Path, crop: NDArray[np.uint8]) -> None:
    """A bundle whose size does not fit its network is an error in words."""
    bundle = replace(find_bundle("dr_classifier_tiny", [tiny_bundles], ()), input_size=32)
    ask = Ensemble([Classifier(bundle, TorchEngine(bundle))]).gradients
    with pytest.raises(BundleFormatError, match="dr_classifier_tiny: the network does not run"):
        ask(crop.astype(np.float32), 0, View(), 0)


def test_a_network_without_a_gradient_is_named(
    ensemble: Ensemble, tmp_path: Path, crop: NDArray[np.uint8]
) -> None:
    """Alone it is an error of its own; beside one that tells a gradient, that one's is taken."""
    path = write_without_gradient(tmp_path / "dr_classifier_blind")
    bundle = find_bundle(path.name, [tmp_path], (path.name,))
    blind, image = Classifier(bundle, TorchEngine(bundle)), crop.astype(np.float32)
    with pytest.raises(NoGradientError, match="dr_classifier_blind: no gradient") as caught:
        Ensemble([blind]).gradients(image, 0, View(), 0)
    assert "--strategy paper" in caught.value.hint
    alone, both = ensemble.gradients(image, 0, View(), 0), Ensemble([blind, *ensemble.classifiers])
    for turn in range(3):
        assert np.allclose(2 * both.gradients(image, 0, View(), turn), alone, rtol=1e-4, atol=1e-9)


def test_models_take_turns(ensemble: Ensemble, tmp_path: Path, crop: NDArray[np.uint8]) -> None:
    """One after the other is asked alone, each with its weight."""
    write_classifier(tmp_path / "dr_classifier_other", 4)
    bundle = find_bundle("dr_classifier_other", [tmp_path], ())
    other = Classifier(bundle, TorchEngine(bundle))
    both = Ensemble([*ensemble.classifiers, other], [3, 1])
    image = crop.astype(np.float32)
    first, second, again = (both.gradients(image, 1, View(), turn) for turn in range(3))
    assert np.array_equal(first, again)
    for gradient, share, one in ((first, 0.75, ensemble), (second, 0.25, Ensemble([other]))):
        alone = one.gradients(image, 1, View(), 0)
        assert np.allclose(gradient, share * alone, rtol=1e-4, atol=1e-9)
    assert not np.allclose(first, 3 * second, rtol=1e-2)
