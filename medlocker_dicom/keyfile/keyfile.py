"""The key file (.mlkey): what a recipient gets, signed as a whole.

Canonical JSON: the issuer, the recipient's id, and the grants in the order of
their locked UIDs. The signature over all of it shows a grant that was taken
out, or a recipient that was swapped.
"""

import hashlib
from bisect import bisect_left
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import pairwise
from operator import attrgetter

from medlocker_dicom.errors import IdentityError, KeyFileError, NoGrantError
from medlocker_dicom.keyfile import canonical, caps
from medlocker_dicom.keyfile.canonical import Fields, text_of
from medlocker_dicom.keyfile.encoding import encode
from medlocker_dicom.keyfile.grant import DIGEST_BYTES, Grant
from medlocker_dicom.keyfile.grant_text import GRANT_MEMBERS, grant_record, read_grant
from medlocker_dicom.keyfile.identity import Identity
from medlocker_dicom.keyfile.public import PublicIdentity, fingerprint_of, parse_line
from medlocker_dicom.keyfile.signing import SIGNATURE_BYTES, check_signature

FORMAT = "medlocker key file"
VERSION = 1
_MEMBERS = frozenset({"format", "version", "issuer", "recipient", "grants", "signature"})


@dataclass(frozen=True, repr=False)
class KeyFile:
    """The grants of one issuer for one recipient.

    Parameters
    ----------
    issuer
        Who signed the grants and the file.
    recipient
        Id of the recipient, 32 bytes.
    grants
        For this recipient, ascending by locked UID, one for each.
    signature
        Ed25519 over all of the above, 64 bytes.

    Raises
    ------
    KeyFileError
        Too many grants, out of order, twice for one UID, or for another
        recipient; or a field of the wrong length.
    """

    issuer: PublicIdentity
    recipient: bytes
    grants: tuple[Grant, ...]
    signature: bytes

    def __post_init__(self) -> None:
        """Check what the class promises."""
        if len(self.recipient) != DIGEST_BYTES or len(self.signature) != SIGNATURE_BYTES:
            raise KeyFileError("a field of the key file has the wrong length")
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
    def message(self) -> bytes:
        """The bytes that the issuer signs: all fields, each grant by its digest."""
        key = self.issuer.verify_key
        digests = (
            hashlib.sha256(grant.message(key) + grant.signature).digest() for grant in self.grants
        )
        return encode("medlocker/keyfile/v1", self.issuer.line, self.recipient, *digests)

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


def sign_keyfile(issuer: Identity, recipient: PublicIdentity, grants: Iterable[Grant]) -> KeyFile:
    """Put grants of one issuer for one recipient into a signed key file.

    Parameters
    ----------
    issuer
        Who signed the grants.
    recipient
        Whom all of them are for.
    grants
        In any order, one for each locked object.

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
    """
    ordered = tuple(sorted(grants, key=attrgetter("locked_uid")))
    for grant in ordered:
        grant.verify(issuer.public.verify_key)
    unsigned = KeyFile(issuer.public, recipient.id, ordered, bytes(SIGNATURE_BYTES))
    return KeyFile(issuer.public, recipient.id, ordered, issuer.sign(unsigned.message))


def dump_keyfile(keyfile: KeyFile) -> bytes:
    """Give the content of a key file: canonical JSON."""
    return canonical.dumps(
        {
            "format": FORMAT,
            "version": VERSION,
            "issuer": keyfile.issuer.line,
            "recipient": text_of(keyfile.recipient),
            "grants": [grant_record(grant) for grant in keyfile.grants],
            "signature": text_of(keyfile.signature),
        }
    )


def load_keyfile(data: bytes) -> KeyFile:
    """Parse the content of a key file and verify the signature over it.

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
        max_values=(caps.MAX_GRANTS + 2) * (len(GRANT_MEMBERS) + 1) + caps.MAX_NAME_CHARS,
    )
    fields = Fields(record, _MEMBERS, KeyFileError, "key file")
    fields.constant("format", FORMAT)
    fields.constant("version", VERSION)
    try:
        issuer = parse_line(fields.text("issuer", caps.MAX_PUBLIC_BYTES))
    except IdentityError as error:
        raise KeyFileError(f"issuer of key file: {error}") from None
    keyfile = KeyFile(
        issuer,
        fields.data("recipient", DIGEST_BYTES),
        tuple(read_grant(grant) for grant in fields.list("grants", caps.MAX_GRANTS)),
        fields.data("signature", SIGNATURE_BYTES),
    )
    if dump_keyfile(keyfile) != data:
        raise KeyFileError("key file is not canonical JSON", "ask the issuer for it again")
    return keyfile
