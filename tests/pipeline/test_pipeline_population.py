"""A GPU's whole populations are told what the engines tell, or are not asked any more.

Where there is no GPU the same code runs on the CPU.
"""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from pipeline_factories import (
    ALICE,
    NOW,
    QUICK,
    eye,
    make_locked,
    make_source,
    opened,
    reread,
    ring,
)

from medlocker_dicom.bundles.bundle import bundle_folders, find_bundle, read_bundle
from medlocker_dicom.bundles.device import DeviceEnsemble
from medlocker_dicom.bundles.engine import OnnxEngine
from medlocker_dicom.bundles.models import Classifier, Ensemble
from medlocker_dicom.bundles.preprocess import retina_crop
from medlocker_dicom.dicom.fundus import decode_fundus
from medlocker_dicom.pipeline.canvas import Canvas
from medlocker_dicom.pipeline.population import Population, asked
from medlocker_dicom.pipeline.unlock import unlock
from medlocker_dicom.watermark.scale import scale_logo
from tiny_bundles import write_classifier

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
SEED = bytes(range(32))


def make_canvas(size: int, channels: int = 3) -> Canvas:
    """Return an eye and a ring at a model's size."""
    display = eye(3, 640).image
    if channels == 1:
        display = np.repeat(display[..., 1:2], 3, -1)
    logo = scale_logo(ring(400), 640, 640, 4)
    return Canvas(display, retina_crop(display), size, logo, SEED, channels=channels)


def candidates(canvas: Canvas, count: int = 12) -> NDArray[np.int32]:
    """Draw candidates, the corners and the ends of the opacities among them."""
    rng = np.random.default_rng(count)
    last = canvas.size - np.array(canvas.logo_size)
    places = rng.integers(0, last, (count, 2), endpoint=True)
    places[:2] = (0, 0), last
    alphas = [100, 255, *rng.integers(100, 256, count - 2)]
    return np.column_stack([alphas, places]).astype(np.int32)


@pytest.fixture(scope="module")
def ensemble(tmp_path_factory: pytest.TempPathFactory, export_cache: Path) -> Ensemble:
    """Return two networks with weights, asked by ONNX Runtime."""
    folder = tmp_path_factory.mktemp("graders")
    bundles = [read_bundle(write_classifier(folder / name, n)) for n, name in enumerate("ab")]
    return Ensemble([Classifier(one, OnnxEngine(one, export_cache)) for one in bundles], [1, 3])


def on_device(ensemble: Ensemble, precision: torch.dtype = torch.float32) -> DeviceEnsemble:
    """Put its networks on the device."""
    return DeviceEnsemble(ensemble.classifiers, ensemble.weights, DEVICE, precision)


def with_device(ensemble: Ensemble, device: DeviceEnsemble) -> Ensemble:
    """Return the ensemble as if torch had found a GPU."""
    other = Ensemble(ensemble.classifiers, ensemble.weights.tolist())
    vars(other)["on_device"] = device
    return other


@pytest.mark.parametrize(("size", "channels"), [(64, 3), (224, 3), (100, 1)])
def test_candidates_are_composed_as_on_the_canvas(
    ensemble: Ensemble, size: int, channels: int
) -> None:
    """Level by level, at the canvas' corners too."""
    canvas = make_canvas(size, channels)
    genes = candidates(canvas)
    composed = Population(canvas, on_device(ensemble)).compose(genes).cpu().numpy()
    apart = np.abs(composed - canvas.compose(genes))
    assert apart.max() <= 1
    assert np.mean(apart > 0) < 1e-4  # where rounding falls on halves
    assert np.ptp(composed, 0).max() > 50


@pytest.mark.parametrize("size", [64, 100, 224])
@pytest.mark.parametrize(
    ("precision", "close"),
    [(torch.float32, 1e-5), (torch.float16, 5e-3), (torch.bfloat16, 2e-2)],
    ids=str,
)
def test_a_population_is_graded_as_by_the_engines(
    ensemble: Ensemble, precision: torch.dtype, close: float, size: int
) -> None:
    """On a canvas of the models' size, and on larger ones, by the ensemble's mean."""
    canvas = make_canvas(size)
    genes = candidates(canvas)
    found = Population(canvas, on_device(ensemble, precision)).probabilities(genes)
    assert found is not None
    known = ensemble.probabilities(canvas.compose(genes))
    assert np.abs(found - known).max() <= close
    assert np.ptp(known, 0).max() > 10 * close


def test_delivered_networks_keep_their_grades_in_half_precision(export_cache: Path) -> None:
    """The quick pair of the shipped bundles, whose activations reach further than tiny ones."""
    bundles = [find_bundle(name, bundle_folders()) for name in ("resnet18", "mobilenetv3")]
    ensemble = Ensemble([Classifier(one, OnnxEngine(one, export_cache)) for one in bundles])
    canvas = make_canvas(ensemble.size)
    genes = candidates(canvas, 2)
    found = Population(canvas, on_device(ensemble, torch.float16)).probabilities(genes)
    assert found is not None
    assert np.abs(found - ensemble.probabilities(canvas.compose(genes))).max() <= 5e-3


class Counted(DeviceEnsemble):
    """Counts what it is asked."""

    def __init__(self, ensemble: Ensemble) -> None:
        super().__init__(ensemble.classifiers, ensemble.weights, DEVICE, torch.float32)
        self.batches: list[int] = []

    def __call__(self, images: torch.Tensor) -> torch.Tensor:
        """Answer, and count."""
        self.batches.append(len(images))
        return super().__call__(images)


class Wrong(Counted):
    """Answers for other networks."""

    def __call__(self, images: torch.Tensor) -> torch.Tensor:
        """Answer what is not so."""
        return super().__call__(images).flip(1)


class Overflowing(Counted):
    """Answers with what is no number."""

    def __call__(self, images: torch.Tensor) -> torch.Tensor:
        """Answer as a network too wide for half precision."""
        return super().__call__(images) * torch.nan


class Exhausted(Counted):
    """Has no memory left."""

    def __call__(self, images: torch.Tensor) -> torch.Tensor:
        """Fail as a driver does."""
        super().__call__(images)
        raise torch.OutOfMemoryError("CUDA out of memory")


def test_a_device_is_believed_once_it_agreed(ensemble: Ensemble) -> None:
    """The first batch is the engines'; the others, on another canvas too, are the device's."""
    device = Counted(ensemble)
    both = with_device(ensemble, device)
    for size in (64, 100):
        canvas = make_canvas(size)
        ask = asked(both, canvas)
        genes = candidates(canvas)
        known = ensemble.probabilities(canvas.compose(genes))
        for _ in range(2):
            np.testing.assert_allclose(ask(genes), known, atol=1e-5)
    assert device.trusted
    assert device.batches == [12] * 4


@pytest.mark.parametrize("kind", [Wrong, Overflowing, Exhausted])
def test_a_device_that_fails_is_left(ensemble: Ensemble, kind: type[Counted]) -> None:
    """From the start: it is asked once, and the engines answer."""
    device = kind(ensemble)
    canvas = make_canvas(64)
    ask, genes = asked(with_device(ensemble, device), canvas), candidates(canvas)
    known = ensemble.probabilities(canvas.compose(genes))
    for _ in range(3):
        np.testing.assert_allclose(ask(genes), known, atol=1e-5)
    assert device.trusted is False
    assert len(device.batches) == 1


@pytest.mark.parametrize("kind", [Overflowing, Exhausted])
def test_a_device_that_fails_later_is_left(ensemble: Ensemble, kind: type[Counted]) -> None:
    """In the middle of a search."""
    device = kind(ensemble)
    device.trusted = True
    canvas = make_canvas(64)
    ask, genes = asked(with_device(ensemble, device), canvas), candidates(canvas)
    known = ensemble.probabilities(canvas.compose(genes))
    np.testing.assert_allclose(ask(genes), known, atol=1e-5)
    assert device.trusted is False


def test_networks_that_do_not_load_there(
    ensemble: Ensemble, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A GPU without room for them, or a driver that torch does not like, is none."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)

    def full(*_: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr("medlocker_dicom.bundles.models.DeviceEnsemble", full)
    assert Ensemble(ensemble.classifiers).on_device is None


def test_a_lock_by_whole_populations(ensemble: Ensemble) -> None:
    """The paper's evolution asks a generation at a time, and the pixels come back."""
    device = Counted(ensemble)
    source = make_source()
    policy = replace(QUICK, budget=300, margin=0.9)
    result = make_locked(source, policy=policy, ensemble=with_device(ensemble, device))
    plain = make_locked(source, policy=policy, ensemble=ensemble)
    assert device.trusted
    assert max(device.batches) == policy.parameters.population
    frame, other = result.record.frames[0], plain.record.frames[0]
    assert frame.placement == other.placement
    assert frame.models == other.models  # by the engines, at full size
    restored = decode_fundus(reread(unlock(opened(result), result.grants[0], ALICE, NOW)))
    assert np.array_equal(restored.pixels, source.pixels)
