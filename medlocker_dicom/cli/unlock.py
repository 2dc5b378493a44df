"""medlocker unlock, medlocker verify: what a recipient does."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from medlocker_dicom.cli.guard import PARTIAL, plain
from medlocker_dicom.cli.identity import PassphraseFile, read_private, read_public
from medlocker_dicom.cli.progress import shown
from medlocker_dicom.folder.unlock import (
    Item,
    Keys,
    discover_keys,
    read_keys,
    unlock_folder,
    verify_folder,
)

if TYPE_CHECKING:
    from collections.abc import Iterable

Source = Annotated[Path, typer.Argument(metavar="SRC", help="Locked DICOM file or folder.")]
IdentityFile = Annotated[
    Path, typer.Option("--identity", metavar="FILE", help="Your private key file.")
]
KeyFiles = Annotated[
    list[Path] | None,
    typer.Option(
        "--key", metavar="FILE.mlkey", help="Key file; repeat. By default those beside the data."
    ),
]
Issuer = Annotated[
    Path | None,
    typer.Option("--issuer", metavar="PUB", help="Trust this issuer alone."),
]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON line a file.")]


def unlock(  # noqa: PLR0913  one parameter an option
    source: Source,
    destination: Annotated[
        Path, typer.Argument(metavar="DST", help="New folder, or one that the same command began.")
    ],
    *,
    identity: IdentityFile,
    key: KeyFiles = None,
    issuer: Issuer = None,
    passphrase_file: PassphraseFile = None,
    as_json: Json = False,
) -> None:
    """Give back the original photographs, bit by bit, or nothing."""
    keys = _keys(source, identity, key, issuer, passphrase_file)
    _report(unlock_folder(source, destination, keys), "unlocking", source, as_json=as_json)


def verify(  # noqa: PLR0913  one parameter an option
    source: Source,
    *,
    identity: IdentityFile,
    key: KeyFiles = None,
    issuer: Issuer = None,
    passphrase_file: PassphraseFile = None,
    as_json: Json = False,
) -> None:
    """Check that each file is the one its key was issued for, untouched; write nothing."""
    keys = _keys(source, identity, key, issuer, passphrase_file)
    _report(verify_folder(source, keys), "verifying", source, as_json=as_json)


def _keys(
    source: Path,
    identity: Path,
    key: list[Path] | None,
    issuer: Path | None,
    passphrase_file: Path | None,
) -> Keys:
    trusted = read_public(issuer) if issuer else None
    private = read_private(identity, passphrase_file)
    if key:
        return read_keys(private, key, trusted)
    keys, left_out = discover_keys(private, source, trusted)
    for error in left_out:
        sys.stderr.write(plain(f"left out: {error}") + "\n")
    return keys


def _report(items: Iterable[Item], verb: str, source: Path, *, as_json: bool) -> None:
    """Show items as they come; end with the exit code that they add up to."""
    good, failed, issuers = 0, [], set()
    for item in shown(items, verb):
        row = {"path": str(item.path), "state": item.state}
        if item.error:
            failed.append(item.error.exit_code)
            row |= {"error": str(item.error), "hint": item.error.hint}
        else:
            good += 1
            issuers.add(item.issuer)
            row |= {"issuer": item.issuer}
        if as_json:
            sys.stdout.write(json.dumps(row) + "\n")
    if issuers:
        sys.stderr.write(_locked_by(sorted(issuers)))
    if not as_json:
        sys.stdout.write(f"{good} good, {len(failed)} failed\n")
    if failed:
        raise typer.Exit(failed[0] if source.is_file() else PARTIAL)


def _locked_by(fingerprints: list[str]) -> str:
    """Say who locked the files: a key file proves only that its issuer made it."""
    several = f"{len(fingerprints)} issuers, " if len(fingerprints) > 1 else ""
    return f"locked by {several}{', '.join(fingerprints)}: compare with the owner's fingerprint\n"
