"""medlocker vault adopt: what a lock run left, in a vault that has changed since."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from medlocker_dicom.cli.guard import PARTIAL
from medlocker_dicom.cli.identity import PassphraseFile, read_issuer
from medlocker_dicom.cli.progress import shown
from medlocker_dicom.cli.store import IssuerOption, VaultOption, opened


def adopt(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="Folder that `lock` wrote.")],
    *,
    vault: VaultOption = None,
    issuer: IssuerOption = None,
    passphrase_file: PassphraseFile = None,
) -> None:
    """Enter what a run of lock left in its folder and the vault does not know.

    After a run that was interrupted before the issuer or the recipients changed, and after a
    restored backup. Nothing in the folder is changed.
    """
    with opened(vault) as store:
        from medlocker_dicom.folder.adopt import adopt_folder  # noqa: PLC0415  SQLAlchemy

        signer = read_issuer(issuer, passphrase_file)
        states = [one.state for one in shown(adopt_folder(folder, store, signer), "entering")]
    entered, failed = states.count("entered"), states.count("failed")
    already = states.count("already")
    sys.stdout.write(f"{entered} entered, {already} there already, {failed} failed\n")
    if entered:
        sys.stdout.write("send their keys: medlocker grant export\n")
    if failed:
        raise typer.Exit(PARTIAL)
