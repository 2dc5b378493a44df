"""A GPU's whole populations are told what the engines tell, or the lock ends with an error.

Where there is no GPU the same code runs on the CPU in its place.
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
from medlocker_dicom.bundles.device import VARIABLE, DeviceEnsemble, chosen_device, computing
from medlocker_dicom.bundles.engine import OnnxEngine, TorchEngine
from medlocker_dicom.bundles.gradients import View
from medlocker_dicom.bundles.models import Classifier, Ensemble
from medlocker_dicom.bundles.preprocess import retina_crop
from medlocker_dicom.dicom.fundus import decode_fundus
from medlocker_dicom.errors import BundleFormatError, DeviceError, UsageError
from medlocker_dicom.pipeline.canvas import Canvas
from medlocker_dicom.pipeline.models import find_models, load_models
from medlocker_dicom.pipeline.population import Population, asked
from medlocker_dicom.pipeline.unlock import unlock
from medlocker_dicom.watermark.scale import scale_logo
from tiny_bundles import write_classifier

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
SEED = bytes(range(32))
CLOSE = 5e-3
"""More than half precision, or TF32, changes a probability by."""


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
    """Return two networks with weights and temperatures, asked by ONNX Runtime."""
    folder = tmp_path_factory.mktemp("graders")
    bundles = [
        replace(read_bundle(write_classifier(folder / name, n)), temperature=0.5 + n)
        for n, name in enumerate("ab")
    ]
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


@pytest.mark.parametrize("size", [64, 100, 128, 224])
@pytest.mark.parametrize(
    ("precision", "close"),
    [(torch.float32, 1e-3), (torch.float16, CLOSE), (torch.bfloat16, 4 * CLOSE)],
    ids=str,
)
def test_a_population_is_graded_as_by_the_engines(
    ensemble: Ensemble, precision: torch.dtype, close: float, size: int
) -> None:
    """On a canvas of the models' size, and on larger ones, by the ensemble's mean."""
    canvas = make_canvas(size)
    genes = candidates(canvas)
    found = Population(canvas, on_device(ensemble, precision)).probabilities(genes)
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
    assert np.abs(found - ensemble.probabilities(canvas.compose(genes))).max() <= CLOSE


class Counted(DeviceEnsemble):
    """Counts what it is asked."""

    def __init__(self, ensemble: Ensemble) -> None:
        super().__init__(ensemble.classifiers, ensemble.weights, DEVICE, torch.float32)
        self.batches: list[int] = []

    def __call__(self, images: torch.Tensor) -> torch.Tensor:
        """Answer, and count."""
        self.batches.append(len(images))
        return super().__call__(images)


class Apart(Counted):
    """Tells one probability of its first answer otherwise, by so much."""

    apart = 0.03

    def __call__(self, images: torch.Tensor) -> torch.Tensor:
        """Answer what is not so."""
        answer = super().__call__(images).clone()
        answer[0, 0] += self.apart
        return answer


class Overflowing(Counted):
    """Answers with what is no number."""

    factor = torch.nan

    def __call__(self, images: torch.Tensor) -> torch.Tensor:
        """Answer as a network too wide for half precision."""
        return super().__call__(images) * self.factor


def test_a_device_is_asked(ensemble: Ensemble) -> None:
    """On each canvas, and its answers are what a search gets."""
    device = Counted(ensemble)
    engines: list[int] = []

    def counted(inputs: NDArray[np.float32]) -> NDArray[np.float32]:
        engines.append(len(inputs))
        return ensemble.classifiers[0]._engine(inputs)

    first, second = ensemble.classifiers
    both = Ensemble([Classifier(first.bundle, counted), second], ensemble.weights.tolist())
    vars(both)["on_device"] = device
    for size in (64, 100):
        canvas = make_canvas(size)
        ask, genes = asked(both, canvas), candidates(canvas)
        known = ensemble.probabilities(canvas.compose(genes))
        for _ in range(2):
            np.testing.assert_allclose(ask(genes), known, atol=CLOSE)
    assert device.batches == [12] * 4
    assert engines == [1, 1]  # the first candidate of each


def test_a_device_that_says_another_thing(ensemble: Ensemble) -> None:
    """It is found out by the first candidate of a search, and only what rounding does is let by."""
    canvas = make_canvas(64)
    genes = candidates(canvas)
    device = Apart(ensemble)
    with pytest.raises(DeviceError, match=r"differ by 0\.03 from the CPU's") as caught:
        asked(with_device(ensemble, device), canvas)(genes)
    assert "MEDLOCKER_DEVICE=cpu" in caught.value.hint
    device.apart = 0.01
    asked(with_device(ensemble, device), canvas)(genes)


def test_a_device_that_overflows(ensemble: Ensemble) -> None:
    """At once, or later in a search."""
    canvas = make_canvas(64)
    genes, device = candidates(canvas), Overflowing(ensemble)
    ask = asked(with_device(ensemble, device), canvas)
    with pytest.raises(DeviceError, match="answers that are no numbers"):
        ask(genes)
    device.factor = 1.0
    ask(genes)
    device.factor = torch.nan
    with pytest.raises(DeviceError, match="answers that are no numbers"):
        ask(genes)


def test_a_lock_by_whole_populations(ensemble: Ensemble) -> None:
    """The paper's evolution asks a generation at a time; the report and the pixels are exact."""
    device = Counted(ensemble)
    source = make_source()
    policy = replace(QUICK, budget=300, margin=0.9)
    result = make_locked(source, policy=policy, ensemble=with_device(ensemble, device))
    assert max(device.batches) == policy.parameters.population
    seen = ensemble.photograph(replace(source, pixels=result.pixels).display(0))
    np.testing.assert_allclose(seen, [m.locked for m in result.record.frames[0].models], rtol=1e-9)
    restored = decode_fundus(reread(unlock(opened(result), result.grants[0], ALICE, NOW)))
    assert np.array_equal(restored.pixels, source.pixels)


@pytest.mark.parametrize("strategy", ["paper", "alpha-list"])
def test_a_lock_by_a_device_that_fails(ensemble: Ensemble, strategy: str) -> None:
    """One error that names it; torch's device without data stands for one that breaks."""
    broken = torch.device("meta")
    graders = [
        Classifier(one.bundle, lambda inputs: np.zeros((len(inputs), 5), np.float32), broken)
        for one in ensemble.classifiers
    ]
    policy = replace(QUICK, strategy=strategy)
    with pytest.raises(DeviceError, match=r"^meta: .*copy out of meta") as caught:
        make_locked(policy=policy, ensemble=Ensemble(graders))
    assert "\n" not in str(caught.value)
    assert "MEDLOCKER_DEVICE=cpu" in caught.value.hint


def test_gradients_on_a_device_that_fails(ensemble: Ensemble, export_cache: Path) -> None:
    """The same error, not one that blames the bundle."""
    graders = [
        Classifier(one.bundle, OnnxEngine(one.bundle, export_cache), torch.device("meta"))
        for one in ensemble.classifiers
    ]
    image = make_canvas(64).levels.astype(np.float32)
    with pytest.raises(DeviceError, match=r"^meta: "):
        Ensemble(graders).gradients.away_from(1)(image, View())
    with pytest.raises(DeviceError, match=r"^meta: "):
        TorchEngine(graders[0].bundle, torch.device("meta"))(image.transpose(2, 0, 1)[None])


def test_a_network_that_breaks_on_a_device(
    ensemble: Ensemble, export_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In its own layers: it is the device that is named, and on the CPU the bundle."""

    def broken(*_: object) -> None:
        raise torch.OutOfMemoryError("no room")

    monkeypatch.setattr(torch.nn.Linear, "forward", broken)
    image = make_canvas(64).levels.astype(np.float32)
    bundle = ensemble.classifiers[0].bundle
    for device, error in (("meta", DeviceError), ("cpu", BundleFormatError)):
        grader = Classifier(bundle, OnnxEngine(bundle, export_cache), torch.device(device))
        with pytest.raises(error, match="no room"):
            Ensemble([grader]).gradients.away_from(1)(image, View())


def test_errors_of_the_cpu_are_its_own() -> None:
    """They are no error of a device."""
    with pytest.raises(ZeroDivisionError), computing(torch.device("cpu")):
        raise ZeroDivisionError


def test_a_device_without_room() -> None:
    """What torch says of it, in a line."""
    with (
        pytest.raises(DeviceError, match=r"^cuda: CUDA out of memory$"),
        computing(torch.device("cuda")),
    ):
        raise torch.OutOfMemoryError("CUDA out of memory\nby much")


def test_the_device_that_is_wanted(monkeypatch: pytest.MonkeyPatch) -> None:
    """The CPU by default, a GPU by name, and nothing that torch does not find."""
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.delenv(VARIABLE, raising=False)
    assert chosen_device() == torch.device("cpu")
    for name in ("cpu", "cuda", "cuda:1"):
        monkeypatch.setenv(VARIABLE, name)
        assert chosen_device() == torch.device(name)
    for name in ("cuda:2", "gpu", "cuda:", "cuda:-1", "cuda:x", "cuda:01", "cpu:1", "mps"):
        monkeypatch.setenv(VARIABLE, name)
        with pytest.raises(UsageError, match=f"MEDLOCKER_DEVICE is '{name}'"):
            chosen_device()


def test_models_are_loaded_for_the_device(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a lock's ensemble gets; a GPU that is not there is told before anything is loaded."""
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setenv(VARIABLE, "cuda:1")
    ensemble, _ = load_models(["mobilenetv3"])
    assert [one.device for one in ensemble.classifiers] == [torch.device("cuda:1")]
    crop = np.zeros((ensemble.size, ensemble.size, 3), np.uint8)
    assert {one.device for one in ensemble.near(crop).classifiers} == {torch.device("cuda:1")}
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    with pytest.raises(UsageError, match="finds no such GPU"):
        find_models(["no such model"])
