"""What a lock run left in its folder, entered into a vault that has changed since."""

from __future__ import annotations

import base64
import hashlib
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from medlocker_dicom.errors import (
    KeyFileError,
    MedLockerError,
    SignatureError,
    SourceError,
    UsageError,
    VaultError,
)
from medlocker_dicom.folder.journal import read_journal
from medlocker_dicom.folder.keys import PACKETS
from medlocker_dicom.keyfile import load_grant
from medlocker_dicom.keyfile.detached import SUFFIX
from medlocker_dicom.vault import people
from medlocker_dicom.vault.instances import Instance, adopt, instance_of

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping, Sequence

    from medlocker_dicom.keyfile import Grant, Identity
    from medlocker_dicom.vault.vault import Vault


@dataclass(frozen=True)
class Item:
    """What became of one locked file.

    Attributes
    ----------
    path
        Relative to the folder.
    number, total
        Its place among all of the run.
    state
        ``entered``, ``already`` or ``failed``.
    error
        Why it failed.
    """

    path: Path
    number: int
    total: int
    state: str
    error: MedLockerError | None = None


def adopt_folder(folder: Path, vault: Vault, issuer: Identity) -> Iterator[Item]:
    """Enter what a lock run has locked, as its journal tells; what is there already stays.

    The locked files are not read, and need not be there any more: what the vault keeps of them
    is in the journal, and a detached packet beside it.

    Yields
    ------
    Item
        For each file that the run locked.

    Raises
    ------
    UsageError
        The folder holds no journal of a lock run.
    DestinationError
        The journal is damaged, or a process is writing to it.
    VaultError
        The issuer is not the vault's, or the vault fails; what is entered stays.
    """
    header, journal = read_journal(folder)
    if header.get("format") != "medlocker lock journal":
        raise UsageError(f"{folder}: holds no run of lock")
    with vault.reading() as connection:
        signers = people.check_issuer(connection, issuer).verify_keys
    for number, (name, entry) in enumerate(journal.entries.items(), 1):
        path, total = Path(name), len(journal.entries)
        try:
            instance, issued = _locked(folder, entry, signers)
            with vault.writing() as writing:
                new = adopt(writing, issuer, instance, issued)
                if new:
                    writing.checkpoint(issuer)
        except VaultError:
            raise
        except MedLockerError as error:
            named = type(error)(f"{folder / path}: {error}", error.hint)
            yield Item(path, number, total, "failed", named)
        else:
            yield Item(path, number, total, "entered" if new else "already")


def _locked(
    folder: Path, entry: Mapping[str, Any], signers: Sequence[bytes]
) -> tuple[Instance, list[Grant]]:
    """Read a journal's entry: what was locked, by which of the issuers, and its grants.

    Raises
    ------
    MedLockerError
        The entry is damaged, not signed by any of them, or its packet is gone.
    """
    try:
        issued = [load_grant(base64.b64decode(text)) for text in entry["grants"]]
        instance = instance_of(entry["record"], issued, b"", None)
        digest = entry["packet_sha256"]
    except (AttributeError, IndexError, KeyError, TypeError, ValueError) as error:
        raise KeyFileError("its entry in the journal is damaged") from error
    if {(one.locked_uid, one.binding) for one in issued} != {
        (instance.locked_uid, instance.binding)
    } or not all(isinstance(value, str) for value in _uids(instance)):
        raise KeyFileError("its entry in the journal is damaged")
    packet = None if digest is None else _packet(folder, instance.locked_uid, digest)
    return replace(instance, issuer=_signer(issued, signers), packet=packet), issued


def _uids(instance: Instance) -> tuple[str, ...]:
    return (
        instance.source_uid,
        instance.study_uid,
        instance.source_series_uid,
        instance.locked_series_uid,
    )


def _signer(issued: Sequence[Grant], signers: Collection[bytes]) -> bytes:
    """Tell who locked: the one of the issuers whose signature the first grant has."""
    for key in signers:
        try:
            issued[0].verify(key)
        except SignatureError:
            continue
        return key
    raise SignatureError(
        "was locked by another issuer than the vault's", "name the vault that it belongs to"
    )


def _packet(folder: Path, uid: str, digest: str) -> bytes:
    """Read a detached packet that must be what was written."""
    path = folder / PACKETS / f"{uid}{SUFFIX}"
    try:
        data = path.read_bytes() if path.is_file() else b""
    except OSError:
        data = b""
    if hashlib.sha256(data).hexdigest() != digest:
        raise SourceError(
            f"its detached packet is gone or was changed: {path}", "put it back, then repeat"
        )
    return data
