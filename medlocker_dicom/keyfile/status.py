"""The status list (.mlstatus): grants that their issuer has revoked.

It stops programs that obey it and grants that are exported later; a DEK that
was opened once cannot be called back.
"""

from bisect import bisect_left
from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import datetime
from itertools import pairwise
from typing import Final

from medlocker_dicom.errors import GrantRevokedError, KeyFileError
from medlocker_dicom.keyfile import canonical, caps, moments
from medlocker_dicom.keyfile.canonical import Fields, text_of
from medlocker_dicom.keyfile.encoding import encode
from medlocker_dicom.keyfile.grant import GRANT_ID_BYTES
from medlocker_dicom.keyfile.identity import Identity
from medlocker_dicom.keyfile.signing import SIGNATURE_BYTES, check_signature
from medlocker_dicom.keyfile.succession import (
    LINEAGE_VALUES,
    Lineage,
    lineage_record,
    read_lineage,
)

FORMAT: Final = "medlocker status list"
VERSION: Final = 1
STATUS_MEMBERS: Final = frozenset(
    {"format", "version", "issuer", "successions", "number", "issued", "revoked", "signature"}
)
_MAX_NUMBER: Final = 2**53 - 1  # what every JSON reader keeps exactly
_MAX_VALUES: Final = caps.MAX_REVOKED + len(STATUS_MEMBERS) + LINEAGE_VALUES


@dataclass(frozen=True, repr=False)
class StatusList:
    """The ids of all revoked grants of one issuer.

    Parameters
    ----------
    lineage
        Who signed it, with those whom it succeeded.
    number
        Greater than that of every earlier list of this issuer.
    issued
        When, in whole seconds of UTC.
    revoked
        Grant ids of 16 bytes, ascending.
    signature
        Ed25519 over all of the above, 64 bytes.

    Raises
    ------
    KeyFileError
        Too many ids, out of order or twice; a field of the wrong length or range.
    """

    lineage: Lineage
    number: int
    issued: datetime
    revoked: tuple[bytes, ...]
    signature: bytes = bytes(SIGNATURE_BYTES)

    def __post_init__(self) -> None:
        """Check what the class promises."""
        if len(self.signature) != SIGNATURE_BYTES or not moments.is_whole(self.issued):
            raise KeyFileError("a field of the status list is unusable")
        if not 0 <= self.number <= _MAX_NUMBER:
            raise KeyFileError("number of status list is out of range")
        if len(self.revoked) > caps.MAX_REVOKED:
            raise KeyFileError(f"{len(self.revoked)} revoked grants, more than allowed")
        if any(len(one) != GRANT_ID_BYTES for one in self.revoked):
            raise KeyFileError("a grant id in the status list has the wrong length")
        if any(one >= other for one, other in pairwise(self.revoked)):
            raise KeyFileError("a grant id in the status list is there twice or out of order")

    @property
    def message(self) -> bytes:
        """The bytes that the issuer signs."""
        return encode(
            "medlocker/status/v1",
            *self.lineage.parts,
            self.number,
            moments.seconds(self.issued),
            *self.revoked,
        )

    def check(self, grant_id: bytes) -> None:
        """Check that a grant is not revoked.

        Raises
        ------
        GrantRevokedError
            It is.
        """
        at = bisect_left(self.revoked, grant_id)
        if self.revoked[at : at + 1] == (grant_id,):
            raise GrantRevokedError(
                f"the grant was revoked by status list {self.number} "
                f"of {moments.text_of(self.issued)}",
                "ask the issuer why",
            )

    def __repr__(self) -> str:
        """Show issuer, number and how many are revoked."""
        return (
            f"<StatusList {self.number} of {self.lineage.issuer.fingerprint}, "
            f"{len(self.revoked)} revoked>"
        )


def sign_status(
    issuer: Identity, lineage: Lineage, number: int, revoked: Iterable[bytes], issued: datetime
) -> StatusList:
    """Make and sign a status list.

    Parameters
    ----------
    issuer, lineage
        Who signs it.
    number
        Greater than that of every earlier list.
    revoked
        Grant ids, in any order.
    issued
        The time, with a time zone.

    Raises
    ------
    KeyFileError
        Too many ids, one twice or of the wrong length, or the number is out of range.
    ValueError
        The lineage is another's, or the time has no time zone.
    """
    lineage.check_present(issuer.public)
    moment = moments.whole_seconds(issued)
    draft = StatusList(lineage, number, moment, tuple(sorted(revoked)))
    return replace(draft, signature=issuer.sign(draft.message))


def dump_status(status: StatusList) -> bytes:
    """Give the content of a status list: canonical JSON."""
    return canonical.dumps(
        {
            "format": FORMAT,
            "version": VERSION,
            **lineage_record(status.lineage),
            "number": status.number,
            "issued": moments.text_of(status.issued),
            "revoked": [text_of(one) for one in status.revoked],
            "signature": text_of(status.signature),
        }
    )


def load_status(data: bytes) -> StatusList:
    """Parse the content of a status list and verify the signatures over it.

    Whether its issuer is to be believed is for the caller to decide.

    Raises
    ------
    KeyFileError
        Too large, malformed, or not canonical.
    SignatureError
        Not signed by the issuer that it names, or a succession is not.
    """
    status = parse_status(data)
    key = status.lineage.issuer.verify_key
    check_signature(key, status.message, status.signature, "status list")
    status.lineage.verify()
    return status


def parse_status(data: bytes) -> StatusList:
    """Parse the content of a status list without verifying its signatures.

    Raises
    ------
    KeyFileError
        Too large, malformed, or not canonical.
    """
    record = canonical.loads(
        data, KeyFileError, max_bytes=caps.MAX_STATUS_BYTES, max_values=_MAX_VALUES
    )
    fields = Fields(record, STATUS_MEMBERS, KeyFileError, "status list")
    fields.constant("format", FORMAT)
    fields.constant("version", VERSION)
    status = StatusList(
        read_lineage(fields, "status list"),
        fields.integer("number", 0, _MAX_NUMBER),
        fields.moment("issued"),
        fields.data_list("revoked", caps.MAX_REVOKED, GRANT_ID_BYTES),
        fields.data("signature", SIGNATURE_BYTES),
    )
    if dump_status(status) != data:
        raise KeyFileError("status list is not canonical JSON", "ask the issuer for it again")
    return status
