"""A succession: one issuer hands over to the next, and both say so.

Objects name the issuer that locked them for ever, so whoever follows it has
to show that it does. Both sign: the old one alone could name a victim as its
successor, the new one alone could claim any predecessor.
"""

import hashlib
from dataclasses import dataclass, replace
from datetime import datetime
from itertools import pairwise
from typing import Final

from medlocker_dicom.errors import IdentityError, KeyFileError, SignatureError
from medlocker_dicom.keyfile import caps, moments
from medlocker_dicom.keyfile.canonical import Fields, Record, text_of
from medlocker_dicom.keyfile.encoding import encode
from medlocker_dicom.keyfile.identity import Identity
from medlocker_dicom.keyfile.public import PublicIdentity, parse_line
from medlocker_dicom.keyfile.signing import SIGNATURE_BYTES, check_signature

SUCCESSION_MEMBERS: Final = frozenset({"old", "new", "since", "old_signature", "new_signature"})

#: Most values in the members of a lineage; commas in the names of issuers count as well.
LINEAGE_VALUES: Final = (caps.MAX_SUCCESSIONS + 1) * (
    len(SUCCESSION_MEMBERS) + 1 + 2 * caps.MAX_NAME_CHARS
)


@dataclass(frozen=True, repr=False)
class Succession:
    """The statement of two issuers that one follows the other.

    Parameters
    ----------
    old, new
        The issuers.
    since
        When, in whole seconds of UTC.
    old_signature, new_signature
        Ed25519 of each over all of the above, 64 bytes.

    Raises
    ------
    KeyFileError
        A signature has the wrong length, the moment is unusable, or both are one.
    """

    old: PublicIdentity
    new: PublicIdentity
    since: datetime
    old_signature: bytes = bytes(SIGNATURE_BYTES)
    new_signature: bytes = bytes(SIGNATURE_BYTES)

    def __post_init__(self) -> None:
        """Check what the class promises."""
        if {len(self.old_signature), len(self.new_signature)} != {SIGNATURE_BYTES}:
            raise KeyFileError("a signature of the succession has the wrong length")
        if not moments.is_whole(self.since):
            raise KeyFileError("the moment of the succession is unusable")
        if self.old.verify_key == self.new.verify_key:
            raise KeyFileError("an issuer cannot succeed itself")

    @property
    def message(self) -> bytes:
        """The bytes that both sign."""
        since = moments.seconds(self.since)
        return encode("medlocker/succession/v1", self.old.line, self.new.line, since)

    @property
    def digest(self) -> bytes:
        """SHA-256 of message and signatures, 32 bytes: how it is signed as a part of a file."""
        return hashlib.sha256(self.message + self.old_signature + self.new_signature).digest()

    def verify(self) -> None:
        """Check both signatures.

        Raises
        ------
        SignatureError
            One does not verify.
        """
        for issuer, signature in (
            (self.old, self.old_signature),
            (self.new, self.new_signature),
        ):
            what = f"succession from {self.old.fingerprint} to {self.new.fingerprint}"
            check_signature(issuer.verify_key, self.message, signature, what)

    def __repr__(self) -> str:
        """Show who follows whom."""
        return f"<Succession from {self.old.fingerprint} to {self.new.fingerprint}>"


def hand_over(old: Identity, new: Identity, since: datetime) -> Succession:
    """Let both issuers sign that one follows the other.

    Raises
    ------
    KeyFileError
        They are one.
    ValueError
        The moment has no time zone.
    """
    draft = Succession(old.public, new.public, moments.whole_seconds(since))
    return replace(
        draft, old_signature=old.sign(draft.message), new_signature=new.sign(draft.message)
    )


@dataclass(frozen=True, repr=False)
class Lineage:
    """An issuer with those whom it succeeded.

    Parameters
    ----------
    issuer
        The present one.
    successions
        From the first to the present, each beginning where the one before ends.

    Raises
    ------
    KeyFileError
        They do not lead to the issuer one after the other, or are too many.
    """

    issuer: PublicIdentity
    successions: tuple[Succession, ...] = ()

    def __post_init__(self) -> None:
        """Check what the class promises."""
        if len(self.successions) > caps.MAX_SUCCESSIONS:
            raise KeyFileError(f"{len(self.successions)} successions, more than allowed")
        breaks = [one.new != next_.old for one, next_ in pairwise(self.successions)]
        if any(breaks) or (self.successions and self.successions[-1].new != self.issuer):
            raise KeyFileError("the successions do not lead to the issuer")
        if len(set(self.verify_keys)) != len(self.verify_keys):
            raise KeyFileError("an issuer returns in the successions")

    @property
    def verify_keys(self) -> tuple[bytes, ...]:
        """Ed25519 public keys, 32 bytes each, from the first issuer to the present."""
        return (*(one.old.verify_key for one in self.successions), self.issuer.verify_key)

    @property
    def parts(self) -> tuple[str | int | bytes, ...]:
        """What a file that names its issuer signs of it: line, number of successions, digests."""
        digests = (one.digest for one in self.successions)
        return (self.issuer.line, len(self.successions), *digests)

    def verify(self) -> None:
        """Check every succession's signatures.

        Raises
        ------
        SignatureError
            One does not verify.
        """
        for one in self.successions:
            one.verify()

    def check_present(self, issuer: PublicIdentity) -> None:
        """Check that an issuer is the present one: it cannot sign for another.

        Raises
        ------
        ValueError
            It is not.
        """
        if self.issuer.verify_key != issuer.verify_key:
            raise ValueError("the lineage is not the issuer's")

    def check_includes(self, verify_key: bytes) -> None:
        """Check that an issuer is the present one or one that it succeeded.

        Raises
        ------
        SignatureError
            It is neither.
        """
        if verify_key not in self.verify_keys:
            raise SignatureError(
                f"{self.issuer.fingerprint} neither is the issuer nor succeeds it",
                "check with the owner which issuer it should be",
            )

    def followed_by(self, new: Identity, old: Identity, since: datetime) -> "Lineage":
        """Give the lineage of the next issuer.

        Raises
        ------
        KeyFileError
            `old` is not the present issuer, `new` was one before, or there are too many.
        """
        if old.public != self.issuer:
            raise KeyFileError(f"{old.public.fingerprint} is not the present issuer")
        return Lineage(new.public, (*self.successions, hand_over(old, new, since)))

    def __repr__(self) -> str:
        """Show the issuer."""
        return f"<Lineage of {self.issuer.fingerprint}, {len(self.successions)} before>"


def lineage_record(lineage: Lineage) -> Record:
    """Give the two members by which a file names its issuer."""
    return {
        "issuer": lineage.issuer.line,
        "successions": [succession_record(one) for one in lineage.successions],
    }


def succession_record(one: Succession) -> Record:
    """Give the members of a succession."""
    return {
        "old": one.old.line,
        "new": one.new.line,
        "since": moments.text_of(one.since),
        "old_signature": text_of(one.old_signature),
        "new_signature": text_of(one.new_signature),
    }


def read_lineage(fields: Fields, where: str) -> Lineage:
    """Read what `lineage_record` gives.

    Raises
    ------
    KeyFileError
        It is malformed.
    """
    successions = fields.list("successions", caps.MAX_SUCCESSIONS)
    return Lineage(
        read_public(fields, "issuer", where),
        tuple(read_succession(one, f"succession of {where}") for one in successions),
    )


def read_succession(record: object, where: str) -> Succession:
    """Read what `succession_record` gives; its signatures are verified with the lineage.

    Raises
    ------
    KeyFileError
        It is malformed.
    """
    fields = Fields(record, SUCCESSION_MEMBERS, KeyFileError, where)
    return Succession(
        read_public(fields, "old", where),
        read_public(fields, "new", where),
        fields.moment("since"),
        fields.data("old_signature", SIGNATURE_BYTES),
        fields.data("new_signature", SIGNATURE_BYTES),
    )


def read_public(fields: Fields, name: str, where: str) -> PublicIdentity:
    """Read a member that is a public key line.

    Raises
    ------
    KeyFileError
        It is none.
    """
    try:
        return parse_line(fields.text(name, caps.MAX_PUBLIC_BYTES))
    except IdentityError as error:
        raise KeyFileError(f"{name} of {where}: {error}") from None
