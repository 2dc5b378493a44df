"""What a worker does with an object: lock it, send it, delete it at last.

Each of these can be cut off at any moment and begun again: a lock that is in
the vault is found there by the name of its file, and what is sent twice has
one SOP Instance UID.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from random import uniform
from time import monotonic
from typing import TYPE_CHECKING, Any, Final

from pydicom import dcmread
from pydicom.uid import generate_uid

from medlocker_dicom.dicom.fundus import decode_fundus
from medlocker_dicom.dicom.reading import parsing, read_file
from medlocker_dicom.dicom.writing import to_bytes
from medlocker_dicom.errors import (
    DiskFullError,
    DuplicateInstanceError,
    MedLockerError,
    NotDicomError,
    NotFundusError,
    OutputError,
    PlacementError,
    SourceError,
    UsageError,
    VaultError,
)
from medlocker_dicom.keyfile import dump_detached
from medlocker_dicom.node import commitment, promises
from medlocker_dicom.node import ledger as queue
from medlocker_dicom.node.audit import MINOR, SUCCESS, Moved, Peer
from medlocker_dicom.node.commitment_messages import Reference
from medlocker_dicom.node.config import FORWARD, DicomDestination
from medlocker_dicom.node.ledger import Sending, State
from medlocker_dicom.node.outcome import Kind
from medlocker_dicom.node.patience import ended_over, patience
from medlocker_dicom.node.routes import facts_of, route_for
from medlocker_dicom.pipeline.lock import lock
from medlocker_dicom.vault.instances import check_new, instance_of, keep, locks_of

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from pydicom.dataset import Dataset
    from sqlalchemy import Row

    from medlocker_dicom.node.audit import Auditor
    from medlocker_dicom.node.config import NodeConfig, Route, StowDestination
    from medlocker_dicom.node.ledger import Ledger
    from medlocker_dicom.node.lockers import Lockers
    from medlocker_dicom.node.logs import Log
    from medlocker_dicom.node.metrics import Meters
    from medlocker_dicom.node.sender import Senders
    from medlocker_dicom.node.spool import Spool

#: Beginnings without an end after which an object is held: it may be what ends the worker.
MOST_STARTS: Final = 20
#: Seconds until a destination that has promised nothing is asked again.
_COMMIT_S: Final = 300.0
#: Until a full disk is looked at again, at most: it has room as soon as something was delivered.
_LONGEST_FULL_S: Final = 120.0
_FIRST_DELAY_S: Final = 5.0
_LONGEST_DELAY_S: Final = 900.0
_NO_ROUTE: Final = "no route of node.yaml matches it"


def delay_s(tries: int) -> float:
    """Say how long to wait before try `tries` + 1: twice as long each time, up to 15 minutes.

    A fifth more or less, so that what failed together does not come back together.
    """
    wait = min(_FIRST_DELAY_S * 2.0 ** min(tries, 20), _LONGEST_DELAY_S)
    return wait * uniform(0.8, 1.2)  # noqa: S311  no secret


def _peer(there: DicomDestination | StowDestination | None, name: str) -> Peer:
    """Name a destination for the audit trail; one that node.yaml no longer has by its old name."""
    if isinstance(there, DicomDestination):
        return Peer(there.ae_title, there.host)
    return Peer("", str(there.url) if there else name)


def _class_of(path: Path) -> str:
    """Read the SOP Class UID of a locked file.

    Raises
    ------
    NotDicomError
        It is gone, or damaged.
    """
    try:
        with path.open("rb") as stream, parsing(str(path)):
            ds = dcmread(stream, specific_tags=["SOPClassUID"], stop_before_pixels=True)
            return str(ds.SOPClassUID)
    except OSError as error:
        raise NotDicomError(f"{path}: cannot be read: {error.strerror}") from error


@dataclass(frozen=True)
class Work:
    """What a worker has at hand.

    Attributes
    ----------
    config
        Gives node.yaml as it is now.
    spool, ledger
        The queue.
    lockers
        Make lockers, and know the vault.
    senders
        Send to destinations.
    log, auditor, meters
        Are told what was done; never of a patient.
    clock
        Gives the time with a time zone.
    """

    config: Callable[[], NodeConfig]
    spool: Spool
    ledger: Ledger
    lockers: Lockers
    senders: Senders
    log: Log
    auditor: Auditor
    meters: Meters
    clock: Callable[[], datetime] = lambda: datetime.now(UTC)

    def process(self, object_id: str) -> None:
        """Lock an object by its route, or hold it; whatever happens, the ledger says what."""
        row = queue.find(self.ledger, object_id)
        if row.state != State.RECEIVED:
            return
        if queue.begin(self.ledger, object_id) > MOST_STARTS:
            reason = f"the worker ended {MOST_STARTS} times while it worked on this"
            self._hold(object_id, reason, "look at the object and at the worker's log, then retry")
            return
        seconds, trace = 60 * self.config().lock_minutes, self.spool.trace(object_id)
        if ended_over(trace):
            self._hold_endless(object_id)
            return
        try:
            with patience(seconds, partial(self._give_up, object_id), trace):
                self._process(row)
        except (OutputError, VaultError) as error:
            longest = _LONGEST_FULL_S if isinstance(error, DiskFullError) else _LONGEST_DELAY_S
            wait = min(delay_s(row.tries), longest)
            queue.postpone(self.ledger, object_id, row.tries, str(error), error.hint, wait)
            self.log.warning("object postponed", object=object_id, error=error, next_try_s=wait)
        except MedLockerError as error:
            self._hold(object_id, str(error), error.hint)
        except MemoryError as error:
            self._hold(object_id, "it needs more memory than there is", "retry on a larger machine")
            self.log.error("out of memory", object=object_id, error=error)  # noqa: TRY400  no traceback
        except Exception as error:  # noqa: BLE001  whatever it is: nothing leaves, nothing is lost
            self._hold(object_id, f"unexpected: {type(error).__name__}", "report this")
            self.log.error("unexpected error", object=object_id, error=error)  # noqa: TRY400  the same

    def _give_up(self, object_id: str) -> None:
        """Hold an object that takes too long, before the process ends over it."""
        try:
            self._hold_endless(object_id)
        except MedLockerError as error:  # it is begun again, then, and given up again
            self.log.error("a lock does not end, and cannot be held", object=object_id, error=error)  # noqa: TRY400  no traceback

    def _hold_endless(self, object_id: str) -> None:
        minutes = self.config().lock_minutes
        reason = f"locking it took longer than {minutes:g} minutes, lock_minutes of node.yaml"
        self._hold(object_id, reason, "look at the object and at its route's budget, then retry")

    def deliver(self, object_id: str, destination: str, number: int) -> None:
        """Send an object to a destination; try `number`, unless another has overtaken it."""
        row = queue.delivery(self.ledger, object_id, destination)
        if row.state != Sending.WAITING or row.tries + 1 != number:
            return
        found = queue.find(self.ledger, object_id)
        there = self.config().destinations.get(destination)
        peer, began = _peer(there, destination), monotonic()
        try:
            path, sop_class = self._outgoing(found)
            moved = Moved(found.study_instance_uid, {sop_class: 1})
            self.auditor.sending(peer, moved)
            outcome = self.senders.send(destination, path)
        except (UsageError, SourceError) as error:
            queue.park(self.ledger, object_id, destination, str(error))
            log = self.log.bind(object=object_id, destination=destination)
            log.error("cannot be sent", error=error)  # noqa: TRY400  the same
            return
        except OutputError as error:
            wait = delay_s(row.tries)
            queue.again(self.ledger, object_id, destination, row.tries, str(error), wait)
            return
        kind = outcome.after(number)
        self.auditor.sent(peer, moved, SUCCESS if kind is Kind.STORED else MINOR)
        self.meters.delivered(destination, kind, monotonic() - began)
        if kind is Kind.STORED and isinstance(there, DicomDestination) and there.commitment:
            reference = Reference(sop_class, found.result_uid)
            self._ask_to_commit(object_id, destination, there, reference)
            return
        self._enter(object_id, destination, kind, outcome.said, row.tries)

    def promise(self, transaction_uid: str, calling_ae_title: str, number: int) -> None:
        """Answer a sender's request of storage commitment; try `number`, counted from 1."""
        asked = promises.find_promise(self.ledger, transaction_uid, calling_ae_title)
        outcome = commitment.answer(self.ledger, self.config().listen, asked)
        if outcome.kind is Kind.RETRY:
            promises.answer_again(self.ledger, asked, number, delay_s(number))
        elif outcome.kind is Kind.PARK:
            self.log.warning("a sender waits for an answer and cannot be called")

    def recommit(self) -> None:
        """Ask destinations again that have promised nothing for long."""
        for row in promises.overdue(self.ledger, _COMMIT_S):
            there = self.config().destinations.get(row.destination)
            found = queue.find(self.ledger, row.object_id)
            if not isinstance(there, DicomDestination):
                continue
            try:
                _, sop_class = self._outgoing(found)
            except SourceError as error:  # of this one: those behind it are asked for all the same
                queue.park(self.ledger, row.object_id, row.destination, str(error))
                continue
            reference = Reference(sop_class, found.result_uid)
            self._ask_to_commit(row.object_id, row.destination, there, reference)

    def _ask_to_commit(
        self, object_id: str, name: str, there: DicomDestination, reference: Reference
    ) -> None:
        """Ask a destination to commit to what it has; until it does, nothing is deleted here."""
        transaction = str(generate_uid(prefix=None))
        queue.sent(self.ledger, object_id, name, "stored; asked to commit", transaction)
        outcome = commitment.request(
            there,
            self.config().listen.ae_title,
            transaction,
            [reference],
            lambda report: promises.settle(self.ledger, report),
        )
        if outcome.kind is Kind.PARK:
            queue.park(self.ledger, object_id, name, outcome.said)
        self.log.info("asked to commit", object=object_id, destination=name, outcome=outcome.kind)

    def _outgoing(self, row: Row[Any]) -> tuple[Path, str]:
        """Give the file that is sent of an object, and its SOP Class UID.

        Raises
        ------
        NotDicomError
            It is gone.
        """
        if not row.result:
            return self.spool.object(row.id), row.sop_class_uid
        path = self.spool.result(row.id, row.result)
        return path, _class_of(path)

    def _enter(self, object_id: str, destination: str, kind: Kind, said: str, tries: int) -> None:
        """Enter what came of a delivery."""
        log = self.log.bind(object=object_id, destination=destination, tries=tries + 1)
        if kind is Kind.STORED:
            queue.delivered(self.ledger, object_id, destination, said)
            log.info("delivered")
        elif kind is Kind.PARK:
            queue.park(self.ledger, object_id, destination, said)
            log.error("parked")
        else:
            wait = delay_s(tries)
            queue.again(self.ledger, object_id, destination, tries, said, wait)
            log.warning("not delivered", next_try_s=wait)

    def _process(self, row: Row[tuple[object, ...]]) -> None:
        self.spool.check_reserve()
        ds = read_file(self.spool.object(row.id))
        facts = facts_of(row.calling_ae_title, row.sop_class_uid, ds)
        route = route_for(self.config(), facts)
        if route is None:
            self._hold(row.id, _NO_ROUTE, "add a route, then retry")
            return
        try:
            result_uid, attempt = self._locked(row, ds, route)
        except DuplicateInstanceError as error:  # it could be locked: it may not leave as it came
            self._hold(row.id, str(error), error.hint, route.name)
        except NotFundusError as error:
            self._pass_or_hold(row, route, route.not_fundus, error)
        except (SourceError, PlacementError) as error:
            self._pass_or_hold(row, route, route.not_lockable, error)
        else:
            self._send(row.id, State.LOCKED, route, result_uid, attempt)
            self.log.info("locked", object=row.id, route=route.name)

    def _locked(self, row: Row[tuple[object, ...]], ds: Dataset, route: Route) -> tuple[str, str]:
        """Lock an object: file first, then vault; give its UID and the name of the attempt."""
        vault = self.lockers.vault
        if (known := self._known(row)) is not None:
            return known  # by a worker that ended just then
        with vault.reading() as connection:
            check_new(connection, str(row.sop_instance_uid))
        now = self.clock()
        locker = self.lockers.make(route.lock, now)
        began = monotonic()
        made = lock(decode_fundus(ds), locker, now=now)
        self.meters.locked(monotonic() - began)
        # Named after a grant: the vault tells later whether this is the file that it knows.
        attempt = made.grants[0].grant_id.hex()
        self.spool.write_result(row.id, attempt, to_bytes(made.ds))
        packet = None if made.detached is None else dump_detached(made.detached)
        key = locker.issuer.public.verify_key
        instance = instance_of(made.record.as_json(), made.grants, key, packet)
        try:
            with vault.writing() as writing:
                keep(writing, instance, made.grants)
                writing.checkpoint(locker.issuer)
        except DuplicateInstanceError:
            if (known := self._known(row)) is None:
                raise
            return known  # by a worker that was taken for dead, and was quicker
        return instance.locked_uid, attempt

    def _known(self, row: Row[tuple[object, ...]]) -> tuple[str, str] | None:
        """Find the lock of an object that the vault knows and whose file is here."""
        with self.lockers.vault.reading() as connection:
            for locked_uid, grant_id in locks_of(connection, str(row.sop_instance_uid)):
                if self.spool.result(row.id, grant_id.hex()).is_file():
                    return locked_uid, grant_id.hex()
        return None

    def _pass_or_hold(
        self, row: Row[tuple[object, ...]], route: Route, rule: str, error: MedLockerError
    ) -> None:
        """Forward an object as it came if its route says so in words; else hold it."""
        if rule == FORWARD:
            self._send(row.id, State.PASSED, route, str(row.sop_instance_uid), "")
            self.log.warning("forwarded unlocked", object=row.id, route=route.name, error=error)
        else:
            self._hold(row.id, str(error), error.hint, route.name)

    def _send(self, object_id: str, state: State, route: Route, uid: str, attempt: str) -> None:
        where = route.destinations
        queue.outgoing(self.ledger, object_id, state, route.name, uid, attempt, where)

    def _hold(self, object_id: str, reason: str, hint: str, route: str | None = None) -> None:
        if queue.hold(self.ledger, object_id, reason, hint, route):
            self.log.warning("object held", object=object_id)
