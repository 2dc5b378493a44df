"""medlocker bundles: which models there are, whether they run, and how good they are."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from medlocker_dicom.cli.engine import check_engine
from medlocker_dicom.cli.guard import plain
from medlocker_dicom.cli.progress import counted
from medlocker_dicom.errors import UsageError

if TYPE_CHECKING:
    from medlocker_dicom.bundles.bundle import Bundle

app = typer.Typer(help="Show, check and measure the models.", no_args_is_help=True)

BundleFolder = Annotated[
    Path | None, typer.Option(metavar="DIR", help="Folder of MONAI bundles to look in first.")
]
Name = Annotated[str, typer.Argument(metavar="BUNDLE", help="Name, architecture or path.")]
TrustBundle = Annotated[
    list[str] | None,
    typer.Option(
        metavar="NAME", help="Let this bundle run its own code; read the code first. Repeat."
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]


@app.callback()
def group() -> None:
    """Show, check and measure the models."""


@app.command("list")
def list_(
    *, bundles: BundleFolder = None, trust_bundle: TrustBundle = None, as_json: Json = False
) -> None:
    """List the bundles that are found, each checked against its SHA-256."""
    check_engine("bundles need", "sklearn")
    from medlocker_dicom.bundles.bundle import (  # noqa: PLC0415  the engine
        bundle_folders,
        check_trust,
        list_bundles,
    )

    found = list_bundles(bundle_folders(bundles), trust_bundle or ())
    check_trust(trust_bundle or (), found)
    rows = [_identity(bundle) for bundle in found]
    if as_json:
        sys.stdout.write(json.dumps(rows, indent=1) + "\n")
        return
    for row in rows:
        line = f"{row['name']:28} {row['kind']:17} {row['input_size']} px  {row['path']}"
        sys.stdout.write(plain(line) + "\n")


@app.command()
def check(
    bundle: Name,
    *,
    bundles: BundleFolder = None,
    trust_bundle: TrustBundle = None,
    as_json: Json = False,
) -> None:
    """Load a bundle, run it in both engines, and say whether they agree."""
    found = _find(bundle, bundles, trust_bundle)
    from medlocker_dicom.bundles.check import check_bundle  # noqa: PLC0415  the engine

    facts = _identity(found) | check_bundle(found)
    _print(facts, as_json=as_json)


@app.command()
def evaluate(  # noqa: PLR0913  one parameter an option
    bundle: Name,
    *,
    images: Annotated[Path, typer.Option(metavar="DIR", help="Folder of photographs.")],
    labels: Annotated[
        Path | None,
        typer.Option(metavar="CSV", help="For a classifier: true grades, columns file,grade."),
    ] = None,
    masks: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR", help="For a segmenter: NAME.png of each NAME.*, bit n for label n."
        ),
    ] = None,
    split: Annotated[
        str, typer.Option(help="Only rows of the CSV whose column split says so, such as val.")
    ] = "",
    bundles: BundleFolder = None,
    trust_bundle: TrustBundle = None,
    as_json: Json = False,
) -> None:
    """Measure a bundle on photographs whose grades, or lesions, are known."""
    found = _find(bundle, bundles, trust_bundle)
    from medlocker_dicom.evaluation.files import (  # noqa: PLC0415  the engine
        evaluate_grader,
        evaluate_segmenter,
    )

    if found.kind == "dr-classifier":
        if labels is None or masks is not None:
            raise UsageError(f"{found.name} is a classifier", "give its true grades by --labels")
        figures = evaluate_grader(found, images, labels, split, counted)
    else:
        if masks is None or labels is not None or split:
            raise UsageError(f"{found.name} is a segmenter", "give its true lesions by --masks")
        figures = evaluate_segmenter(found, images, masks, counted)
    identity = {"name": found.name, "sha256": found.weights_sha256}
    _print(identity | {"figures": figures}, as_json=as_json)


def _find(name: str, folder: Path | None, trusted: list[str] | None) -> Bundle:
    check_engine("bundles need", "sklearn")
    from medlocker_dicom.bundles.bundle import (  # noqa: PLC0415  the engine
        bundle_folders,
        check_trust,
        find_bundle,
    )

    found = find_bundle(name, bundle_folders(folder), trusted or ())
    check_trust(trusted or (), [found])
    return found


def _identity(bundle: Bundle) -> dict[str, Any]:
    return {
        "name": bundle.name,
        "kind": bundle.kind,
        "input_size": bundle.input_size,
        "labels": list(bundle.labels),
        "temperature": bundle.temperature,
        "sha256": bundle.weights_sha256,
        "path": str(bundle.path),
    }


def _print(facts: dict[str, Any], *, as_json: bool) -> None:
    """Print JSON, or a line for each fact; of figures, a line for each of them."""
    if as_json:
        sys.stdout.write(json.dumps(facts, indent=1) + "\n")
        return
    for key, value in facts.items():
        rows = value.items() if isinstance(value, dict) else [(key, value)]
        for name, content in rows:
            words = content
            if isinstance(content, dict):
                words = "  ".join(f"{k} {v}" for k, v in content.items())
            elif isinstance(content, list):
                words = ", ".join(map(str, content))
            sys.stdout.write(plain(f"{name.replace('_', ' '):18} {words}") + "\n")
