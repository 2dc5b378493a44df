"""Forward engines: float32 arrays in, float32 arrays out."""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
import warnings
from contextlib import contextmanager
from functools import cached_property
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import numpy as np
import onnx
import onnx.shape_inference
import onnxruntime
import torch

from medlocker_dicom.bundles.bundle import Bundle, build_network
from medlocker_dicom.bundles.device import CPU, computing
from medlocker_dicom.bundles.incremental import Incremental, Near
from medlocker_dicom.errors import BundleFormatError, MedLockerError, first_line
from medlocker_dicom.files import output_error

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from numpy.typing import NDArray
    from torch import nn

    from medlocker_dicom.bundles.incremental import Session

#: Changes whenever the export below does, so that no stale file is used.
EXPORT_VERSION = 2


class Engine(Protocol):
    """Runs a network."""

    def __call__(self, inputs: NDArray[np.float32]) -> NDArray[np.float32]:
        """Map (B, 3, H, W) to the network's output (B, ...), each row on its own."""
        ...


class OnnxEngine:
    """ONNX Runtime on the CPU; the network is exported once and kept by digest.

    Rows run one at a time: on a CPU a batch is hardly faster, and a row's result
    cannot depend on its neighbours. (`near` runs the end of a network for several.)

    Parameters
    ----------
    bundle
        Whose network to run.
    cache
        Folder for exported networks; ``$XDG_CACHE_HOME/medlocker`` by default.

    Raises
    ------
    BundleFormatError
        The network does not load, export or run.
    OutputError
        The cache cannot be written.
    """

    def __init__(self, bundle: Bundle, cache: Path | None = None) -> None:
        self._bundle = bundle
        # As many as torch: OMP_NUM_THREADS counts for both, and by default it is all cores.
        self._threads = torch.get_num_threads()
        self._cache = cache or default_cache()
        path = exported(bundle, self._cache)
        try:
            self._run = _session(str(path), self._threads)
        except Exception:  # noqa: BLE001  the runtime has no common base; the cache is damaged
            path.unlink(missing_ok=True)
            with running(bundle, "ONNX Runtime"):
                self._run = _session(str(exported(bundle, self._cache)), self._threads)

    def __call__(self, inputs: NDArray[np.float32]) -> NDArray[np.float32]:
        """Run the network row by row."""
        with running(self._bundle, _size(inputs)):
            rows = [self._run({"image": row[None]}) for row in inputs]
            return np.concatenate([np.asarray(row, np.float32) for row in rows])

    def near(self, picture: NDArray[np.float32]) -> Engine:
        """Give an engine for what differs from a picture (1, 3, H, W) in a small box.

        It answers the same, but for rounding, and sooner where the network can be cut up.
        """
        if self._incremental is None:
            return self
        asked = Near(self._incremental, self, picture, self._threads)

        def engine(inputs: NDArray[np.float32]) -> NDArray[np.float32]:
            with running(self._bundle, _size(inputs)):
                return asked(inputs)

        return engine

    @cached_property
    def _incremental(self) -> Incremental | None:
        try:
            return Incremental(lambda: onnx.load(exported(self._bundle, self._cache)), _session)
        except Exception:  # noqa: BLE001  a damaged cache, a network of another kind: it runs whole
            return None


def _session(path: str, threads: int = 1) -> Session:
    """Open a network."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.enable_cpu_mem_arena = False  # it keeps what a large batch once took
    options.log_severity_level = 4  # an error is raised, and need not be printed as well
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])

    def run(inputs: Mapping[str, NDArray[np.float32]]) -> NDArray[np.float32]:
        answer: NDArray[np.float32] = session.run(None, inputs)[0]
        return answer

    return run


def near(engine: Engine, picture: NDArray[np.float32]) -> Engine:
    """Give an engine for what differs from a picture in a small box; itself, where it has none."""
    return engine.near(picture) if isinstance(engine, OnnxEngine) else engine


class TorchEngine:
    """The bundle's own network in torch: the reference for every other engine.

    On the CPU row by row, on another device a whole batch at a time.
    """

    def __init__(self, bundle: Bundle, device: torch.device = CPU) -> None:
        self._bundle, self._device = bundle, device
        with computing(device):
            self._network = build_network(bundle).to(device)

    def __call__(self, inputs: NDArray[np.float32]) -> NDArray[np.float32]:
        """Run the network."""
        batches = [row[None] for row in inputs] if self._device == CPU else [inputs]
        with torch.no_grad(), running(self._bundle, _size(inputs)), computing(self._device):
            rows = [self._network(torch.from_numpy(b).to(self._device)).cpu() for b in batches]
            answer: NDArray[np.float32] = torch.cat(rows).numpy()
        return answer


@contextmanager
def running(bundle: Bundle, where: str) -> Iterator[None]:
    """Say whose network it is that does not run, and on what."""
    try:
        yield
    except (MedLockerError, OSError):
        raise
    except Exception as error:  # neither foreign networks nor the runtime have a common base
        reason = first_line(error)
        raise BundleFormatError(
            f"{bundle.path}: the network does not run on {where}: {reason}",
            "check network_def and input_size",
        ) from error


def _size(inputs: NDArray[np.float32]) -> str:
    height, width = inputs.shape[2:]
    return f"{height} x {width} px"


def default_cache() -> Path:
    """Folder of exported networks."""
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "medlocker"


def exported(bundle: Bundle, cache: Path) -> Path:
    """Export a bundle's network to ONNX, unless the cache has it.

    Two processes may do so at once: each writes a file of its own and renames it.

    Raises
    ------
    BundleFormatError
        The network does not load, or cannot be exported.
    OutputError
        The cache cannot be written.
    """
    path = cache / f"{_stamp(bundle)}.onnx"
    if path.is_file():
        return path
    network = build_network(bundle)
    part: Path | None = None
    try:
        cache.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=cache, suffix=".part")
        os.close(handle)
        part = Path(name)
        _export(network, bundle, part)
        part.replace(path)
    except OSError as error:
        raise output_error(path, error) from error
    finally:
        if part is not None:
            part.unlink(missing_ok=True)
    return path


def _stamp(bundle: Bundle) -> str:
    """Name everything that an export depends on."""
    versions = [version(name) for name in ("torch", "monai")]
    source = (EXPORT_VERSION, bundle.weights_sha256, bundle.kind, bundle.input_size, versions)
    text = json.dumps([*source, bundle.network], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def _export(network: nn.Module, bundle: Bundle, path: Path) -> None:
    side = bundle.input_size if bundle.kind == "dr-classifier" else 64
    with running(bundle, f"{side} x {side} px"), warnings.catch_warnings():
        # The exporter that replaces this one needs a further package. What it warns of,
        # sizes taken as constant, holds: MONAI's padding is for odd sizes, ours are even.
        warnings.simplefilter("ignore")
        torch.onnx.export(
            network,
            (torch.zeros(1, 3, side, side),),
            str(path),
            dynamo=False,
            input_names=["image"],
            output_names=["pred"],
            dynamic_axes={"image": {0: "n", 2: "h", 3: "w"}, "pred": {0: "n"}},
        )
        onnx.shape_inference.infer_shapes_path(path)
