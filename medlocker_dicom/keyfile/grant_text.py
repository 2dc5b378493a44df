"""A grant as canonical JSON, by itself or as a part of a key file."""

from datetime import datetime
from typing import Final

from medlocker_dicom.errors import KeyFileError
from medlocker_dicom.keyfile import canonical, caps, moments
from medlocker_dicom.keyfile.canonical import Fields, Record, text_of
from medlocker_dicom.keyfile.grant import DIGEST_BYTES, GRANT_ID_BYTES, SEALED_SIZES, Grant
from medlocker_dicom.keyfile.signing import SIGNATURE_BYTES

GRANT_MEMBERS: Final = frozenset(
    {"locked_uid", "binding", "recipient", "grant_id", "expires", "sealed", "signature"}
)


def dump_grant(grant: Grant) -> bytes:
    """Give one grant by itself as canonical JSON, for a store."""
    return canonical.dumps(grant_record(grant))


def load_grant(data: bytes) -> Grant:
    """Parse what `dump_grant` gives; its signature is verified when it is opened.

    Raises
    ------
    KeyFileError
        Too large, malformed, or not canonical.
    """
    record = canonical.loads(
        data,
        KeyFileError,
        max_bytes=caps.MAX_GRANT_BYTES,
        max_values=len(GRANT_MEMBERS) + 1,
    )
    grant = read_grant(record)
    if dump_grant(grant) != data:
        raise KeyFileError("grant is not canonical JSON")
    return grant


def grant_record(grant: Grant) -> Record:
    """Give the members of a grant, here and in a key file."""
    return {
        "locked_uid": grant.locked_uid,
        "binding": text_of(grant.binding),
        "recipient": text_of(grant.recipient),
        "grant_id": text_of(grant.grant_id),
        "expires": grant.expires and moments.text_of(grant.expires),
        "sealed": text_of(grant.sealed),
        "signature": text_of(grant.signature),
    }


def read_grant(record: object) -> Grant:
    """Read the members of a grant.

    Raises
    ------
    KeyFileError
        One is missing, unknown, or malformed.
    """
    fields = Fields(record, GRANT_MEMBERS, KeyFileError, "grant")
    return Grant(
        fields.text("locked_uid", caps.MAX_UID_CHARS),
        fields.data("binding", DIGEST_BYTES),
        fields.data("recipient", DIGEST_BYTES),
        fields.data("grant_id", GRANT_ID_BYTES),
        _read_time(fields),
        fields.data("sealed", *SEALED_SIZES),
        fields.data("signature", SIGNATURE_BYTES),
    )


def _read_time(fields: Fields) -> datetime | None:
    return None if fields.raw("expires") is None else fields.moment("expires")
