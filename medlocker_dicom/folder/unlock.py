"""Unlock or verify a folder of locked instances; the recipient's small install is enough."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from medlocker_dicom.dicom.locked import Locked, read_locked
from medlocker_dicom.dicom.reading import naming
from medlocker_dicom.dicom.writing import to_bytes
from medlocker_dicom.errors import (
    KeyFileError,
    MedLockerError,
    NoGrantError,
    OutputError,
    SignatureError,
)
from medlocker_dicom.files import write_file
from medlocker_dicom.folder.journal import open_journal
from medlocker_dicom.folder.listing import check_apart, folder_of, list_files
from medlocker_dicom.keyfile import load_keyfile
from medlocker_dicom.keyfile.caps import MAX_KEYFILE_BYTES
from medlocker_dicom.pipeline.unlock import unlock, verify

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from medlocker_dicom.keyfile import Grant, Identity, KeyFile, PublicIdentity


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
    """

    path: Path
    number: int
    total: int
    state: str
    error: MedLockerError | None = None


@dataclass(frozen=True)
class Keys:
    """An identity with the key files that were issued to it.

    Attributes
    ----------
    identity
        The recipient.
    keyfiles
        Each verified and for this identity.
    issuer
        The only issuer to trust; None trusts the one that each object names.
    """

    identity: Identity
    keyfiles: tuple[KeyFile, ...]
    issuer: PublicIdentity | None = None

    def grant_for(self, locked: Locked) -> Grant:
        """Find the grant for a locked object.

        Raises
        ------
        SignatureError
            The object was locked by another issuer than the trusted one.
        NoGrantError
            No key file holds one.
        """
        if self.issuer is not None and locked.issuer != self.issuer.verify_key:
            raise SignatureError(
                "locked by another issuer than the one given",
                "check with the owner which issuer it should be",
            )
        uid = str(locked.ds.SOPInstanceUID)
        for keyfile in self.keyfiles:
            try:
                return keyfile.grant_for(uid)
            except NoGrantError:
                continue
        raise NoGrantError(
            f"no key for {uid}", "give the key file that came with this data by --key"
        )


def read_keys(
    identity: Identity, paths: Sequence[Path], issuer: PublicIdentity | None = None
) -> Keys:
    """Read and verify key files.

    Raises
    ------
    KeyFileError
        One is unreadable or malformed.
    SignatureError
        One was not signed by the issuer that it names, or not by the trusted one.
    NoGrantError
        None of them is for this identity.
    """
    loaded = [_read_keyfile(path, issuer) for path in paths]
    return _keys_of(identity, loaded, paths, issuer)


def discover_keys(
    identity: Identity, source: Path, issuer: PublicIdentity | None = None
) -> tuple[Keys, list[MedLockerError]]:
    """Find the identity's keys among all key files that lie with locked data.

    Others' files lie there too: one that cannot be used stops nobody whose own is sound.

    Returns
    -------
    tuple
        The keys, and why each file that is left out was.

    Raises
    ------
    KeyFileError, SignatureError
        No file is for this identity, and one that might have been is of no use.
    NoGrantError
        No file is for this identity.
    """
    paths, loaded, left_out = find_keyfiles(source), [], []
    for path in paths:
        try:
            loaded.append(_read_keyfile(path, issuer))
        except MedLockerError as error:
            left_out.append(error)
    try:
        return _keys_of(identity, loaded, paths, issuer), left_out
    except NoGrantError:
        if left_out:
            raise left_out[0] from None
        raise


def _keys_of(
    identity: Identity,
    loaded: Sequence[KeyFile],
    paths: Sequence[Path],
    issuer: PublicIdentity | None,
) -> Keys:
    ours = tuple(k for k in loaded if k.recipient == identity.public.id)
    if not ours:
        named = ", ".join(map(str, paths)) or "none found"
        raise NoGrantError(
            f"no key file is for this identity ({named})",
            f"ask the owner to lock for {identity.public.fingerprint}",
        )
    return Keys(identity, ours, issuer)


def _read_keyfile(path: Path, issuer: PublicIdentity | None) -> KeyFile:
    try:
        with path.open("rb") as stream:
            data = stream.read(MAX_KEYFILE_BYTES + 1)
    except OSError as error:
        raise KeyFileError(f"{path}: cannot be read: {error.strerror}") from error
    try:
        keyfile = load_keyfile(data)
    except MedLockerError as error:
        raise type(error)(f"{path}: {error}", error.hint) from error
    if issuer is not None and keyfile.issuer.verify_key != issuer.verify_key:
        raise SignatureError(
            f"{path}: issued by {keyfile.issuer.fingerprint}, not by {issuer.fingerprint}",
            "check with the owner which issuer it should be",
        )
    return keyfile


def find_keyfiles(source: Path) -> list[Path]:
    """List the key files that lie with locked data: in it, or in its ``keys`` folder."""
    folder = folder_of(source)
    return sorted([*folder.glob("*.mlkey"), *folder.glob("keys/*.mlkey")])


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
        "version": 1,
        "source": str(folder_of(source).resolve()),
        "identity": keys.identity.public.id.hex(),
    }
    with open_journal(destination, run) as journal:
        done = set(journal.entries)
        for number, path in enumerate(files, 1):
            if str(path) in done and (destination / path).is_file():
                yield Item(path, number, len(files), "already")
                continue
            try:
                data = _unlock_file(folder_of(source) / path, keys, clock())
                write_file(destination / path, data)
            except OutputError:
                raise
            except MedLockerError as error:
                yield Item(path, number, len(files), "failed", error)
                continue
            journal.add({"path": str(path)})
            yield Item(path, number, len(files), "unlocked")


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
        try:
            locked = read_locked(folder_of(source) / path)
            with naming(folder_of(source) / path):
                verify(locked, keys.grant_for(locked), keys.identity, clock())
        except MedLockerError as error:
            yield Item(path, number, len(files), "failed", error)
            continue
        yield Item(path, number, len(files), "verified")


def _unlock_file(path: Path, keys: Keys, now: datetime) -> bytes:
    locked = read_locked(path)
    with naming(path):
        return to_bytes(unlock(locked, keys.grant_for(locked), keys.identity, now))
