"""Storage commitment in the queue's memory: what senders asked, what destinations promised."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import insert, select, update

from medlocker_dicom.errors import UsageError
from medlocker_dicom.node import ledger as queue
from medlocker_dicom.node.commitment_messages import (
    CONFLICT,
    NO_SUCH_INSTANCE,
    Failure,
    Reference,
    Report,
)
from medlocker_dicom.node.ledger import Sending, State
from medlocker_dicom.node.outcome import words_of
from medlocker_dicom.node.schema import deliveries, objects, promises

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sqlalchemy import Connection, Row

    from medlocker_dicom.node.ledger import Ledger

PROMISE: Final = "promise"
"""Workflow: answer a request; arguments are Transaction UID, calling AE title, try from 1."""
ANSWER_S: Final = 15.0
"""Seconds until an answer is tried on a new association: until then it may go on the old one."""
AGAIN_S: Final = 60.0
_AT_ONCE: Final = 500  # UIDs in one question to the database


@dataclass(frozen=True)
class Promise:
    """A sender's request.

    Attributes
    ----------
    transaction_uid, calling_ae_title
        The sender's, and who asked.
    references
        What is to be committed to.
    answered
        Whether the sender has taken the answer.
    """

    transaction_uid: str
    calling_ae_title: str
    references: tuple[Reference, ...]
    answered: bool


def promise(
    ledger: Ledger, transaction_uid: str, calling_ae_title: str, references: Sequence[Reference]
) -> None:
    """Enter a sender's request, and that it is to be answered; only then is it told Success.

    Whoever asks the same again is answered again.

    Raises
    ------
    VaultError, DiskFullError
        The database fails: nothing is entered.
    """
    now = ledger.now()
    which = {"transaction_uid": transaction_uid, "calling_ae_title": calling_ae_title}
    values = {"items": json.dumps(references), "received": now, "answered": None}
    with ledger.writing() as connection:
        known = update(promises).filter_by(**which).values(values)
        if connection.execute(known).rowcount == 0:
            connection.execute(insert(promises), which | values)
        _enqueue(connection, ledger, transaction_uid, calling_ae_title, now, 1, ANSWER_S)


def find_promise(ledger: Ledger, transaction_uid: str, calling_ae_title: str) -> Promise:
    """Give a sender's request.

    Raises
    ------
    UsageError
        There is none.
    """
    row = _row(ledger, transaction_uid, calling_ae_title)
    references = tuple(Reference(*one) for one in json.loads(row.items))
    return Promise(transaction_uid, calling_ae_title, references, row.answered is not None)


def judge(ledger: Ledger, asked: Promise) -> Report:
    """Decide what is committed to: what is durably in the queue, and nothing else.

    An object that a second one with its UID contradicts is not committed to
    towards the sender of the second: it is another than they think. Neither is
    one that somebody has discarded.
    """
    known = _known(ledger, [one.instance_uid for one in asked.references])
    committed, failed = [], []
    for reference in asked.references:
        reason = _reason(known.get(reference.instance_uid, []), reference, asked)
        if reason is None:
            committed.append(reference)
        else:
            failed.append(Failure(reference, reason))
    return Report(asked.transaction_uid, tuple(committed), tuple(failed))


def answered(ledger: Ledger, asked: Promise) -> None:
    """Enter that a sender has taken the answer."""
    with ledger.writing() as connection:
        statement = update(promises).filter_by(
            transaction_uid=asked.transaction_uid, calling_ae_title=asked.calling_ae_title
        )
        connection.execute(statement.values(answered=ledger.now()))


def answer_again(ledger: Ledger, asked: Promise, number: int, delay_s: float) -> None:
    """Enter that an answer did not get through at try `number`, and when it is tried again."""
    row = _row(ledger, asked.transaction_uid, asked.calling_ae_title)
    with ledger.writing() as connection:
        uid, title = asked.transaction_uid, asked.calling_ae_title
        _enqueue(connection, ledger, uid, title, row.received, number + 1, delay_s)


def settle(ledger: Ledger, report: Report) -> int:
    """Enter what a destination committed to: delivered; and what not: to be sent again.

    Returns
    -------
    int
        How many deliveries are of this transaction; 0 where it is none of ours.
    """
    query = (
        select(deliveries, objects.c.result_uid)
        .join(objects, objects.c.id == deliveries.c.object_id)
        .where(deliveries.c.transaction_uid == report.transaction_uid)
    )
    with ledger.reading() as connection:
        rows = list(connection.execute(query))
    committed = {one.instance_uid for one in report.committed}
    failed = {one.reference.instance_uid: one.reason for one in report.failed}
    for row in rows:
        if row.state != Sending.SENT:
            continue
        if row.result_uid in failed:
            said = f"not committed to: {words_of(failed[row.result_uid])}"
            which = row.object_id, row.destination, row.tries
            queue.again(ledger, *which, said, AGAIN_S, was=Sending.SENT)
        elif row.result_uid in committed:
            queue.delivered(ledger, row.object_id, row.destination, "committed to storage")
    return len(rows)


def overdue(ledger: Ledger, age_s: float, limit: int = 100) -> list[Row[Any]]:
    """List deliveries whose commitment has been awaited for so long, the oldest first.

    `ledger.sent` with a new transaction, and another request, asks again.
    """
    query = select(deliveries).where(
        deliveries.c.state == Sending.SENT,
        deliveries.c.changed < ledger.now() - int(age_s * 1000),
    )
    with ledger.reading() as connection:
        return list(connection.execute(query.order_by(deliveries.c.changed).limit(limit)))


def _row(ledger: Ledger, transaction_uid: str, calling_ae_title: str) -> Row[Any]:
    query = select(promises).filter_by(
        transaction_uid=transaction_uid, calling_ae_title=calling_ae_title
    )
    with ledger.reading() as connection:
        row = connection.execute(query).one_or_none()
    if row is None:
        raise UsageError(f"{calling_ae_title} has not asked for storage commitment so")
    return row


def _known(ledger: Ledger, uids: Sequence[str]) -> dict[str, list[Row[Any]]]:
    """Find all objects of some SOP Instance UIDs."""
    found: dict[str, list[Row[Any]]] = {}
    with ledger.reading() as connection:
        for start in range(0, len(uids), _AT_ONCE):
            some = objects.c.sop_instance_uid.in_(uids[start : start + _AT_ONCE])
            for row in connection.execute(select(objects).where(some)):
                found.setdefault(row.sop_instance_uid, []).append(row)
    return found


def _reason(rows: Sequence[Row[Any]], reference: Reference, asked: Promise) -> int | None:
    """Say why an instance is not committed to; None where it is."""
    disputed = [row for row in rows if row.state == State.HELD and row.reason == queue.CONFLICT]
    if any(row.calling_ae_title == asked.calling_ae_title for row in disputed):
        return NO_SUCH_INSTANCE
    kept = [row for row in rows if row not in disputed and row.state != State.DISCARDED]
    if not kept:
        return NO_SUCH_INSTANCE
    same = any(row.sop_class_uid == reference.class_uid for row in kept)
    return None if same else CONFLICT


def _enqueue(  # noqa: PLR0913, PLR0917  what a try is
    connection: Connection,
    ledger: Ledger,
    transaction_uid: str,
    calling_ae_title: str,
    received: int,
    number: int,
    delay_s: float,
) -> None:
    key = f"{PROMISE}-{calling_ae_title}-{transaction_uid}-{received}-{number}"
    arguments = (transaction_uid, calling_ae_title, str(number))
    ledger.enqueue(connection, PROMISE, key, *arguments, delay_s=delay_s)
