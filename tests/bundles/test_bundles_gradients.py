"""Gradients of the ensemble, by the px that it sees."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from medlocker_dicom.bundles.bundle import find_bundle
from medlocker_dicom.bundles.engine import TorchEngine
from medlocker_dicom.bundles.gradients import Away, Gradients, View, draw_view
from medlocker_dicom.bundles.models import Classifier, Ensemble
from medlocker_dicom.bundles.preprocess import crop_to_retina
from medlocker_dicom.errors import BundleFormatError, DeviceError, NoGradientError
from medlocker_dicom.phantom import phantom
from tiny_bundles import write_classifier, write_without_gradient

Logits = Callable[[int, torch.Tensor], torch.Tensor]


@pytest.fixture(scope="module")
def ensemble(tiny_bundles: Path) -> Ensemble:
    """Return an ensemble of one real, tiny network."""
    bundle = find_bundle("dr_classifier_tiny", [tiny_bundles], ())
    return Ensemble([Classifier(bundle, TorchEngine(bundle))])


@pytest.fixture(scope="module")
def crop() -> NDArray[np.uint8]:
    """Return an eye as the network sees it."""
    return crop_to_retina(phantom(np.random.default_rng(4), (160, 160)).image, 64)


@pytest.fixture
def other(tmp_path: Path) -> Classifier:
    write_classifier(tmp_path / "dr_classifier_other", 4)
    bundle = find_bundle("dr_classifier_other", [tmp_path], ())
    return Classifier(bundle, TorchEngine(bundle))


def objective(mean: NDArray[np.float64], target: int) -> float:
    """Compute the objective of an ensemble's mean probabilities."""
    logs = np.log(mean)
    return float(np.log1p(np.exp(logs[target] - np.delete(logs, target).max() + 1)))


def told(classifier: Classifier, image: NDArray[Any]) -> NDArray[np.float64]:
    """Ask a classifier's engine."""
    (answer,) = classifier.probabilities(np.rint(image).astype(np.uint8)[None])
    return np.asarray(answer)


def downhill(image: NDArray[np.uint8], gradient: NDArray[np.float32]) -> NDArray[np.float64]:
    """Step a level against a gradient where it is steepest."""
    step = np.zeros(image.shape)
    best = np.argsort(-np.abs(gradient).ravel())[:12]
    step.ravel()[best] = -np.sign(gradient.ravel()[best])
    return step * ((image > 0) & (image < 255))


@pytest.mark.parametrize("target", range(5))
def test_the_gradient_foretells_the_engine(
    ensemble: Ensemble, crop: NDArray[np.uint8], target: int
) -> None:
    """A level against the gradient lower the objective by what the gradient says."""
    away = Gradients(ensemble.classifiers, ensemble.weights).away_from(target)
    gradient = away(crop.astype(np.float32), View())
    assert gradient.shape == crop.shape
    step = downhill(crop, gradient)
    (classifier,) = ensemble.classifiers
    before = objective(told(classifier, crop), target)
    after = objective(told(classifier, crop + step), target)
    foretold = float((gradient * step).sum())
    assert foretold < 0
    assert after - before == pytest.approx(foretold, rel=0.3)


def test_views_are_seen(ensemble: Ensemble, crop: NDArray[np.uint8]) -> None:
    """What a pipeline cuts off has no gradient; each of its parts changes what is left."""
    ask = Gradients(ensemble.classifiers, ensemble.weights).away_from(0)
    image = crop.astype(np.float32)
    plain = ask(image, View())
    cut = ask(image, View(extent=0.75, across=0.0, down=1.0))
    assert not cut[:16].any()
    assert not cut[:, 48:].any()
    assert cut[16:, :48].any()
    for change in ({"scale": 0.5}, {"gain": 0.8}, {"shift": 30.0}, {"quality": 20}):
        other = ask(image, replace(View(), **change))
        assert other.shape == plain.shape
        assert not np.allclose(other, plain, rtol=1e-3), change
    assert np.array_equal(ask(image, View()), plain)


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
    ask = Ensemble([Classifier(bundle, TorchEngine(bundle))]).gradients.away_from(0)
    with pytest.raises(BundleFormatError, match="dr_classifier_tiny: the network does not run"):
        ask(crop.astype(np.float32), View())


def test_a_network_without_a_gradient_is_named(
    ensemble: Ensemble, tmp_path: Path, crop: NDArray[np.uint8]
) -> None:
    """Alone it is an error of its own; beside one that tells a gradient, that one's is taken."""
    path = write_without_gradient(tmp_path / "dr_classifier_blind")
    bundle = find_bundle(path.name, [tmp_path], (path.name,))
    blind, image = Classifier(bundle, TorchEngine(bundle)), crop.astype(np.float32)
    with pytest.raises(NoGradientError, match="dr_classifier_blind: no gradient") as caught:
        Ensemble([blind]).gradients.away_from(0)(image, View())
    assert "--strategy paper" in caught.value.hint
    (sighted,) = ensemble.classifiers
    away = Ensemble([blind, sighted]).gradients.away_from(0)
    for _ in range(3):
        gradient = away(image, View())
        step, rest = downhill(crop, gradient), told(blind, crop)
        before, after = (
            objective((rest + told(sighted, one)) / 2, 0) for one in (crop, crop + step)
        )
        assert after - before == pytest.approx(float((gradient * step).sum()), rel=0.3)
        assert after < before


def test_models_take_turns(ensemble: Ensemble, other: Classifier, crop: NDArray[np.uint8]) -> None:
    """One after the other is asked, each beside what the others told last, by its weight."""
    (one,), image = ensemble.classifiers, crop.astype(np.float32)
    away = Ensemble([one, other], [3, 1]).gradients.away_from(1)
    alone = ensemble.gradients.away_from(1)(image, View())
    assert np.allclose(away(image, View()), alone, rtol=1e-4, atol=1e-9)  # no other told anything
    brighter = crop.clip(0, 235) + np.uint8(20)
    known = 0.75 * told(one, crop)
    for asked, weight, shown in ((other, 0.25, brighter), (one, 0.75, crop)):
        gradient = away(shown.astype(np.float32), View())
        step = downhill(shown, gradient)
        before, after = (
            objective(known + weight * told(asked, levels), 1) for levels in (shown, shown + step)
        )
        assert after < before
        assert after - before == pytest.approx(float((gradient * step).sum()), rel=0.3)
        known = weight * told(asked, shown)


def test_when_a_grade_is_turned(
    ensemble: Ensemble, other: Classifier, crop: NDArray[np.uint8]
) -> None:
    """Once each model was asked, by the mean of what they told last."""
    both = Ensemble([*ensemble.classifiers, other], [3, 1])
    decision = int(both.probabilities(crop[None])[0].argmax())
    for target in range(5):
        away = both.gradients.away_from(target)
        for asked in range(3):
            assert away.turned == (asked >= 2 and decision != target)
            away(crop.astype(np.float32), View())


BLANK = np.zeros((8, 8, 3), np.float32)


class Models:
    """Stand for an ensemble's gradients: logits as a function says, by model and levels seen."""

    def __init__(self, logits: Logits, number: int = 2, device: str = "cpu") -> None:
        self.classifiers, self.device = [None] * number, torch.device(device)
        self.weights = np.full(number, 1 / number)
        self.logits = logits


def away_from_0(models: Models) -> Away:
    """Lead away from the first class."""
    return Away(models, 0)  # type: ignore[arg-type]  # it has what is asked for


def fixed(answers: list[list[float]]) -> Logits:
    """Tell these probabilities, whatever is seen; the gradient is 0."""
    return lambda index, seen: torch.tensor(answers[index]).log() + 0 * seen.mean()


@pytest.mark.parametrize(
    ("answers", "turned"),
    [
        ([[0.9, 0.05, 0.05], [0.001, 0.5, 0.499]], False),  # by the geometric mean it would be
        ([[0.5, 0.3, 0.2], [0.1, 0.45, 0.45]], True),  # by the surest it would not
    ],
)
def test_it_is_the_mean_that_is_turned(answers: list[list[float]], *, turned: bool) -> None:
    """Of probabilities, as the ensemble has it."""
    away = away_from_0(Models(fixed(answers)))
    for _ in answers:
        away(BLANK, View())
    assert away.turned == turned
    assert turned == (np.mean(answers, 0).argmax() != 0)


def test_what_was_told_last_counts() -> None:
    """A grade that was turned can turn back."""
    answers = [[0.2, 0.8], [0.4, 0.6]]
    away = away_from_0(Models(fixed(answers)))
    for _ in answers:
        away(BLANK, View())
    assert away.turned
    answers[0] = [0.9, 0.1]
    away(BLANK, View())
    assert not away.turned
    assert not any(one.requires_grad for one in away._shares.values())


@pytest.mark.parametrize(("lead", "heard"), [(60.0, 6.0), (6.5, 6.0), (5.0, 5.0)])
def test_one_that_is_too_sure_is_heard(lead: float, heard: float) -> None:
    """Beside a model that is turned already, which may be as sure, it is led away all the same."""

    def logits(index: int, seen: torch.Tensor) -> torch.Tensor:
        if index == 0:
            return torch.tensor([0.0, 60.0, 0.0]) + 0 * seen.mean()
        return torch.tensor([lead, 0.0, 0.0]) + seen.mean() * torch.tensor([1.0, 0.0, 0.0])

    away = away_from_0(Models(logits))
    away(BLANK, View())
    gradient = float(away(BLANK, View()).sum())
    share = torch.tensor([heard, 0.0, 0.0], requires_grad=True)
    mean = torch.stack([share.softmax(0), torch.tensor([0.0, 1.0, 0.0])]).mean(0)
    objective = torch.log1p(torch.e * mean[0] / mean[1:].max())
    (slope,) = torch.autograd.grad(objective, share)
    assert gradient == pytest.approx(float(slope[0]) * heard / lead, rel=1e-3)
    assert gradient > 1e-5


def test_the_temperature_counts(tiny_bundles: Path, crop: NDArray[np.uint8]) -> None:
    """What a model tells is calibrated."""
    bundle = replace(find_bundle("dr_classifier_tiny", [tiny_bundles], ()), temperature=4.0)
    classifier = Classifier(bundle, TorchEngine(bundle))
    seen = torch.from_numpy(crop.astype(np.float32)).permute(2, 0, 1)[None]
    logits = Ensemble([classifier]).gradients.logits(0, seen)
    expected = classifier.probabilities(crop[None])[0]
    assert np.allclose(logits.softmax(0).numpy(), expected, atol=1e-5)


@pytest.mark.parametrize("device", ["cpu", "cuda"])
@pytest.mark.parametrize("where", ["answer", "gradient"])
def test_no_numbers_on_a_device(where: str, device: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a GPU they are an error, on the CPU the next is asked; to tell no gradient is no error."""

    def logits(index: int, seen: torch.Tensor) -> torch.Tensor:
        answer = torch.tensor([0.6, 0.4]).log()
        if index == 0:
            return answer
        if index == 1:
            return answer + seen.mean() * torch.tensor([1.0, -1.0])
        return answer + (seen.mean().sqrt() if where == "gradient" else seen.mean() * torch.nan)

    monkeypatch.setattr(torch.Tensor, "to", lambda one, _device: one)  # it stays on the CPU
    away = away_from_0(Models(logits, 3, device))
    for _ in range(2):  # the second is asked in place of the first, and in its turn
        assert (away(BLANK, View()) > 0).all()
    if device == "cpu":
        assert (away(BLANK, View()) > 0).all()
    else:
        with pytest.raises(DeviceError, match="cuda: answers or gradients that are no numbers"):
            away(BLANK, View())


def test_answers_that_are_no_numbers(
    ensemble: Ensemble, crop: NDArray[np.uint8], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A model that never tells any is passed over, and the others go on without it."""
    image, (one,) = crop.astype(np.float32), ensemble.classifiers
    both = Ensemble([one, one]).gradients
    alone = ensemble.gradients.away_from(1)(image, View())
    ask = both.logits

    def broken(index: int, seen: torch.Tensor) -> torch.Tensor:
        return ask(index, seen) * (torch.nan if index == 0 else 1.0)

    monkeypatch.setattr(both, "logits", broken)
    away = both.away_from(1)
    for _ in range(4):
        assert np.allclose(away(image, View()), alone, rtol=1e-4, atol=1e-9)
        assert not away.turned
    monkeypatch.setattr(both, "logits", lambda index, seen: ask(index, seen) * torch.nan)
    with pytest.raises(NoGradientError):
        both.away_from(1)(image, View())
