"""Delivered graders that teach another architecture in the teacher's stead."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from medlocker_dicom.bundles.bundle import read_bundle
from medlocker_dicom.bundles.engine import OnnxEngine
from medlocker_dicom.bundles.models import Classifier
from medlocker_dicom.bundles.preprocess import normalise
from medlocker_dicom.errors import BundleMissingError
from medlocker_dicom.training import classifier, peers
from medlocker_dicom.training.album import draw_view, open_album
from medlocker_dicom.training.classifier import ClassifierRecipe
from medlocker_dicom.training.peers import Peers, PeerTeacher, find_peers
from tiny_bundles import write_classifier
from training_sets import HINTS, TinyGrader, quicken, ringed, same, state_of

CPU = torch.device("cpu")
VIEWS = 32
LAYERS = ("net.layer_0", "net.layer_1", "net.layer_1", "net.layer_1")


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> Peers:
    """Return two tiny graders."""
    folder = tmp_path_factory.mktemp("peers")
    paths = [write_classifier(folder / f"dr_classifier_{seed}", seed) for seed in (3, 4)]
    return Peers(tuple(map(read_bundle, paths)), LAYERS)


def test_their_grades_are_the_mean(both: Peers) -> None:
    """A view's logits are the logarithms of the peers' mean calibrated probabilities."""
    crops = ringed(4)
    views = np.stack([draw_view(crops.pixels[n], n, 64) for n in range(4)])
    with torch.no_grad():
        logits = both.load(CPU)(torch.from_numpy(normalise(views)))
    wanted = np.mean([Classifier(b, OnnxEngine(b)).probabilities(views) for b in both.bundles], 0)
    assert np.allclose(logits.softmax(1), wanted, atol=1e-3)


def test_their_maps_are_the_first_ones(both: Peers) -> None:
    """Of the very input, at its size, with as many channels as it says."""
    teacher = both.load(CPU)
    inputs = torch.from_numpy(np.random.default_rng(0).normal(size=(2, 3, 64, 64))).float()
    maps = teacher.maps(inputs)
    assert tuple(one.shape[1] for one in maps) == teacher.channels
    assert [one.shape[2] for one in maps] == [16, 4, 4, 4]
    alone = Peers(both.bundles[:1], LAYERS).load(CPU)
    assert all(map(torch.equal, maps, alone.maps(inputs)))
    assert not any(p.requires_grad for p in teacher.parameters())


def test_an_album_of_peers_needs_no_teacher(
    both: Peers, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """None is trained; other peers are asked anew."""
    quicken(monkeypatch)
    crops = ringed(20)
    first = open_album(crops, tmp_path, VIEWS, CPU, both)
    assert not (tmp_path / "model.pt").exists()
    assert np.array_equal(open_album(crops, tmp_path, VIEWS, CPU, both).logits, first.logits)
    other = open_album(crops, tmp_path, VIEWS, CPU, Peers(both.bundles[1:], LAYERS))
    assert np.array_equal(other.rows, first.rows)
    assert not np.allclose(other.logits, first.logits)
    assert len(list(tmp_path.glob("album-*.npy"))) == 2


@pytest.fixture
def make(both: Peers, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    """Return what makes a recipe that peers teach."""
    quicken(monkeypatch)
    monkeypatch.setattr(classifier, "load_crops", lambda *_: ringed(20))
    monkeypatch.setattr(peers, "bundle_folders", lambda: [both.bundles[0].path.parent])

    def recipe(out: str, **fields: Any) -> ClassifierRecipe:
        plan: dict[str, Any] = {
            "network": TinyGrader(),
            "hint_layers": HINTS,
            "data_dir": "",
            "output_dir": str(tmp_path / out),
            "teacher_dir": str(tmp_path / "shared"),
            "stages": [[64, 4, 1.0, 1.0]],
            "samples_an_epoch": VIEWS,
            "views": VIEWS,
            "batch_size": 16,
            "learning_rate": 2e-2,
            "halved": False,
            "peers": ["dr_classifier_3", "dr_classifier_4"],
            "peer_layers": list(LAYERS),
        }
        return ClassifierRecipe(**(plan | fields))

    return recipe


def test_a_student_learns_from_peers(make: Callable[..., Any], tmp_path: Path) -> None:
    """Its loss on their maps falls, a second run ends equal, and no teacher is loaded."""
    torch.manual_seed(1)
    make("one").run()
    text = (tmp_path / "one" / "log.jsonl").read_text().splitlines()
    rows = [json.loads(line) for line in text]
    assert rows[-1]["hint"] < 0.9 * rows[0]["hint"]
    torch.manual_seed(1)
    make("two").run()
    assert same(state_of(tmp_path / "one" / "model.pt"), state_of(tmp_path / "two" / "model.pt"))
    assert not (tmp_path / "shared" / "model.pt").exists()


def test_a_missing_peer_is_named(make: Callable[..., Any]) -> None:
    """One error, before anything is trained."""
    with pytest.raises(BundleMissingError, match="dr_classifier_9"):
        make("out", peers=["dr_classifier_9"]).run()
    assert find_peers(["dr_classifier_4"], LAYERS).bundles[0].name == "dr_classifier_4"


def test_peers_stay_as_they_are(both: Peers) -> None:
    """Loading them for training switches their batch statistics off."""
    teacher = both.load(CPU)
    assert isinstance(teacher, PeerTeacher)
    assert not any(module.training for module in teacher.modules())
