"""The queue's memory: what was received, what became of it, where it is to go.

Each function is one transaction. What a workflow has to do next is entered by
the same transaction that says why (`Enqueue`), so neither is there alone.
"""

from __future__ import annotations

import hashlib
from contextlib import contextmanager
from dataclasses import dataclass, field
from enum import StrEnum
from time import time
from typing import TYPE_CHECKING, Any, Final, NamedTuple, Protocol

from sqlalchemy import delete, func, insert, select, update

from medlocker_dicom import database
from medlocker_dicom.database import Place, named
from medlocker_dicom.errors import UsageError
from medlocker_dicom.node.schema import TABLES, deliveries, objects, workers

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from sqlalchemy import Connection, Engine, Row


class State(StrEnum):
    """What became of an object."""

    RECEIVED = "received"
    """Durable, and answered Success."""
    LOCKED = "locked"
    """Its locked file is being delivered."""
    PASSED = "passed"
    """It is being delivered as it came: a route says so."""
    HELD = "held"
    """Somebody has to look: the reason says why."""
    DONE = "done"
    """Delivered everywhere."""
    GONE = "gone"
    """Delivered everywhere, and deleted here."""
    DISCARDED = "discarded"
    """Somebody decided that it goes nowhere; the reason says who."""


class Sending(StrEnum):
    """What became of a delivery."""

    WAITING = "waiting"
    """To be tried, for the first time or again at `next_try`."""
    SENT = "sent"
    """The destination has it; its commitment to storage is awaited."""
    DELIVERED = "delivered"
    """The destination has it, for good as far as it was asked."""
    PARKED = "parked"
    """The destination refused it: somebody has to look."""


class Enqueue(Protocol):
    """Enters work in a transaction of the ledger's."""

    def __call__(
        self, connection: Connection, workflow: str, key: str, *arguments: str, delay_s: float = 0
    ) -> None:
        """Enter a workflow by its name and arguments; a key that was entered before is no fault."""


@dataclass(frozen=True)
class Arrival:
    """An object as it arrived.

    Attributes
    ----------
    sop_instance_uid, sop_class_uid, transfer_syntax_uid
        Of the object; checked UIDs.
    study_instance_uid, series_instance_uid
        The same; empty where it has none.
    sha256
        Of the file as kept, hexadecimal.
    size
        Bytes.
    calling_ae_title, called_ae_title, address
        Who sent it.
    """

    sop_instance_uid: str
    sop_class_uid: str
    transfer_syntax_uid: str
    study_instance_uid: str
    series_instance_uid: str
    sha256: str
    size: int
    calling_ae_title: str
    called_ae_title: str
    address: str

    @property
    def id(self) -> str:
        """Of the object: SHA-256 of its SOP Instance UID and digest, hexadecimal."""
        return hashlib.sha256(f"{self.sop_instance_uid}\n{self.sha256}".encode()).hexdigest()


class Entered(StrEnum):
    """What the ledger made of an arrival."""

    NEW = "new"
    AGAIN = "again"
    """The same object was received before: nothing is repeated."""
    CONFLICT = "conflict"
    """Another object of the same SOP Instance UID was: this one is held."""


class Counted(NamedTuple):
    """How many objects, or deliveries, are in a state."""

    name: str
    state: str
    number: int


_ENTERING: Final = 0x4D4C  # a lock of PostgreSQL, with the hash of a UID
CONFLICT: Final = "another object with this SOP Instance UID was received before"
"""Why the second of two is held."""
SILENCE_S: Final = 60
"""Seconds without a word after which a worker is taken for dead."""
PROCESS: Final = "process"
DELIVER: Final = "deliver"
SHARE: Final = "share"


@dataclass(frozen=True)
class Ledger:
    """An open queue.

    Attributes
    ----------
    place
        Where it lies.
    enqueue
        Enters work.
    now
        Gives milliseconds since 1970.
    """

    place: Place
    engine: Engine = field(repr=False)
    enqueue: Enqueue
    now: Callable[[], int] = lambda: int(time() * 1000)

    @contextmanager
    def reading(self) -> Iterator[Connection]:
        """Open it for reading.

        Raises
        ------
        VaultError
            The database fails.
        """
        with named(self.place), self.engine.connect() as connection, connection.begin():
            yield connection

    @contextmanager
    def writing(self) -> Iterator[Connection]:
        """Open it for writing: all of it is kept, or nothing.

        Raises
        ------
        VaultError, DiskFullError
            The database fails.
        """
        with (
            named(self.place),
            self.engine.connect().execution_options(writing=True) as connection,
            connection.begin(),
        ):
            yield connection

    def close(self) -> None:
        """Let go of the database."""
        self.engine.dispose()


def make_ledger(place: Place, enqueue: Enqueue) -> Ledger:
    """Open a queue, made if it is not there; raises as `database.create`."""
    return Ledger(place, database.create(place, TABLES), enqueue)


def enter(ledger: Ledger, arrival: Arrival) -> Entered:
    """Enter an object whose file is durable; only then may its sender be told Success.

    Raises
    ------
    VaultError, DiskFullError
        The database fails: nothing is entered.
    """
    now = ledger.now()
    with ledger.writing() as connection:
        _alone(connection, arrival.sop_instance_uid)
        same = select(objects.c.id).where(objects.c.sop_instance_uid == arrival.sop_instance_uid)
        known = set(connection.scalars(same))
        if arrival.id in known:
            return Entered.AGAIN
        state = State.HELD if known else State.RECEIVED
        values = vars(arrival) | {
            "id": arrival.id,
            "received": now,
            "changed": now,
            "state": state,
            "tries": 0,
            "starts": 0,
            "reason": CONFLICT if known else None,
            "hint": "compare the two, then release or discard this one" if known else None,
        }
        connection.execute(insert(objects), values)
        if state is State.RECEIVED:
            _enqueue_process(connection, ledger, arrival.id, 1)
    return Entered.CONFLICT if known else Entered.NEW


def _alone(connection: Connection, sop_instance_uid: str) -> None:
    """Wait until nobody else enters an object of this UID; in SQLite nobody else writes anyway."""
    if connection.dialect.name == "postgresql":
        key = func.hashtext(sop_instance_uid)
        connection.execute(select(func.pg_advisory_xact_lock(_ENTERING, key)))


def find(ledger: Ledger, object_id: str) -> Row[Any]:
    """Give an object's row.

    Raises
    ------
    UsageError
        There is none.
    """
    with ledger.reading() as connection:
        row = connection.execute(select(objects).where(objects.c.id == object_id)).one_or_none()
    if row is None:
        raise UsageError(f"no object {object_id[:64]} is in the queue")
    return row


def begin(ledger: Ledger, object_id: str) -> None:
    """Enter that an object is begun with; an end is entered by what comes of it."""
    with ledger.writing() as connection:
        statement = update(objects).where(objects.c.id == object_id)
        connection.execute(statement.values(starts=objects.c.starts + 1))


def postpone(  # noqa: PLR0913, PLR0917  what a try came to
    ledger: Ledger,
    object_id: str,
    tries: int,
    reason: str,
    hint: str,
    delay_s: float,
    *,
    starts: int = 0,
) -> bool:
    """Enter that try `tries` + 1 at an object came to nothing, and when it is tried again.

    Parameters
    ----------
    ledger, object_id
        Which.
    tries
        In its row, before this one.
    reason, hint
        Why, and what to do.
    delay_s
        Seconds until the next.
    starts
        Beginnings that came to no end.

    Returns
    -------
    bool
        False where another worker has brought it further meanwhile: nothing changes.
    """
    with ledger.writing() as connection:
        row = _object_row(connection, object_id)
        if row.state != State.RECEIVED or row.tries != tries:
            return False
        more: dict[str, str | int] = {"tries": tries + 1, "starts": starts}
        more |= {"reason": reason, "hint": hint}
        _change(connection, object_id, State.RECEIVED, ledger.now(), **more)
        _enqueue_process(connection, ledger, object_id, tries + 2, delay_s)
    return True


def hold(ledger: Ledger, object_id: str, reason: str, hint: str, route: str | None) -> bool:
    """Keep an object for somebody to look at.

    Returns
    -------
    bool
        False where another worker has brought it further: nothing changes.
    """
    with ledger.writing() as connection:
        if _object_row(connection, object_id).state != State.RECEIVED:
            return False
        values = {"reason": reason, "hint": hint, "route": route}
        _change(connection, object_id, State.HELD, ledger.now(), **values)
    return True


def outgoing(  # noqa: PLR0913, PLR0917  a row's columns
    ledger: Ledger,
    object_id: str,
    state: State,
    route: str,
    result_uid: str,
    result: str,
    destinations: Sequence[str],
) -> None:
    """Enter what is to be sent of an object, and where to; a second time changes nothing.

    Parameters
    ----------
    ledger, object_id
        Which.
    state
        `State.LOCKED` or `State.PASSED`.
    route
        That said so.
    result_uid
        SOP Instance UID of what is sent.
    result
        Hexadecimal name of the attempt whose file is sent; empty for the object as it came.
    destinations
        Names.
    """
    with ledger.writing() as connection:
        now = ledger.now()
        if _object_row(connection, object_id).state != State.RECEIVED:
            return  # a worker that was taken for dead, and came after another
        values: dict[str, str | int | None] = {"reason": None, "hint": None, "route": route}
        values |= {"result_uid": result_uid, "result": result}
        values |= {"locked": now} if state is State.LOCKED else {}
        _change(connection, object_id, state, now, **values)
        _enter_deliveries(connection, ledger, object_id, destinations)


def delivery(ledger: Ledger, object_id: str, destination: str) -> Row[Any]:
    """Give a delivery's row.

    Raises
    ------
    UsageError
        There is none.
    """
    query = select(deliveries).where(*_which(object_id, destination))
    with ledger.reading() as connection:
        row = connection.execute(query).one_or_none()
    if row is None:
        raise UsageError(f"{object_id[:64]} is not to be sent to {destination}")
    return row


def delivered(ledger: Ledger, object_id: str, destination: str, said: str) -> None:
    """Enter that a destination has an object; the last one makes the object done."""
    with ledger.writing() as connection:
        _object_row(connection, object_id)  # the last two may come at once, and one has to see both
        _send(connection, ledger, object_id, destination, Sending.DELIVERED, said)
        _finish(connection, ledger, object_id)


def sent(ledger: Ledger, object_id: str, destination: str, said: str, transaction: str) -> None:
    """Enter that a destination has an object, and is asked to commit to it."""
    with ledger.writing() as connection:
        if _open_row(connection, object_id, destination) is None:
            return
        more = {"transaction_uid": transaction}
        _send(connection, ledger, object_id, destination, Sending.SENT, said, **more)


def again(  # noqa: PLR0913, PLR0917  what a try came to
    ledger: Ledger,
    object_id: str,
    destination: str,
    tries: int,
    said: str,
    delay_s: float,
    was: Sending = Sending.WAITING,
) -> bool:
    """Enter that try `tries` + 1 at a delivery did not succeed, and when it is tried again.

    Parameters
    ----------
    ledger, object_id, destination
        Which.
    tries
        In its row, before this one.
    said
        Why.
    delay_s
        Seconds until the next.
    was
        State in its row.

    Returns
    -------
    bool
        False where another worker has brought it further meanwhile: nothing changes.
    """
    with ledger.writing() as connection:
        row = _open_row(connection, object_id, destination)
        if row is None or row.state != was or row.tries != tries:
            return False
        due = ledger.now() + int(delay_s * 1000)
        more = {"tries": tries + 1, "next_try": due}
        _send(connection, ledger, object_id, destination, Sending.WAITING, said, **more)
        _enqueue_delivery(connection, ledger, object_id, destination, tries + 2, delay_s)
    return True


def park(ledger: Ledger, object_id: str, destination: str, said: str) -> None:
    """Enter that a destination refused an object: somebody has to look.

    Nothing changes where another worker has brought it further meanwhile.
    """
    with ledger.writing() as connection:
        if _open_row(connection, object_id, destination) is not None:
            _send(connection, ledger, object_id, destination, Sending.PARKED, said)


def retry_delivery(ledger: Ledger, object_id: str, destination: str) -> None:
    """Try a parked or waiting delivery now.

    Raises
    ------
    UsageError
        It is not parked or waiting.
    """
    with ledger.writing() as connection:
        query = select(deliveries).where(*_which(object_id, destination)).with_for_update()
        row = connection.execute(query).one_or_none()
        if row is None or row.state not in (Sending.PARKED, Sending.WAITING):
            raise UsageError(f"{object_id[:64]}: nothing is to be sent to {destination} again")
        tries = row.tries + 1
        more = {"tries": tries, "next_try": ledger.now()}
        _send(connection, ledger, object_id, destination, Sending.WAITING, row.said, **more)
        _enqueue_delivery(connection, ledger, object_id, destination, tries + 1)


def retry(ledger: Ledger, object_id: str) -> None:
    """Let a held object go its way again from the beginning, by the routes as they are now.

    Raises
    ------
    UsageError
        It is not held.
    """
    with ledger.writing() as connection:
        tries = _held(connection, object_id).tries
        more = {"tries": tries + 1, "starts": 0, "reason": None, "hint": None}
        _change(connection, object_id, State.RECEIVED, ledger.now(), **more)
        _enqueue_process(connection, ledger, object_id, tries + 2)


def release(
    ledger: Ledger, object_id: str, route: str, destinations: Sequence[str], who: str
) -> None:
    """Let a held object leave as it came, because somebody said so.

    Parameters
    ----------
    ledger, object_id
        Which.
    route, destinations
        By which route, and so to whom.
    who
        Said so.

    Raises
    ------
    UsageError
        It is not held, or would go nowhere.
    """
    if not destinations:
        raise UsageError(f"{object_id[:64]}: no destination is named")
    with ledger.writing() as connection:
        row = _held(connection, object_id)
        values = {"route": route, "result_uid": row.sop_instance_uid, "result": ""}
        reason = f"released unlocked by {who}: {row.reason}"
        _change(
            connection,
            object_id,
            State.PASSED,
            ledger.now(),
            reason=reason,
            hint=None,
            **values,
        )
        _enter_deliveries(connection, ledger, object_id, destinations)


def discard(ledger: Ledger, object_id: str, who: str) -> None:
    """Let a held object go nowhere, because somebody said so; its row stays.

    Raises
    ------
    UsageError
        It is not held.
    """
    with ledger.writing() as connection:
        row = _held(connection, object_id)
        reason = f"discarded by {who}: {row.reason}"
        _change(connection, object_id, State.DISCARDED, ledger.now(), reason=reason, hint=None)


def counts(ledger: Ledger) -> tuple[list[Counted], list[Counted]]:
    """Count objects by state, and deliveries by destination and state."""
    with ledger.reading() as connection:
        rows = connection.execute(
            select(objects.c.state, func.count()).group_by(objects.c.state)
        ).all()
        sends = connection.execute(
            select(deliveries.c.destination, deliveries.c.state, func.count()).group_by(
                deliveries.c.destination, deliveries.c.state
            )
        ).all()
    return [Counted("", *row) for row in rows], [Counted(*row) for row in sends]


def alive(ledger: Ledger, worker: str) -> None:
    """Enter that a worker is alive."""
    with ledger.writing() as connection:
        known = update(workers).where(workers.c.name == worker).values(alive=ledger.now())
        if connection.execute(known).rowcount == 0:
            connection.execute(insert(workers), {"name": worker, "alive": ledger.now()})


def leave(ledger: Ledger, worker: str) -> None:
    """Enter that a worker is no more, and left nothing."""
    with ledger.writing() as connection:
        connection.execute(delete(workers).where(workers.c.name == worker))


def _object_row(connection: Connection, object_id: str) -> Row[Any]:
    """Give an object's row, which nobody else changes before this transaction ends."""
    query = select(objects).where(objects.c.id == object_id)
    return connection.execute(query.with_for_update()).one()


def _open_row(connection: Connection, object_id: str, destination: str) -> Row[Any] | None:
    """Give the row of a delivery that can still succeed or fail, as `_object_row`; else None."""
    query = select(deliveries).where(
        *_which(object_id, destination), deliveries.c.state.in_((Sending.WAITING, Sending.SENT))
    )
    return connection.execute(query.with_for_update()).one_or_none()


def _held(connection: Connection, object_id: str) -> Row[Any]:
    """Give the row of an object that is held.

    Raises
    ------
    UsageError
        It is not.
    """
    query = select(objects).where(objects.c.id == object_id, objects.c.state == State.HELD)
    row = connection.execute(query.with_for_update()).one_or_none()
    if row is None:
        raise UsageError(f"{object_id[:64]} is not held")
    return row


def _enter_deliveries(
    connection: Connection, ledger: Ledger, object_id: str, destinations: Sequence[str]
) -> None:
    """Enter the deliveries that are not known yet."""
    there = select(deliveries.c.destination).where(deliveries.c.object_id == object_id)
    known = set(connection.scalars(there))
    for name in destinations:
        if name in known:
            continue
        row: dict[str, str | int] = {
            "object_id": object_id,
            "destination": name,
            "state": Sending.WAITING,
            "tries": 0,
            "changed": ledger.now(),
        }
        connection.execute(insert(deliveries), row)
        _enqueue_delivery(connection, ledger, object_id, name, 1)


def process_key(object_id: str, number: int) -> str:
    """Name try `number`, counted from 1, at an object: one more than the tries in its row."""
    return f"{object_id}-{number}"


def delivery_key(object_id: str, destination: str, number: int) -> str:
    """Name try `number`, counted from 1, at a delivery; as `process_key`."""
    return f"{object_id}-{destination}-{number}"


def _enqueue_process(
    connection: Connection, ledger: Ledger, object_id: str, number: int, delay_s: float = 0
) -> None:
    """Enter try `number`, counted from 1."""
    key = process_key(object_id, number)
    ledger.enqueue(connection, PROCESS, key, object_id, delay_s=delay_s)


def _enqueue_delivery(  # noqa: PLR0913, PLR0917  what a delivery is
    connection: Connection,
    ledger: Ledger,
    object_id: str,
    destination: str,
    number: int,
    delay_s: float = 0,
) -> None:
    """Enter try `number`, counted from 1: it does nothing where another has overtaken it."""
    key = delivery_key(object_id, destination, number)
    arguments = (object_id, destination, str(number))
    ledger.enqueue(connection, DELIVER, key, *arguments, delay_s=delay_s)


def _finish(connection: Connection, ledger: Ledger, object_id: str) -> None:
    """Call an object done when nothing of it is left to be sent."""
    query = select(func.count()).where(
        deliveries.c.object_id == object_id, deliveries.c.state != Sending.DELIVERED
    )
    if connection.scalar(query) == 0:
        _change(connection, object_id, State.DONE, ledger.now())


def _change(
    connection: Connection, object_id: str, state: State, now: int, **values: str | int | None
) -> None:
    statement = update(objects).where(objects.c.id == object_id)
    connection.execute(statement.values(state=state, changed=now, **values))


def _send(  # noqa: PLR0913, PLR0917  a row's columns
    connection: Connection,
    ledger: Ledger,
    object_id: str,
    destination: str,
    state: Sending,
    said: str,
    **values: str | int | None,
) -> None:
    statement = update(deliveries).where(*_which(object_id, destination))
    values = {"next_try": None} | values
    connection.execute(statement.values(state=state, said=said, changed=ledger.now(), **values))


def _which(object_id: str, destination: str) -> tuple[Any, Any]:
    return deliveries.c.object_id == object_id, deliveries.c.destination == destination
