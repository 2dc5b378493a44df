"""Unlock or verify a folder of locked instances; the recipient's small install is enough."""

from __future__ import annotations

import hashlib
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, TypeVar

from medlocker_dicom.dicom.locked import read_locked
from medlocker_dicom.dicom.reading import naming
from medlocker_dicom.dicom.writing import to_bytes
from medlocker_dicom.errors import (
    KeyFileError,
    KeyRefusedError,
    LockedObjectError,
    MedLockerError,
    NoGrantError,
    OutputError,
    SignatureError,
)
from medlocker_dicom.files import sha256_of, write_file
from medlocker_dicom.folder.contain import contained
from medlocker_dicom.folder.journal import open_journal
from medlocker_dicom.folder.listing import check_apart, folder_of, list_files, plain_file
from medlocker_dicom.keyfile import load_keyfile
from medlocker_dicom.keyfile.caps import MAX_KEYFILE_BYTES
from medlocker_dicom.pipeline.unlock import unlock, verify

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from medlocker_dicom.dicom.locked import Locked
    from medlocker_dicom.keyfile import Grant, Identity, KeyFile, PublicIdentity


_NEVER = datetime.max.replace(tzinfo=UTC)


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
    """

    path: Path
    number: int
    total: int
    state: str
    error: MedLockerError | None = None
    issuer: str = ""


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

    def grants_for(self, locked: Locked) -> list[tuple[Grant, str]]:
        """Find the grants of an object's issuer for it: the one that lasts longest comes first.

        Returns
        -------
        list of (Grant, str)
            At least one, each with its issuer's fingerprint.

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
        found = []
        for keyfile in self.keyfiles:
            if keyfile.issuer.verify_key == locked.issuer:
                with suppress(NoGrantError):
                    found.append((keyfile.grant_for(uid), keyfile.issuer.fingerprint))
        if not found:
            raise NoGrantError(
                f"no key for {uid} from the issuer that it names",
                "give the key file that came with this data by --key",
            )
        return sorted(found, key=lambda one: one[0].expires or _NEVER, reverse=True)


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
        for number, path in enumerate(files, 1):
            try:
                whole = plain_file(source, path)
                digest = sha256_of(whole)
                if done := journal.done(path, digest):
                    yield Item(path, number, len(files), "already", issuer=done["issuer"])
                    continue
                data, issuer = _open(whole, keys, clock(), _restored)
                write_file(destination / path, data)
            except OutputError:
                raise
            except MedLockerError as error:
                yield Item(path, number, len(files), "failed", error)
                continue
            result = hashlib.sha256(data).hexdigest()
            entry = {"path": str(path), "source_sha256": digest, "result_sha256": result}
            journal.add(entry | {"issuer": issuer})
            yield Item(path, number, len(files), "unlocked", issuer=issuer)


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
            _, issuer = _open(plain_file(source, path), keys, clock(), verify)
        except MedLockerError as error:
            yield Item(path, number, len(files), "failed", error)
            continue
        yield Item(path, number, len(files), "verified", issuer=issuer)


T = TypeVar("T")


def _open(
    path: Path, keys: Keys, now: datetime, opener: Callable[[Locked, Grant, Identity, datetime], T]
) -> tuple[T, str]:
    """Open a file by the first of its grants that does, and tell its issuer's fingerprint.

    What was locked again, or whose key was renewed, has older grants too.
    """
    refused: list[MedLockerError] = []
    with contained(path):
        locked = read_locked(path)
        with naming(path):
            for grant, issuer in keys.grants_for(locked):
                try:
                    return opener(locked, grant, keys.identity, now), issuer
                except (KeyRefusedError, LockedObjectError) as error:
                    refused.append(error)
            raise refused[0]


def _restored(locked: Locked, grant: Grant, identity: Identity, now: datetime) -> bytes:
    return to_bytes(unlock(locked, grant, identity, now))
