"""Recipients' receipts: what they say happened becomes part of the audit chain."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

from sqlalchemy import insert, select

from medlocker_dicom.errors import KeyFileError
from medlocker_dicom.keyfile import dump_receipt, fingerprint_of
from medlocker_dicom.keyfile.moments import text_of
from medlocker_dicom.keyfile.receipt import UNLOCKED
from medlocker_dicom.vault.schema import grants, instances, receipts, recipients

if TYPE_CHECKING:
    from medlocker_dicom.keyfile import Receipt
    from medlocker_dicom.vault.vault import Vault


def receive(vault: Vault, receipt: Receipt) -> tuple[int, int]:
    """Enter a verified receipt; one that was entered before is not entered again.

    What it tells of objects that the vault does not know, another owner's perhaps, is left out.

    Returns
    -------
    tuple
        How many entries are new, and how many were left out.

    Raises
    ------
    KeyFileError
        Its recipient is not in the vault, or it names a grant that was never issued to them.
    VaultError
        The database fails.
    """
    digest = hashlib.sha256(dump_receipt(receipt)).digest()
    own = receipt.recipient.id
    with vault.writing() as writing:
        connection = writing.connection
        if not connection.scalar(select(recipients.c.id).where(recipients.c.id == own)):
            raise KeyFileError(
                f"the receipt is of {receipt.recipient.fingerprint}, who is not in the vault"
            )
        if connection.scalar(select(receipts.c.digest).where(receipts.c.digest == digest)):
            return 0, 0
        query = select(grants.c.grant_id, grants.c.locked_uid).where(grants.c.recipient == own)
        issued = {row.grant_id: row.locked_uid for row in connection.execute(query)}
        known = set(connection.scalars(select(instances.c.locked_uid)))
        told = [entry for entry in receipt.entries if entry.locked_uid in known]
        for entry in told:
            if entry.grant_id is not None and issued.get(entry.grant_id) != entry.locked_uid:
                raise KeyFileError(
                    f"the receipt names a grant for {entry.locked_uid} that was never issued",
                    "ask the recipient for the receipt as it was written",
                )
            writing.note(
                "unlocked" if entry.outcome == UNLOCKED else "denied",
                locked_uid=entry.locked_uid,
                grant_id=entry.grant_id.hex() if entry.grant_id else None,
                recipient=fingerprint_of(own),
                said_at=text_of(entry.at),
                outcome=entry.outcome,
            )
        values = {"digest": digest, "recipient": own, "received": writing.now}
        connection.execute(insert(receipts), values)
    return len(told), len(receipt.entries) - len(told)
