"""The receipt: a recipient's signed word on what was unlocked and what was refused.

The owner may ask for it; nobody can make a recipient write one.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Final

from medlocker_dicom.errors import KeyFileError, UIDError
from medlocker_dicom.keyfile import canonical, caps, moments
from medlocker_dicom.keyfile.binding import check_uid
from medlocker_dicom.keyfile.canonical import Fields, Record, text_of
from medlocker_dicom.keyfile.encoding import encode
from medlocker_dicom.keyfile.grant import GRANT_ID_BYTES
from medlocker_dicom.keyfile.identity import Identity
from medlocker_dicom.keyfile.public import PublicIdentity
from medlocker_dicom.keyfile.signing import SIGNATURE_BYTES, check_signature
from medlocker_dicom.keyfile.succession import read_public

FORMAT: Final = "medlocker receipt"
VERSION: Final = 1
UNLOCKED: Final = "unlocked"
RECEIPT_MEMBERS: Final = frozenset({"format", "version", "recipient", "entries", "signature"})
ENTRY_MEMBERS: Final = frozenset({"locked_uid", "grant_id", "at", "outcome"})
_OUTCOME = re.compile(r"unlocked|[A-Z][A-Za-z]{0,38}Error")
_MAX_OUTCOME: Final = 44


@dataclass(frozen=True)
class ReceiptEntry:
    """What became of one object.

    Parameters
    ----------
    locked_uid
        SOP Instance UID of the locked object.
    grant_id
        Of the grant that opened it, 16 bytes; None where none did.
    at
        When, in whole seconds of UTC.
    outcome
        ``unlocked``, or the name of the error.

    Raises
    ------
    KeyFileError
        A field is unusable, or an unlocked object names no grant.
    """

    locked_uid: str
    grant_id: bytes | None
    at: datetime
    outcome: str

    def __post_init__(self) -> None:
        """Check what the class promises."""
        try:
            check_uid(self.locked_uid, "locked")
        except UIDError as error:
            raise KeyFileError(str(error)) from None
        if not moments.is_whole(self.at) or not _OUTCOME.fullmatch(self.outcome):
            raise KeyFileError(f"the receipt's entry for {self.locked_uid} is unusable")
        size = None if self.grant_id is None else len(self.grant_id)
        if size != (GRANT_ID_BYTES if self.outcome == UNLOCKED else None):
            raise KeyFileError(f"the receipt's entry for {self.locked_uid} names no grant, or one")

    @property
    def parts(self) -> tuple[str | bytes | int | None, ...]:
        """What is signed of it."""
        return (self.locked_uid, self.grant_id, moments.seconds(self.at), self.outcome)


@dataclass(frozen=True, repr=False)
class Receipt:
    """Entries that a recipient has signed.

    Parameters
    ----------
    recipient
        Who.
    entries
        In the order in which things happened.
    signature
        Ed25519 over all of the above, 64 bytes.

    Raises
    ------
    KeyFileError
        Too many entries, or the signature has the wrong length.
    """

    recipient: PublicIdentity
    entries: tuple[ReceiptEntry, ...]
    signature: bytes = bytes(SIGNATURE_BYTES)

    def __post_init__(self) -> None:
        """Check what the class promises."""
        if len(self.signature) != SIGNATURE_BYTES:
            raise KeyFileError("the signature of the receipt has the wrong length")
        if len(self.entries) > caps.MAX_RECEIPT_ENTRIES:
            raise KeyFileError(f"{len(self.entries)} entries in the receipt, more than allowed")

    @property
    def message(self) -> bytes:
        """The bytes that the recipient signs."""
        parts = (part for entry in self.entries for part in entry.parts)
        return encode("medlocker/receipt/v1", self.recipient.line, *parts)

    def __repr__(self) -> str:
        """Show recipient and the number of entries."""
        return f"<Receipt of {self.recipient.fingerprint}, {len(self.entries)} entries>"


def sign_receipt(recipient: Identity, entries: Iterable[ReceiptEntry]) -> Receipt:
    """Make and sign a receipt.

    Raises
    ------
    KeyFileError
        Too many entries.
    """
    draft = Receipt(recipient.public, tuple(entries))
    return replace(draft, signature=recipient.sign(draft.message))


def dump_receipt(receipt: Receipt) -> bytes:
    """Give the content of a receipt: canonical JSON."""
    return canonical.dumps(
        {
            "format": FORMAT,
            "version": VERSION,
            "recipient": receipt.recipient.line,
            "entries": [_entry_record(entry) for entry in receipt.entries],
            "signature": text_of(receipt.signature),
        }
    )


def load_receipt(data: bytes) -> Receipt:
    """Parse the content of a receipt and verify its signature.

    Raises
    ------
    KeyFileError
        Too large, malformed, or not canonical.
    SignatureError
        Not signed by the recipient that it names.
    """
    receipt = parse_receipt(data)
    check_signature(receipt.recipient.verify_key, receipt.message, receipt.signature, "receipt")
    return receipt


def parse_receipt(data: bytes) -> Receipt:
    """Parse the content of a receipt without verifying its signature.

    Raises
    ------
    KeyFileError
        Too large, malformed, or not canonical.
    """
    record = canonical.loads(
        data,
        KeyFileError,
        max_bytes=caps.MAX_RECEIPT_BYTES,
        max_values=(caps.MAX_RECEIPT_ENTRIES + 2) * (len(ENTRY_MEMBERS) + 1) + caps.MAX_NAME_CHARS,
    )
    fields = Fields(record, RECEIPT_MEMBERS, KeyFileError, "receipt")
    fields.constant("format", FORMAT)
    fields.constant("version", VERSION)
    receipt = Receipt(
        read_public(fields, "recipient", "receipt"),
        tuple(_read_entry(one) for one in fields.list("entries", caps.MAX_RECEIPT_ENTRIES)),
        fields.data("signature", SIGNATURE_BYTES),
    )
    if dump_receipt(receipt) != data:
        raise KeyFileError("receipt is not canonical JSON", "ask the recipient for it again")
    return receipt


def _entry_record(entry: ReceiptEntry) -> Record:
    return {
        "locked_uid": entry.locked_uid,
        "grant_id": None if entry.grant_id is None else text_of(entry.grant_id),
        "at": moments.text_of(entry.at),
        "outcome": entry.outcome,
    }


def _read_entry(record: object) -> ReceiptEntry:
    fields = Fields(record, ENTRY_MEMBERS, KeyFileError, "entry of receipt")
    return ReceiptEntry(
        fields.text("locked_uid", caps.MAX_UID_CHARS),
        None if fields.raw("grant_id") is None else fields.data("grant_id", GRANT_ID_BYTES),
        fields.moment("at"),
        fields.text("outcome", _MAX_OUTCOME),
    )
