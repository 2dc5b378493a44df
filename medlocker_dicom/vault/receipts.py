"""Recipients' receipts: what they say happened becomes part of the audit chain."""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING, Final

from sqlalchemy import insert, select

from medlocker_dicom.errors import KeyFileError, KeyRefusedError, LockedObjectError
from medlocker_dicom.keyfile import dump_receipt, fingerprint_of
from medlocker_dicom.keyfile.moments import text_of
from medlocker_dicom.keyfile.receipt import UNLOCKED
from medlocker_dicom.vault.schema import entries, grants, instances, receipts, recipients

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from medlocker_dicom.keyfile import Receipt
    from medlocker_dicom.vault.vault import Vault

#: What becomes of an object; another word is made up, or a later program's.
_OUTCOMES: Final = frozenset(
    [
        UNLOCKED,
        *(error.__name__ for error in KeyRefusedError.__subclasses__()),
        *(error.__name__ for error in LockedObjectError.__subclasses__()),
    ]
)


def receive(vault: Vault, receipt: Receipt) -> tuple[int, int]:
    """Enter a verified receipt: of each object and grant, each outcome once.

    A later receipt repeats an earlier one and adds to it, and recipients may write as many as
    they like: the first of each kind is entered, so that no recipient can fill the chain. What
    is told of objects that the vault does not know, another owner's perhaps, is left out, and so
    are outcomes that there are not.

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
        told = [
            entry
            for entry in receipt.entries
            if entry.locked_uid in known and entry.outcome in _OUTCOMES
        ]
        before = _told(connection, fingerprint_of(own))
        new = 0
        for entry in told:
            grant_id = entry.grant_id.hex() if entry.grant_id else None
            if entry.grant_id is not None and issued.get(entry.grant_id) != entry.locked_uid:
                raise KeyFileError(
                    f"the receipt names a grant for {entry.locked_uid} that was never issued",
                    "ask the recipient for the receipt as it was written",
                )
            said = (entry.locked_uid, grant_id, entry.outcome)
            if said in before:
                continue
            before.add(said)
            new += 1
            writing.note(
                "unlocked" if entry.outcome == UNLOCKED else "denied",
                locked_uid=entry.locked_uid,
                grant_id=grant_id,
                recipient=fingerprint_of(own),
                said_at=text_of(entry.at),
                outcome=entry.outcome,
            )
        values = {"digest": digest, "recipient": own, "received": writing.now}
        if new:
            connection.execute(insert(receipts), values)
    return new, len(receipt.entries) - len(told)


def _told(connection: Connection, fingerprint: str) -> set[tuple[str, str | None, str]]:
    """Read what a recipient's receipts have told: locked UID, grant id and outcome of each."""
    query = select(entries.c.detail).where(
        entries.c.event.in_(("unlocked", "denied")), entries.c.detail.contains(fingerprint)
    )
    details = (json.loads(text) for text in connection.scalars(query))
    return {(one.get("locked_uid"), one.get("grant_id"), one.get("outcome")) for one in details}
