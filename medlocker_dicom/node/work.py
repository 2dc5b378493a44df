"""What a worker does with an object: have it locked, send it, ask for a promise to keep it.

Each of these can be cut off at any moment and begun again: what is sent twice has one SOP Instance
UID.
"""

from __future__ import annotations

from dataclasses import dataclass
from time import monotonic
from typing import TYPE_CHECKING, Any, Final

from pydicom import dcmread
from pydicom.uid import generate_uid

from medlocker_dicom.dicom.reading import parsing
from medlocker_dicom.errors import NotDicomError, OutputError, SourceError, UsageError
from medlocker_dicom.node import commitment, promises
from medlocker_dicom.node import ledger as queue
from medlocker_dicom.node.apart import EndedError, EndlessError, UnbegunError
from medlocker_dicom.node.audit import MINOR, SUCCESS, Moved, Peer
from medlocker_dicom.node.commitment_messages import Reference
from medlocker_dicom.node.config import DicomDestination
from medlocker_dicom.node.ledger import Sending, State
from medlocker_dicom.node.outcome import Kind, delay_s
from medlocker_dicom.node.setbacks import Setbacks

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from sqlalchemy import Row

    from medlocker_dicom.node.audit import Auditor
    from medlocker_dicom.node.config import NodeConfig, StowDestination
    from medlocker_dicom.node.ledger import Ledger
    from medlocker_dicom.node.logs import Log
    from medlocker_dicom.node.metrics import Meters
    from medlocker_dicom.node.sender import Senders
    from medlocker_dicom.node.spool import Spool

#: Beginnings without an end after which an object is held: it may be what ends the worker.
MOST_STARTS: Final = 20
#: Of the same, where it is the process that locks which ends.
_MOST_ENDS: Final = 5
#: Seconds until a destination that has promised nothing is asked again.
_COMMIT_S: Final = 300.0


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
    locking
        Has an object locked within so many seconds: `locking.Locking` in a process apart; raises
        as `apart.Apart.call`.
    senders
        Send to destinations.
    log, auditor, meters
        Are told what was done; never of a patient.
    """

    config: Callable[[], NodeConfig]
    spool: Spool
    ledger: Ledger
    locking: Callable[[float, str], bytes]
    senders: Senders
    log: Log
    auditor: Auditor
    meters: Meters

    def process(self, object_id: str) -> None:
        """Lock an object by its route, or hold it; whatever happens, the ledger says what."""
        row = queue.find(self.ledger, object_id)
        if row.state != State.RECEIVED:
            return
        back = Setbacks(self.ledger, self.log)
        if row.starts >= MOST_STARTS:
            back.hold(object_id, f"the worker ended {MOST_STARTS} times while it worked on this")
            return
        minutes = self.config().lock_minutes
        try:
            seconds = self.locking(60 * minutes, object_id)
        except UnbegunError as error:
            back.postpone(row, error, str(error), error.hint)
        except EndlessError:
            back.hold(
                object_id,
                f"locking it took longer than {minutes:g} minutes, lock_minutes of node.yaml",
                "look at the object and at its route's budget, then retry",
            )
        except EndedError as error:
            self.log.error("a process ended", object=object_id, number=error.args[0])  # noqa: TRY400  no traceback
            starts = queue.find(self.ledger, object_id).starts
            if starts < _MOST_ENDS:
                back.postpone(row, error, "the process that locked it ended", starts=starts)
            else:
                back.hold(object_id, f"the process that locked it ended, after {starts} tries")
        else:
            if seconds:
                self.meters.locked(float(seconds))

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
