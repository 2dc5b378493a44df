"""A MONAI bundle on disk, read without running anything it says.

Layout (MONAI bundle specification): ``configs/metadata.json``,
``configs/inference.json``, ``models/model.pt``, ``docs/``. What MedLocker
needs beyond MONAI's own fields stands under ``medlocker`` in the metadata:
``kind``, ``labels``, ``input_size`` and ``weights_sha256``.
"""

from __future__ import annotations

import functools
import hashlib
import importlib
import inspect
import json
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import nn

from medlocker_dicom.bundles.trusted import code_digest, evaluated_network
from medlocker_dicom.errors import (
    BundleDigestError,
    BundleFormatError,
    BundleMissingError,
    UsageError,
    first_line,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

Kind = Literal["dr-classifier", "lesion-segmenter"]
KINDS: tuple[Kind, ...] = ("dr-classifier", "lesion-segmenter")
#: Where the networks live that a bundle may name: classes of torch modules, and our functions.
OWN_NETWORKS = "medlocker_dicom.bundles.networks"
ALLOWED_NETWORKS = (f"{OWN_NETWORKS}.", "monai.networks.nets.")
MAX_CONFIG_BYTES = 1 << 20
MAX_WEIGHT_BYTES = 2 << 30
COLDEST, HOTTEST = 0.01, 100  # temperatures beyond make every answer one grade, or all alike
MAX_DEPTH = 32  # of lists and objects in each other; recursion over a configuration ends there
TRUST = "a bundle whose code you have read may run it by --trust-bundle NAME"
#: Folder of the bundles that come with the source tree.
SHIPPED = Path(__file__).resolve().parents[2] / "monai_bundles"


@dataclass(frozen=True)
class Bundle:
    """What a bundle says about itself, checked.

    Attributes
    ----------
    path
        Its folder.
    name
        The folder's name.
    kind
        ``dr-classifier`` or ``lesion-segmenter``.
    labels
        Output channels in order.
    input_size
        px: side of a classifier's input; retina diameter that a segmenter expects.
    weights_sha256
        Hex digest of ``models/model.pt``, verified.
    network
        ``_target_`` and its literal arguments.
    metadata
        The whole of ``metadata.json``.
    temperature
        What a classifier's logits are divided by before the softmax, for calibrated
        probabilities (Guo et al. 2017); 1 where the metadata names none.
    trusted
        Whoever runs the program said in words that this bundle may run code.
    """

    path: Path
    name: str
    kind: Kind
    labels: tuple[str, ...]
    input_size: int
    weights_sha256: str
    network: dict[str, Any]
    metadata: dict[str, Any]
    temperature: float = 1.0
    trusted: bool = False

    @property
    def weights_file(self) -> Path:
        """The weights, half precision, a plain state dictionary."""
        return self.path / "models" / "model.pt"


def bundle_folders(extra: Path | None = None) -> list[Path]:
    """List the folders that are searched for bundles, first to last.

    ``extra``, then ``$MEDLOCKER_BUNDLES``, then the source tree's own.

    Raises
    ------
    BundleMissingError
        One of the first two is no folder: no other models take the place of the ones meant.
    """
    variable = os.environ.get("MEDLOCKER_BUNDLES")
    named = [folder for folder in (extra, Path(variable) if variable else None) if folder]
    for folder in named:
        if not folder.is_dir():
            raise BundleMissingError(f"{folder}: no such folder of bundles")
    return [*named, SHIPPED]


def list_bundles(folders: list[Path], trusted: Collection[str] = ()) -> list[Bundle]:
    """Read every bundle in the folders, by name; an earlier folder wins.

    Parameters
    ----------
    folders
        First to last.
    trusted
        Names of bundles that may run code.

    Raises
    ------
    BundleError
        One of them is damaged.
    """
    found: dict[str, Path] = {}
    for folder in folders:
        for config in sorted(folder.glob("*/configs/metadata.json")):
            found.setdefault(config.parents[1].name, config.parents[1])
    return [_read(path, trusted) for _, path in sorted(found.items())]


def find_bundle(name: str, folders: list[Path], trusted: Collection[str] = ()) -> Bundle:
    """Find a bundle by folder name, by architecture (``resnet18``) or by path.

    Parameters
    ----------
    name
        A path holds a separator.
    folders
        First to last; the first that has it wins.
    trusted
        Names of bundles that may run code.

    Raises
    ------
    BundleMissingError
        There is none of that name.
    BundleError
        It is damaged.
    """
    if os.sep in name:
        return _read(Path(name), trusted)
    for folder in folders:
        for candidate in (name, f"dr_classifier_{name}"):
            if (folder / candidate / "configs" / "metadata.json").is_file():
                return _read(folder / candidate, trusted)
    known = ", ".join(
        sorted(p.parents[1].name for f in folders for p in f.glob("*/configs/metadata.json"))
    )
    raise BundleMissingError(
        f"no bundle named {name} in {', '.join(map(str, folders))}",
        f"known: {known or 'none'}; name a folder with --bundles",
    )


def check_trust(trusted: Collection[str], bundles: Collection[Bundle]) -> None:
    """Refuse trust in a name that none of the bundles in use has.

    Raises
    ------
    UsageError
        Its hint lists the names in use.
    """
    names = {bundle.name for bundle in bundles}
    for name in trusted:
        if name not in names:
            raise UsageError(
                f"--trust-bundle {name}: no bundle of this name is in use",
                f"in use: {', '.join(sorted(names))}",
            )


def _read(path: Path, trusted: Collection[str]) -> Bundle:
    return read_bundle(path, trusted=path.absolute().name in trusted)


def read_bundle(path: Path, *, trusted: bool = False) -> Bundle:
    """Read and check a bundle's configuration and the digest of its weights.

    Parameters
    ----------
    path
        Its folder.
    trusted
        Let its configuration name any class, and hold expressions that are evaluated when the
        network is built. The weights are tensors alone even so, and must have their digest.

    Raises
    ------
    BundleMissingError
        The folder or its weights are not there.
    BundleFormatError
        A configuration is damaged or asks for more than literals.
    BundleDigestError
        The weights differ from the digest in the metadata.
    """
    metadata = _read_json(path / "configs" / "metadata.json")
    inference = _read_json(path / "configs" / "inference.json")
    ours = metadata.get("medlocker")
    if not isinstance(ours, dict):
        raise BundleFormatError(
            f"{path}: metadata.json has no medlocker section",
            "see monai_bundles/README.md for what it must hold",
        )
    kind, labels, size = ours.get("kind"), ours.get("labels"), ours.get("input_size")
    digest, temperature = ours.get("weights_sha256"), ours.get("temperature", 1)
    if kind not in KINDS:
        raise BundleFormatError(f"{path}: kind {kind!r} is not one of {', '.join(KINDS)}")
    if not isinstance(labels, list) or not labels or not all(isinstance(x, str) for x in labels):
        raise BundleFormatError(f"{path}: labels must be a list of names")
    if len(set(labels)) < len(labels):
        raise BundleFormatError(f"{path}: a label is named twice")
    if not isinstance(size, int) or not 32 <= size <= 4096:
        raise BundleFormatError(f"{path}: input_size {size!r} is not between 32 and 4096 px")
    number = isinstance(temperature, int | float) and not isinstance(temperature, bool)
    if not number or not COLDEST <= temperature <= HOTTEST:
        raise BundleFormatError(
            f"{path}: temperature {temperature!r} is not between {COLDEST} and {HOTTEST}"
        )
    if not isinstance(digest, str) or not re.fullmatch("[0-9a-f]{64}", digest):
        raise BundleFormatError(f"{path}: weights_sha256 is not 64 hexadecimal digits")
    bundle = Bundle(
        path,
        path.absolute().name,
        kind,
        tuple(labels),
        size,
        digest,
        _trusted_network(path, inference) if trusted else _network(path, inference),
        metadata,
        float(temperature),
        trusted=trusted,
    )
    _check_weights(bundle)
    return bundle


def build_network(bundle: Bundle) -> nn.Module:
    """Build the bundle's network with its weights, in float32, ready for inference.

    Raises
    ------
    BundleFormatError
        The weights are unreadable, hold more than tensors, or do not fit the network.
    """
    arguments = {key: value for key, value in bundle.network.items() if key != "_target_"}
    try:
        trusted = bundle.trusted
        network = evaluated_network(bundle.path) if trusted else _builder(bundle)(**arguments)
        state = _read_weights(bundle)
        _check_numbers(bundle, state)
        network.load_state_dict(
            {k: v.float() if v.is_floating_point() else v for k, v in state.items()}
        )
    except BundleFormatError:
        raise
    except Exception as error:  # what a foreign network or a damaged pickle raises is unbounded
        reason = first_line(error)
        raise BundleFormatError(
            f"{bundle.path}: the weights do not load into the network: {reason}",
            "restore the bundle from its source",
        ) from error
    return network.eval()


def _read_weights(bundle: Bundle) -> dict[str, torch.Tensor]:
    """Read a state dictionary, executing nothing."""
    try:
        state: dict[str, torch.Tensor] = torch.load(
            bundle.weights_file, map_location="cpu", weights_only=True
        )
    except Exception as error:  # the reader's words tell how to execute what was refused here
        raise BundleFormatError(
            f"{bundle.weights_file}: the weights do not load: damaged, or more than tensors",
            "restore the bundle from its source",
        ) from error
    return state


def _check_numbers(bundle: Bundle, state: dict[str, torch.Tensor]) -> None:
    for name, value in state.items():
        if value.is_floating_point() and not bool(value.isfinite().all()):
            raise BundleFormatError(
                f"{bundle.weights_file}: {name} holds values that are no numbers",
                "keep what is too large for float16 in float32, or train again",
            )


def _builder(bundle: Bundle) -> Callable[..., nn.Module]:
    """Import what ``_target_`` names; refuse what only passes through an allowed module."""
    target = str(bundle.network["_target_"])
    module, _, attribute = target.rpartition(".")
    found: Any = getattr(importlib.import_module(module), attribute)
    ours = inspect.isfunction(found) and not attribute.startswith("_")
    ours = ours and found.__module__ == OWN_NETWORKS
    networks = inspect.isclass(found) and issubclass(found, nn.Module)
    if not (ours or networks) or not f"{found.__module__}.".startswith(ALLOWED_NETWORKS):
        raise BundleFormatError(f"{bundle.path}: {target} is no network")
    parameters = inspect.signature(found).parameters
    asked = [name for name in bundle.network if name.startswith("pretrained")]
    if any(bundle.network[name] for name in asked):
        raise BundleFormatError(
            f"{bundle.path}: network_def asks for {asked[0]} weights, which would be downloaded",
            "leave it out: the bundle brings its own weights",
        )
    # Some networks of MONAI download weights unless they are told not to.
    untold = {"pretrained": False} if "pretrained" in parameters else {}
    return functools.partial(found, **untold)


def _read_json(path: Path) -> dict[str, Any]:
    try:
        if path.stat().st_size > MAX_CONFIG_BYTES:
            raise BundleFormatError(f"{path}: larger than {MAX_CONFIG_BYTES} bytes")
        value = json.loads(path.read_bytes())
    except FileNotFoundError as error:
        raise BundleMissingError(
            f"{path}: no such file", "is this folder a MONAI bundle?"
        ) from error
    except (OSError, ValueError, RecursionError) as error:
        raise BundleFormatError(f"{path}: not readable as JSON") from error
    if not isinstance(value, dict):
        raise BundleFormatError(f"{path}: not a JSON object")
    if _deeper(value, MAX_DEPTH):
        raise BundleFormatError(f"{path}: nested more than {MAX_DEPTH} deep")
    return value


def _deeper(value: Any, levels: int) -> bool:
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return levels < 0 or any(_deeper(one, levels - 1) for one in inner)


def _network(path: Path, inference: dict[str, Any]) -> dict[str, Any]:
    network = inference.get("network_def")
    if not isinstance(network, dict) or not isinstance(network.get("_target_"), str):
        raise BundleFormatError(f"{path}: inference.json has no network_def with a _target_")
    target = network["_target_"]
    if not target.startswith(ALLOWED_NETWORKS):
        raise BundleFormatError(
            f"{path}: network {target} is not allowed",
            f"it must lie under {' or '.join(ALLOWED_NETWORKS)}; {TRUST}",
        )
    if any(_has_expression(value) for key, value in network.items() if key != "_target_") or any(
        key.startswith("_") and key != "_target_" for key in network
    ):
        raise BundleFormatError(
            f"{path}: network_def holds a $, @ or % expression or a nested component",
            f"use literals; {TRUST}",
        )
    return network


def _trusted_network(path: Path, inference: dict[str, Any]) -> dict[str, Any]:
    """Take the words as they are, and the digest of all code that they may reach."""
    network = inference.get("network_def")
    if not isinstance(network, dict):
        raise BundleFormatError(f"{path}: inference.json has no network_def")
    return network | {"code_sha256": code_digest(path)}


def _has_expression(value: Any) -> bool:
    if isinstance(value, str):
        return value.startswith(("$", "@", "%"))
    if isinstance(value, dict):
        return any(k.startswith("_") or _has_expression(v) for k, v in value.items())
    return isinstance(value, list) and any(map(_has_expression, value))


def _check_weights(bundle: Bundle) -> None:
    path = bundle.weights_file
    try:
        if path.stat().st_size > MAX_WEIGHT_BYTES:
            raise BundleFormatError(f"{path}: larger than {MAX_WEIGHT_BYTES} bytes")
        with path.open("rb") as stream:
            digest = hashlib.file_digest(stream, "sha256").hexdigest()
    except OSError as error:
        raise BundleMissingError(
            f"{path}: no weights", "restore the bundle from its source"
        ) from error
    if digest != bundle.weights_sha256:
        raise BundleDigestError(
            f"{path}: SHA-256 is {digest}, the metadata names {bundle.weights_sha256}",
            "restore the bundle from its source",
        )
