"""What a recipient brings to locked data: an identity, key files, status lists, packets."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, NamedTuple, TypeVar

from medlocker_dicom.dicom.private import LockBlock
from medlocker_dicom.dicom.reading import naming
from medlocker_dicom.errors import (
    ClockError,
    KeyFileError,
    MedLockerError,
    NoGrantError,
    PacketError,
    SignatureError,
)
from medlocker_dicom.folder.listing import folder_of
from medlocker_dicom.keyfile import caps, load_detached, load_keyfile, load_status
from medlocker_dicom.keyfile.detached import MAX_DETACHED_BYTES, SUFFIX
from medlocker_dicom.keyfile.moments import text_of

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from medlocker_dicom.keyfile import (
        Grant,
        Identity,
        KeyFile,
        Lineage,
        PublicIdentity,
        StatusList,
    )

PACKETS = "packets"
"""Folder of the detached packets beside locked data."""

_NEVER = datetime.max.replace(tzinfo=UTC)
#: A clock that is further behind than this says nothing of an expiry.
_SLACK = timedelta(days=1)


class Key(NamedTuple):
    """A grant, who signed it, and when the key file was issued that holds it."""

    grant: Grant
    issuer: PublicIdentity
    issued: datetime


@dataclass(frozen=True)
class Keys:
    """An identity with what was issued to it.

    Attributes
    ----------
    identity
        The recipient.
    keyfiles
        Each verified and for this identity.
    issuer
        The only issuer to trust: by key files and lists that it signed, or a later one whom it
        named as its successor. One who was before it signs nothing that counts any more, whoever
        has that key now. None trusts the one that each object names.
    statuses
        Verified status lists of any issuer.
    packets
        Folders of detached packets; the first that has an object's counts.
    """

    identity: Identity
    keyfiles: tuple[KeyFile, ...]
    issuer: PublicIdentity | None = None
    statuses: tuple[StatusList, ...] = ()
    packets: tuple[Path, ...] = ()

    def for_object(self, uid: str, issuer: bytes) -> list[Key]:
        """Find the grants for an object: the one that lasts longest comes first.

        Parameters
        ----------
        uid
            SOP Instance UID of the locked object.
        issuer
            Ed25519 public key of who locked it, as it names them.

        Raises
        ------
        SignatureError
            The object was locked by another issuer than the trusted one.
        NoGrantError
            No key file holds one.
        """
        theirs = [k for k in self.keyfiles if issuer in k.lineage.verify_keys]
        if self.issuer is not None:
            theirs = [k for k in theirs if self._trusts(k.lineage)]
            if issuer != self.issuer.verify_key and not theirs:
                raise SignatureError(
                    "locked by another issuer than the one given",
                    "check with the owner which issuer it should be",
                )
        found = []
        for keyfile in theirs:
            try:
                found.append(Key(keyfile.grant_for(uid), keyfile.issuer, keyfile.issued))
            except NoGrantError:
                continue
        if not found:
            raise NoGrantError(
                f"no key for {uid} from the issuer that it names",
                "give the key file that came with this data by --key",
            )
        return sorted(found, key=lambda one: one.grant.expires or _NEVER, reverse=True)

    def check(self, key: Key, issuer: bytes, now: datetime) -> None:
        """Check a grant against the status lists and the clock.

        Raises
        ------
        GrantRevokedError
            The issuer, or one that succeeded it, has revoked the grant.
        ClockError
            The grant expires, and the clock is behind what was signed before.
        """
        theirs = [
            one
            for one in self.statuses
            if issuer in one.lineage.verify_keys and self._trusts(one.lineage)
        ]
        for status in theirs:
            status.check(key.grant.grant_id)
        known = max([key.issued, *(one.issued for one in theirs)])
        if key.grant.expires is not None and now < known - _SLACK:
            raise ClockError(
                f"the clock says {text_of(now)}, before the key file or status list of "
                f"{text_of(known)}",
                "set the clock: this grant expires",
            )

    def _trusts(self, lineage: Lineage) -> bool:
        """Tell whether the trusted issuer, if there is one, signed or named who signed."""
        return self.issuer is None or self.issuer.verify_key in lineage.verify_keys

    def beside(self, uid: str) -> LockBlock | None:
        """Look for an object's detached packet; `uid` is a checked UID.

        Raises
        ------
        PacketError
            There is one, and it is damaged or another object's.
        """
        paths = [folder / f"{uid}{SUFFIX}" for folder in self.packets]
        path = next((one for one in paths if one.is_file()), None)
        if path is None:
            return None
        detached = read_named(path, load_detached, MAX_DETACHED_BYTES, PacketError)
        if detached.locked_uid != uid:
            raise PacketError(f"{path}: is the packet of {detached.locked_uid}")
        return LockBlock(
            detached.packet,
            detached.issuer,
            detached.source_class_uid,
            detached.source_uid,
            detached.bits,
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
    return _keys_of(identity, [_read_keyfile(path, issuer) for path in paths], paths, issuer)


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
    paths = find_beside(source, ".mlkey")
    loaded, left_out = _usable(paths, lambda path: _read_keyfile(path, issuer))
    try:
        return _keys_of(identity, loaded, paths, issuer), left_out
    except NoGrantError:
        if left_out:
            raise left_out[0] from None
        raise


def read_statuses(paths: Sequence[Path]) -> tuple[StatusList, ...]:
    """Read and verify status lists.

    Raises
    ------
    KeyFileError, SignatureError
        One is unreadable, malformed, or not signed by the issuer that it names.
    """
    return tuple(read_status(path) for path in paths)


def discover_statuses(
    places: Sequence[Path],
) -> tuple[tuple[StatusList, ...], list[MedLockerError]]:
    """Find the status lists that lie in some folders, or in their ``keys``.

    Returns
    -------
    tuple
        The lists, and why each file that is left out was.
    """
    found = dict.fromkeys(path for place in places for path in find_beside(place, ".mlstatus"))
    loaded, left_out = _usable(list(found), read_status)
    return tuple(loaded), left_out


def find_beside(source: Path, suffix: str) -> list[Path]:
    """List the files of a suffix that lie with locked data: in it, or in its ``keys`` folder."""
    folder = folder_of(source)
    return sorted([*folder.glob(f"*{suffix}"), *folder.glob(f"keys/*{suffix}")])


T = TypeVar("T")


def _usable(
    paths: Sequence[Path], read: Callable[[Path], T]
) -> tuple[list[T], list[MedLockerError]]:
    """Read each file; tell why those are left out that cannot be."""
    loaded: list[T] = []
    left_out: list[MedLockerError] = []
    for path in paths:
        try:
            loaded.append(read(path))
        except MedLockerError as error:
            left_out.append(error)
    return loaded, left_out


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


def read_keyfile(path: Path) -> KeyFile:
    """Read and verify one key file, whoever it is of.

    Raises
    ------
    KeyFileError, SignatureError
        It is unreadable, malformed, or not signed by the issuer that it names.
    """
    return read_named(path, load_keyfile, caps.MAX_KEYFILE_BYTES)


def _read_keyfile(path: Path, issuer: PublicIdentity | None) -> KeyFile:
    keyfile = read_keyfile(path)
    _check_issuer(path, keyfile.lineage, issuer)
    return keyfile


def _check_issuer(path: Path, lineage: Lineage, issuer: PublicIdentity | None) -> None:
    if issuer is not None and issuer.verify_key not in lineage.verify_keys:
        raise SignatureError(
            f"{path}: issued by {lineage.issuer.fingerprint}, not by {issuer.fingerprint}",
            "check with the owner which issuer it should be",
        )


def read_status(path: Path) -> StatusList:
    """Read and verify one status list; raises as `read_statuses`."""
    return read_named(path, load_status, caps.MAX_STATUS_BYTES)


def read_named(
    path: Path,
    load: Callable[[bytes], T],
    size: int,
    unreadable: type[MedLockerError] = KeyFileError,
) -> T:
    """Read a file up to its cap in bytes, and load it; errors name it.

    Raises
    ------
    MedLockerError
        Of the class `unreadable` where it cannot be read, or is a pipe, which would keep its
        reader waiting; else as `load`.
    """
    try:
        if path.exists() and not path.is_file():
            raise unreadable(f"{path}: is no plain file")
        with path.open("rb") as stream:
            data = stream.read(size + 1)
    except OSError as error:
        raise unreadable(f"{path}: cannot be read: {error.strerror}") from error
    with naming(path):
        return load(data)
