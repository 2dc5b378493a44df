"""A bundle that was changed, damaged or made to do harm is refused, and does none."""

import hashlib
import io
import json
import os
import pickle
import re
import shutil
import struct
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from medlocker_dicom.bundles.bundle import (
    MAX_CONFIG_BYTES,
    Bundle,
    build_network,
    bundle_folders,
    find_bundle,
    list_bundles,
    read_bundle,
)
from medlocker_dicom.bundles.engine import TorchEngine
from medlocker_dicom.bundles.models import Classifier, Ensemble, Segmenter
from medlocker_dicom.errors import (
    BundleDigestError,
    BundleError,
    BundleFormatError,
    BundleMissingError,
)

Change = Callable[[dict[str, Any]], Any]


@pytest.fixture
def bundle(tiny_bundles: Path, tmp_path: Path) -> Path:
    """Return a classifier's folder that a test may spoil."""
    return Path(shutil.copytree(tiny_bundles / "dr_classifier_tiny", tmp_path / "tiny"))


@pytest.fixture
def segmenter(tiny_bundles: Path, tmp_path: Path) -> Path:
    """Return a segmenter's folder that a test may spoil."""
    return Path(shutil.copytree(tiny_bundles / "lesion_segmenter", tmp_path / "segmenter"))


def edit(bundle: Path, name: str, change: Change) -> None:
    """Change a configuration in place."""
    path = bundle / "configs" / f"{name}.json"
    value = json.loads(path.read_text())
    change(value)
    path.write_text(json.dumps(value))


def set_weights(bundle: Path, data: bytes) -> None:
    """Replace the weights, and name their digest as their maker would."""
    (bundle / "models" / "model.pt").write_bytes(data)
    digest = hashlib.sha256(data).hexdigest()
    edit(bundle, "metadata", lambda m: m["medlocker"].update(weights_sha256=digest))


def network(**fields: Any) -> Change:
    """Change fields of network_def."""
    return lambda inference: inference["network_def"].update(fields)


def ours(**fields: Any) -> Change:
    """Change fields of the medlocker section."""
    return lambda metadata: metadata["medlocker"].update(fields)


class Bomb:
    """Makes a folder when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return os.mkdir, (str(self.path),)


def test_a_whole_bundle_is_read(bundle: Path) -> None:
    """What the metadata says is what is given, and the network answers in float32."""
    read = read_bundle(bundle)
    assert (read.name, read.kind, read.input_size) == ("tiny", "dr-classifier", 64)
    assert read.labels == ("0", "1", "2", "3", "4")
    assert (read.temperature, read.trusted) == (1, False)
    built = build_network(read)
    assert not built.training
    assert {p.dtype for p in built.parameters()} == {torch.float32}


@pytest.mark.parametrize("legacy", [False, True], ids=["zip", "legacy"])
def test_a_pickle_bomb_is_refused_unexecuted(bundle: Path, tmp_path: Path, *, legacy: bool) -> None:
    """Code in weights of the right digest does not run, in either of torch's formats."""
    path, crater = tmp_path / "bomb.pt", tmp_path / "crater"
    bomb = {"weight": Bomb(crater)}
    torch.save(bomb, path, _use_new_zipfile_serialization=not legacy)
    set_weights(bundle, path.read_bytes())
    with pytest.raises(BundleFormatError, match="the weights do not load") as caught:
        build_network(read_bundle(bundle))
    said = f"{caught.value} {caught.value.hint}"
    assert not re.search("weights_only|can still|Weights only|torch", said), "no way to run it"
    assert not crater.exists()
    torch.load(path, weights_only=False)
    assert crater.exists(), "the bomb works"


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")  # of spoilt bytes
def test_damaged_weights_are_refused_whatever_they_raise(bundle: Path) -> None:
    """Flipped and cut weights of the right digest give the one error, or load as tensors."""
    data = (bundle / "models" / "model.pt").read_bytes()
    rng = np.random.default_rng(0)
    spoilt = [data[: rng.integers(len(data))] for _ in range(10)]
    for _ in range(60):
        flipped = bytearray(data)
        for at in rng.integers(len(data), size=20):
            flipped[at] ^= 1 << int(rng.integers(8))
        spoilt.append(bytes(flipped))
    refused = 0
    for weights in [*spoilt, b"", b"\x80\x02h\x05.", pickle.dumps({}), b"PK\x05\x06" + bytes(18)]:
        set_weights(bundle, weights)
        try:
            build_network(read_bundle(bundle))
        except BundleFormatError:
            refused += 1
    assert refused >= 14


@pytest.mark.parametrize("depth", [40, 400, 900])
def test_deeply_nested_configurations_are_refused(bundle: Path, depth: int) -> None:
    """JSON that Python reads but that recursion over it would not survive is named."""
    deep: Any = 0
    for level in range(depth):
        deep = [deep] if level % 2 else {"a": deep}
    edit(bundle, "metadata", lambda metadata: metadata.update(eval_metrics=deep))
    with pytest.raises(BundleFormatError, match=r"metadata\.json: nested more than 32 deep"):
        read_bundle(bundle)


def test_weights_of_another_network_are_refused(bundle: Path) -> None:
    """Whole weights that do not fit the network are named as such."""
    edit(bundle, "inference", network(channels=[5, 12]))
    with pytest.raises(BundleFormatError, match="do not load into the network"):
        build_network(read_bundle(bundle))


@pytest.mark.parametrize("value", [float("inf"), float("nan")])
def test_weights_that_are_no_numbers_are_named(bundle: Path, value: float) -> None:
    """An overflown variance switches off what it divides, and a nan all: both are refused."""
    state = torch.load(bundle / "models" / "model.pt", weights_only=True)
    name = next(name for name in state if name.endswith("weight"))
    state[name].view(-1)[0] = value
    stream = io.BytesIO()
    torch.save(state, stream)
    set_weights(bundle, stream.getvalue())
    with pytest.raises(BundleFormatError, match=rf"model\.pt: {name} holds values that are no"):
        build_network(read_bundle(bundle))


def test_a_flipped_byte_of_the_weights(bundle: Path) -> None:
    """Weights that are not those of the digest are refused before they are looked at."""
    path = bundle / "models" / "model.pt"
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    with pytest.raises(BundleDigestError, match=r"model\.pt: SHA-256 is"):
        read_bundle(bundle)


@pytest.mark.parametrize(
    "lost", ["models/model.pt", "configs/metadata.json", "configs/inference.json"]
)
def test_a_missing_file_is_named(bundle: Path, lost: str) -> None:
    """Weights or a configuration that are not there are named."""
    (bundle / lost).unlink()
    with pytest.raises(BundleMissingError, match=lost):
        read_bundle(bundle)


@pytest.mark.parametrize("name", ["metadata", "inference"])
@pytest.mark.parametrize(
    "content",
    [b"", b"{", b"\xff\xfe", b"[]", b"null", b"[" * 100_000, b'{"a":' * 100_000],
    ids=["empty", "cut", "no text", "list", "null", "deep list", "deep object"],
)
def test_a_damaged_configuration(bundle: Path, name: str, content: bytes) -> None:
    """What is no JSON object is refused and named."""
    (bundle / "configs" / f"{name}.json").write_bytes(content)
    with pytest.raises(BundleFormatError, match=f"{name}.json"):
        read_bundle(bundle)


def test_an_oversized_configuration_is_not_parsed(bundle: Path) -> None:
    """A configuration of more than 1 MiB is refused for its size."""
    path = bundle / "configs" / "inference.json"
    path.write_bytes(path.read_bytes() + b" " * MAX_CONFIG_BYTES)
    with pytest.raises(BundleFormatError, match=f"larger than {MAX_CONFIG_BYTES}"):
        read_bundle(bundle)


@pytest.mark.parametrize(
    "change",
    [
        network(classes="$__import__('os').getpid()"),
        network(classes="@other#classes"),
        network(classes="%other.json#classes"),
        network(in_shape=[3, 64, "$64"]),
        network(act={"name": ["$print()"]}),
        network(act={"_target_": "torch.nn.ReLU"}),
        network(act=[{"inner": {"_target_": "os.getcwd"}}]),
        network(_mode_="callable"),
        network(_disabled_=True),
    ],
)
def test_expressions_and_nested_components_are_refused(bundle: Path, change: Change) -> None:
    """Whatever MONAI would evaluate, resolve or build is refused at any depth."""
    edit(bundle, "inference", change)
    with pytest.raises(BundleFormatError, match="expression or a nested component"):
        read_bundle(bundle)


@pytest.mark.parametrize(
    "target",
    [
        "os.system",
        "torch.load",
        "monai.networks.netsx.UNet",
        "monai.networks.layers.Conv",
        "medlocker_dicom.bundles.networks",
        "$monai.networks.nets.UNet",
        "",
    ],
)
def test_targets_elsewhere_are_refused(bundle: Path, target: str) -> None:
    """A target outside the two places is refused on reading."""
    edit(bundle, "inference", network(_target_=target))
    with pytest.raises(BundleFormatError, match=r"is not allowed"):
        read_bundle(bundle)


@pytest.mark.parametrize(
    "target",
    [
        "monai.networks.nets.hovernet.download_url",
        "monai.networks.nets.hovernet.os.mkdir",
        "monai.networks.nets.resnet.get_pretrained_resnet_medicalnet",
        "monai.networks.nets.unet.nn.Linear",
        "monai.networks.nets.unet.Convolution",
        "medlocker_dicom.bundles.networks.importlib.import_module",
        "medlocker_dicom.bundles.networks.nn.Linear",
        "medlocker_dicom.bundles.networks._torchvision",
        "medlocker_dicom.bundles.networks.torchvision_models",
        "monai.networks.nets.unet.NoSuch",
    ],
)
def test_what_passes_through_an_allowed_module_is_refused(
    bundle: Path, target: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Functions and layers that a network's module imports are no networks, and are not called."""
    edit(bundle, "inference", lambda inference: inference.update(network_def={"_target_": target}))
    monkeypatch.setattr("monai.networks.nets.hovernet.download_url", lambda: pytest.fail("called"))
    with pytest.raises(BundleFormatError, match=r"is no network|do not load"):
        build_network(read_bundle(bundle))


def test_our_own_networks_may_be_functions(bundle: Path) -> None:
    """ResNet18 by the name that the shipped bundle uses is built, and wants its own weights."""
    definition = {"_target_": "medlocker_dicom.bundles.networks.resnet18", "num_classes": 5}
    edit(bundle, "inference", lambda inference: inference.update(network_def=definition))
    with pytest.raises(BundleFormatError, match="state_dict for ResNet"):
        build_network(read_bundle(bundle))


@pytest.mark.parametrize(
    ("asked", "said"), [({}, "do not load"), ({"pretrained": True}, "weights")]
)
def test_nothing_is_downloaded(
    bundle: Path, monkeypatch: pytest.MonkeyPatch, asked: dict[str, bool], said: str
) -> None:
    """A network of MONAI that fetches weights by default gets none, and may not ask for them."""
    definition = {"_target_": "monai.networks.nets.EfficientNetBN", "model_name": "efficientnet-b0"}
    edit(bundle, "inference", lambda inference: inference.update(network_def=definition | asked))
    module = sys.modules["monai.networks.nets.efficientnet"]
    monkeypatch.setattr(module, "_load_state_dict", lambda *_: pytest.fail("downloaded"))
    with pytest.raises(BundleFormatError, match=said):
        build_network(read_bundle(bundle))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda m: m.pop("medlocker"), "no medlocker section"),
        (ours(kind="grader"), "kind 'grader'"),
        (ours(kind=None), "kind None"),
        (ours(labels=[]), "labels"),
        (ours(labels="01234"), "labels"),
        (ours(labels=[0, 1, 2, 3, 4]), "labels"),
        (ours(labels=["0", "1", "1", "3", "4"]), "named twice"),
        (ours(input_size=16), "input_size 16"),
        (ours(input_size=5000), "input_size 5000"),
        (ours(input_size="64"), "input_size '64'"),
        (ours(input_size=64.0), "input_size 64.0"),
        (ours(temperature=0), "temperature 0 is not between 0.01 and 100"),
        (ours(temperature=0.009), "temperature 0.009"),
        (ours(temperature=100.5), "temperature 100.5"),
        (ours(temperature=10**400), "temperature 1000"),
        (ours(temperature=-1), "temperature -1"),
        (ours(temperature=float("nan")), "temperature nan"),
        (ours(temperature=float("inf")), "temperature inf"),
        (ours(temperature=True), "temperature True"),
        (ours(temperature="1"), "temperature '1'"),
        (ours(temperature=None), "temperature None"),
        (ours(temperature=[1]), "temperature"),
        (ours(weights_sha256="0" * 63), "weights_sha256"),
        (ours(weights_sha256="A" * 64), "weights_sha256"),
        (ours(weights_sha256="0" * 64 + "\n"), "weights_sha256"),
    ],
)
def test_metadata_that_says_nothing_usable(bundle: Path, change: Change, said: str) -> None:
    """Each field of our section is held to its range and named."""
    edit(bundle, "metadata", change)
    with pytest.raises(BundleFormatError, match=said):
        read_bundle(bundle)


@pytest.mark.parametrize("temperature", [0.01, 1, 1.7, 100])
def test_a_temperature_is_read(bundle: Path, temperature: float) -> None:
    """Within its range the temperature is the metadata's, as a float."""
    edit(bundle, "metadata", ours(temperature=temperature))
    read = read_bundle(bundle)
    assert read.temperature == temperature
    assert isinstance(read.temperature, float)


def test_a_private_function_is_no_network(bundle: Path) -> None:
    """A helper of ours that would build any network of torchvision is refused by its name."""
    target = "medlocker_dicom.bundles.networks._torchvision"
    definition = {"_target_": target, "name": "resnet18", "num_classes": 5}
    edit(bundle, "inference", lambda inference: inference.update(network_def=definition))
    with pytest.raises(BundleFormatError, match="_torchvision is no network"):
        build_network(read_bundle(bundle))


def test_no_network_at_all(bundle: Path) -> None:
    """An inference configuration without a network is named."""
    edit(bundle, "inference", lambda inference: inference.pop("network_def"))
    with pytest.raises(BundleFormatError, match="no network_def"):
        read_bundle(bundle)


def test_the_wrong_kind(bundle: Path, segmenter: Path) -> None:
    """A segmenter does not grade, and a grader does not segment."""
    grader, marker = read_bundle(bundle), read_bundle(segmenter)
    with pytest.raises(BundleFormatError, match="a lesion-segmenter, not a dr-classifier"):
        Classifier(marker, TorchEngine(marker))
    with pytest.raises(BundleFormatError, match="a dr-classifier, not a lesion-segmenter"):
        Segmenter(grader, TorchEngine(grader))


def test_labels_that_are_not_as_many_as_outputs(bundle: Path, segmenter: Path) -> None:
    """A network with other outputs than labels is refused at its first answer."""
    edit(bundle, "metadata", ours(labels=["0", "1", "2"]))
    edit(segmenter, "metadata", ours(labels=["MA", "HE"]))
    grader, marker = read_bundle(bundle), read_bundle(segmenter)
    grey = np.full((96, 96, 3), 128, np.uint8)
    with pytest.raises(BundleFormatError, match=r"answers with shape \(1, 5\) to 3 labels"):
        Classifier(grader, TorchEngine(grader)).photograph(grey)
    with pytest.raises(BundleFormatError, match="to 2 labels"):
        Segmenter(marker, TorchEngine(marker)).lesions(grey)


def test_weights_that_are_no_numbers(bundle: Path) -> None:
    """Weights of NaN are refused at the first answer, not taken for a grade."""
    path = bundle / "models" / "model.pt"
    state = torch.load(path, weights_only=True)
    torch.save({name: value * float("nan") for name, value in state.items()}, path)
    set_weights(bundle, path.read_bytes())
    read = read_bundle(bundle)
    with pytest.raises(BundleFormatError, match="no numbers"):
        Classifier(read, TorchEngine(read)).photograph(np.full((96, 96, 3), 128, np.uint8))


def test_graders_of_different_labels_do_not_vote(bundle: Path, tiny_bundles: Path) -> None:
    """An ensemble whose members name their classes differently is refused by their names."""
    edit(bundle, "metadata", ours(labels=["none", "mild", "moderate", "severe", "proliferative"]))
    graders = [read_bundle(bundle), read_bundle(tiny_bundles / "dr_classifier_tiny")]
    with pytest.raises(BundleFormatError, match="tiny, dr_classifier_tiny"):
        Ensemble([Classifier(grader, TorchEngine(grader)) for grader in graders])


def test_bundles_by_name(tiny_bundles: Path, tmp_path: Path) -> None:
    """Full name, architecture and path find the same bundle; an unknown name lists the known."""
    path = tiny_bundles / "dr_classifier_tiny"
    found: list[Bundle] = [find_bundle(n, [tiny_bundles]) for n in ("dr_classifier_tiny", "tiny")]
    assert {one.path for one in [*found, find_bundle(str(path), [])]} == {path}
    with pytest.raises(BundleMissingError, match="no bundle named lenet") as caught:
        find_bundle("lenet", [tmp_path, tiny_bundles])
    assert "dr_classifier_tiny, lesion_segmenter" in caught.value.hint


def test_an_earlier_folder_wins(
    tiny_bundles: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """--bundles goes before $MEDLOCKER_BUNDLES, which goes before the shipped ones."""
    shutil.copytree(tiny_bundles / "lesion_segmenter", tmp_path / "lesion_segmenter")
    monkeypatch.setenv("MEDLOCKER_BUNDLES", str(tiny_bundles))
    folders = bundle_folders(tmp_path)
    assert folders[:2] == [tmp_path, tiny_bundles]
    assert {b.name: b.path.parent for b in list_bundles(folders[:2])} == {
        "dr_classifier_tiny": tiny_bundles,
        "lesion_segmenter": tmp_path,
    }


def test_listing_names_the_damaged_one(tiny_bundles: Path, tmp_path: Path) -> None:
    """One bundle without weights among whole ones is an error that names it."""
    shutil.copytree(tiny_bundles, tmp_path / "all")
    (tmp_path / "all" / "lesion_segmenter" / "models" / "model.pt").unlink()
    with pytest.raises(BundleError, match="lesion_segmenter"):
        list_bundles([tmp_path / "all"])


def test_a_huge_claim_in_the_weights_allocates_nothing(bundle: Path) -> None:
    """A legacy file whose header claims a long string ends as a damaged one."""
    set_weights(bundle, b"\x80\x02" + b"X" + struct.pack("<I", 0x7FFFFFFF) + b"a.")
    with pytest.raises(BundleFormatError, match="do not load"):
        build_network(read_bundle(bundle))
