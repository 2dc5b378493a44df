"""Unlock or verify a folder of locked instances; the recipient's small install is enough."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from medlocker_dicom.dicom.locked import read_locked
from medlocker_dicom.dicom.reading import naming
from medlocker_dicom.dicom.writing import to_bytes
from medlocker_dicom.errors import (
    KeyRefusedError,
    LockedObjectError,
    MedLockerError,
    OutputError,
)
from medlocker_dicom.files import sha256_of, write_file
from medlocker_dicom.folder.contain import contained
from medlocker_dicom.folder.journal import open_journal
from medlocker_dicom.folder.listing import check_apart, folder_of, list_files, plain_file
from medlocker_dicom.keyfile.moments import moment_of, seconds, whole_seconds
from medlocker_dicom.pipeline.unlock import unlock, verify

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from medlocker_dicom.dicom.locked import Locked
    from medlocker_dicom.folder.keys import Keys
    from medlocker_dicom.keyfile import Grant, Identity


@dataclass(frozen=True)
class Item:
    """What became of one file.

    Attributes
    ----------
    path
        Relative to the source.
    number, total
        Its place among all files.
    state
        ``unlocked``, ``verified``, ``already`` (by an earlier run) or ``failed``.
    error
        Why it failed.
    issuer
        Fingerprint of who signed the grant that opened it.
    locked_uid
        SOP Instance UID of the locked object, where it could be read.
    grant_id
        Of the grant that opened it, 16 bytes.
    at
        When, in whole seconds of UTC: for ``already``, when it was unlocked.
    """

    path: Path
    number: int
    total: int
    state: str
    error: MedLockerError | None = None
    issuer: str = ""
    locked_uid: str = ""
    grant_id: bytes | None = None
    at: datetime | None = None


def _now() -> datetime:
    return datetime.now(UTC)


def unlock_folder(
    source: Path, destination: Path, keys: Keys, *, clock: Callable[[], datetime] = _now
) -> Iterator[Item]:
    """Unlock every instance of a folder; go on where an earlier run stopped.

    Yields
    ------
    Item
        For each file, as it is done. A file that fails leaves nothing behind.

    Raises
    ------
    DestinationError, DiskFullError
        The destination is unusable; what is done stays done.
    UsageError
        There is nothing to unlock.
    """
    check_apart(source, destination)
    files = list_files(source)
    run: dict[str, Any] = {
        "format": "medlocker unlock journal",
        "version": 2,
        "source": str(folder_of(source).resolve()),
        "identity": keys.identity.public.id.hex(),
    }
    with open_journal(destination, run) as journal:
        for number, path in enumerate(files, 1):
            item = Item(path, number, len(files), "unlocked")
            attempt = _Attempt(keys, clock())
            try:
                whole = plain_file(source, path)
                digest = sha256_of(whole)
                if done := journal.done(path, digest):
                    yield replace(item, state="already", **_opened(done))
                    continue
                data = attempt.run(whole, _restored)
                write_file(destination / path, data)
            except OutputError:
                raise
            except MedLockerError as error:
                yield attempt.failed(item, error)
                continue
            result = hashlib.sha256(data).hexdigest()
            entry = {"path": str(path), "source_sha256": digest, "result_sha256": result}
            journal.add(entry | attempt.entry)
            yield replace(item, **_opened(attempt.entry))


def verify_folder(
    source: Path, keys: Keys, *, clock: Callable[[], datetime] = _now
) -> Iterator[Item]:
    """Check every instance of a folder against its key; nothing is written.

    Yields
    ------
    Item
        For each file.

    Raises
    ------
    UsageError
        There is nothing to verify.
    """
    files = list_files(source)
    for number, path in enumerate(files, 1):
        item, attempt = Item(path, number, len(files), "verified"), _Attempt(keys, clock())
        try:
            attempt.run(plain_file(source, path), verify)
        except MedLockerError as error:
            yield attempt.failed(item, error)
            continue
        yield replace(item, **_opened(attempt.entry))


T_co = TypeVar("T_co", covariant=True)


class _Opener(Protocol[T_co]):
    """`verify`, or `unlock` and what comes of it."""

    def __call__(
        self, locked: Locked, grant: Grant, identity: Identity, now: datetime, signer: bytes
    ) -> T_co: ...


class _Attempt:
    """One file on its way through the keys for it.

    Attributes
    ----------
    uid
        SOP Instance UID of the object as soon as it is read.
    entry
        For the journal, once it is open: issuer, locked_uid, grant_id, at.
    """

    def __init__(self, keys: Keys, now: datetime) -> None:
        self._keys, self._now = keys, whole_seconds(now)
        self.uid = ""
        self.entry: dict[str, str | int] = {}

    def run(self, path: Path, opener: _Opener[T_co]) -> T_co:
        """Open a file by the first of its grants that does.

        What was locked again, or whose key was renewed, has older grants too.
        """
        refused: list[MedLockerError] = []
        with contained(path):
            locked = read_locked(path, self._keys.beside)
            self.uid = str(locked.ds.SOPInstanceUID)
            with naming(path):
                for key in self._keys.for_object(self.uid, locked.issuer):
                    try:
                        self._keys.check(key, locked.issuer, self._now)
                        signer = key.issuer.verify_key
                        result = opener(locked, key.grant, self._keys.identity, self._now, signer)
                    except (KeyRefusedError, LockedObjectError) as error:
                        refused.append(error)
                        continue
                    self.entry = {
                        "issuer": key.issuer.fingerprint,
                        "locked_uid": self.uid,
                        "grant_id": key.grant.grant_id.hex(),
                        "at": seconds(self._now),
                    }
                    return result
                raise refused[0]

    def failed(self, item: Item, error: MedLockerError) -> Item:
        """Give the item of a file that did not open."""
        return replace(item, state="failed", error=error, locked_uid=self.uid, at=self._now)


def _opened(entry: dict[str, Any]) -> dict[str, Any]:
    """Fields of an item from its journal entry."""
    return {
        "issuer": entry["issuer"],
        "locked_uid": entry["locked_uid"],
        "grant_id": bytes.fromhex(entry["grant_id"]),
        "at": moment_of(entry["at"]),
    }


def _restored(
    locked: Locked, grant: Grant, identity: Identity, now: datetime, signer: bytes
) -> bytes:
    return to_bytes(unlock(locked, grant, identity, now, signer))
