"""The audit chain: what happened, in an order that nobody changes unseen.

An entry's digest covers what it says; its hash covers the hash before, its
number and its digest. So an entry that was altered no longer has its digest,
one that was moved has its digest and not its hash, one that was removed leaves
a gap. Whoever can write the database could make all hashes anew: the issuer's
signatures over the chain's head (checkpoints) stand against that, and a head
that was noted elsewhere stands against cutting off the end.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from medlocker_dicom.errors import VaultDamagedError
from medlocker_dicom.keyfile.encoding import encode
from medlocker_dicom.keyfile.moments import moment_of, text_of
from medlocker_dicom.keyfile.signing import check_signature

if TYPE_CHECKING:
    from collections.abc import Iterable

    from medlocker_dicom.keyfile import Identity

START: Final = bytes(32)
"""Hash before the first entry."""

RESTORE: Final = "restore the vault from a backup: medlocker vault restore FILE"
"""What to do about a damaged vault."""


@dataclass(frozen=True)
class Entry:
    """One line of the chain.

    Attributes
    ----------
    number
        Counted from 1.
    at
        Seconds since 1970.
    event
        What happened, such as ``granted``.
    detail
        Canonical JSON: to what. It holds UIDs, names and ids, no secret.
    digest
        SHA-256 of the three above, 32 bytes.
    hash
        SHA-256 of the entry's place: the hash before, number and digest, 32 bytes.
    """

    number: int
    at: int
    event: str
    detail: str
    digest: bytes
    hash: bytes

    def __str__(self) -> str:
        """How it is named to people."""
        return f"entry {self.number} ({self.event}, {text_of(moment_of(self.at))})"


def linked(previous: bytes, number: int, at: int, event: str, detail: dict[str, Any]) -> Entry:
    """Make the entry that follows.

    Parameters
    ----------
    previous
        Hash of the entry before.
    number, at, event
        As in `Entry`.
    detail
        Text, integers and None by name.
    """
    text = json.dumps(detail, sort_keys=True, separators=(",", ":"))
    digest = digest_of(at, event, text)
    return Entry(number, at, event, text, digest, hash_of(previous, number, digest))


def digest_of(at: int, event: str, detail: str) -> bytes:
    """Digest what an entry says, 32 bytes."""
    return hashlib.sha256(encode("medlocker/audit-entry/v1", at, event, detail)).digest()


def hash_of(previous: bytes, number: int, digest: bytes) -> bytes:
    """Hash an entry's place, 32 bytes."""
    return hashlib.sha256(encode("medlocker/audit-link/v1", previous, number, digest)).digest()


def follow(entries: Iterable[Entry]) -> Iterable[Entry]:
    """Pass entries on, in the order of their numbers, as far as they follow each other.

    Raises
    ------
    VaultDamagedError
        One was removed, altered or moved; it is named.
    """
    previous = START
    for number, entry in enumerate(entries, 1):
        if entry.number != number:
            raise VaultDamagedError(f"entry {number} of the audit chain is missing", RESTORE)
        if digest_of(entry.at, entry.event, entry.detail) != entry.digest:
            raise VaultDamagedError(f"{entry} of the audit chain was altered", RESTORE)
        if hash_of(previous, number, entry.digest) != entry.hash:
            raise VaultDamagedError(
                f"{entry} of the audit chain is not in its place",
                RESTORE,
            )
        previous = entry.hash
        yield entry


def checkpoint_message(length: int, head: bytes) -> bytes:
    """Give the bytes that an issuer signs of a chain."""
    return encode("medlocker/audit-head/v1", length, head)


def sign_checkpoint(issuer: Identity, length: int, head: bytes) -> bytes:
    """Sign a chain's length and last hash: Ed25519, 64 bytes."""
    return issuer.sign(checkpoint_message(length, head))


def check_checkpoint(verify_key: bytes, length: int, head: bytes, signature: bytes) -> None:
    """Verify a checkpoint.

    Raises
    ------
    SignatureError
        It is not the issuer's.
    """
    message = checkpoint_message(length, head)
    check_signature(verify_key, message, signature, f"checkpoint at entry {length}")
