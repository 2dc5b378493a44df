"""medlocker lock: lock a folder of DICOM fundus photographs."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from medlocker_dicom.cli.bundles import BundleFolder, TrustBundle
from medlocker_dicom.cli.engine import check_engine
from medlocker_dicom.cli.guard import PARTIAL, plain
from medlocker_dicom.cli.identity import PassphraseFile, read_private, read_public
from medlocker_dicom.cli.progress import shown
from medlocker_dicom.errors import DestinationError, LogoError, UsageError
from medlocker_dicom.keyfile import Identity, dump_identity
from medlocker_dicom.keyfile.identity_file import create_identity

if TYPE_CHECKING:
    from medlocker_dicom.folder.lock import Item
    from medlocker_dicom.keyfile import PublicIdentity
    from medlocker_dicom.watermark.logo import Logo


def lock(  # noqa: PLR0913  one parameter an option
    source: Annotated[Path, typer.Argument(metavar="SRC", help="DICOM file or folder.")],
    destination: Annotated[
        Path, typer.Argument(metavar="DST", help="New folder, or one that the same command began.")
    ],
    *,
    to: Annotated[
        list[Path], typer.Option("--to", metavar="PUB", help="Public key of a recipient; repeat.")
    ],
    custodian: Annotated[
        Path | None,
        typer.Option(metavar="PUB", help="Public key of the custodian, kept offline."),
    ] = None,
    issuer: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="Identity that signs; by default one is made for this user."
        ),
    ] = None,
    passphrase_file: PassphraseFile = None,
    mode: Annotated[
        str, typer.Option(help="avoid: off the lesions; anywhere; inside: on them.")
    ] = "avoid",
    strategy: Annotated[
        str, typer.Option(help="paper, random-mutation or random-placement.")
    ] = "paper",
    budget: Annotated[int, typer.Option(min=1, max=100_000, help="Most queries a frame.")] = 650,
    margin: Annotated[
        float,
        typer.Option(
            min=0, max=1, help="Lead of the wrong class that ends a search; 0: first flip."
        ),
    ] = 0.1,
    models: Annotated[
        str,
        typer.Option(
            metavar="NAME,...",
            help="Classifiers to turn, or all. Default: resnet18, or those of --bundles.",
        ),
    ] = "",
    bundles: BundleFolder = None,
    trust_bundle: TrustBundle = None,
    labels: Annotated[
        Path | None, typer.Option(metavar="CSV", help="True grades: columns file (or uid), grade.")
    ] = None,
    logo: Annotated[
        Path | None, typer.Option(metavar="PNG", help="The hospital's logo, with transparency.")
    ] = None,
    sl: Annotated[float, typer.Option(min=1, max=16, help="Image width over logo width.")] = 4.0,
    seed: Annotated[int, typer.Option(min=0, help="Of the search.")] = 0,
    codec: Annotated[
        str, typer.Option(help="Of the locked pixels: uncompressed, rle, jpegls or j2k.")
    ] = "uncompressed",
    as_json: Annotated[
        bool, typer.Option("--json", help="Print lock.json to the standard output.")
    ] = False,
) -> None:
    """Lock every fundus photograph in SRC for the recipients."""
    check_engine("locking needs", "SimpleITK", "jinja2")
    recipients = _recipients([*to, *([custodian] if custodian else [])])
    signer = read_private(issuer, passphrase_file) if issuer else _own_issuer()
    chosen = _logo(logo)
    from medlocker_dicom.folder.labels import read_labels  # noqa: PLC0415  the engine's own
    from medlocker_dicom.folder.lock import LockRun  # noqa: PLC0415  the engine, for this command
    from medlocker_dicom.pipeline.lock import Locker  # noqa: PLC0415  the same
    from medlocker_dicom.pipeline.models import load_models  # noqa: PLC0415  the same
    from medlocker_dicom.pipeline.policy import make_policy  # noqa: PLC0415  the same

    policy = make_policy(
        mode=mode, strategy=strategy, budget=budget, margin=margin, sl=sl, seed=seed, codec=codec
    )
    ensemble, segmenter = load_models(
        [m for m in models.split(",") if m], bundles, trust_bundle or ()
    )
    truth = read_labels(labels, len(ensemble.labels)) if labels else {}
    locker = Locker(policy, ensemble, segmenter.lesions, chosen, signer, tuple(recipients.values()))
    run = LockRun(source, destination, locker, tuple(recipients), segmenter.bundle, truth)
    codes = [one.error.exit_code for one in shown(run.items(), "locking", _note) if one.error]
    text = (destination / "lock.json").read_text()
    summary = json.loads(text)
    for key in summary["labels_unused"]:
        sys.stderr.write(plain(f"label of no locked file: {key}") + "\n")
    if as_json:
        sys.stdout.write(text)
    else:
        sys.stdout.write(
            f"{len(summary['instances'])} locked, {len(codes)} failed: "
            f"{destination / 'report.html'}\n"
            "send the locked files, and each key file to the recipient it is named after; keep "
            "report.html, lock.json and the journal\n"
        )
    if codes:
        raise typer.Exit(codes[0] if source.is_file() else PARTIAL)


def _note(item: Item) -> str:
    if item.entry is None:
        return ""
    frames = item.entry["record"]["frames"]
    turned = sum(frame["flipped"] for frame in frames)
    queries = sum(frame["queries"] for frame in frames)
    if len(frames) == 1:
        return f"({frames[0]['clean_grade']} -> {frames[0]['locked_grade']}, {queries} queries)"
    return f"({turned} of {len(frames)} frames turned, {queries} queries)"


def _recipients(paths: list[Path]) -> dict[str, PublicIdentity]:
    """Read the recipients' public keys; a key file is named after the public key's file."""
    named: dict[str, PublicIdentity] = {}
    for path in paths:
        public = read_public(path)
        name = path.name.removesuffix(".pub").removesuffix(".key")
        if name in named:
            raise UsageError(f"{path}: a recipient called {name} is there already")
        if any(public.id == other.id for other in named.values()):
            raise UsageError(f"{path}: this public key is given twice")
        named[name] = public
    return named


def _own_issuer() -> Identity:
    """Read this user's issuer identity; made at the first lock, without a passphrase."""
    base = os.environ.get("XDG_CONFIG_HOME")
    path = (Path(base) if base else Path.home() / ".config") / "medlocker" / "issuer.key"
    if not path.exists():
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UsageError(
                f"{path.parent}: cannot be made: {error.strerror}", "name an identity by --issuer"
            ) from error
        try:
            create_identity(path, dump_identity(Identity.generate(name="issuer"), None))
        except DestinationError:
            if not path.exists():
                raise
            return read_private(path, None)  # another lock made it meanwhile
        sys.stderr.write(f"made {path}, without a passphrase: keep it safe, it signs your grants\n")
    return read_private(path, None)


def _logo(path: Path | None) -> Logo:
    from medlocker_dicom.watermark.png import (  # noqa: PLC0415  needs Pillow
        MAX_BYTES,
        default_logo,
        load_logo,
    )

    if path is None:
        return default_logo()
    try:
        with path.open("rb") as stream:
            data = stream.read(MAX_BYTES + 1)
    except OSError as error:
        raise LogoError(f"{path}: cannot be read: {error.strerror}") from error
    return load_logo(data, str(path))
