"""Put trained weights into their bundle, calibrate and measure them.

``python -m medlocker_dicom.training.publish BUNDLE --weights model.pt --data DATA``
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
from pathlib import Path
from typing import Any

from medlocker_dicom.bundles.bundle import read_bundle
from medlocker_dicom.files import write_file
from medlocker_dicom.training.evaluate import grade_held_out, segmenter_figures


def publish(weights: Path, bundle: Path) -> str:
    """Copy weights into a bundle and name their SHA-256 in its metadata.

    The temperature of the weights before is dropped.

    Parameters
    ----------
    weights
        ``model.pt`` of a training run.
    bundle
        The bundle's folder.

    Returns
    -------
    str
        The digest, hexadecimal.
    """
    data = weights.read_bytes()
    digest = hashlib.sha256(data).hexdigest()
    write_file(bundle / "models" / "model.pt", data)

    def change(metadata: dict[str, Any]) -> None:
        metadata["medlocker"].pop("temperature", None)
        metadata["medlocker"]["weights_sha256"] = digest

    change_metadata(bundle, change)
    return digest


def measure(bundle: Path, data: Path) -> dict[str, Any]:
    """Fit a classifier's temperature, then put the held-out figures into the metadata.

    Parameters
    ----------
    bundle
        The bundle's folder.
    data
        Folder of the photograph sets.

    Returns
    -------
    dict
        The figures.
    """
    read = read_bundle(bundle)
    if read.kind == "dr-classifier":
        held_out = grade_held_out(read, data)
        temperature = held_out.temperature()
        change_metadata(bundle, lambda m: m["medlocker"].update(temperature=temperature))
        figures = held_out.figures(temperature)
    else:
        figures = segmenter_figures(read, data)
    change_metadata(bundle, lambda metadata: metadata.update(eval_metrics=figures))
    return figures


def change_metadata(bundle: Path, change: Any) -> None:
    """Rewrite ``metadata.json`` after a change to its content."""
    path = bundle / "configs" / "metadata.json"
    metadata = json.loads(path.read_bytes())
    change(metadata)
    write_file(path, json.dumps(metadata, indent=4).encode() + b"\n")


def main() -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--weights", type=Path, help="model.pt of a training run")
    parser.add_argument("--data", type=Path, help="folder of the photograph sets")
    arguments = parser.parse_args()
    if arguments.weights:
        sys.stdout.write(publish(arguments.weights, arguments.bundle) + "\n")
    if arguments.data:
        sys.stdout.write(json.dumps(measure(arguments.bundle, arguments.data), indent=1) + "\n")


if __name__ == "__main__":
    main()
