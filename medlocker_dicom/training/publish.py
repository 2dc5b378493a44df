"""Put trained weights into their bundle: ``python -m medlocker_dicom.training.publish``."""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
from pathlib import Path
from typing import Any

from medlocker_dicom.files import write_file


def publish(weights: Path, bundle: Path) -> str:
    """Copy weights into a bundle and name their SHA-256 in its metadata.

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
    change_metadata(bundle, lambda metadata: metadata["medlocker"].update(weights_sha256=digest))
    return digest


def record_figures(figures: Path, bundle: Path) -> None:
    """Copy the figures of an evaluation into a bundle's metadata."""
    values = json.loads(figures.read_bytes())
    change_metadata(bundle, lambda metadata: metadata.update(eval_metrics=values))


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
    parser.add_argument("--figures", type=Path, help="figures.json of an evaluation")
    arguments = parser.parse_args()
    if arguments.weights:
        sys.stdout.write(publish(arguments.weights, arguments.bundle) + "\n")
    if arguments.figures:
        record_figures(arguments.figures, arguments.bundle)


if __name__ == "__main__":
    main()
