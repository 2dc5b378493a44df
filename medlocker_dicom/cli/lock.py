"""medlocker lock: lock a folder of DICOM fundus photographs."""

from __future__ import annotations

import json
import sys
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from medlocker_dicom.cli.audience import audience_of, enter
from medlocker_dicom.cli.bundles import BundleFolder, TrustBundle
from medlocker_dicom.cli.engine import check_engine, check_node
from medlocker_dicom.cli.expiry import Expires, expiry_of
from medlocker_dicom.cli.guard import PARTIAL, plain
from medlocker_dicom.cli.identity import PassphraseFile, read_issuer
from medlocker_dicom.cli.progress import shown
from medlocker_dicom.cli.store import VaultOption, has_vault, opened, place_named
from medlocker_dicom.errors import DestinationBusyError, UsageError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from medlocker_dicom.folder.lock import Item, LockRun
    from medlocker_dicom.node.sharing import Sharing


def lock(  # noqa: PLR0913  one parameter an option
    source: Annotated[Path, typer.Argument(metavar="SRC", help="DICOM file or folder.")],
    destination: Annotated[
        Path, typer.Argument(metavar="DST", help="New folder, or one that the same command began.")
    ],
    *,
    to: Annotated[
        list[str],
        typer.Option(
            "--to",
            metavar="PUB|DIR|NAME",
            help="Public key of a recipient, a folder of them, or a name in the vault; repeat.",
        ),
    ],
    custodian: Annotated[
        Path | None,
        typer.Option(
            metavar="PUB", help="Public key of the custodian, kept offline; the vault has its own."
        ),
    ] = None,
    expires: Expires = None,
    detached: Annotated[
        bool,
        typer.Option(
            "--detached",
            help="Keep the recovery packets apart, in DST/packets, for archives that strip them.",
        ),
    ] = False,
    vault: VaultOption = None,
    no_vault: Annotated[
        bool, typer.Option("--no-vault", help="Keep nothing in your vault.")
    ] = False,
    again: Annotated[
        bool,
        typer.Option(
            "--again",
            help="Lock anew what the vault knows; nothing more is issued for the old lock.",
        ),
    ] = False,
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
        str, typer.Option(help="alpha-list, guided, paper, random-mutation or random-placement.")
    ] = "alpha-list",
    budget: Annotated[
        int,
        typer.Option(
            min=1,
            max=100_000,
            help="Most forward passes a frame; from 192 on alpha-list tries further places.",
        ),
    ] = 200,
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
            help="Classifiers to turn, or all; else resnet18,mobilenetv3, or those of --bundles.",
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
    look: Annotated[
        str,
        typer.Option(
            metavar="STYLE,COLOUR,WIDTH",
            help="The logo as it is (solid), as outline or dotted; in its own colour, dark-red, "
            "yellow or white; strokes 1 to 20 thousandths of the image wide: dotted,dark-red,3.",
        ),
    ] = "solid",
    seed: Annotated[int, typer.Option(min=0, help="Of the search.")] = 0,
    codec: Annotated[
        str, typer.Option(help="Of the locked pixels: uncompressed, rle, jpegls or j2k.")
    ] = "uncompressed",
    attack: Annotated[
        bool,
        typer.Option(
            "--attack",
            help="Attack each lock, and tell in the report what undoes it: some seconds each.",
        ),
    ] = False,
    queue: Annotated[
        str | None,
        typer.Option(
            metavar="FILE|URL",
            help="Share the work: the same command, started again here or on other machines that "
            "see SRC and DST, helps. A file for one machine, or a URL of PostgreSQL.",
        ),
    ] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print lock.json to the standard output.")
    ] = False,
) -> None:
    """Lock every fundus photograph in SRC for the recipients."""
    check_engine("locking needs", "SimpleITK", "alembic", "jinja2", "sqlalchemy")
    if no_vault and vault:
        raise UsageError("--vault and --no-vault contradict each other")
    until = expiry_of(expires)
    from medlocker_dicom.folder.labels import read_labels  # noqa: PLC0415  the engine's own
    from medlocker_dicom.folder.lock import LockRun  # noqa: PLC0415  the engine, for this command
    from medlocker_dicom.pipeline.lock import Locker  # noqa: PLC0415  the same
    from medlocker_dicom.pipeline.logo import read_logo  # noqa: PLC0415  the same
    from medlocker_dicom.pipeline.models import load_models  # noqa: PLC0415  the same
    from medlocker_dicom.pipeline.policy import make_policy  # noqa: PLC0415  the same

    chosen = read_logo(logo)

    policy = make_policy(
        mode=mode,
        strategy=strategy,
        budget=budget,
        margin=margin,
        sl=sl,
        look=look,
        seed=seed,
        codec=codec,
    )
    with opened(vault) if has_vault(vault) and not no_vault else nullcontext() as store:
        audience = audience_of(to, custodian, store)
        ensemble, segmenter = load_models(
            [m for m in models.split(",") if m], bundles, trust_bundle or ()
        )
        truth = read_labels(labels, len(ensemble.labels)) if labels else {}
        signer = read_issuer(issuer, passphrase_file, make=True)
        if store is not None:
            enter(audience, signer, store)
        locker = Locker(
            policy,
            ensemble,
            segmenter.lesions,
            chosen,
            signer,
            tuple(audience.recipients.values()),
            tuple(audience.custodians.values()),
            until,
            detached,
        )
        run = LockRun(
            source,
            destination,
            locker,
            audience.names,
            segmenter.bundle,
            truth,
            vault=store,
            again=again,
            attack=attack,
        )
        with _shared(run, queue) as items:
            codes = [one.error.exit_code for one in shown(items, "locking", _note) if one.error]
    failed = _say(destination, as_json=as_json)
    if again and store is not None:
        sys.stderr.write(
            "key files that are out still open what was locked before; to end that, name its "
            "locked UIDs: medlocker grant revoke --instance\n"
        )
    if failed:  # seen by whoever led
        raise typer.Exit(codes[0] if codes and source.is_file() else PARTIAL)


@contextmanager
def _shared(run: LockRun, queue: str | None) -> Iterator[Iterable[Item]]:
    """Give what becomes of the files, locked by this process or by all that share the queue."""
    if queue is None:
        yield run.items()
        return
    check_node("--queue needs")
    from medlocker_dicom.folder.listing import list_files  # noqa: PLC0415  the engine's own
    from medlocker_dicom.node.sharing import sharing  # noqa: PLC0415  the node's libraries

    list_files(run.source)  # whether there is anything to share
    with sharing(place_named(queue), run.key) as crew:
        yield _led(replace(run, crew=crew), crew)


def _led(run: LockRun, crew: Sharing) -> Iterator[Item]:
    """Lead the run, or help until it is over or has no leader any more."""
    while True:
        try:
            yield from run.items()
        except DestinationBusyError:
            sys.stderr.write("another process leads: this one helps\n")
            over = crew.help(run)
            sys.stderr.write(f"{crew.done} files done by this process\n")
            if over:
                return
        else:
            return


def _say(destination: Path, *, as_json: bool) -> int:
    """Say what came of the run; give how many files failed."""
    text = (destination / "lock.json").read_text()
    summary = json.loads(text)
    failed = len(summary["failed"])
    for key in summary["labels_unused"]:
        sys.stderr.write(plain(f"label of no locked file: {key}") + "\n")
    if as_json:
        sys.stdout.write(text)
        return failed
    sys.stdout.write(
        f"{len(summary['instances'])} locked, {failed} failed: "
        f"{plain(str(destination / 'report.html'))}\n"
        "send the locked files, and each key file to the recipient it is named after; keep "
        "report.html, lock.json and the journal\n"
    )
    return failed


def _note(item: Item) -> str:
    if item.entry is None:
        return ""
    frames = item.entry["record"]["frames"]
    turned = sum(frame["flipped"] for frame in frames)
    queries = sum(frame["queries"] for frame in frames)
    if len(frames) == 1:
        return f"({frames[0]['clean_grade']} -> {frames[0]['locked_grade']}, {queries} queries)"
    return f"({turned} of {len(frames)} frames turned, {queries} queries)"
