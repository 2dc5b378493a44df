"""A bundle runs its own code where its name is trusted, and that code alone; else none."""

import hashlib
import json
import os
import py_compile
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from medlocker_dicom.bundles.bundle import build_network, find_bundle, list_bundles, read_bundle
from medlocker_dicom.bundles.engine import OnnxEngine, TorchEngine, exported
from medlocker_dicom.errors import BundleDigestError, BundleFormatError
from tiny_bundles import OWN_CODE, write_own_code

Ask = Callable[[], object]
NOISE = np.random.default_rng(3).normal(size=(2, 3, 64, 64)).astype(np.float32)


@pytest.fixture(scope="module")
def pristine(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a bundle with a class of its own, to copy."""
    return write_own_code(tmp_path_factory.mktemp("pristine") / "hospital")


@pytest.fixture
def hospital(pristine: Path, tmp_path: Path) -> Path:
    """Return a bundle with a class of its own that a test may change."""
    return Path(shutil.copytree(pristine, tmp_path / "bundles" / "hospital"))


def define(bundle: Path, **fields: Any) -> None:
    """Change fields of network_def."""
    path = bundle / "configs" / "inference.json"
    inference = json.loads(path.read_text())
    inference["network_def"].update(fields)
    path.write_text(json.dumps(inference))


def with_marker(bundle: Path, marker: Path) -> None:
    """Let the bundle's module leave a file when it is run."""
    code = f"{OWN_CODE}\n\nimport pathlib\npathlib.Path({str(marker)!r}).touch()\n"
    (bundle / "scripts" / "net.py").write_text(code)


def answer(bundle: Path) -> Any:
    """Return the logits of a trusted bundle's network."""
    return TorchEngine(read_bundle(bundle, trusted=True))(NOISE)


def test_own_code_is_refused_without_trust(hospital: Path, tmp_path: Path) -> None:
    """A class of the bundle's own is named with the option that allows it, and not imported."""
    marker = tmp_path / "marker"
    with_marker(hospital, marker)
    with pytest.raises(BundleFormatError, match=r"scripts\.net\.Grader is not allowed") as caught:
        read_bundle(hospital)
    assert "--trust-bundle NAME" in caught.value.hint
    assert not marker.exists()
    build_network(read_bundle(hospital, trusted=True))
    assert marker.exists(), "trusted, the module runs"


@pytest.mark.parametrize("how", ["read", "find", "list"])
def test_expressions_run_for_no_stranger(hospital: Path, tmp_path: Path, how: str) -> None:
    """What a configuration would evaluate is not, whoever else is trusted; trusted, it is."""
    marker = tmp_path / "marker"
    spell = f"$__import__('os').system('touch {marker}') or 5"
    define(hospital, _target_="monai.networks.nets.Classifier", classes=spell, strides=[4, 4])
    ask: dict[str, Ask] = {
        "read": lambda: read_bundle(hospital),
        "find": lambda: find_bundle("hospital", [hospital.parent], ["another", "hospitals"]),
        "list": lambda: list_bundles([hospital.parent], ["another"]),
    }
    with pytest.raises(BundleFormatError, match="holds a \\$, @ or % expression") as caught:
        ask[how]()
    assert "--trust-bundle NAME" in caught.value.hint
    assert not marker.exists()
    build_network(find_bundle("hospital", [hospital.parent], ["hospital"]))
    assert marker.exists(), "the spell works"


def test_a_trusted_bundle_runs_in_both_engines(
    hospital: Path, tiny_bundles: Path, export_cache: Path
) -> None:
    """Its own class, reference and expression give twice what the plain network gives."""
    plain = TorchEngine(read_bundle(tiny_bundles / "dr_classifier_tiny"))(NOISE)
    bundle = read_bundle(hospital, trusted=True)
    np.testing.assert_allclose(TorchEngine(bundle)(NOISE), 2 * plain, rtol=1e-5)
    np.testing.assert_allclose(OnnxEngine(bundle, export_cache)(NOISE), 2 * plain, atol=1e-3)


def test_trust_is_by_name(hospital: Path, tiny_bundles: Path) -> None:
    """In a list, and by a path, the bundles of that name are trusted and no others."""
    folders = [hospital.parent, tiny_bundles]
    found = {bundle.name: bundle.trusted for bundle in list_bundles(folders, ["hospital"])}
    assert found == {"dr_classifier_tiny": False, "hospital": True, "lesion_segmenter": False}
    assert find_bundle(str(hospital), [], ["hospital"]).trusted
    with pytest.raises(BundleFormatError, match="not allowed"):
        find_bundle(str(hospital), [], ["tiny"])


def test_a_trusted_bundle_of_another_digest_is_refused(hospital: Path, tmp_path: Path) -> None:
    """Weights that are not the ones named are refused before the bundle's code is run."""
    marker = tmp_path / "marker"
    with_marker(hospital, marker)
    weights = hospital / "models" / "model.pt"
    data = bytearray(weights.read_bytes())
    data[-1] ^= 1
    weights.write_bytes(data)
    with pytest.raises(BundleDigestError, match=r"model\.pt: SHA-256 is"):
        read_bundle(hospital, trusted=True)
    assert not marker.exists()


class Bomb:
    """Makes a folder when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return os.mkdir, (str(self.path),)


def test_a_trusted_bundles_weights_are_tensors_alone(hospital: Path, tmp_path: Path) -> None:
    """Trust is for the code that can be read: code in the weights is refused unexecuted."""
    weights, crater = hospital / "models" / "model.pt", tmp_path / "crater"
    torch.save({"weight": Bomb(crater)}, weights)
    path = hospital / "configs" / "metadata.json"
    metadata = json.loads(path.read_text())
    metadata["medlocker"]["weights_sha256"] = hashlib.sha256(weights.read_bytes()).hexdigest()
    path.write_text(json.dumps(metadata))
    with pytest.raises(BundleFormatError, match="damaged, or more than tensors"):
        build_network(read_bundle(hospital, trusted=True))
    assert not crater.exists()
    torch.load(weights, weights_only=False)
    assert crater.exists(), "the bomb works"


def test_changed_code_is_exported_anew(hospital: Path, tmp_path: Path) -> None:
    """After an edit of the module, of equal length and in the same second, the cache is left."""
    module, cache = hospital / "scripts" / "net.py", tmp_path / "cache"
    before = OnnxEngine(read_bundle(hospital, trusted=True), cache)(NOISE)
    module.write_text(OWN_CODE.replace("GAIN = 2", "GAIN = 3"))
    bundle = read_bundle(hospital, trusted=True)
    np.testing.assert_allclose(OnnxEngine(bundle, cache)(NOISE), 1.5 * before, rtol=1e-4)
    np.testing.assert_allclose(TorchEngine(bundle)(NOISE), 1.5 * before, rtol=1e-4)
    module.write_text(OWN_CODE)
    again = read_bundle(hospital, trusted=True)
    assert np.array_equal(OnnxEngine(again, cache)(NOISE), before)
    assert len(list(cache.iterdir())) == 2


@pytest.mark.parametrize(
    "name", ["scripts/net.py", "scripts/deep/er.py", "configs/inference.json", "configs/a.yaml"]
)
def test_the_cache_is_keyed_by_all_code(hospital: Path, tmp_path: Path, name: str) -> None:
    """Any module or configuration in the bundle, changed or new, or renamed, is another export."""
    first = exported(read_bundle(hospital, trusted=True), tmp_path)
    path = hospital / name
    path.parent.mkdir(exist_ok=True)
    path.write_bytes((path.read_bytes() if path.exists() else b"") + b"\n")
    second = exported(read_bundle(hospital, trusted=True), tmp_path)
    (hospital / "old.py").write_bytes(b"")
    third = exported(read_bundle(hospital, trusted=True), tmp_path)
    (hospital / "old.py").rename(hospital / "new.py")
    fourth = exported(read_bundle(hospital, trusted=True), tmp_path)
    assert len({first, second, third, fourth}) == 4


def test_bundles_do_not_get_each_others_modules(hospital: Path, tmp_path: Path) -> None:
    """Two bundles whose modules have one name each run their own, in any order."""
    twin = Path(shutil.copytree(hospital, tmp_path / "bundles" / "twin"))
    (twin / "scripts" / "net.py").write_text(OWN_CODE.replace("GAIN = 2", "GAIN = 5"))
    one, other, once_more = answer(hospital), answer(twin), answer(hospital)
    np.testing.assert_allclose(other, 2.5 * one, rtol=1e-4)
    assert np.array_equal(once_more, one)
    assert not [name for name in sys.modules if name.partition(".")[0] == "scripts"]


def test_bytecode_is_neither_run_nor_left(hospital: Path, tmp_path: Path) -> None:
    """Who read the source has read what runs: bytecode beside it, which can differ, is not it."""
    before, module = answer(hospital), hospital / "scripts" / "net.py"
    assert not list(hospital.rglob("*.pyc"))
    hidden = tmp_path / "net.py"
    hidden.write_text(OWN_CODE.replace("GAIN = 2", "GAIN = 9"))
    cached = module.parent / "__pycache__" / f"net.{sys.implementation.cache_tag}.pyc"
    mode = py_compile.PycInvalidationMode.UNCHECKED_HASH
    py_compile.compile(str(hidden), str(cached), doraise=True, invalidation_mode=mode)
    assert np.array_equal(answer(hospital), before)


@pytest.mark.parametrize(
    ("fields", "code", "said"),
    [
        ({"_target_": "builtins.dict"}, OWN_CODE, "gives no network"),
        ({"_target_": "scripts.net.Absent"}, OWN_CODE, "do not load"),
        ({"_target_": "absent.Net"}, OWN_CODE, "do not load"),
        ({"classes": "@absent"}, OWN_CODE, "do not load"),
        ({"classes": "$1 / 0"}, OWN_CODE, "do not load"),
        ({"channels": [6, 13]}, OWN_CODE, "do not load"),
        ({}, "raise RuntimeError('no licence')", "do not load"),
        ({}, "class Grader(", "do not load"),
    ],
    ids=["dict", "class", "module", "reference", "division", "weights", "raises", "syntax"],
)
def test_code_that_fails_is_one_error(
    hospital: Path, fields: dict[str, Any], code: str, said: str
) -> None:
    """Whatever a trusted bundle's code does wrong names the bundle, and leaves nothing behind."""
    define(hospital, **fields)
    (hospital / "scripts" / "net.py").write_text(code)
    before = list(sys.path), sys.dont_write_bytecode, sys.pycache_prefix
    with pytest.raises(BundleFormatError, match=said) as caught:
        build_network(read_bundle(hospital, trusted=True))
    assert str(hospital) in str(caught.value)
    assert "\n" not in str(caught.value)
    assert (list(sys.path), sys.dont_write_bytecode, sys.pycache_prefix) == before
    assert not [name for name in sys.modules if name.partition(".")[0] == "scripts"]


def test_a_trusted_bundle_has_a_network(hospital: Path) -> None:
    """Trust does not stand in for a network_def, nor for readable files."""
    path = hospital / "configs" / "inference.json"
    contents: list[dict[str, object]] = [{"network": {}}, {"network_def": "$net"}]
    for content in contents:
        path.write_text(json.dumps(content))
        with pytest.raises(BundleFormatError, match="no network_def"):
            read_bundle(hospital, trusted=True)
    path.write_text("[" * 5000)
    with pytest.raises(BundleFormatError, match="not readable as JSON"):
        read_bundle(hospital, trusted=True)
