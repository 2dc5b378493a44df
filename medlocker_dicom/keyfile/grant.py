"""A grant: the DEK of one locked object, sealed to one recipient.

The DEK is sealed with HPKE (RFC 9180, base mode), which authenticates no
sender; the issuer's Ed25519 signature over everything else does, and is
verified before anything is opened.
"""

import hashlib
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Final, Protocol

from medlocker_dicom.errors import (
    GrantExpiredError,
    KeyFileError,
    NoGrantError,
    UIDError,
)
from medlocker_dicom.keyfile import kem, moments
from medlocker_dicom.keyfile.binding import check_uid
from medlocker_dicom.keyfile.encoding import encode
from medlocker_dicom.keyfile.identity import Identity
from medlocker_dicom.keyfile.kem import Kem
from medlocker_dicom.keyfile.public import PublicIdentity, fingerprint_of
from medlocker_dicom.keyfile.signing import SIGNATURE_BYTES, check_signature

DEK_BYTES: Final = 32
DIGEST_BYTES: Final = 32
GRANT_ID_BYTES: Final = 16
SEALED_SIZES: Final = tuple(kind.sealed_bytes for kind in Kem)


class Bound(Protocol):
    """What a grant is for: a `Binding`, or what a store keeps of one."""

    @property
    def locked_uid(self) -> str:
        """SOP Instance UID of the locked object."""
        ...

    @property
    def digest(self) -> bytes:
        """Digest of its `Binding`, 32 bytes."""
        ...


@dataclass(frozen=True, repr=False)
class Grant:
    """A sealed DEK and the issuer's signature.

    Parameters
    ----------
    locked_uid
        SOP Instance UID of the locked object.
    binding
        Digest of the object's `Binding`, 32 bytes.
    recipient
        Id of the recipient (`PublicIdentity.id`), 32 bytes.
    grant_id
        16 bytes chosen by the issuer, for status lists and audit.
    expires
        First moment at which the grant no longer opens, in whole seconds of
        UTC; None where it always does.
    sealed
        HPKE encapsulation and ciphertext, 80 or 1168 bytes.
    signature
        Ed25519 over all of the above and the issuer's key, 64 bytes.

    Raises
    ------
    KeyFileError
        A field has the wrong length, a bad UID, or an expiry that is not in
        whole seconds of UTC.
    """

    locked_uid: str
    binding: bytes
    recipient: bytes
    grant_id: bytes
    expires: datetime | None
    sealed: bytes
    signature: bytes

    def __post_init__(self) -> None:
        """Check what the class promises."""
        try:
            check_uid(self.locked_uid, "locked")
        except UIDError as error:
            raise KeyFileError(str(error)) from None
        sizes = (
            len(self.binding) == DIGEST_BYTES,
            len(self.recipient) == DIGEST_BYTES,
            len(self.grant_id) == GRANT_ID_BYTES,
            len(self.sealed) in SEALED_SIZES,
            len(self.signature) == SIGNATURE_BYTES,
        )
        if not all(sizes):
            raise KeyFileError(f"a field of the grant for {self.locked_uid} has the wrong length")
        if self.expires is not None and not moments.is_whole(self.expires):
            raise KeyFileError(f"expiry of the grant for {self.locked_uid} is unusable")

    @property
    def sealed_digest(self) -> bytes:
        """SHA-256 of what is sealed and what it is sealed with, 32 bytes; of any signature."""
        return hashlib.sha256(self.info + self.sealed).digest()

    def message(self, issuer_public_key: bytes) -> bytes:
        """Give the bytes that the issuer signs: all fields but the signature."""
        return encode(
            "medlocker/grant/v1",
            issuer_public_key,
            self.locked_uid,
            self.binding,
            self.recipient,
            self.grant_id,
            self._seconds,
            self.sealed,
        )

    def verify(self, issuer_public_key: bytes) -> None:
        """Check the signature.

        Raises
        ------
        SignatureError
            Not signed by this issuer.
        """
        message = self.message(issuer_public_key)
        check_signature(issuer_public_key, message, self.signature, f"grant for {self.locked_uid}")

    @property
    def info(self) -> bytes:
        """What the DEK is sealed with beside the recipient's key (RFC 9180 section 8.1)."""
        return encode(
            "medlocker/grant-info/v1", self.binding, self.recipient, self.grant_id, self._seconds
        )

    @property
    def _seconds(self) -> int | None:
        """Whole seconds from 1970 to the expiry."""
        return None if self.expires is None else moments.seconds(self.expires)

    def __repr__(self) -> str:
        """Show what the grant is for."""
        return f"<Grant {self.locked_uid} to {fingerprint_of(self.recipient)}>"


def issue_grant(  # noqa: PLR0913 - the design's list; the last two are named at the call
    dek: bytes,
    binding: Bound,
    recipient: PublicIdentity,
    issuer: Identity,
    *,
    expires: datetime | None,
    grant_id: bytes,
) -> Grant:
    """Seal a DEK to a recipient and sign the grant.

    Parameters
    ----------
    dek
        The data encryption key of the locked object, 32 bytes.
    binding
        Of the locked object.
    recipient
        Who may open it.
    issuer
        Who signs: the one that locked it, or a custodian that issues again.
    expires
        First moment at which it no longer opens, with a time zone; fractions
        of a second are cut off. None for no end.
    grant_id
        16 bytes, unique for each grant.

    Returns
    -------
    Grant
        Signed by the issuer.

    Raises
    ------
    ValueError
        The DEK does not have 32 bytes, or `expires` has no time zone.
    KeyFileError
        The grant id does not have 16 bytes, or `expires` is before 1970.
    """
    if len(dek) != DEK_BYTES:
        raise ValueError(f"a DEK has {DEK_BYTES} bytes, not {len(dek)}")
    moment = None if expires is None else moments.whole_seconds(expires)
    draft = Grant(
        binding.locked_uid,
        binding.digest,
        recipient.id,
        grant_id,
        moment,
        bytes(recipient.kem.sealed_bytes),
        bytes(SIGNATURE_BYTES),
    )
    sealed = kem.seal(recipient.kem, recipient.hpke_key, dek, draft.info)
    return sign_grant(replace(draft, sealed=sealed), issuer)


def sign_grant(grant: Grant, issuer: Identity) -> Grant:
    """Put an issuer's signature in place of the one that a grant has, if any.

    What is sealed stays: it does not depend on the issuer. Verify the one before.
    """
    return replace(grant, signature=issuer.sign(grant.message(issuer.public.verify_key)))


def open_grant(
    grant: Grant,
    binding: Bound,
    identity: Identity,
    issuer_public_key: bytes,
    now: datetime,
) -> bytes:
    """Verify a grant and open the DEK in it.

    The signature comes first: nothing of an unsigned grant is used. Then
    object, recipient and expiry, which the signature covers, and only then
    the private key.

    Parameters
    ----------
    grant
        The grant.
    binding
        Of the locked object at hand, computed from that object.
    identity
        The recipient.
    issuer_public_key
        Ed25519 public key, 32 bytes, that the caller trusts to grant access;
        a key that only the key file itself names is no proof of anything.
    now
        The time, with a time zone.

    Returns
    -------
    bytes
        The DEK, 32 bytes.

    Raises
    ------
    SignatureError
        Not signed by the issuer.
    NoGrantError
        Signed, but for another object, for an object that was changed since,
        or for another identity.
    GrantExpiredError
        Signed and matching, but its time is over.
    """
    grant.verify(issuer_public_key)
    _check_addressee(grant, binding, identity)
    if grant.expires is not None and now >= grant.expires:
        raise GrantExpiredError(
            f"grant for {grant.locked_uid} expired at {moments.text_of(grant.expires)}",
            "ask the issuer for a new grant",
        )
    dek = identity.unseal(grant.sealed, grant.info)
    if dek is None or len(dek) != DEK_BYTES:
        raise NoGrantError(
            f"grant for {grant.locked_uid} is signed, but its key does not open",
            "the issuer sealed it wrongly; ask for a new grant",
        )
    return dek


def _check_addressee(grant: Grant, binding: Bound, identity: Identity) -> None:
    if grant.locked_uid != binding.locked_uid:
        raise NoGrantError(f"grant is for {grant.locked_uid}, not for {binding.locked_uid}")
    if grant.binding != binding.digest:
        raise NoGrantError(
            f"grant for {grant.locked_uid} was issued for another state of that object",
            "pixels or header were changed after locking; use the object as it was sent",
        )
    if grant.recipient != identity.public.id:
        raise NoGrantError(
            f"grant for {grant.locked_uid} is for {fingerprint_of(grant.recipient)}, "
            f"not for {identity.public.fingerprint}",
            "use the identity whose public key the issuer was given",
        )
