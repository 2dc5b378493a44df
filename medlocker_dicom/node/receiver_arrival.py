"""A received file to an object of the queue: durable, then entered, and only then Success.

Whatever is interrupted in between leaves a file without a row, which was not
answered Success: `recover` enters it, or its sender sends it again.
"""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import select

from medlocker_dicom.errors import MedLockerError, OutputError, SopClassError, UIDError
from medlocker_dicom.node.ledger import Arrival, Entered, State, enter, find
from medlocker_dicom.node.receiver_admission import Caller
from medlocker_dicom.node.receiver_header import read_identity
from medlocker_dicom.node.schema import objects

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from medlocker_dicom.node.ledger import Ledger
    from medlocker_dicom.node.listener_lobby import Logger
    from medlocker_dicom.node.spool import Spool

_CALLER: Final = "user.medlocker.caller"
_NOBODY: Final = Caller("", "", "")
_AT_ONCE: Final = 500
_NO_FILE: Final = (State.GONE, State.DISCARDED)


@dataclass(frozen=True)
class Announced:
    """What the C-STORE-RQ says of its data set (PS3.7 table 9.3-1).

    Attributes
    ----------
    sop_instance_uid, sop_class_uid
        Affected SOP Instance and Class UID.
    """

    sop_instance_uid: str
    sop_class_uid: str


def take_in(
    spool: Spool, ledger: Ledger, part: Path, announced: Announced, caller: Caller
) -> tuple[Arrival, Entered]:
    """Make an arrived file an object of the queue; then Success may be answered.

    Parameters
    ----------
    spool, ledger
        Where to.
    part
        The whole file, in `spool.incoming`; it is no longer there afterwards.
    announced
        By its sender.
    caller
        Its sender.

    Raises
    ------
    SourceError
        It cannot be understood, or is not what was announced.
    OutputError
        The disk fails, or falls below its floor.
    VaultError
        The database fails: the file stays in the spool, for `recover`. Only its sender's next
        try, or that, enters it; it may be the file of an object that was entered before.
    """
    spool.check_room()
    arrival = describe(part, caller)
    if announced.sop_instance_uid != arrival.sop_instance_uid:
        raise UIDError("SOP Instance UIDs of the command and of the data set differ")
    if announced.sop_class_uid != arrival.sop_class_uid:
        raise SopClassError("SOP Class UIDs of the command and of the data set differ")
    _note(part, caller)
    there = spool.object(arrival.id).exists()
    spool.adopt(part, arrival.id)
    entered = enter(ledger, arrival)
    if entered is Entered.AGAIN and not there and find(ledger, arrival.id).state in _NO_FILE:
        spool.forget(arrival.id)  # it was deleted before, and so it is again
    return arrival, entered


def describe(path: Path, caller: Caller) -> Arrival:
    """Read what a file holds.

    Raises
    ------
    SourceError
        It cannot be understood.
    OutputError
        It cannot be read.
    """
    identity = read_identity(path)
    try:
        with path.open("rb") as stream:
            digest = hashlib.file_digest(stream, "sha256").hexdigest()
            size = stream.tell()
    except OSError as error:
        raise OutputError("what was received cannot be read again") from error
    return Arrival(**vars(identity), sha256=digest, size=size, **vars(caller))


def recover(spool: Spool, ledger: Ledger, log: Logger) -> int:
    """Clear up what killed processes left; before any receiver is started.

    What was arriving is removed. An object without a row is entered; one whose row says that its
    file is gone is removed again.

    Returns
    -------
    int
        How many objects were entered.

    Raises
    ------
    VaultError, DiskFullError
        The database fails.
    """
    spool.sweep()
    entered = 0
    for ids in _chunks(spool.objects()):
        states = _states(ledger, ids)
        for object_id in ids:
            state = states.get(object_id)
            if state is None:
                entered += _enter_found(spool, ledger, object_id, log)
            elif state == State.GONE:
                spool.forget(object_id)
    return entered


def _enter_found(spool: Spool, ledger: Ledger, object_id: str, log: Logger) -> bool:
    path = spool.object(object_id)
    try:
        arrival = describe(path, _noted(path))
    except MedLockerError as error:
        log.error("object in the spool is damaged", object=object_id, reason=str(error))  # noqa: TRY400  no traceback: it may hold a patient's data
        return False
    if arrival.id != object_id:
        log.error("object in the spool is not the one that was stored", object=object_id)
        return False
    enter(ledger, arrival)
    log.warning("object without a row was entered", object=object_id)
    return True


def _states(ledger: Ledger, ids: Sequence[str]) -> dict[str, str]:
    query = select(objects.c.id, objects.c.state).where(objects.c.id.in_(ids))
    with ledger.reading() as connection:
        return {row.id: row.state for row in connection.execute(query)}


def _chunks(ids: Iterator[str]) -> Iterator[list[str]]:
    chunk: list[str] = []
    for one in ids:
        chunk.append(one)
        if len(chunk) == _AT_ONCE:
            yield chunk
            chunk = []
    if chunk:
        yield chunk


def _note(part: Path, caller: Caller) -> None:
    """Keep who sent a file with it, where the file system can: routes ask for it."""
    try:
        os.setxattr(part, _CALLER, json.dumps(vars(caller)).encode())
    except (OSError, AttributeError):  # no such attributes on this disk, or on this system
        return


def _noted(path: Path) -> Caller:
    try:
        values: Any = json.loads(os.getxattr(path, _CALLER))
        return Caller(**{name: str(values[name]) for name in vars(_NOBODY)})
    except (OSError, AttributeError, ValueError, TypeError, KeyError):
        return _NOBODY
