"""How the node does, read from its queue and its disk: the same from whichever process asks."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import func, select

from medlocker_dicom.errors import DiskFullError, MedLockerError, OutputError
from medlocker_dicom.node import ledger as queue
from medlocker_dicom.node.ledger import SILENCE_S, Counted, Sending, State
from medlocker_dicom.node.schema import deliveries, objects, workers

if TYPE_CHECKING:
    from medlocker_dicom.node.ledger import Ledger
    from medlocker_dicom.node.spool import Spool

MOVING: Final = (State.RECEIVED, State.LOCKED, State.PASSED)
"""States of objects that go their way by themselves."""


@dataclass(frozen=True)
class Figures:
    """What the queue says of itself.

    Attributes
    ----------
    objects
        By state; each state is there.
    deliveries
        By destination and state.
    received, received_bytes
        Objects that were ever taken in, and their sizes.
    oldest_s
        Seconds that the oldest object which is to go its way has waited; 0 for none.
    overdue_s
        By destination, the seconds since the oldest delivery that waits began to.
    workers
        Processes that were alive in the last minute.
    """

    objects: dict[str, int]
    deliveries: list[Counted]
    received: int
    received_bytes: int
    oldest_s: float
    overdue_s: dict[str, float]
    workers: int


def figures(ledger: Ledger) -> Figures:
    """Read the queue's figures.

    Raises
    ------
    VaultError
        The database fails.
    """
    counted, sends = queue.counts(ledger)
    now = ledger.now()
    moving = select(func.min(objects.c.received)).where(objects.c.state.in_(MOVING))
    waiting = (
        select(deliveries.c.destination, func.min(objects.c.received))
        .join(objects, objects.c.id == deliveries.c.object_id)
        .where(deliveries.c.state.in_((Sending.WAITING, Sending.SENT)))
        .group_by(deliveries.c.destination)
    )
    living = select(func.count()).where(workers.c.alive > now - SILENCE_S * 1000)
    with ledger.reading() as connection:
        oldest = connection.scalar(moving)
        overdue = connection.execute(waiting).all()
        size = connection.scalar(select(func.coalesce(func.sum(objects.c.size), 0)))
        alive = connection.scalar(living)
    by_state = {str(state): 0 for state in State} | {one.state: one.number for one in counted}
    return Figures(
        objects=by_state,
        deliveries=sends,
        received=sum(by_state.values()),
        received_bytes=int(size or 0),
        oldest_s=_age(now, oldest),
        overdue_s={name: _age(now, since) for name, since in overdue},
        workers=int(alive or 0),
    )


def free_bytes(spool: Spool) -> int | None:
    """Tell how much the spool's disk has left; None where it cannot be asked."""
    try:
        return spool.free
    except OSError:
        return None


def health(ledger: Ledger, spool: Spool) -> dict[str, Any]:
    """Tell how the node does, for people and for monitoring.

    Returns
    -------
    dict
        ``ok``; ``faults``, each in words; ``free_bytes``, ``floor_bytes``; and the queue's
        figures under their names, unless the database fails. No UID, nothing of a patient.
    """
    faults = _receiving_faults(spool)
    told: dict[str, Any] = {"free_bytes": free_bytes(spool), "floor_bytes": spool.floor}
    try:
        known = figures(ledger)
    except MedLockerError as error:
        faults.append(f"the queue's database fails: {type(error).__name__}")
    else:
        told |= asdict(known) | {"deliveries": [one._asdict() for one in known.deliveries]}
        parked = sum(one.number for one in known.deliveries if one.state == Sending.PARKED)
        if held := known.objects[State.HELD]:
            faults.append(f"objects held: {held}; somebody has to look")
        if parked:
            faults.append(f"deliveries parked: {parked}; a destination refused them")
        if not known.workers:
            faults.append(f"no worker was alive in the last {SILENCE_S} s")
    return {"ok": not faults, "faults": faults} | told


def ready(ledger: Ledger, spool: Spool) -> dict[str, Any]:
    """Tell whether the node can receive now: its database answers, its disk has room.

    Returns
    -------
    dict
        ``ready``, and ``faults``, each in words.
    """
    faults = _receiving_faults(spool)
    try:
        with ledger.reading() as connection:
            connection.execute(select(workers.c.name).limit(1))
    except MedLockerError as error:
        faults.append(f"the queue's database fails: {type(error).__name__}")
    return {"ready": not faults, "faults": faults}


def _receiving_faults(spool: Spool) -> list[str]:
    try:
        spool.check_room()
    except DiskFullError:
        return ["the spool's disk is below its floor: nothing is received"]
    except OutputError:
        return ["the spool cannot be reached"]
    return []


def _age(now: int, since: int | None) -> float:
    return 0.0 if since is None else max(0, now - since) / 1000
