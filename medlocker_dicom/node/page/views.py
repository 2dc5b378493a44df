"""What the page shows of the queue: queries that look at a bounded number of rows, or an index."""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from sqlalchemy import and_, func, or_, select

from medlocker_dicom.node.ledger import SILENCE_S, Ledger, Sending, State, counts
from medlocker_dicom.node.schema import deliveries, objects, workers

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from sqlalchemy import Connection, Row, Select

    from medlocker_dicom.node.spool import Spool

#: Spans of the throughput, in milliseconds.
SPANS: Final = {"minute": 60_000, "hour": 3_600_000, "day": 86_400_000}
#: Rows on a page.
PAGE: Final = 50
#: Deliveries that one press of a button tries again.
AT_ONCE: Final = 500


@dataclass(frozen=True)
class Overview:
    """The node at one moment.

    Attributes
    ----------
    at
        Milliseconds since 1970.
    states, sendings
        How many objects, and deliveries, are in each state.
    received, locked, delivered
        How many were in each of `SPANS`.
    free, floor
        Bytes on the spool's disk, and of them what has to stay.
    workers
        Names of those that are alive.
    """

    at: int
    states: Counter[str]
    sendings: Counter[str]
    received: dict[str, int]
    locked: dict[str, int]
    delivered: dict[str, int]
    free: int
    floor: int
    workers: tuple[str, ...]


def overview(ledger: Ledger, spool: Spool) -> Overview:
    """Look at the node.

    Raises
    ------
    VaultError
        The database fails.
    """
    at = ledger.now()
    states, sendings = counts(ledger)
    names = {one.name for one in sendings}
    delivered = and_(deliveries.c.destination.in_(names), deliveries.c.state == Sending.DELIVERED)
    with ledger.reading() as connection:
        alive = select(workers.c.name).where(workers.c.alive >= at - SILENCE_S * 1000)
        return Overview(
            at=at,
            states=Counter({one.state: one.number for one in states}),
            sendings=sum((Counter({one.state: one.number}) for one in sendings), Counter()),
            received=_spans(connection, at, objects.c.received),
            locked=_spans(connection, at, objects.c.locked),
            delivered=_spans(connection, at, deliveries.c.changed, delivered),
            free=spool.free,
            floor=spool.floor,
            workers=tuple(connection.scalars(alive.order_by(workers.c.name).limit(100))),
        )


def _spans(connection: Connection, at: int, column: Any, *where: Any) -> dict[str, int]:
    query = select(func.count()).where(*where)
    return {
        name: connection.scalar(query.where(column >= at - span)) or 0
        for name, span in SPANS.items()
    }


class Cursor(NamedTuple):
    """Where a page of studies ends: the last one's last arrival, and its UID."""

    last: int
    uid: str


@dataclass(frozen=True)
class Study:
    """What was received of a study.

    Attributes
    ----------
    uid
        Study Instance UID; empty for objects without one.
    first, last
        Its first and last arrival, milliseconds since 1970.
    instances
        How many.
    states
        How many of them are in each state.
    locked
        How many were locked.
    sent, due
        How many of its deliveries were made, and how many there are.
    quiet
        For how many milliseconds nothing of it has arrived.
    """

    uid: str
    first: int
    last: int
    instances: int
    states: Counter[str]
    locked: int
    sent: int
    due: int
    quiet: int


def studies(ledger: Ledger, before: Cursor | None) -> tuple[list[Study], Cursor | None]:
    """List studies, the one with the newest arrival first.

    Parameters
    ----------
    ledger
        The queue.
    before
        Where the page before ended; None for the first.

    Returns
    -------
    tuple
        At most `PAGE` studies, and where the page ends if more follow.
    """
    last = func.max(objects.c.received)
    query = select(objects.c.study_instance_uid, last).group_by(objects.c.study_instance_uid)
    if before is not None:
        earlier = and_(last == before.last, objects.c.study_instance_uid < before.uid)
        query = query.having(or_(last < before.last, earlier))
    query = query.order_by(last.desc(), objects.c.study_instance_uid.desc()).limit(PAGE + 1)
    with ledger.reading() as connection:
        found = [Cursor(at, uid) for uid, at in connection.execute(query)]
        page = found[:PAGE]
        known = _summaries(connection, [one.uid for one in page], ledger.now())
    return [known[one.uid] for one in page], page[-1] if len(found) > PAGE else None


def study(ledger: Ledger, uid: str) -> Study | None:
    """Look at one study; None where nothing of it is known."""
    with ledger.reading() as connection:
        return _summaries(connection, [uid], ledger.now()).get(uid)


def _summaries(connection: Connection, uids: Sequence[str], now: int) -> dict[str, Study]:
    key = objects.c.study_instance_uid
    received, locked = objects.c.received, objects.c.locked
    rows = connection.execute(
        select(
            key,
            objects.c.state,
            func.count(),
            func.min(received),
            func.max(received),
            func.count(locked),
        )
        .where(key.in_(uids))
        .group_by(key, objects.c.state)
    )
    parts = defaultdict(list)
    for uid, *part in rows:
        parts[uid].append(part)
    sends = connection.execute(
        select(key, deliveries.c.state, func.count())
        .join(objects, objects.c.id == deliveries.c.object_id)
        .where(key.in_(uids))
        .group_by(key, deliveries.c.state)
    )
    due: defaultdict[str, Counter[str]] = defaultdict(Counter)
    for uid, state, count in sends:
        due[uid][state] += count
    return {uid: _summary(uid, some, due[uid], now) for uid, some in parts.items()}


def _summary(uid: str, parts: list[list[Any]], due: Counter[str], now: int) -> Study:
    states, numbers, firsts, lasts, locked = zip(*parts, strict=True)
    return Study(
        uid=uid,
        first=min(firsts),
        last=max(lasts),
        instances=sum(numbers),
        states=Counter(dict(zip(states, numbers, strict=True))),
        locked=sum(locked),
        sent=due[Sending.DELIVERED],
        due=due.total(),
        quiet=now - max(lasts),
    )


class Instance(NamedTuple):
    """An object's row, and those of its deliveries."""

    row: Row[Any]
    deliveries: list[Row[Any]]


def instances(ledger: Ledger, uid: str, page: int) -> list[Instance]:
    """List a page of a study's objects in the order of their arrival; pages count from 1."""
    query = select(objects).where(objects.c.study_instance_uid == uid)
    query = query.order_by(objects.c.received, objects.c.id)
    with ledger.reading() as connection:
        rows = connection.execute(_paged(query, page)).all()
        ids = [row.id for row in rows]
        sends = select(deliveries).where(deliveries.c.object_id.in_(ids))
        of = defaultdict(list)
        for send in connection.execute(sends.order_by(deliveries.c.destination)):
            of[send.object_id].append(send)
    return [Instance(row, of[row.id]) for row in rows]


def held(ledger: Ledger, page: int) -> list[Row[Any]]:
    """List a page of what is held, the oldest first; pages count from 1."""
    query = select(objects).where(objects.c.state == State.HELD)
    with ledger.reading() as connection:
        ordered = query.order_by(objects.c.received, objects.c.id)
        return list(connection.execute(_paged(ordered, page)))


def held_number(ledger: Ledger) -> int:
    """Count what is held."""
    query = select(func.count()).where(objects.c.state == State.HELD)
    with ledger.reading() as connection:
        return connection.scalar(query) or 0


def held_ids(ledger: Ledger) -> list[str]:
    """List the ids of what is held, at most `AT_ONCE`, the oldest first."""
    query = select(objects.c.id).where(objects.c.state == State.HELD)
    with ledger.reading() as connection:
        return list(connection.scalars(query.order_by(objects.c.received).limit(AT_ONCE)))


@dataclass(frozen=True)
class Target:
    """A destination.

    Attributes
    ----------
    name
        In node.yaml.
    states
        How many deliveries to it are in each state.
    said, at
        What it said last, and when; empty and None if nothing yet.
    next_try
        When the first delivery that failed is tried again; None if none did.
    """

    name: str
    states: Counter[str]
    said: str
    at: int | None
    next_try: int | None


def targets(ledger: Ledger, names: Iterable[str]) -> list[Target]:
    """Look at destinations: those that are configured, then those of which only rows are left."""
    tally: defaultdict[str, Counter[str]] = defaultdict(Counter)
    for one in counts(ledger)[1]:
        tally[one.name][one.state] = one.number
    ordered = dict.fromkeys((*names, *sorted(tally)))
    with ledger.reading() as connection:
        return [_target(connection, name, tally[name]) for name in ordered]


def _target(connection: Connection, name: str, states: Counter[str]) -> Target:
    to = deliveries.c.destination == name
    newest = [
        row
        for state in states  # each is found at one end of the index
        for row in connection.execute(
            select(deliveries.c.changed, deliveries.c.said)
            .where(to, deliveries.c.state == state, deliveries.c.said.is_not(None))
            .order_by(deliveries.c.changed.desc())
            .limit(1)
        )
    ]
    at, said = max(newest, default=(None, ""), key=lambda row: row[0] or 0)
    waiting = and_(to, deliveries.c.state == Sending.WAITING)
    due = connection.scalar(select(func.min(deliveries.c.next_try)).where(waiting))
    return Target(name, states, said, at, due)


def parked_ids(ledger: Ledger, destination: str) -> list[str]:
    """List the objects that a destination refused, at most `AT_ONCE`, the oldest first."""
    query = select(deliveries.c.object_id).where(
        deliveries.c.destination == destination, deliveries.c.state == Sending.PARKED
    )
    with ledger.reading() as connection:
        return list(connection.scalars(query.order_by(deliveries.c.changed).limit(AT_ONCE)))


def _paged(query: Select[Any], page: int) -> Select[Any]:
    return query.limit(PAGE).offset((page - 1) * PAGE)
