"""A copy of a vault while it is in use, and a vault again from a copy."""

from __future__ import annotations

import fcntl
import os
import sqlite3
from contextlib import closing, contextmanager, nullcontext, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple

from medlocker_dicom.database import Place, named
from medlocker_dicom.errors import (
    DestinationError,
    OutputError,
    UsageError,
    VaultBusyError,
    VaultError,
    VaultMissingError,
    VaultVersionError,
)
from medlocker_dicom.files import PRIVATE, output_error, sync_folder
from medlocker_dicom.vault.check import audit
from medlocker_dicom.vault.vault import make_vault, open_vault

if TYPE_CHECKING:
    from collections.abc import Iterator
    from datetime import datetime

    from medlocker_dicom.vault.check import Audited
    from medlocker_dicom.vault.vault import Vault

#: What SQLite lays beside a file: its changes, which it takes for the file's own by their name.
_CHANGES: Final = ("-wal", "-journal")
_BESIDE: Final = (*_CHANGES, "-shm")
#: Length and start of the bytes that SQLite's processes lock: its file format, section 1.4.
_LOCK_BYTES: Final = (512, 1 << 30)


class Restored(NamedTuple):
    """What the vault holds now, and where the one that was there is kept, if one was."""

    found: Audited
    kept: Path | None


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
    with _checked_copy(vault.place.file, path) as (part, found):
        part.replace(path)
    return found


def restore(place: Place, file: Path, now: datetime, *, replace: bool = False) -> Restored:
    """Put a copy of a backup in the vault's place, checked, with nothing stale beside it.

    Parameters
    ----------
    place
        Where the vault is to lie.
    file
        What `backup` wrote; it stays as it is.
    now
        The time, with a time zone: a vault that was there is kept under a name that has it.
    replace
        Whether a vault may be there.

    Raises
    ------
    UsageError
        The place is a server, which has its own tools, or the file is not there.
    DestinationError, DiskFullError
        A vault is there, or the place cannot be written; what was there still is.
    VaultBusyError
        Another process has the vault open.
    VaultError
        The backup is damaged, or none.
    """
    if place.file is None:
        raise UsageError(f"{place}: is on a server", "restore it by the server's means: pg_restore")
    target = Path(os.path.realpath(place.file))
    if not file.is_file():
        raise UsageError(f"{file}: no such file")
    there = target.exists()
    if there and file.samefile(target):
        raise UsageError(f"{file}: is the vault itself, not a backup")
    if there and not replace:
        raise DestinationError(
            f"{place}: a vault is there", "--replace puts the backup in its place, and keeps it"
        )
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise output_error(target, error) from error
    with _checked_copy(file, target) as (part, found), _alone(target) if there else nullcontext():
        kept = _kept(target, now) if there else None
        for end in _BESIDE:
            _beside(target, end).unlink(missing_ok=True)
        part.replace(target)
    return Restored(found, kept)


@contextmanager
def _checked_copy(source: Path, path: Path) -> Iterator[tuple[Path, Audited]]:
    """Copy and audit a SQLite vault beside a path; what is not renamed in time is removed.

    Errors of the copy's content name the source, those of writing it the path.
    """
    part = path.with_name(f".{path.name}.part")
    target = Place.of_file(part)
    try:
        part.unlink(missing_ok=True)
        part.touch(mode=PRIVATE)
        with _naming(target, source, path), named(target):
            _copy(source, part)
            found = _audited(target)
            with closing(sqlite3.connect(part)) as copy:  # the audit's journal is a server's
                copy.execute("PRAGMA journal_mode=DELETE")
        yield part, found
        sync_folder(path.parent)
    except OSError as error:
        raise output_error(path, error) from error
    finally:
        for end in ("", *_BESIDE):
            _beside(part, end).unlink(missing_ok=True)


def _copy(source: Path, part: Path) -> None:
    with (
        closing(sqlite3.connect(f"{source.absolute().as_uri()}?mode=ro", uri=True)) as original,
        closing(sqlite3.connect(part)) as copy,
    ):
        original.backup(copy)


def _audited(place: Place) -> Audited:
    try:
        copied = open_vault(place)
    except VaultVersionError:
        copied = make_vault(place)  # an older program's; a newer one's is refused again
    try:
        return audit(copied)
    finally:
        copied.close()


@contextmanager
def _naming(copy: Place, source: Path, path: Path) -> Iterator[None]:
    """Let errors name what a user knows, not the copy that is removed."""
    try:
        yield
    except (VaultError, OutputError) as error:
        name = path if isinstance(error, OutputError) else source
        hint = error.hint
        if isinstance(error, VaultMissingError):
            hint = "name a file that `medlocker vault backup` wrote"
        raise type(error)(f"{name}: {str(error).removeprefix(f'{copy}: ')}", hint) from error


@contextmanager
def _alone(file: Path) -> Iterator[None]:
    """Keep other processes off a SQLite file, without letting SQLite touch what may be damaged.

    Raises
    ------
    VaultBusyError
        One has it open, and would go on writing to what is no vault any more.
    """
    with file.open("r+b") as stream:
        try:
            fcntl.lockf(stream, fcntl.LOCK_EX | fcntl.LOCK_NB, *_LOCK_BYTES)
        except BlockingIOError as error:
            raise VaultBusyError(
                f"{file}: another process has it open", "end that, then restore"
            ) from error
        yield


def _kept(target: Path, now: datetime) -> Path:
    """Give the vault that is there a second name, and its changes with it."""
    kept = target.with_name(f"{target.stem}-until-{now:%Y-%m-%dT%H%M%SZ}{target.suffix}")
    os.link(target, kept)  # unlike a rename, replaces nothing, and leaves no moment without a vault
    for end in _CHANGES:
        with suppress(FileNotFoundError):
            _beside(target, end).replace(_beside(kept, end))
    return kept


def _beside(path: Path, end: str) -> Path:
    return path.with_name(path.name + end)
