"""medlocker vault: make, check, audit, back up, hand over to another issuer."""

from __future__ import annotations

import re
import sys
from collections import deque
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from medlocker_dicom.cli.engine import check_vault
from medlocker_dicom.cli.guard import plain
from medlocker_dicom.cli.identity import (
    PassphraseFile,
    read_issuer,
    read_private,
    read_public,
    read_public_keys,
)
from medlocker_dicom.cli.progress import counting
from medlocker_dicom.cli.store import IssuerOption, VaultOption, opened, place_chosen
from medlocker_dicom.errors import (
    KeyRefusedError,
    UsageError,
    VaultDamagedError,
    VaultMissingError,
    VaultVersionError,
)
from medlocker_dicom.folder.keys import read_named
from medlocker_dicom.keyfile import caps, load_receipt
from medlocker_dicom.keyfile.moments import text_of

if TYPE_CHECKING:
    from medlocker_dicom.database import Place

WhoseOption = Annotated[
    Path | None,
    typer.Option(
        "--issuer", metavar="PUB", help="Public key of the issuer that it must be signed by."
    ),
]
app = typer.Typer(help="Keep what was locked, who may open it, and what happened.")


@app.callback()
def group() -> None:
    """Keep what was locked, who may open it, and what happened."""


@app.command()
def init(
    *,
    vault: VaultOption = None,
    issuer: IssuerOption = None,
    passphrase_file: PassphraseFile = None,
    custodian: Annotated[
        Path | None,
        typer.Option(metavar="PUB", help="Public key of the custodian, whose identity is offline."),
    ] = None,
    no_custodian: Annotated[
        bool, typer.Option("--no-custodian", help="Nothing is ever issued again.")
    ] = False,
) -> None:
    """Make a vault, or bring an older one up to date."""
    check_vault("the vault needs")
    from medlocker_dicom.vault import people  # noqa: PLC0415  SQLAlchemy
    from medlocker_dicom.vault.vault import make_vault  # noqa: PLC0415  the same

    place = place_chosen(vault)
    keepers = read_public_keys([custodian]) if custodian else {}
    if _begun(place):
        make_vault(place).close()
        if keepers:
            raise UsageError(
                f"{place}: is a vault already, and up to date now",
                "add a custodian by: medlocker recipient add --custodian",
            )
        sys.stdout.write(plain(f"{place}: up to date") + "\n")
        return
    if bool(keepers) is no_custodian:
        raise UsageError(
            "name the custodian by --custodian PUB, or say --no-custodian",
            "without one, no grant can be issued to anybody later",
        )
    signer = read_issuer(issuer, passphrase_file, make=True)
    made = make_vault(place)
    try:
        with made.writing() as writing:
            people.begin(writing, signer.public)
            for name, keeper in keepers.items():
                people.add(writing, signer, name, keeper, custodian=True)
            writing.checkpoint(signer)
    finally:
        made.close()
    sys.stdout.write(plain(f"{place}: made, issuer {signer.public.fingerprint}") + "\n")


def _begun(place: Place) -> bool:
    """Tell whether a vault is there that has an issuer; an older one is one that has."""
    from medlocker_dicom.vault import people  # noqa: PLC0415  SQLAlchemy
    from medlocker_dicom.vault.vault import open_vault  # noqa: PLC0415  the same

    try:
        there = open_vault(place)
    except VaultMissingError:
        return False
    except VaultVersionError:
        return True  # `make_vault` brings it up to date, or refuses a newer one
    try:
        with there.reading() as connection:
            return people.has_begun(connection)
    finally:
        there.close()


@app.command()
def check(*, vault: VaultOption = None, issuer: WhoseOption = None) -> None:
    """Check every grant against its instance, its signature and the audit chain."""
    with opened(vault) as store:
        from medlocker_dicom.vault.check import Counts  # noqa: PLC0415  SQLAlchemy
        from medlocker_dicom.vault.check import check as run  # noqa: PLC0415  the same

        (found,) = deque(counting(run(store), "checking"), maxlen=1)
        if not isinstance(found, Counts):
            raise TypeError("a check ends with its counts")
        sys.stdout.write(
            f"{found.instances} instances, {found.grants} grants, {found.live} of them live: "
            f"all in order, signed by {found.issuer}\n"
        )
        _check_whose(found.issuer, issuer)
        if found.uncared:
            sys.stderr.write(
                f"{found.uncared} instances have no grant of a custodian: nothing can be issued "
                "again for them\n"
            )


@app.command()
def show(
    uid: Annotated[str, typer.Argument(metavar="UID", help="SOP Instance UID, source or locked.")],
    *,
    vault: VaultOption = None,
) -> None:
    """Show how an instance was locked: a line of JSON for each time."""
    with opened(vault) as store:
        from medlocker_dicom.vault.instances import recorded  # noqa: PLC0415  SQLAlchemy

        for record in recorded(store, uid):
            sys.stdout.write(plain(record) + "\n")


@app.command()
def audit(
    *,
    vault: VaultOption = None,
    of: Annotated[
        str, typer.Option(metavar="UID", help="Tell all that happened to this instance.")
    ] = "",
    history: Annotated[bool, typer.Option("--history", help="Tell all that happened.")] = False,
    noted: Annotated[
        str,
        typer.Option(
            metavar="LENGTH:HEAD", help="What an earlier audit printed; it must still hold."
        ),
    ] = "",
    issuer: WhoseOption = None,
) -> None:
    """Follow the audit chain from its first entry to its head."""
    before = _noted(noted)
    with opened(vault) as store:
        from medlocker_dicom.vault import check  # noqa: PLC0415  SQLAlchemy

        found = check.audit(store, before)
        _check_whose(found.issuer, issuer)
        if of or history:
            known = False
            for line in check.history(store, of):
                known = True
                sys.stdout.write(plain(line) + "\n")
            if of and not known:
                raise UsageError(f"{of}: the audit chain tells nothing of it")
        sys.stderr.write(
            f"{found.length} entries follow each other; signed up to entry {found.signed} by "
            f"{found.issuer}; note elsewhere, for the next audit:\n"
        )
        sys.stdout.write(f"{found.note}\n")


@app.command()
def backup(
    file: Annotated[Path, typer.Argument(help="New file.")], *, vault: VaultOption = None
) -> None:
    """Copy the vault while it is in use, and check the copy."""
    with opened(vault) as store:
        from medlocker_dicom.vault import backup as backups  # noqa: PLC0415  SQLAlchemy

        found = backups.backup(store, file)
        sys.stdout.write(plain(f"{file}: {found.length} entries, {found.note}") + "\n")


@app.command("rotate-issuer")
def rotate_issuer(
    *,
    new: Annotated[Path, typer.Option(metavar="FILE", help="Identity of the next issuer.")],
    vault: VaultOption = None,
    issuer: IssuerOption = None,
    passphrase_file: PassphraseFile = None,
    new_passphrase_file: Annotated[
        Path | None,
        typer.Option("--new-passphrase-file", help="As --passphrase-file, for the next issuer."),
    ] = None,
) -> None:
    """Hand over to another issuer, who signs all live grants; export them again afterwards."""
    with opened(vault) as store:
        from medlocker_dicom.vault.rotation import rotate  # noqa: PLC0415  SQLAlchemy

        old = read_issuer(issuer, passphrase_file)
        next_ = read_private(new, new_passphrase_file)
        count = rotate(store, old, next_)
        sys.stdout.write(
            f"{next_.public.fingerprint} succeeds {old.public.fingerprint}; {count} grants "
            f"signed\n{plain(f'from now on say --issuer {new}')}\n"
        )


@app.command("reset-clock")
def reset_clock(
    *,
    vault: VaultOption = None,
    issuer: IssuerOption = None,
    passphrase_file: PassphraseFile = None,
) -> None:
    """Go on from the present time, after a wrong clock put the last entry into the future."""
    with opened(vault) as store:
        before, now = store.reset_clock(read_issuer(issuer, passphrase_file))
    sys.stdout.write(f"the vault's clock is set back from {text_of(before)} to {text_of(now)}\n")


@app.command()
def receive(
    files: Annotated[list[Path], typer.Argument(metavar="FILE.mlreceipt...")],
    *,
    vault: VaultOption = None,
) -> None:
    """Enter recipients' receipts into the audit chain."""
    with opened(vault) as store:
        from medlocker_dicom.vault.receipts import receive as enter  # noqa: PLC0415  SQLAlchemy

        for path in files:
            receipt = read_named(path, load_receipt, caps.MAX_RECEIPT_BYTES)
            try:
                entered, strange = enter(store, receipt)
            except KeyRefusedError as error:
                raise type(error)(f"{path}: {error}", error.hint) from error
            others = f", {strange} left out: of objects or outcomes that the vault does not know"
            line = f"{path}: {entered} new entries{others if strange else ''}"
            sys.stdout.write(plain(line) + "\n")


def _check_whose(found: str, issuer: Path | None) -> None:
    """Compare who signs a vault with who is known to: its own word is not enough."""
    if issuer is not None and found != (known := read_public(issuer).fingerprint):
        raise VaultDamagedError(
            f"the vault is signed by {found}, not by {known}",
            "somebody has put another in its place",
        )


def _noted(text: str) -> tuple[int, bytes] | None:
    if not text:
        return None
    found = re.fullmatch(r"([0-9]{1,15}):([0-9a-f]{64})", text)
    if not found:
        raise UsageError("--noted is not like 12:ab34...", "give what an earlier audit printed")
    return int(found[1]), bytes.fromhex(found[2])
