"""A copy of a vault while it is in use."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from typing import TYPE_CHECKING

from medlocker_dicom.database import Place, named
from medlocker_dicom.errors import DestinationError, UsageError, VaultError
from medlocker_dicom.files import PRIVATE, output_error, sync_folder
from medlocker_dicom.vault.check import audit
from medlocker_dicom.vault.vault import open_vault

if TYPE_CHECKING:
    from pathlib import Path

    from medlocker_dicom.vault.check import Audited
    from medlocker_dicom.vault.vault import Vault


def backup(vault: Vault, path: Path) -> Audited:
    """Copy a SQLite vault, check the copy, and only then give it its name.

    Parameters
    ----------
    vault
        May be written to meanwhile: the copy is of one moment.
    path
        A new file, mode 0600.

    Returns
    -------
    Audited
        Of the copy.

    Raises
    ------
    UsageError
        It lies on a server, which has its own tools.
    DestinationError, DiskFullError
        The copy cannot be written; nothing of it remains.
    VaultDamagedError
        The audit chain in the copy is damaged.
    """
    if vault.place.file is None:
        raise UsageError(
            f"{vault.place}: is on a server", "back it up by the server's means: pg_dump"
        )
    if path.exists():
        raise DestinationError(f"{path} exists", "choose another name")
    part = path.with_name(f".{path.name}.part")
    try:
        part.unlink(missing_ok=True)
        part.touch(mode=PRIVATE)
        target = Place(vault.place.url.set(database=str(part.absolute())))
        with (
            named(target),
            closing(sqlite3.connect(vault.place.file)) as source,
            closing(sqlite3.connect(part)) as copy,
        ):
            source.backup(copy)
            copy.execute("PRAGMA journal_mode=DELETE")
        copied = open_vault(target)
        try:
            found = audit(copied)
        finally:
            copied.close()
        part.replace(path)
        sync_folder(path.parent)
    except OSError as error:
        raise output_error(path, error) from error
    except sqlite3.Error as error:
        raise VaultError(f"{path}: {error}") from error
    finally:
        for left in (part, *(part.with_name(part.name + end) for end in ("-wal", "-shm"))):
            left.unlink(missing_ok=True)
    return found
