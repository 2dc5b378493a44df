"""medlocker grant: who may open what."""

from __future__ import annotations

import json
import sys
from collections import deque
from datetime import datetime
from pathlib import Path
from typing import Annotated

import typer

from medlocker_dicom.cli.expiry import Expires, expiry_of
from medlocker_dicom.cli.guard import plain
from medlocker_dicom.cli.identity import PassphraseFile, read_issuer, read_private
from medlocker_dicom.cli.progress import counting
from medlocker_dicom.cli.statuses import check_listed, check_place
from medlocker_dicom.cli.store import (
    Instances,
    IssuerOption,
    Series,
    Studies,
    VaultOption,
    opened,
    selection_of,
)
from medlocker_dicom.errors import DestinationError, OutputError
from medlocker_dicom.files import write_file
from medlocker_dicom.folder.keys import read_keyfile
from medlocker_dicom.keyfile import StatusList, dump_status, load_keyfile, load_status
from medlocker_dicom.keyfile.detached import SUFFIX
from medlocker_dicom.parts import numbered

app = typer.Typer(help="Say who may open what.")
To = Annotated[str, typer.Option("--to", metavar="NAME", help="The recipient's name in the vault.")]


@app.callback()
def group() -> None:
    """Say who may open what."""


@app.command("list")
def list_all(  # noqa: PLR0913  one parameter an option
    *,
    to: Annotated[str, typer.Option(metavar="NAME", help="Only this recipient.")] = "",
    study: Studies = None,
    series: Series = None,
    instance: Instances = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON line a grant.")] = False,
    vault: VaultOption = None,
) -> None:
    """List the grants that were issued, live or not."""
    with opened(vault) as store:
        from medlocker_dicom.vault.grants import listed  # noqa: PLC0415  SQLAlchemy

        for one in listed(store, to, selection_of(study, series, instance)):
            if as_json:
                sys.stdout.write(json.dumps(one._asdict()) + "\n")
            else:
                until = f", until {one.expires}" if one.expires else ""
                line = f"{one.locked_uid} {one.recipient} {one.state}{until}"
                sys.stdout.write(plain(line) + "\n")


@app.command()
def reissue(  # noqa: PLR0913  one parameter an option
    *,
    to: To,
    custodian: Annotated[
        Path, typer.Option(metavar="FILE", help="The custodian's identity, needed now alone.")
    ],
    study: Studies = None,
    series: Series = None,
    instance: Instances = None,
    expires: Expires = None,
    renew: Annotated[
        bool,
        typer.Option(
            "--renew",
            help="Replace live grants too. Key files that are out open as before: to end them "
            "earlier, revoke first, then reissue.",
        ),
    ] = False,
    vault: VaultOption = None,
    issuer: IssuerOption = None,
    passphrase_file: PassphraseFile = None,
    custodian_passphrase_file: Annotated[
        Path | None,
        typer.Option("--custodian-passphrase-file", help="The same, for the custodian's."),
    ] = None,
) -> None:
    """Issue grants to a recipient from the custodian's; no pixel is touched.

    All instances, unless studies, series or instances are named. Who has a live grant that
    has not expired gets no other one. A run that was interrupted goes on where it was when it
    is started again.
    """
    until = expiry_of(expires)
    with opened(vault) as store:
        from medlocker_dicom.vault.reissue import Reissue  # noqa: PLC0415  SQLAlchemy

        run = Reissue(
            store,
            read_issuer(issuer, passphrase_file),
            read_private(custodian, custodian_passphrase_file),
            to,
            selection_of(study, series, instance),
            until,
            renew,
        )
        (last,) = deque(counting(run.run(), "issuing"), maxlen=1)
    sys.stdout.write(
        plain(f"{last.done} grants issued to {to}") + "\nsend them: medlocker grant export\n"
    )


@app.command()
def export(  # noqa: PLR0913  one parameter an option
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="Folder to write into.")],
    *,
    to: To,
    study: Studies = None,
    series: Series = None,
    instance: Instances = None,
    vault: VaultOption = None,
    issuer: IssuerOption = None,
    passphrase_file: PassphraseFile = None,
) -> None:
    """Write a recipient's key file, with detached packets and the status list, if there are any.

    Grants that have expired are left out.
    """
    with opened(vault) as store:
        from medlocker_dicom.vault.export import export as make  # noqa: PLC0415  SQLAlchemy
        from medlocker_dicom.vault.export import packet  # noqa: PLC0415  the same

        selection = selection_of(study, series, instance)
        found = make(store, read_issuer(issuer, passphrase_file), to, selection)
        paths = numbered(folder / f"{to}.mlkey", len(found.keyfiles))
        files = dict(zip(paths, found.keyfiles, strict=True))
        for path, data in files.items():
            _check_covered(path, data, store.clock())
        if found.status is not None:
            listed = folder / "revoked.mlstatus"
            check_listed(listed, load_status(found.status))
            files[listed] = found.status
        for path, data in files.items():
            write_file(path, data)
            sys.stdout.write(plain(str(path)) + "\n")
        for uid in found.packets:
            write_file(folder / "packets" / f"{uid}{SUFFIX}", packet(store, uid))
    with_packets = f", {len(found.packets)} packets" if found.packets else ""
    left_out = f", {found.expired} left out that have expired" if found.expired else ""
    sys.stdout.write(f"{found.grants} grants{with_packets}{left_out}\n")


@app.command()
def revoke(  # noqa: PLR0913  one parameter an option
    *,
    to: To,
    study: Studies = None,
    series: Series = None,
    instance: Instances = None,
    status: Annotated[
        Path, typer.Option(metavar="FILE.mlstatus", help="Where to write the list of the revoked.")
    ] = Path("revoked.mlstatus"),
    vault: VaultOption = None,
    issuer: IssuerOption = None,
    passphrase_file: PassphraseFile = None,
) -> None:
    """Revoke a recipient's grants: programs that obey the status list refuse them.

    Nobody can take back what was unlocked already, nor a key file from who does not look at
    the list.
    """
    check_place(status)
    with opened(vault) as store:
        from medlocker_dicom.vault.revocation import revoke as end  # noqa: PLC0415  SQLAlchemy

        selection = selection_of(study, series, instance)
        count, listed = end(store, read_issuer(issuer, passphrase_file), to, selection)
    sys.stdout.write(plain(f"{count} grants of {to} revoked") + "\n")
    try:
        _write_status(status, listed)
    except OutputError as error:
        hint = "they are revoked all the same; medlocker grant status FILE writes the list"
        raise type(error)(str(error), hint) from error


@app.command("status")
def write_status(
    file: Annotated[Path, typer.Argument(metavar="FILE.mlstatus")],
    *,
    vault: VaultOption = None,
    issuer: IssuerOption = None,
    passphrase_file: PassphraseFile = None,
) -> None:
    """Write the list of all revoked grants, to lie with the data or to be published."""
    check_place(file)
    with opened(vault) as store:
        from medlocker_dicom.vault.revocation import status_list  # noqa: PLC0415  SQLAlchemy

        _write_status(file, status_list(store, read_issuer(issuer, passphrase_file)))


def _check_covered(path: Path, data: bytes, now: datetime) -> None:
    """Refuse to put a part in the place of a key file that opens more."""
    if not path.exists():
        return
    there, new = read_keyfile(path), load_keyfile(data)
    opening = {one.locked_uid for one in there.grants if one.expires is None or now < one.expires}
    lost = opening - {one.locked_uid for one in new.grants}
    if lost or there.recipient != new.recipient:
        raise DestinationError(
            f"{path}: is a key file that opens {len(lost)} instances more",
            "choose another folder",
        )


def _write_status(path: Path, status: StatusList) -> None:
    check_listed(path, status)
    write_file(path, dump_status(status))
    sys.stdout.write(
        plain(f"{path}: list {status.number}, {len(status.revoked)} revoked grants")
        + "\nlay it beside the data, or publish it\n"
    )
