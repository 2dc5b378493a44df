"""medlocker recipient: whom keys are issued to."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from medlocker_dicom.cli.guard import plain
from medlocker_dicom.cli.identity import PassphraseFile, read_issuer, read_public_keys
from medlocker_dicom.cli.store import IssuerOption, VaultOption, opened
from medlocker_dicom.errors import UsageError
from medlocker_dicom.keyfile.moments import moment_of, text_of

if TYPE_CHECKING:
    from medlocker_dicom.vault.people import Recipient

app = typer.Typer(help="Know whom keys are issued to.")
Name = Annotated[str, typer.Argument(metavar="NAME")]


@app.callback()
def group() -> None:
    """Know whom keys are issued to."""


@app.command()
def add(  # noqa: PLR0913  one parameter an option
    keys: Annotated[
        list[Path], typer.Argument(metavar="PUB...", help="Public key files, or folders of them.")
    ],
    *,
    name: Annotated[str, typer.Option(help="Their name here; by default the file's.")] = "",
    custodian: Annotated[
        bool, typer.Option("--custodian", help="Every lock is issued to them too, for good.")
    ] = False,
    vault: VaultOption = None,
    issuer: IssuerOption = None,
    passphrase_file: PassphraseFile = None,
) -> None:
    """Add recipients, whom the issuer signs; compare their fingerprints with them."""
    found = read_public_keys(keys)
    if name:
        if len(found) > 1:
            raise UsageError("--name is for one public key")
        found = dict.fromkeys([name], *found.values())
    with opened(vault) as store:
        from medlocker_dicom.vault import people  # noqa: PLC0415  SQLAlchemy

        signer = read_issuer(issuer, passphrase_file)
        with store.writing() as writing:
            for called, public in found.items():
                people.add(writing, signer, called, public, custodian=custodian)
            writing.checkpoint(signer)
    for called, public in found.items():
        sys.stdout.write(plain(f"{called} {public.fingerprint}") + f"\n  {public.words}\n")


@app.command("list")
def list_all(
    *,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    vault: VaultOption = None,
) -> None:
    """List all recipients."""
    with opened(vault) as store:
        from medlocker_dicom.vault import people  # noqa: PLC0415  SQLAlchemy

        with store.reading() as connection:
            found = people.everyone(connection)
    if as_json:
        sys.stdout.write(json.dumps([_record(one) for one in found], indent=1) + "\n")
        return
    for one in found:
        sys.stdout.write(plain(_line(one)) + "\n")


@app.command()
def show(name: Name, *, vault: VaultOption = None) -> None:
    """Show a recipient's key, as letters and as words."""
    with opened(vault) as store:
        from medlocker_dicom.vault import people  # noqa: PLC0415  SQLAlchemy

        with store.reading() as connection:
            one = people.find(connection, name)
    for key, value in _record(one).items():
        if value is not None:
            sys.stdout.write(plain(f"{key}: {value}") + "\n")


@app.command()
def retire(
    name: Name,
    *,
    vault: VaultOption = None,
    issuer: IssuerOption = None,
    passphrase_file: PassphraseFile = None,
) -> None:
    """Issue nothing to a recipient any more; what they have is revoked by `grant revoke`."""
    with opened(vault) as store:
        from medlocker_dicom.vault import people  # noqa: PLC0415  SQLAlchemy

        signer = read_issuer(issuer, passphrase_file)
        with store.writing() as writing:
            one = people.retire(writing, signer, name)
            writing.checkpoint(signer)
    sys.stdout.write(plain(f"{name} is retired; {one.grants} grants of theirs still open") + "\n")


def _record(one: Recipient) -> dict[str, str | int | bool | None]:
    return {
        "name": one.name,
        "fingerprint": one.public.fingerprint,
        "words": one.public.words,
        "kind": one.public.kem.value,
        "custodian": one.custodian,
        "added": text_of(moment_of(one.added)),
        "retired": None if one.retired is None else text_of(moment_of(one.retired)),
        "live_grants": one.grants,
    }


def _line(one: Recipient) -> str:
    role = "custodian, " if one.custodian else ""
    state = "" if one.retired is None else f", retired {moment_of(one.retired):%Y-%m-%d}"
    return f"{one.name} {one.public.fingerprint} ({role}{one.grants} live grants{state})"
