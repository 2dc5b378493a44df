"""Forward engines: float32 arrays in, float32 arrays out."""

from __future__ import annotations

import hashlib
import os
import tempfile
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import numpy as np
import onnxruntime
import torch

from medlocker_dicom.bundles.bundle import Bundle, build_network

if TYPE_CHECKING:
    from numpy.typing import NDArray

#: Changes whenever the export below does, so that no stale file is used.
EXPORT_VERSION = 1


class Engine(Protocol):
    """Runs a network."""

    def __call__(self, inputs: NDArray[np.float32]) -> NDArray[np.float32]:
        """Map (B, 3, H, W) to the network's output (B, ...), each row on its own."""
        ...


class OnnxEngine:
    """ONNX Runtime on the CPU; the network is exported once and kept by digest.

    Rows run one at a time: on a CPU a batch is no faster, and a row's result
    cannot depend on its neighbours.

    Parameters
    ----------
    bundle
        Whose network to run.
    cache
        Folder for exported networks; ``$XDG_CACHE_HOME/medlocker`` by default.
    threads
        Threads a run; all cores by default.
    """

    def __init__(self, bundle: Bundle, cache: Path | None = None, threads: int = 0) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.log_severity_level = 3
        self._session = onnxruntime.InferenceSession(
            str(exported(bundle, cache or default_cache())),
            options,
            providers=["CPUExecutionProvider"],
        )

    def __call__(self, inputs: NDArray[np.float32]) -> NDArray[np.float32]:
        """Run the network row by row."""
        rows = [self._session.run(None, {"image": row[None]})[0] for row in inputs]
        return np.concatenate([np.asarray(row, np.float32) for row in rows])


class TorchEngine:
    """The bundle's own network in torch: the reference for every other engine."""

    def __init__(self, bundle: Bundle) -> None:
        self._network = build_network(bundle)

    def __call__(self, inputs: NDArray[np.float32]) -> NDArray[np.float32]:
        """Run the network row by row."""
        with torch.no_grad():
            rows = [self._network(torch.from_numpy(row[None])).numpy() for row in inputs]
        return np.concatenate(rows)


def default_cache() -> Path:
    """Folder of exported networks."""
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "medlocker"


def exported(bundle: Bundle, cache: Path) -> Path:
    """Export a bundle's network to ONNX, unless the cache has it.

    Two processes may do so at once: each writes a file of its own and renames it.
    """
    source = f"{EXPORT_VERSION}|{bundle.weights_sha256}|{sorted(bundle.network.items())}"
    path = cache / f"{hashlib.sha256(source.encode()).hexdigest()}.onnx"
    if path.is_file():
        return path
    cache.mkdir(parents=True, exist_ok=True)
    handle, part = tempfile.mkstemp(dir=cache, suffix=".part")
    os.close(handle)
    side = bundle.input_size if bundle.kind == "dr-classifier" else 64
    try:
        with warnings.catch_warnings():
            # The exporter that replaces this one needs a further package. What it warns of,
            # sizes taken as constant, holds: MONAI's padding is for odd sizes, ours are even.
            warnings.simplefilter("ignore")
            torch.onnx.export(
                build_network(bundle),
                (torch.zeros(1, 3, side, side),),
                part,
                dynamo=False,
                input_names=["image"],
                output_names=["pred"],
                dynamic_axes={"image": {0: "n", 2: "h", 3: "w"}, "pred": {0: "n"}},
            )
        Path(part).replace(path)
    finally:
        Path(part).unlink(missing_ok=True)
    return path
