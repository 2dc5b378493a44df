"""A hospital's own models: a network of MONAI dropped into a folder, and a class of its own."""

import hashlib
import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from monai.networks.nets.densenet import DenseNet
from PIL import Image

from desk import Desk, Outcome, edit_json, eye_pixels, record_of, same_pixels, tree
from medlocker_dicom.bundles.preprocess import crop_to_retina, normalise
from tiny_bundles import GRADES, OWN_CODE, write_bundle, write_own_code

DENSENET: dict[str, Any] = {
    "spatial_dims": 2,
    "in_channels": 3,
    "out_channels": 5,
    "init_features": 8,
    "growth_rate": 4,
    "block_config": [2, 2],
}
COUNT = 3
TRUST = ("--trust-bundle", "hospital")


@pytest.fixture
def scene(office: Desk) -> Desk:
    """Return a desk with three eyes as DICOM in ``src`` and as pictures in ``eyes``."""
    office.eyes("src", COUNT)
    (office / "eyes").mkdir()
    for number in range(COUNT):
        Image.fromarray(eye_pixels(number)[0]).save(office / "eyes" / f"eye{number}.png")
    return office


def lock(scene: Desk, name: str, *more: str | Path) -> Outcome:
    """Lock the eyes against one model from the hospital's folder."""
    arguments = ("lock", scene / "src", scene / "out", "--to", scene.public("alice"))
    options = ("--bundles", scene / "mine", "--models", name, "--budget", "12")
    return scene.run(*arguments, *options, *more)


def evaluate(scene: Desk, name: str, grades: list[str], *more: str | Path) -> Outcome:
    """Measure a model from the hospital's folder on the pictures."""
    rows = "".join(f"eye{number}.png,{grade}\n" for number, grade in enumerate(grades))
    labels = scene.put("labels.csv", f"file,grade\n{rows}".encode())
    arguments = ("bundles", "evaluate", name, "--images", scene / "eyes", "--labels", labels)
    return scene.run(*arguments, "--bundles", scene / "mine", "--json", *more)


def check(scene: Desk, name: str, *more: str | Path) -> Outcome:
    """Check a model from the hospital's folder."""
    return scene.run("bundles", "check", name, "--bundles", scene / "mine", "--json", *more)


def list_(scene: Desk, *more: str | Path) -> Outcome:
    """List the models, the hospital's first."""
    return scene.run("bundles", "list", "--bundles", scene / "mine", "--json", *more)


def everything(scene: Desk, *more: str | Path) -> list[Outcome]:
    """Try the hospital's own model with every command that takes one."""
    return [
        lock(scene, "hospital", *more),
        check(scene, "hospital", *more),
        evaluate(scene, "hospital", ["0", "1", "2"], *more),
        list_(scene, *more),
    ]


def refused(outcomes: list[Outcome], words: str, hint: str) -> None:
    """Each is one error of a model, with those words, and its hint."""
    for outcome in outcomes:
        assert (outcome.code, len(outcome.errors), outcome.out) == (6, 1, "")
        assert words in outcome.errors[0]
        (said,) = [line for line in outcome.err.splitlines() if " hint: " in line]
        assert hint in said


@pytest.fixture
def densenet(scene: Desk) -> Path:
    """Return a DenseNet of MONAI, seeded, calibrated, as a bundle of the hospital's."""
    torch.manual_seed(6)
    network = DenseNet(**DENSENET)
    crops = np.stack([crop_to_retina(eye_pixels(n)[0], 64) for n in range(COUNT)])
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.momentum = 1.0
    with torch.no_grad():
        network.train()(torch.from_numpy(normalise(crops)))
    named = "monai.networks.nets.DenseNet", DENSENET, network.eval()
    folder = scene / "mine" / "dr_classifier_ours"
    write_bundle(folder, "dr-classifier", GRADES, 64, named)
    config = folder / "configs" / "metadata.json"
    edit_json(config, lambda one: one["medlocker"].update(temperature=0.25))
    return folder


def test_a_network_of_monai_is_dropped_in(scene: Desk, densenet: Path) -> None:
    """Listed, checked, locked against by name, and measured: all of one mind."""
    rows = json.loads(list_(scene).out)
    assert rows[0]["path"] == str(densenet)
    assert json.loads(check(scene, "ours").out)["temperature"] == 0.25
    assert lock(scene, "ours").code == 0
    record = record_of(scene / "out")
    assert [model["name"] for model in record["models"]] == ["dr_classifier_ours"]
    frames = [instance["frames"][0] for instance in record["instances"]]
    grades = [frame["clean_grade"] for frame in frames]
    outcome = evaluate(scene, "ours", grades)
    assert outcome.code == 0, outcome.err
    figures = json.loads(outcome.out)["figures"]
    # The pictures are the DICOM's, so the grades are those before locking, as sure as then.
    assert (figures["n"], figures["accuracy"]) == (COUNT, 1)
    sure = [max(frame["models"][0]["clean"]) for frame in frames]
    assert figures["ece"] == pytest.approx(1 - np.mean(sure), abs=2e-3)
    assert scene.unlock(scene / "out", scene / "back", "alice").code == 0
    assert same_pixels(scene / "src" / "eye0.dcm", scene / "back" / "eye0.dcm")


def test_own_code_needs_trust(scene: Desk) -> None:
    """Every command refuses it by its name, tells the option, imports nothing and locks nothing."""
    marker = scene / "marker"
    folder = write_own_code(scene / "mine" / "hospital")
    code = f"{OWN_CODE}\n\nimport pathlib\npathlib.Path({str(marker)!r}).touch()\n"
    (folder / "scripts" / "net.py").write_text(code)
    words = f"{folder}: network scripts.net.Grader is not allowed"
    for trust in ((), ("--trust-bundle", "tiny"), ("--trust-bundle", "hospitals")):
        refused(everything(scene, *trust), words, "--trust-bundle NAME")
    assert not marker.exists()
    assert not (scene / "out").exists()


def test_trusted_code_is_used(scene: Desk) -> None:
    """With its name trusted each command runs the hospital's class, and the lock holds."""
    folder = write_own_code(scene / "mine" / "hospital")
    before = tree(folder)
    locked, checked, measured, listed = everything(scene, *TRUST)
    assert [one.code for one in (locked, checked, measured, listed)] == [0] * 4
    record = record_of(scene / "out")
    assert [model["name"] for model in record["models"]] == ["hospital"]
    assert json.loads(checked.out)["path"] == str(folder)
    assert json.loads(measured.out)["figures"]["n"] == COUNT
    assert "hospital" in [row["name"] for row in json.loads(listed.out)]
    assert scene.unlock(scene / "out", scene / "back", "alice").code == 0
    assert same_pixels(scene / "src" / "eye0.dcm", scene / "back" / "eye0.dcm")
    assert tree(folder) == before, "nothing is written into the bundle"


def test_the_doubled_logits_are_surer(scene: Desk) -> None:
    """It is the bundle's own class that answers: surer than the network that it is made of."""
    write_own_code(scene / "mine" / "hospital")
    answers = {}
    for name, trust in (("hospital", TRUST), ("tiny", ())):
        assert lock(scene, name, *trust).code == 0
        frames = [one["frames"][0] for one in record_of(scene / "out")["instances"]]
        answers[name] = np.array([frame["models"][0]["clean"] for frame in frames])
        (scene / "out").rename(scene / f"out-{name}")
    surer = answers["tiny"] ** 2
    surer /= surer.sum(1, keepdims=True)
    np.testing.assert_allclose(answers["hospital"], surer, atol=1e-3)


def test_trust_in_a_name_that_is_not_in_use(scene: Desk) -> None:
    """A mistyped name is a mistake, and nothing is locked."""
    (scene / "mine").mkdir()
    for name in ("tinny", "hospital"):
        for outcome in (lock(scene, "tiny", "--trust-bundle", name), list_(scene, *TRUST)):
            assert (outcome.code, len(outcome.errors)) == (2, 1)
            assert "no bundle of this name is in use" in outcome.errors[0]
            assert "dr_classifier_tiny" in outcome.err
    assert not (scene / "out").exists()


def test_several_bundles_may_be_trusted(scene: Desk) -> None:
    """The option repeats; each bundle votes with its own class of the same name."""
    for name in ("hospital", "clinic"):
        write_own_code(scene / "mine" / name)
    module = scene / "mine" / "clinic" / "scripts" / "net.py"
    module.write_text(OWN_CODE.replace("GAIN = 2", "GAIN = 0"))
    outcome = lock(scene, "hospital,clinic", *TRUST, "--trust-bundle", "clinic")
    assert outcome.code == 0, outcome.err
    models = record_of(scene / "out")["instances"][0]["frames"][0]["models"]
    answers = {model["name"]: model["clean"] for model in models}
    assert answers["clinic"] == pytest.approx([0.2] * 5, abs=1e-3)
    assert max(answers["hospital"]) > 0.3


class Bomb:
    """Makes a folder when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return os.mkdir, (str(self.path),)


def test_trust_is_not_for_the_weights(scene: Desk) -> None:
    """Code in a trusted bundle's weights is refused unexecuted, and so are weights unnamed."""
    folder = write_own_code(scene / "mine" / "hospital")
    weights, crater = folder / "models" / "model.pt", scene / "crater"
    torch.save({"weight": Bomb(crater)}, weights)
    refused(everything(scene, *TRUST), f"{weights}: SHA-256 is", "restore the bundle")
    digest = hashlib.sha256(weights.read_bytes()).hexdigest()
    config = folder / "configs" / "metadata.json"
    edit_json(config, lambda one: one["medlocker"].update(weights_sha256=digest))
    *running, listed = everything(scene, *TRUST)
    refused(running, "damaged, or more than tensors", "restore the bundle")
    assert listed.code == 0, "a list loads no weights"
    assert not crater.exists()
    assert not (scene / "out").exists()
    torch.load(weights, weights_only=False)
    assert crater.exists(), "the bomb works"


def test_a_spell_runs_for_no_stranger(scene: Desk) -> None:
    """An expression in a configuration that nobody trusts leaves no file behind."""
    folder, marker = write_own_code(scene / "mine" / "hospital"), scene / "marker"
    spell = f"$__import__('os').system('touch {marker}') or 5"

    def cast(inference: dict[str, Any]) -> None:
        inference["network_def"] |= {"_target_": "monai.networks.nets.Classifier"}
        inference["network_def"] |= {"classes": spell, "strides": [4, 4]}

    edit_json(folder / "configs" / "inference.json", cast)
    refused(everything(scene), "expression or a nested component", "--trust-bundle NAME")
    assert not marker.exists()
    assert check(scene, "hospital", *TRUST).code == 0
    assert marker.exists(), "the spell works"
