"""ONNX Runtime answers as torch does, from a cache that survives company and damage."""

import json
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch
from torch import nn

from medlocker_dicom.bundles.bundle import SHIPPED, Bundle, read_bundle
from medlocker_dicom.bundles.engine import OnnxEngine, TorchEngine, default_cache, exported
from medlocker_dicom.bundles.networks import resnet18, unetplusplus
from medlocker_dicom.bundles.picture import read_rgb
from medlocker_dicom.bundles.preprocess import crop_to_retina, normalise, retina_at
from medlocker_dicom.errors import BundleFormatError, DestinationError
from tiny_bundles import GRADES, LESIONS, write_bundle, write_classifier

CLOSE = 1e-3
OURS = "medlocker_dicom.bundles.networks"


def stirred(network: nn.Module) -> nn.Module:
    """Give batch normalisation statistics of its own, as training would."""
    generator = torch.Generator().manual_seed(5)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            assert module.running_mean is not None
            assert module.running_var is not None
            module.running_mean.normal_(0, 0.1, generator=generator)
            module.running_var.uniform_(0.5, 2, generator=generator)
    return network


@pytest.fixture(scope="module")
def networks(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Bundle]:
    """Return bundles of the two shipped architectures, small inputs, seeded weights."""
    folder = tmp_path_factory.mktemp("networks")
    torch.manual_seed(2)
    grader, marker = stirred(resnet18()), stirred(unetplusplus())
    named = f"{OURS}.resnet18", {"num_classes": 5}, grader
    write_bundle(folder / "grader", "dr-classifier", GRADES, 64, named)
    wide = f"{OURS}.unetplusplus", {"labels": 5}, marker
    write_bundle(folder / "marker", "lesion-segmenter", LESIONS, 256, wide)
    return {name: read_bundle(folder / name) for name in ("grader", "marker")}


@pytest.mark.parametrize("name", ["grader", "marker"])
def test_onnx_answers_as_torch_on_noise(
    networks: dict[str, Bundle], name: str, export_cache: Path
) -> None:
    """On random rows the two engines differ by at most 1e-3 in the logits."""
    rng = np.random.default_rng(7)
    noise = normalise(rng.integers(0, 256, (3, 64, 64, 3), dtype=np.uint8))
    bundle = networks[name]
    expected = TorchEngine(bundle)(noise)
    assert expected.std() > 10 * CLOSE
    assert np.abs(OnnxEngine(bundle, export_cache)(noise) - expected).max() <= CLOSE


def test_onnx_answers_as_torch_at_other_sizes(
    networks: dict[str, Bundle], export_cache: Path
) -> None:
    """The segmenter's export takes any multiple of 32 px, not the size it was traced at alone."""
    rng = np.random.default_rng(8)
    engine, reference = (
        OnnxEngine(networks["marker"], export_cache),
        TorchEngine(networks["marker"]),
    )
    for height, width in ((32, 32), (96, 128), (224, 64)):
        noise = normalise(rng.integers(0, 256, (1, height, width, 3), dtype=np.uint8))
        answer = engine(noise)
        assert answer.shape == (1, 5, height, width)
        assert np.abs(answer - reference(noise)).max() <= CLOSE


def test_onnx_answers_as_torch_on_photographs(
    networks: dict[str, Bundle], export_cache: Path, shared_data: Path
) -> None:
    """The same on real retinas, cropped for the grader and resampled for the segmenter."""
    paths = sorted((shared_data / "idrid_grading" / "images").glob("*.jpg"))[::140]
    eyes = [read_rgb(path) for path in paths]
    crops = normalise(np.stack([crop_to_retina(eye, 64) for eye in eyes]))
    scene = normalise(np.stack([retina_at(eyes[0], 256, None)[0][:160, :256]]))
    for name, inputs in (("grader", crops), ("marker", scene)):
        reference = TorchEngine(networks[name])(inputs)
        answer = OnnxEngine(networks[name], export_cache)(inputs)
        assert np.abs(answer - reference).max() <= CLOSE, name


@pytest.mark.parametrize("name", sorted(p.parents[1].name for p in SHIPPED.glob("*/models/*.pt")))
def test_the_shipped_weights_answer_alike(name: str, export_cache: Path, shared_data: Path) -> None:
    """The trained networks differ by at most 1e-3 between engines on a real retina."""
    bundle = read_bundle(SHIPPED / name)
    eye = read_rgb(shared_data / "idrid_lesions" / "images" / "IDRiD_05.jpg")
    side = bundle.input_size if bundle.kind == "dr-classifier" else 224
    crop = normalise(crop_to_retina(eye, side)[None])
    answer, reference = OnnxEngine(bundle, export_cache)(crop), TorchEngine(bundle)(crop)
    assert np.abs(answer - reference).max() <= CLOSE * max(1, np.abs(reference).max())


def test_a_row_does_not_depend_on_its_neighbours(
    networks: dict[str, Bundle], export_cache: Path
) -> None:
    """Rows give the same bits alone and in a batch, in both engines."""
    rng = np.random.default_rng(9)
    noise = normalise(rng.integers(0, 256, (4, 64, 64, 3), dtype=np.uint8))
    bundle = networks["grader"]
    for engine in (OnnxEngine(bundle, export_cache), TorchEngine(bundle)):
        alone = np.concatenate([engine(noise[n : n + 1]) for n in range(4)])
        assert np.array_equal(engine(noise), alone)


def test_the_cache_is_used_and_keyed(tiny_bundles: Path, tmp_path: Path) -> None:
    """A second engine reads the first one's file; other weights, sizes or networks have theirs."""
    bundle = read_bundle(tiny_bundles / "dr_classifier_tiny")
    path = exported(bundle, tmp_path)
    stamp = path.stat().st_mtime_ns
    assert exported(bundle, tmp_path) == path
    assert path.stat().st_mtime_ns == stamp
    path.write_bytes(b"another's")
    larger = replace(bundle, input_size=96, network=bundle.network | {"in_shape": [3, 96, 96]})
    with pytest.raises(BundleFormatError, match="do not load"):
        exported(larger, tmp_path)
    other = read_bundle(write_classifier(tmp_path / "other", seed=4))
    assert exported(other, tmp_path) != path
    assert path.read_bytes() == b"another's"


def test_a_damaged_export_is_made_anew(tiny_bundles: Path, tmp_path: Path) -> None:
    """A file in the cache that is no network is replaced, once, and answers are right."""
    bundle = read_bundle(tiny_bundles / "dr_classifier_tiny")
    path = exported(bundle, tmp_path)
    path.write_bytes(path.read_bytes()[:500])
    noise = np.random.default_rng(1).normal(size=(1, 3, 64, 64)).astype(np.float32)
    answer = OnnxEngine(bundle, tmp_path)(noise)
    assert np.abs(answer - TorchEngine(bundle)(noise)).max() <= CLOSE
    assert [p.name for p in tmp_path.iterdir()] == [path.name]


def test_a_cache_that_cannot_be_written(tiny_bundles: Path, tmp_path: Path) -> None:
    """A file where the folder should be is one clear error."""
    (tmp_path / "cache").write_text("in the way")
    bundle = read_bundle(tiny_bundles / "dr_classifier_tiny")
    with pytest.raises(DestinationError, match="cannot be written"):
        OnnxEngine(bundle, tmp_path / "cache")


def test_a_network_that_does_not_run_at_its_size(tiny_bundles: Path, tmp_path: Path) -> None:
    """An input size that the network does not take is found at export, and nothing is left."""
    shutil.copytree(tiny_bundles / "dr_classifier_tiny", tmp_path / "tiny")
    path = tmp_path / "tiny" / "configs" / "metadata.json"
    metadata = json.loads(path.read_text())
    metadata["medlocker"]["input_size"] = 100
    path.write_text(json.dumps(metadata))
    with pytest.raises(BundleFormatError, match="does not run on 100 x 100 px"):
        OnnxEngine(read_bundle(tmp_path / "tiny"), tmp_path / "cache")
    assert not list((tmp_path / "cache").iterdir())


def test_two_processes_export_at_once(tiny_bundles: Path, tmp_path: Path) -> None:
    """Both succeed, and leave one good file and no remains."""
    path = tiny_bundles / "dr_classifier_tiny"
    program = (
        "import sys; from pathlib import Path; "
        "from medlocker_dicom.bundles.bundle import read_bundle; "
        "from medlocker_dicom.bundles.engine import OnnxEngine; "
        "import medlocker_dicom.bundles.networks; "
        "print('ready', flush=True); sys.stdin.readline(); "
        f"OnnxEngine(read_bundle(Path({str(path)!r})), Path({str(tmp_path)!r}))"
    )
    both = [
        subprocess.Popen(
            [sys.executable, "-c", program],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for _ in range(2)
    ]
    for process in both:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
    for process in both:
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()
    errors = [process.communicate(timeout=120)[1] for process in both]
    assert [process.returncode for process in both] == [0, 0], errors
    bundle = read_bundle(path)
    assert [p.name for p in tmp_path.iterdir()] == [exported(bundle, tmp_path).name]
    noise = np.zeros((1, 3, 64, 64), np.float32)
    answer = OnnxEngine(bundle, tmp_path)(noise)
    assert np.abs(answer - TorchEngine(bundle)(noise)).max() <= CLOSE


def test_the_cache_lies_where_the_user_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """$XDG_CACHE_HOME, else ~/.cache."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert default_cache() == tmp_path / "medlocker"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert default_cache() == tmp_path / "home" / ".cache" / "medlocker"


def test_as_many_threads_as_torch(
    networks: dict[str, Bundle], export_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever starts a process a core sets OMP_NUM_THREADS, which torch heeds: both engines do."""
    before, plain, seen = torch.get_num_threads(), onnxruntime.InferenceSession, list[int]()

    def watched(path: str, options: Any, **more: Any) -> Any:
        seen.append(options.intra_op_num_threads)
        return plain(path, options, **more)

    monkeypatch.setattr(onnxruntime, "InferenceSession", watched)
    try:
        for wanted in (1, 3):
            torch.set_num_threads(wanted)
            OnnxEngine(networks["grader"], export_cache)
            assert seen.pop() == wanted
    finally:
        torch.set_num_threads(before)
