"""Transcripts of medlocker bundles check."""

import json
import re
import shutil
from pathlib import Path

import pytest
import torch

from desk import Desk, edit_json
from medlocker_dicom.bundles.bundle import build_network, read_bundle
from medlocker_dicom.bundles.check import TOLERANCE
from tiny_bundles import CLASSIFIER, OWN_CODE, write_own_code

GRADER, MARKER = "dr_classifier_tiny", "lesion_segmenter"
#: Lines that a network's own forward may begin with.
FAULTS = {
    "it disagrees": (
        "inputs = inputs + float(torch.onnx.is_in_onnx_export())",
        r"ONNX Runtime and torch disagree by \d",
    ),
    "it does not run": ("raise RuntimeError('no licence')", "does not run on 64 x 64 px: no lic"),
    "it does not export": ("inputs = torch.fft.fft2(inputs).real", "does not run on 64 x 64 px"),
    "it gives no numbers": ("inputs = inputs * float('nan')", "values that are no numbers"),
}


def edit(bundle: Path, **fields: object) -> None:
    """Change fields of the medlocker section."""
    path = bundle / "configs" / "metadata.json"
    edit_json(path, lambda metadata: metadata["medlocker"].update(fields))


@pytest.fixture
def mine(office: Desk, tiny_bundles: Path) -> Path:
    """Return a folder of the tiny bundles, to change."""
    return Path(shutil.copytree(tiny_bundles, office / "mine"))


@pytest.mark.parametrize("name", [GRADER, MARKER])
def test_a_good_bundle(office: Desk, tiny_bundles: Path, name: str) -> None:
    """With --json: what the bundle is, its size, and that the engines agree."""
    outcome = office.good("bundles", "check", name, "--json")
    facts, bundle = json.loads(outcome.out), read_bundle(tiny_bundles / name)
    parameters = sum(p.numel() for p in build_network(bundle).parameters())
    differ = facts.pop("engines_differ")
    assert 0 <= differ <= TOLERANCE
    assert facts == {
        "name": name,
        "kind": bundle.kind,
        "input_size": bundle.input_size,
        "labels": list(bundle.labels),
        "temperature": 1,
        "sha256": bundle.weights_sha256,
        "path": str(bundle.path),
        "parameters": parameters,
        "megabytes": round(bundle.weights_file.stat().st_size / 1e6, 1),
    }
    assert outcome.err == ""


def test_a_line_a_fact(office: Desk) -> None:
    """Without --json each fact has a line, in words."""
    lines = office.good("bundles", "check", "tiny").out.splitlines()
    rows = {line[:18].strip(): line[18:].strip() for line in lines}
    assert rows["name"] == GRADER
    assert rows["labels"] == "0, 1, 2, 3, 4"
    assert rows["input size"] == "64"
    assert re.fullmatch(r"\d+", rows["parameters"])
    assert float(rows["engines differ"]) <= TOLERANCE
    assert len(rows) == 10


def test_the_temperature_is_told(office: Desk, mine: Path) -> None:
    """The metadata's temperature stands among the facts; one out of range is refused."""
    edit(mine / GRADER, temperature=1.7)
    arguments = ("bundles", "check", GRADER, "--bundles", mine, "--json")
    assert json.loads(office.good(*arguments).out)["temperature"] == 1.7
    edit(mine / GRADER, temperature=0)
    outcome = office.run(*arguments)
    assert (outcome.code, len(outcome.errors), outcome.out) == (6, 1, "")
    assert f"{mine / GRADER}: temperature 0 is not between" in outcome.errors[0]


@pytest.mark.parametrize(("name", "size"), [(GRADER, 64), (MARKER, 128), (MARKER, 4096)])
def test_outputs_that_are_not_the_labels(office: Desk, mine: Path, name: str, size: int) -> None:
    """A network with more outputs than the bundle has labels is named, whatever its scale."""
    edit(mine / name, labels=["A", "B", "C"], input_size=size)
    outcome = office.run("bundles", "check", name, "--bundles", mine)
    assert (outcome.code, len(outcome.errors), outcome.out) == (6, 1, "")
    assert str(mine / name) in outcome.errors[0]
    assert "to 3 labels" in outcome.errors[0]


@pytest.mark.parametrize("size", [40, 100, 767, 4096])
def test_a_segmenter_of_any_scale(office: Desk, mine: Path, size: int) -> None:
    """It is shown windows as when it locks, never the odd sides of a small photograph."""
    edit(mine / MARKER, input_size=size)
    outcome = office.good("bundles", "check", MARKER, "--bundles", mine, "--json")
    assert json.loads(outcome.out)["input_size"] == size


def test_a_network_that_does_not_run_at_its_size(office: Desk, mine: Path) -> None:
    """An input size that the network does not take is one error, and so is another's weights."""
    edit(mine / GRADER, input_size=100)
    outcome = office.run("bundles", "check", GRADER, "--bundles", mine)
    assert (outcome.code, len(outcome.errors), outcome.out) == (6, 1, "")
    assert "does not run on 100 x 100 px" in outcome.errors[0]
    inference = mine / GRADER / "configs" / "inference.json"
    edit_json(inference, lambda one: one["network_def"].update(channels=[5, 12]))
    outcome = office.run("bundles", "check", GRADER, "--bundles", mine)
    assert (outcome.code, len(outcome.errors), outcome.out) == (6, 1, "")
    assert "do not load into the network" in outcome.errors[0]


def test_a_segmenter_of_one_size_alone(office: Desk, capfd: pytest.CaptureFixture[str]) -> None:
    """What exports but fails on windows is one error, without the runtime's own words."""
    folder = write_own_code(office / "mine" / "patches")
    code = OWN_CODE.replace(
        "return GAIN * super().forward(inputs)",
        "return super().forward(inputs)[..., None, None] + inputs.reshape(1, 3, 64, 64)[:, :1]",
    )
    (folder / "scripts" / "net.py").write_text(code)
    edit(folder, kind="lesion-segmenter")
    more = ("--bundles", office / "mine", "--trust-bundle", "patches")
    outcome = office.run("bundles", "check", "patches", *more)
    assert (outcome.code, len(outcome.errors), outcome.out) == (6, 1, "")
    assert f"{folder}: the network does not run on 512 x 512 px" in outcome.errors[0]
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize("fault", FAULTS)
def test_networks_at_fault(office: Desk, fault: str, capfd: pytest.CaptureFixture[str]) -> None:
    """An export that answers otherwise, or none at all, is one error that names the bundle."""
    line, words = FAULTS[fault]
    folder = write_own_code(office / "mine" / "hospital")
    body = f"    def forward(self, inputs):\n        {line}"
    code = OWN_CODE.replace("    def forward(self, inputs):", body)
    (folder / "scripts" / "net.py").write_text(f"import torch\n{code}")
    more = ("--bundles", office / "mine", "--trust-bundle", "hospital")
    outcome = office.run("bundles", "check", "hospital", *more)
    assert (outcome.code, len(outcome.errors), outcome.out) == (6, 1, "")
    assert str(folder) in outcome.errors[0]
    assert re.search(words, outcome.errors[0])
    assert capfd.readouterr().err == ""


def test_a_damaged_bundle(office: Desk, mine: Path) -> None:
    """Other weights, more than tensors, and none at all end with the code of models."""
    weights = mine / GRADER / "models" / "model.pt"
    arguments = ("bundles", "check", GRADER, "--bundles", mine)
    weights.write_bytes(weights.read_bytes() + b"\0")
    outcomes = [office.run(*arguments)]
    torch.save(CLASSIFIER | {"class": Desk}, weights)
    outcomes.append(office.run(*arguments))
    weights.unlink()
    outcomes += [office.run(*arguments), office.run("bundles", "check", "lenet")]
    words = ["SHA-256 is", "SHA-256 is", "no weights", "no bundle named lenet"]
    for outcome, said in zip(outcomes, words, strict=True):
        assert (outcome.code, len(outcome.errors), outcome.out) == (6, 1, "")
        assert said in outcome.errors[0]
