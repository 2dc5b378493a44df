"""MONAI's own commands accept the shipped bundles."""

import json
import os
import shutil
import subprocess
import sys
from copy import deepcopy
from pathlib import Path
from typing import Any

import cv2
import jsonschema
import numpy as np
import pytest

from medlocker_dicom.bundles.bundle import COLDEST, HOTTEST, KINDS, SHIPPED, read_bundle
from medlocker_dicom.phantom import phantom

BUNDLES = sorted(path.parents[1].name for path in SHIPPED.glob("*/configs/metadata.json"))
GRADER = "dr_classifier_resnet18"
FIELDS = (
    "schema",
    "version",
    "changelog",
    "monai_version",
    "pytorch_version",
    "numpy_version",
    "required_packages_version",
    "task",
    "description",
    "authors",
    "copyright",
    "network_data_format",
    "medlocker",
)


#: Runs commands of ``python -m monai.bundle`` one after the other: a process for each would spend
#: most of its time on imports.
COMMANDS = """
import json, runpy, sys
for arguments in json.loads(sys.argv[1]):
    sys.argv = ["monai.bundle", *arguments]
    runpy.run_module("monai.bundle", run_name="__main__", alter_sys=True)
"""


def monai(folder: Path, *commands: list[str]) -> str:
    """Run commands of MONAI in a bundle's folder; their output."""
    done = subprocess.run(
        [sys.executable, "-c", COMMANDS, json.dumps(commands)],
        cwd=folder,
        env=os.environ | {"http_proxy": "", "https_proxy": ""},
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def kind_of(name: str) -> str:
    """Return what a shipped bundle is for."""
    return str(metadata_of(name)["medlocker"]["kind"])


def metadata_of(name: str) -> dict[str, Any]:
    """Return a shipped bundle's metadata."""
    value: dict[str, Any] = json.loads((SHIPPED / name / "configs" / "metadata.json").read_text())
    return value


@pytest.fixture(scope="module")
def schema() -> dict[str, Any]:
    """Return our schema."""
    value: dict[str, Any] = json.loads((SHIPPED / "schema.json").read_text())
    return value


@pytest.mark.parametrize("name", BUNDLES)
def test_commands(name: str, tmp_path: Path) -> None:
    """MONAI validates metadata and network, and grades, or segments, the photographs of a folder.

    The metadata by our schema, without a download.
    """
    shutil.copy(SHIPPED / "schema.json", tmp_path)
    images, out = tmp_path / "images", tmp_path / "out"
    images.mkdir()
    eye = phantom(np.random.default_rng(0), (500, 500)).image
    cv2.imwrite(str(images / "eye.png"), eye[..., ::-1])
    metadata = ["--meta_file", "configs/metadata.json"]
    config = ["--config_file", "configs/inference.json"]
    output = monai(
        SHIPPED / name,
        ["verify_metadata", *metadata, "--filepath", str(tmp_path / "schema.json")],
        ["verify_net_in_out", "--net_id", "network_def", *metadata, *config, "--device", "cpu"],
        ["run", *config, "--images", str(images), "--output_dir", str(out)],
    )
    assert "skipped downloading" in output
    assert "metadata is verified with no error" in output
    assert "data shape of network is verified with no error" in output
    if kind_of(name) == "lesion-segmenter":
        marked = cv2.imread(str(out / "eye.png"), cv2.IMREAD_UNCHANGED)
        assert marked is not None
        assert marked.shape == (500, 500)
        assert marked.max() < 32
        return
    grades = json.loads((out / "grades.json").read_text())
    assert list(grades) == ["eye.png"]
    assert list(grades["eye.png"]) == metadata_of(name)["medlocker"]["labels"]
    assert sum(grades["eye.png"].values()) == pytest.approx(1, abs=1e-4)


def test_both_kinds_are_shipped() -> None:
    """Every folder with metadata is found, the two that the program needs by default among them."""
    assert {GRADER, "lesion_segmenter"} <= set(BUNDLES)
    assert {kind_of(name) for name in BUNDLES} == set(KINDS)


def test_the_schema_is_one(schema: dict[str, Any]) -> None:
    """Our schema is valid itself, and knows the kinds that the program knows."""
    jsonschema.Draft202012Validator.check_schema(schema)
    assert tuple(schema["$defs"]["medlocker"]["properties"]["kind"]["enum"]) == KINDS
    assert sorted(schema["required"]) == sorted(FIELDS)


@pytest.mark.parametrize("name", BUNDLES)
def test_the_program_reads_what_the_schema_allows(schema: dict[str, Any], name: str) -> None:
    """Shipped metadata is valid, and so is its temperature at either end of the program's range."""
    metadata = metadata_of(name)
    for temperature in (metadata["medlocker"].get("temperature", 1), COLDEST, HOTTEST):
        metadata["medlocker"]["temperature"] = temperature
        jsonschema.validate(metadata, schema)
    assert read_bundle(SHIPPED / name).kind == kind_of(name)


@pytest.mark.parametrize("field", FIELDS)
def test_each_field_is_required(schema: dict[str, Any], field: str) -> None:
    """Metadata without one of MONAI's fields, or ours, is invalid."""
    metadata = metadata_of(GRADER)
    jsonschema.validate(metadata, schema)
    del metadata[field]
    with pytest.raises(jsonschema.ValidationError, match=f"'{field}' is a required property"):
        jsonschema.validate(metadata, schema)


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("medlocker kind", "grader"),
        ("medlocker labels", []),
        ("medlocker labels", ["0"]),
        ("medlocker labels", ["0", "0"]),
        ("medlocker input_size", 31),
        ("medlocker temperature", 0.009),
        ("medlocker temperature", 101),
        ("medlocker temperature", "1"),
        ("medlocker temperature", True),
        ("medlocker temperature", None),
        ("medlocker input_size", 224.5),
        ("medlocker weights_sha256", "0" * 63 + "A"),
        ("medlocker surprise", 1),
        ("version", "one"),
        ("changelog", {}),
        ("task", ""),
        ("network_data_format outputs", {}),
        ("network_data_format inputs image num_channels", 1),
        ("network_data_format inputs image spatial_shape", ["__import__('os')"]),
        ("network_data_format inputs image dtype", "complex"),
    ],
)
def test_the_schema_refuses(schema: dict[str, Any], path: str, value: object) -> None:
    """A field out of its range is invalid."""
    metadata = deepcopy(metadata_of(GRADER))
    *parents, last = path.split()
    place = metadata
    for parent in parents:
        place = place[parent]
    place[last] = value
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(metadata, schema)


@pytest.mark.parametrize("name", BUNDLES)
def test_each_bundle_says_what_it_is_made_of(name: str) -> None:
    """Each has a description, a licence and the terms of their data, and no figures in prose."""
    folder = SHIPPED / name
    terms = (folder / "docs" / "data_license.txt").read_text()
    sources = ["IDRiD", "CC BY 4.0", "Porwal"]
    if kind_of(name) == "dr-classifier":
        sources += ["SRahim", "ODIR-5K", "EyePACS", "EfficientNet-Lite0", "Apache License 2.0"]
    assert all(source in terms for source in sources)
    assert "Not a medical device" in (folder / "docs" / "README.md").read_text()
    assert "docs/data_license.txt" in (folder / "LICENSE").read_text()
