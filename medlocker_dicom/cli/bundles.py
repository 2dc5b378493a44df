"""medlocker bundles: which models there are."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated

import typer

from medlocker_dicom.cli.guard import plain
from medlocker_dicom.errors import UsageError

app = typer.Typer(help="Show the models.")


@app.callback()
def group() -> None:
    """Show the models."""


@app.command("list")
def list_(
    *,
    bundles: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Folder of MONAI bundles to look in first.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """List the bundles that are found, each checked against its SHA-256."""
    try:
        from medlocker_dicom.bundles.bundle import (  # noqa: PLC0415  the engine
            bundle_folders,
            list_bundles,
        )
    except ModuleNotFoundError as error:
        raise UsageError(
            f"bundles need {error.name}", "pip install 'medlocker-dicom[engine]'"
        ) from error
    rows = [
        {
            "name": bundle.name,
            "kind": bundle.kind,
            "input_size": bundle.input_size,
            "labels": list(bundle.labels),
            "sha256": bundle.weights_sha256,
            "path": str(bundle.path),
        }
        for bundle in list_bundles(bundle_folders(bundles))
    ]
    if as_json:
        sys.stdout.write(json.dumps(rows, indent=1) + "\n")
        return
    for row in rows:
        line = f"{row['name']:28} {row['kind']:17} {row['input_size']} px  {row['path']}"
        sys.stdout.write(plain(line) + "\n")
