"""The seven backbones: what their bundle folders say, and whether they can learn as they say."""

import importlib
import inspect
import json
import re
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import torch

from medlocker_dicom.bundles.bundle import SHIPPED
from medlocker_dicom.training.classifier import ClassifierRecipe
from medlocker_dicom.training.evaluate import EvaluateGrader
from medlocker_dicom.training.family import FAMILY, FILES, Architecture, rendered, write_family
from medlocker_dicom.training.features import Feature

EACH = pytest.mark.parametrize("architecture", FAMILY, ids=lambda a: a.name)
COMMITTED = sorted(path.name for path in SHIPPED.glob("dr_classifier_*"))
PUBLISHED: dict[str, Any] = {
    "version": "0.3.0",
    "changelog": {"0.3.0": "better", "0.1.0": "first"},
    "eval_metrics": {"natural": {"n": 9.0}},
    "medlocker": {"weights_sha256": "ab" * 32, "temperature": 1.25},
}


def files_of(folder: Path) -> dict[str, str]:
    """Return the text of each file of a bundle but the weights."""
    paths = (path for path in folder.rglob("*") if path.is_file())
    names = {path.relative_to(folder).as_posix(): path for path in paths}
    names.pop("models/model.pt", None)
    return {name: path.read_text() for name, path in names.items()}


def configured(architecture: Architecture, name: str) -> dict[str, Any]:
    """Return one of the configurations of a bundle that has been published."""
    value: dict[str, Any] = json.loads(rendered(architecture, PUBLISHED)[f"configs/{name}.json"])
    return value


def found(target: str) -> Any:
    """Look a target up by its dotted name."""
    module, _, name = target.rpartition(".")
    return getattr(importlib.import_module(module), name)


@pytest.mark.parametrize("name", COMMITTED)
def test_committed_folders_are_the_templates(name: str) -> None:
    """Nothing in them but the weights was written by hand, and no file is missing or left over."""
    (architecture,) = (a for a in FAMILY if name == f"dr_classifier_{a.name}")
    there = files_of(SHIPPED / name)
    texts = rendered(architecture, json.loads(there["configs/metadata.json"]))
    assert there.keys() == texts.keys()
    for file, text in texts.items():
        assert there[file] == text, file


def test_the_family_is_the_papers() -> None:
    """Seven backbones of different names; some folder of them is there to be compared."""
    assert [a.name for a in FAMILY] == [
        "resnet18",
        "resnet50",
        "densenet121",
        "mobilenetv3",
        "inceptionv3",
        "vgg16",
        "vit",
    ]
    assert COMMITTED


@EACH
def test_texts_are_filled_in(architecture: Architecture) -> None:
    """No file has a placeholder left or another backbone's name, each ends in one line's end."""
    texts = rendered(architecture, {})
    assert set(texts) == {*FILES, "configs/metadata.json"}
    others = {a.title for a in FAMILY if a.title not in architecture.title} - {"ViT"}
    for name, text in texts.items():
        assert not re.search(r"\{[{%#]|[}%#]\}", text), name
        assert text.endswith("\n"), name
        assert not text.endswith("\n\n"), name
        assert not any(other in text for other in others), name
        if name.endswith(".json"):
            json.loads(text)
    assert texts["docs/README.md"].startswith(
        f"# Diabetic retinopathy grader, {architecture.title}\n"
    )
    assert architecture.remark in texts["docs/README.md"]


@EACH
def test_a_network_gives_four_maps(architecture: Architecture) -> None:
    """Its target builds one; its hint layers see a 4th to a 32nd of the side, about."""
    definition = configured(architecture, "inference")["network_def"]
    network = found(definition.pop("_target_"))(**definition).eval()
    layers = [Feature(network, name) for name in architecture.hint_layers]
    size = architecture.input_size
    with torch.no_grad():
        logits = network(torch.zeros(1, 3, size, size))
    assert logits.shape == (1, 5)
    # a transformer has as many tokens in every layer; the loss resizes the teacher's maps
    steps = (16,) * 4 if architecture.name == "vit" else (4, 8, 16, 32)
    for layer, step in zip(layers, steps, strict=True):
        height, width = layer.map().shape[2:]
        assert height == width == pytest.approx(size / step, rel=0.3 if step == 32 else 0.15)
    assert len(set(architecture.hint_layers)) == 4
    assert asdict(architecture)["hint_layers"] == architecture.hint_layers


@EACH
def test_the_training_configuration_fits_the_recipe(architecture: Architecture) -> None:
    """Every key is a field of the recipe; stages, layers and network are the architecture's."""
    config = configured(architecture, "train")
    fields = config["recipe"]
    assert found(fields.pop("_target_")) is ClassifierRecipe
    inspect.signature(ClassifierRecipe).bind(**fields)
    recipe = ClassifierRecipe(**fields)
    assert tuple(recipe.hint_layers) == architecture.hint_layers
    assert recipe.learning_rate == architecture.learning_rate
    assert recipe.batch_size == architecture.batch_size
    assert recipe.halved is architecture.halved
    stages = recipe.epochs()
    assert stages[-1].size == architecture.input_size
    assert len(stages) == sum(stage[1] for stage in architecture.stages) >= 5
    assert config["network_def"] == configured(architecture, "inference")["network_def"]
    assert config["network_def"]["_target_"] == (
        f"medlocker_dicom.bundles.networks.{architecture.name}"
    )
    task = configured(architecture, "evaluate")["task"]
    assert found(task.pop("_target_")) is EvaluateGrader
    inspect.signature(EvaluateGrader).bind(**task)


@EACH
def test_metadata_follow_the_schema(architecture: Architecture) -> None:
    """With published fields they are as our schema wants them, and name the folder's backbone."""
    metadata = configured(architecture, "metadata")
    schema = json.loads((SHIPPED / "schema.json").read_text())
    jsonschema.validate(metadata, schema)
    assert metadata["name"] == f"dr_classifier_{architecture.name}"
    assert metadata["medlocker"]["input_size"] == architecture.input_size
    assert metadata["references"] == [architecture.reference]


@EACH
def test_published_fields_are_kept(architecture: Architecture) -> None:
    """Version, changelog, figures, digest and temperature stay; all else is the template's."""
    fresh = json.loads(rendered(architecture, {})["configs/metadata.json"])
    foreign: dict[str, Any] = {"task": "another", "extra": 1}
    ours = PUBLISHED["medlocker"] | {"kind": "lesion-segmenter", "extra": 1}
    texts = rendered(architecture, PUBLISHED | foreign | {"medlocker": ours})
    metadata = json.loads(texts["configs/metadata.json"])
    assert metadata == fresh | {
        name: PUBLISHED[name] for name in ("version", "changelog", "eval_metrics")
    } | {"medlocker": fresh["medlocker"] | PUBLISHED["medlocker"]}
    assert fresh["version"] in fresh["changelog"]
    assert "temperature" not in fresh["medlocker"]


def test_folders_are_written_and_kept(tmp_path: Path) -> None:
    """The command fills seven folders; again it changes nothing, and weights are not its matter."""
    command = [sys.executable, "-m", "medlocker_dicom.training.family", str(tmp_path)]
    subprocess.run(command, check=True, cwd=SHIPPED.parent)
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(
        f"dr_classifier_{a.name}" for a in FAMILY
    )
    folder = tmp_path / "dr_classifier_vgg16"
    (folder / "models").mkdir()
    (folder / "models" / "model.pt").write_bytes(b"weights")
    config = folder / "configs" / "metadata.json"
    metadata = json.loads(config.read_text())
    metadata["eval_metrics"] = {"natural": {"n": 3}}
    config.write_text(json.dumps(metadata, indent=4) + "\n")
    (folder / "LICENSE").write_text("another")
    write_family(tmp_path)
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    write_family(tmp_path)
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before
    assert before[folder / "models" / "model.pt"] == b"weights"
    assert json.loads(before[config])["eval_metrics"] == {"natural": {"n": 3}}
    assert before[folder / "LICENSE"] == before[tmp_path / "dr_classifier_vit" / "LICENSE"]
