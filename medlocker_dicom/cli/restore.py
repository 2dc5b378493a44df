"""medlocker vault restore: a vault again from a backup."""

from __future__ import annotations

import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer

from medlocker_dicom.cli.engine import check_vault
from medlocker_dicom.cli.guard import plain
from medlocker_dicom.cli.store import VaultOption, place_chosen


def restore(
    file: Annotated[Path, typer.Argument(help="What `vault backup` wrote.")],
    *,
    replace: Annotated[
        bool,
        typer.Option(
            "--replace", help="Where a vault is there: keep it beside, under a name with the time."
        ),
    ] = False,
    vault: VaultOption = None,
) -> None:
    """Put a backup in the vault's place, checked; what happened since is not in it."""
    check_vault("the vault needs")
    from medlocker_dicom.vault import backup  # noqa: PLC0415  SQLAlchemy

    place = place_chosen(vault)
    found, kept = backup.restore(place, file, datetime.now(UTC), replace=replace)
    if kept is not None:
        sys.stdout.write(plain(f"{kept}: the vault that was there") + "\n")
    sys.stdout.write(plain(f"{place}: {found.length} entries, {found.note}") + "\n")
    sys.stderr.write(
        "what was locked, issued or revoked since the backup is not in it: enter the folders that "
        "were locked since, medlocker vault adopt, and revoke again what was revoked\n"
    )
