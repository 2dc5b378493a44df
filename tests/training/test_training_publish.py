"""From trained weights to a bundle with figures that its readers can trust."""

import hashlib
import json
import shutil
import sys
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from medlocker_dicom.bundles.bundle import build_network, read_bundle
from medlocker_dicom.bundles.engine import OnnxEngine, TorchEngine
from medlocker_dicom.bundles.models import Classifier
from medlocker_dicom.bundles.picture import read_rgb
from medlocker_dicom.errors import BundleDigestError, BundleMissingError
from medlocker_dicom.evaluation.measures import fit_temperature, grading_figures
from medlocker_dicom.training import evaluate
from medlocker_dicom.training.checkpoint import half_precision
from medlocker_dicom.training.evaluate import EvaluateGrader, EvaluateSegmenter
from medlocker_dicom.training.photographs import EQUALISED, list_graded, load_segmented
from medlocker_dicom.training.publish import change_metadata, main, measure, publish
from tiny_bundles import LESIONS, write_segmenter
from training_sets import Shot, eye, same, write_graded, write_lesions


@pytest.fixture
def grader(tiny_bundles: Path, tmp_path: Path) -> Path:
    """Return a bundle whose weights are to be replaced."""
    name = "dr_classifier_tiny"
    return Path(shutil.copytree(tiny_bundles / name, tmp_path / name))


@pytest.fixture
def trained(grader: Path, tmp_path: Path) -> Path:
    """Return weights that fit the bundle, but are not its own."""
    network = build_network(read_bundle(grader))
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.25)
    path = tmp_path / "run" / "model.pt"
    path.parent.mkdir()
    torch.save(half_precision(network), path)
    return path


def metadata_of(bundle: Path) -> dict[str, Any]:
    """Read a bundle's metadata."""
    value: dict[str, Any] = json.loads((bundle / "configs" / "metadata.json").read_bytes())
    return value


def test_published_weights_are_loaded(grader: Path, trained: Path) -> None:
    """The bundle then holds the run's file and its digest, and the loader builds from it."""
    before = metadata_of(grader)
    digest = publish(trained, grader)
    assert digest == hashlib.sha256(trained.read_bytes()).hexdigest()
    assert (grader / "models" / "model.pt").read_bytes() == trained.read_bytes()
    after = metadata_of(grader)
    assert after["medlocker"].pop("weights_sha256") == digest
    assert before["medlocker"].pop("weights_sha256") != digest
    assert after == before
    bundle = read_bundle(grader)
    assert bundle.weights_sha256 == digest
    assert same(half_precision(build_network(bundle)), torch.load(trained, weights_only=True))


def test_new_weights_have_no_temperature_yet(grader: Path, trained: Path) -> None:
    """The one fitted to the weights before is dropped; whoever has none is left without."""
    change_metadata(grader, lambda m: m["medlocker"].update(temperature=2.5))
    assert read_bundle(grader).temperature == 2.5
    for _ in range(2):
        publish(trained, grader)
        assert "temperature" not in metadata_of(grader)["medlocker"]
        assert read_bundle(grader).temperature == 1


def test_a_bundle_without_weights_gets_some(grader: Path, trained: Path) -> None:
    """The folder of the weights is made where a clean checkout has none."""
    (grader / "models" / "model.pt").unlink()
    (grader / "models").rmdir()
    with pytest.raises(BundleMissingError):
        read_bundle(grader)
    publish(trained, grader)
    assert read_bundle(grader).weights_file.is_file()


def test_weights_changed_after_publishing_are_refused(grader: Path, trained: Path) -> None:
    """One byte, or another run's file put there by hand, and the loader names the file."""
    publish(trained, grader)
    weights = grader / "models" / "model.pt"
    data = bytearray(weights.read_bytes())
    data[len(data) // 2] ^= 1
    weights.write_bytes(data)
    with pytest.raises(BundleDigestError, match=r"model\.pt"):
        read_bundle(grader)


def test_metadata_that_names_other_weights_is_refused(grader: Path, trained: Path) -> None:
    """A digest of other weights is refused as well."""
    publish(trained, grader)
    change_metadata(grader, lambda m: m["medlocker"].update(weights_sha256="0" * 64))
    with pytest.raises(BundleDigestError, match="0" * 64):
        read_bundle(grader)


@pytest.fixture(scope="module")
def sets(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return all sets with held-out pictures of several grades."""
    graded = {
        "idrid_grading": [
            Shot(f"IDRiD_{n:03}.png", grade, None, eye(n % 4).image)
            for n, grade in ((5, 0), (6, 0), (10, 2), (15, 0))
        ],
        "odir": [Shot(f"{n}.png", n, "val", eye(n).image) for n in range(4)],
        "eyepacs_equalised": [Shot(f"{n}.png", 2 * n, "val", eye(n).image) for n in range(2)]
        + [Shot("trained.png", 1, "train", eye(3).image)],
    }
    root = write_graded(tmp_path_factory.mktemp("sets"), graded)
    return write_lesions(root, {4: eye(0), 5: eye(1), 10: eye(2)})


@pytest.fixture
def _quick_engine(export_cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let engines share the session's cache."""
    monkeypatch.setattr(evaluate, "OnnxEngine", partial(OnnxEngine, cache=export_cache))


@pytest.mark.usefixtures("_quick_engine")
def test_a_grader_is_scored_on_held_out_pictures(
    sets: Path, tiny_bundles: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Set by set, and natural colours together, as the product itself sees the pictures."""
    path = tiny_bundles / "dr_classifier_tiny"
    figures = EvaluateGrader(str(path), str(sets), str(tmp_path / "out")).run()
    written = (tmp_path / "out" / "figures.json").read_text()
    assert written == capsys.readouterr().out
    assert json.dumps(json.loads(written)) == json.dumps(figures)
    counts = {name: row["n"] for name, row in figures.items()}
    assert counts == {"natural": 7, "idrid_grading": 3, "odir": 4, "eyepacs_equalised": 2}
    bundle = read_bundle(path)
    classifier = Classifier(bundle, TorchEngine(bundle))
    odir = [read_rgb(sets / "odir" / "images" / f"{n}.png") for n in range(4)]
    probabilities = np.stack([classifier.photograph(rgb) for rgb in odir]).astype(np.float32)
    assert figures["odir"] == grading_figures(probabilities, np.arange(4))


def held_out_logits(bundle: Path, sets: Path) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Return logits and grades of the held-out pictures of natural colour."""
    read = read_bundle(bundle)
    classifier = Classifier(read, TorchEngine(read))
    held = [i for i in list_graded(sets) if i.validation and i.source != EQUALISED]
    rows = np.stack([classifier.photograph(read_rgb(item.path)) for item in held])
    return np.log(rows) * read.temperature, np.array([item.grade for item in held])


@pytest.mark.usefixtures("_quick_engine")
@pytest.mark.parametrize("before", [None, 0.5])
def test_a_grader_is_calibrated_and_measured(
    before: float | None, grader: Path, sets: Path
) -> None:
    """The temperature is that of the weights, whatever stood there; figures are taken with it."""
    logits, grades = held_out_logits(grader, sets)
    if before:
        change_metadata(grader, lambda m: m["medlocker"].update(temperature=before))
    old = metadata_of(grader)
    figures = measure(grader, sets)
    new = metadata_of(grader)
    temperature = new["medlocker"].pop("temperature")
    assert temperature == pytest.approx(fit_temperature(logits, grades), rel=1e-3)
    assert read_bundle(grader).temperature == temperature != 1
    assert new.pop("eval_metrics") == figures
    old["medlocker"].pop("temperature", None)
    assert new == old
    powers = np.exp(logits / temperature)
    chances = (powers / powers.sum(1, keepdims=True)).astype(np.float32)
    assert figures["natural"]["ece"] == pytest.approx(
        grading_figures(chances, grades)["ece"], abs=2e-3
    )
    assert measure(grader, sets) == figures


@pytest.mark.usefixtures("_quick_engine")
def test_a_segmenter_is_measured(sets: Path, tmp_path: Path) -> None:
    """Its figures replace older ones, and it gets no temperature."""
    path = write_segmenter(tmp_path / "lesion_segmenter", everywhere=10)
    before = metadata_of(path)
    change_metadata(path, lambda m: m.update(eval_metrics={"old": 1}))
    figures = measure(path, sets)
    assert list(figures) == [*LESIONS, "healthy"]
    assert metadata_of(path) == before | {"eval_metrics": figures}


@pytest.mark.usefixtures("_quick_engine")
def test_the_command_publishes_and_measures(
    grader: Path,
    trained: Path,
    sets: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """It prints digest and figures, each where asked for; without options it changes nothing."""

    def run(*options: Path | str) -> str:
        monkeypatch.setattr(sys, "argv", ["publish", str(grader), *map(str, options)])
        main()
        return capsys.readouterr().out

    before = metadata_of(grader)
    assert run() == ""
    assert metadata_of(grader) == before
    assert run("--weights", trained).strip() == read_bundle(grader).weights_sha256
    assert "eval_metrics" not in metadata_of(grader)
    assert json.loads(run("--data", sets)) == metadata_of(grader)["eval_metrics"]
    digest, _, figures = run("--weights", trained, "--data", sets).partition("\n")
    assert digest == read_bundle(grader).weights_sha256
    assert json.loads(figures) == metadata_of(grader)["eval_metrics"]
    assert metadata_of(grader)["medlocker"]["temperature"] == read_bundle(grader).temperature


@pytest.mark.usefixtures("_quick_engine")
@pytest.mark.parametrize(("logit", "marked"), [(-10, 0), (10, 1)])
def test_a_segmenter_is_scored_on_held_out_pictures(
    logit: float, marked: int, sets: Path, tmp_path: Path
) -> None:
    """A segmenter that marks nothing, or all, has the Dice that counting px gives."""
    path = write_segmenter(tmp_path / "lesion_segmenter", everywhere=logit)
    figures = EvaluateSegmenter(str(path), str(sets), str(tmp_path / "out")).run()
    assert json.loads((tmp_path / "out" / "figures.json").read_text()) == figures
    assert figures.pop("healthy") == {
        "n": 2,
        "marked_share": marked,
        "without_any": 0 if marked else 2,
    }
    assert list(figures) == LESIONS
    held = [item for item in load_segmented(sets, 128) if item.validation]
    assert [item.name for item in held] == ["IDRiD_05.jpg", "IDRiD_10.jpg"]
    whole = sum(item.mask.size for item in held)
    for bit, label in enumerate(LESIONS):
        true = sum(int((item.mask >> bit & 1).sum()) for item in held)
        dice = round(2 * true / (whole + true), 4) if marked else 0
        assert figures[label] == {"n": 2, "dice": dice, "aupr": round(true / whole, 4)}
