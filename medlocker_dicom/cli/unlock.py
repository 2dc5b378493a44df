"""medlocker unlock, medlocker verify: what a recipient does."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from medlocker_dicom.cli.guard import PARTIAL, plain
from medlocker_dicom.cli.identity import PassphraseFile, read_private, read_public
from medlocker_dicom.cli.progress import shown
from medlocker_dicom.errors import (
    DestinationError,
    KeyRefusedError,
    LockedObjectError,
    MedLockerError,
)
from medlocker_dicom.files import write_file
from medlocker_dicom.folder.keys import (
    PACKETS,
    Keys,
    discover_keys,
    discover_statuses,
    read_keys,
    read_statuses,
)
from medlocker_dicom.folder.listing import folder_of
from medlocker_dicom.folder.unlock import Item, unlock_folder, verify_folder
from medlocker_dicom.keyfile import ReceiptEntry, caps, dump_receipt, sign_receipt
from medlocker_dicom.keyfile.receipt import UNLOCKED
from medlocker_dicom.parts import batched, numbered

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from medlocker_dicom.keyfile import Identity

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
StatusLists = Annotated[
    list[Path] | None,
    typer.Option(
        "--status",
        metavar="FILE.mlstatus",
        help="A list of revoked grants beside those that lie with data and keys; repeat.",
    ),
]
Packets = Annotated[
    Path | None,
    typer.Option(
        metavar="DIR", help="Folder of detached packets; by default `packets` with data or key."
    ),
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
    status: StatusLists = None,
    packets: Packets = None,
    receipt: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE.mlreceipt",
            help="Write down for the owner, signed, what was unlocked and what was refused.",
        ),
    ] = None,
    passphrase_file: PassphraseFile = None,
    as_json: Json = False,
) -> None:
    """Give back the original photographs, bit by bit, or nothing."""
    if receipt is not None and (receipt.suffix != ".mlreceipt" or receipt.is_dir()):
        raise DestinationError(f"{receipt}: is not called .mlreceipt", "choose such a name")
    keys = _keys(
        source,
        identity,
        key=key,
        issuer=issuer,
        status=status,
        packets=packets,
        passphrase_file=passphrase_file,
    )
    entries: list[ReceiptEntry] = []
    items = _noted(unlock_folder(source, destination, keys), entries)
    try:
        _report(items, "unlocking", source, as_json=as_json)
    finally:
        if receipt is not None:
            _write_receipts(receipt, keys.identity, entries)


def verify(  # noqa: PLR0913  one parameter an option
    source: Source,
    *,
    identity: IdentityFile,
    key: KeyFiles = None,
    issuer: Issuer = None,
    status: StatusLists = None,
    packets: Packets = None,
    passphrase_file: PassphraseFile = None,
    as_json: Json = False,
) -> None:
    """Check that each file is the one its key was issued for, untouched; write nothing."""
    keys = _keys(
        source,
        identity,
        key=key,
        issuer=issuer,
        status=status,
        packets=packets,
        passphrase_file=passphrase_file,
    )
    _report(verify_folder(source, keys), "verifying", source, as_json=as_json)


def _keys(  # noqa: PLR0913  one parameter an option
    source: Path,
    identity: Path,
    *,
    key: list[Path] | None,
    issuer: Path | None,
    status: list[Path] | None,
    packets: Path | None,
    passphrase_file: Path | None,
) -> Keys:
    trusted = read_public(issuer) if issuer else None
    private = read_private(identity, passphrase_file)
    left_out: list[MedLockerError] = []
    if key:
        keys = read_keys(private, key, trusted)
    else:
        keys, left_out = discover_keys(private, source, trusted)
    places = [folder_of(source), *dict.fromkeys(path.parent for path in key or ())]
    statuses, unusable = discover_statuses(places)
    left_out += unusable
    for error in left_out:
        sys.stderr.write(plain(f"left out: {error}") + "\n")
    return replace(
        keys,
        statuses=(*read_statuses(status or ()), *statuses),
        packets=tuple([packets] if packets else [place / PACKETS for place in places]),
    )


def _noted(items: Iterable[Item], entries: list[ReceiptEntry]) -> Iterator[Item]:
    """Pass items on; what they say of a locked object becomes entries of a receipt.

    Those of an earlier run among them: a receipt tells of all that the destination holds.
    """
    for item in items:
        if item.at is not None and item.locked_uid:
            if item.grant_id is not None:
                entries.append(ReceiptEntry(item.locked_uid, item.grant_id, item.at, UNLOCKED))
            elif isinstance(item.error, KeyRefusedError | LockedObjectError):
                outcome = type(item.error).__name__
                entries.append(ReceiptEntry(item.locked_uid, None, item.at, outcome))
        yield item


def _write_receipts(path: Path, recipient: Identity, entries: list[ReceiptEntry]) -> None:
    """Sign and write what there is to tell; several files where one would be too large.

    A run that came to nothing leaves an earlier receipt as it is.
    """
    parts = list(batched(entries, caps.MAX_RECEIPT_ENTRIES))
    for where, part in zip(numbered(path, len(parts)), parts, strict=True):
        write_file(where, dump_receipt(sign_receipt(recipient, part)))


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
