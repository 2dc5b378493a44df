"""The key file (.mlkey): what a recipient gets, signed as a whole.

Canonical JSON: the issuer with those whom it succeeded, the recipient's id, and
the grants in the order of their locked UIDs. The signature over all of it shows
a grant that was taken out, or a recipient that was swapped.
"""

import hashlib
from bisect import bisect_left
from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import datetime
from itertools import pairwise
from operator import attrgetter
from typing import Final

from medlocker_dicom.errors import KeyFileError, NoGrantError
from medlocker_dicom.keyfile import canonical, caps, moments
from medlocker_dicom.keyfile.canonical import Fields, text_of
from medlocker_dicom.keyfile.encoding import encode
from medlocker_dicom.keyfile.grant import DIGEST_BYTES, Grant
from medlocker_dicom.keyfile.grant_text import GRANT_MEMBERS, grant_record, read_grant
from medlocker_dicom.keyfile.identity import Identity
from medlocker_dicom.keyfile.public import PublicIdentity, fingerprint_of
from medlocker_dicom.keyfile.signing import SIGNATURE_BYTES, check_signature
from medlocker_dicom.keyfile.succession import (
    LINEAGE_VALUES,
    Lineage,
    lineage_record,
    read_lineage,
)

FORMAT = "medlocker key file"
VERSION = 1
KEYFILE_MEMBERS: Final = frozenset(
    {
        "format",
        "version",
        "issuer",
        "successions",
        "issued",
        "recipient",
        "grants",
        "signature",
    }
)
_MAX_VALUES: Final = (caps.MAX_GRANTS + 2) * (len(GRANT_MEMBERS) + 1) + LINEAGE_VALUES


@dataclass(frozen=True, repr=False)
class KeyFile:
    """The grants of one issuer for one recipient.

    Parameters
    ----------
    lineage
        Who signed the grants and the file, with those whom it succeeded.
    recipient
        Id of the recipient, 32 bytes.
    issued
        When the file was signed, in whole seconds of UTC.
    grants
        For this recipient, ascending by locked UID, one for each.
    signature
        Ed25519 over all of the above, 64 bytes.

    Raises
    ------
    KeyFileError
        Too many grants, out of order, twice for one UID, or for another
        recipient; or a field of the wrong length, or an unusable moment.
    """

    lineage: Lineage
    recipient: bytes
    issued: datetime
    grants: tuple[Grant, ...]
    signature: bytes

    def __post_init__(self) -> None:
        """Check what the class promises."""
        if len(self.recipient) != DIGEST_BYTES or len(self.signature) != SIGNATURE_BYTES:
            raise KeyFileError("a field of the key file has the wrong length")
        if not moments.is_whole(self.issued):
            raise KeyFileError("the moment at which the key file was issued is unusable")
        if len(self.grants) > caps.MAX_GRANTS:
            raise KeyFileError(
                f"{len(self.grants)} grants, more than the {caps.MAX_GRANTS} allowed"
            )
        for grant in self.grants:
            if grant.recipient != self.recipient:
                raise KeyFileError(f"grant for {grant.locked_uid} is for another recipient")
        for one, other in pairwise(self.grants):
            if one.locked_uid >= other.locked_uid:
                raise KeyFileError(f"grant for {other.locked_uid} is there twice or out of order")

    @property
    def issuer(self) -> PublicIdentity:
        """Who signed the grants and the file."""
        return self.lineage.issuer

    @property
    def message(self) -> bytes:
        """The bytes that the issuer signs: all fields, each grant by its digest."""
        key = self.issuer.verify_key
        digests = (
            hashlib.sha256(grant.message(key) + grant.signature).digest() for grant in self.grants
        )
        return encode(
            "medlocker/keyfile/v1",
            *self.lineage.parts,
            self.recipient,
            moments.seconds(self.issued),
            *digests,
        )

    def grant_for(self, locked_uid: str) -> Grant:
        """Give the grant for a locked object.

        Raises
        ------
        NoGrantError
            There is none.
        """
        at = bisect_left(self.grants, locked_uid, key=attrgetter("locked_uid"))
        if at == len(self.grants) or self.grants[at].locked_uid != locked_uid:
            raise NoGrantError(
                f"key file has no grant for {locked_uid}",
                f"ask {self.issuer.name or self.issuer.fingerprint} for one",
            )
        return self.grants[at]

    def __repr__(self) -> str:
        """Show issuer, recipient and the number of grants."""
        to = fingerprint_of(self.recipient)
        return f"<KeyFile from {self.issuer.fingerprint} to {to}, {len(self.grants)} grants>"


def sign_keyfile(
    issuer: Identity,
    recipient: PublicIdentity,
    grants: Iterable[Grant],
    issued: datetime,
    lineage: Lineage | None = None,
) -> KeyFile:
    """Put grants of one issuer for one recipient into a signed key file.

    Parameters
    ----------
    issuer
        Who signed the grants.
    recipient
        Whom all of them are for.
    grants
        In any order, one for each locked object.
    issued
        The time, with a time zone.
    lineage
        Of the issuer; None where it succeeded nobody.

    Returns
    -------
    KeyFile
        Sorted and signed.

    Raises
    ------
    KeyFileError
        Two grants for one object, one for another recipient, or too many.
    SignatureError
        A grant that this issuer did not sign.
    ValueError
        The lineage is another's, or the time has no time zone.
    """
    lineage = lineage or Lineage(issuer.public)
    lineage.check_present(issuer.public)
    ordered = tuple(sorted(grants, key=attrgetter("locked_uid")))
    for grant in ordered:
        grant.verify(issuer.public.verify_key)
    moment = moments.whole_seconds(issued)
    unsigned = KeyFile(lineage, recipient.id, moment, ordered, bytes(SIGNATURE_BYTES))
    return replace(unsigned, signature=issuer.sign(unsigned.message))


def dump_keyfile(keyfile: KeyFile) -> bytes:
    """Give the content of a key file: canonical JSON."""
    return canonical.dumps(
        {
            "format": FORMAT,
            "version": VERSION,
            **lineage_record(keyfile.lineage),
            "issued": moments.text_of(keyfile.issued),
            "recipient": text_of(keyfile.recipient),
            "grants": [grant_record(grant) for grant in keyfile.grants],
            "signature": text_of(keyfile.signature),
        }
    )


def load_keyfile(data: bytes) -> KeyFile:
    """Parse the content of a key file and verify the signatures over it and its successions.

    That it verifies says only that the issuer it names wrote it; whether that
    issuer is to be believed is for the caller to decide, by
    `KeyFile.issuer.verify_key`.

    Raises
    ------
    KeyFileError
        Too large, malformed, or not canonical.
    SignatureError
        Not signed by the issuer that it names.
    """
    keyfile = parse_keyfile(data)
    what = f"key file with {len(keyfile.grants)} grants"
    check_signature(keyfile.issuer.verify_key, keyfile.message, keyfile.signature, what)
    keyfile.lineage.verify()
    return keyfile


def parse_keyfile(data: bytes) -> KeyFile:
    """Parse the content of a key file without verifying its signature.

    Raises
    ------
    KeyFileError
        Too large, malformed, or not canonical.
    """
    record = canonical.loads(
        data,
        KeyFileError,
        max_bytes=caps.MAX_KEYFILE_BYTES,
        max_values=_MAX_VALUES,
    )
    fields = Fields(record, KEYFILE_MEMBERS, KeyFileError, "key file")
    fields.constant("format", FORMAT)
    fields.constant("version", VERSION)
    keyfile = KeyFile(
        read_lineage(fields, "key file"),
        fields.data("recipient", DIGEST_BYTES),
        fields.moment("issued"),
        tuple(read_grant(grant) for grant in fields.list("grants", caps.MAX_GRANTS)),
        fields.data("signature", SIGNATURE_BYTES),
    )
    if dump_keyfile(keyfile) != data:
        raise KeyFileError("key file is not canonical JSON", "ask the issuer for it again")
    return keyfile
