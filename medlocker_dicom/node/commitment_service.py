"""Storage commitment on the receiver's port: senders' requests, and destinations' reports."""

from __future__ import annotations

from dataclasses import dataclass
from io import BytesIO
from queue import Empty, Queue
from threading import BoundedSemaphore, Thread
from typing import TYPE_CHECKING, Any, Final

from pydicom.uid import UID
from pynetdicom import build_context, evt
from pynetdicom.dimse_messages import N_ACTION_RSP, N_EVENT_REPORT_RQ, N_EVENT_REPORT_RSP
from pynetdicom.dimse_primitives import N_EVENT_REPORT
from pynetdicom.dsutils import encode

from medlocker_dicom.errors import MedLockerError
from medlocker_dicom.node import promises
from medlocker_dicom.node.commitment import (
    RESOURCES,
    SUCCESS,
    SYNTAXES,
    Written,
    check_length,
    on_report,
)
from medlocker_dicom.node.commitment_messages import (
    CLASS_UID,
    INSTANCE_UID,
    NO_SUCH_INSTANCE,
    REQUEST,
    MessageError,
    Report,
    read_request,
    report_of,
)
from medlocker_dicom.node.receiver import Service

if TYPE_CHECKING:
    from pydicom.dataset import Dataset
    from pynetdicom.association import Association
    from pynetdicom.presentation import PresentationContext

    from medlocker_dicom.node.ledger import Ledger

_NO_SUCH_CLASS: Final = 0x0118
_NO_SUCH_ACTION: Final = 0x0123
_PATIENCE_S: Final = 10.0
_AT_ONCE: Final = 8
_MESSAGE: Final = 1


def service(ledger: Ledger) -> Service:
    """Give what a receiver's port serves further."""
    slots = BoundedSemaphore(_AT_ONCE)

    def hear(report: Report) -> int:
        return promises.settle(ledger, report)

    return Service(
        [_context()],
        [
            (evt.EVT_N_ACTION, _on_request, [ledger, slots]),
            (evt.EVT_N_EVENT_REPORT, on_report, [hear]),
        ],
    )


def _context() -> PresentationContext:
    """Accept peers in both roles: senders as SCU, destinations that report as SCP."""
    context = build_context(CLASS_UID, list(SYNTAXES))
    context.scu_role = context.scp_role = True
    return context


def _on_request(event: Any, ledger: Ledger, slots: BoundedSemaphore) -> tuple[int, None]:
    """Take a sender's request, and try to answer it here as soon as this is answered."""
    try:
        _check(event.request)
        transaction_uid, references = read_request(event.action_information)
        title = event.assoc.requestor.ae_title
        promises.promise(ledger, transaction_uid, title, references)
    except MessageError as error:
        return error.status, None
    except MedLockerError:
        return RESOURCES, None
    if slots.acquire(blocking=False):
        written = Written(N_ACTION_RSP)
        for what, function in written.handlers():
            event.assoc.bind(what, function)
        context = event.context
        there = _There(event.assoc, context.context_id, UID(context.transfer_syntax), written)
        arguments = (ledger, slots, transaction_uid, title, there)
        Thread(target=_answer, args=arguments, name="commitment", daemon=True).start()
    return SUCCESS, None


def _check(asked: Any) -> None:
    if asked.RequestedSOPClassUID != CLASS_UID:
        raise MessageError(_NO_SUCH_CLASS)
    if asked.RequestedSOPInstanceUID != INSTANCE_UID:
        raise MessageError(NO_SUCH_INSTANCE)
    if asked.ActionTypeID != REQUEST:
        raise MessageError(_NO_SUCH_ACTION)
    check_length(asked.ActionInformation)


@dataclass(frozen=True)
class _There:
    """Where a request was made, and when it is answered."""

    association: Association
    context_id: int
    syntax: UID
    written: Written

    def report(self, kind: int, ds: Dataset) -> int | None:
        """Send a report between the requests of a sender, and wait for its status.

        pynetdicom's own `send_n_event_report` takes whatever comes next for the
        answer: a sender that goes on with C-STORE would be aborted. So the report is
        queued in one piece, between two responses, and its answer looked out for.
        """
        statuses: Queue[int] = Queue()
        self.association.bind(evt.EVT_DIMSE_RECV, _note_status, [statuses])
        outlet: Any = self.association.dul.to_provider_queue
        fragments = self._fragments(kind, ds)
        with outlet.mutex:
            outlet.queue.extend(fragments)
            outlet.not_empty.notify()
        try:
            return statuses.get(timeout=_PATIENCE_S)
        except Empty:
            return None
        finally:
            self.association.unbind(evt.EVT_DIMSE_RECV, _note_status)

    def _fragments(self, kind: int, ds: Dataset) -> list[Any]:
        message = N_EVENT_REPORT()
        message.MessageID = _MESSAGE
        message.AffectedSOPClassUID = UID(CLASS_UID)
        message.AffectedSOPInstanceUID = UID(INSTANCE_UID)
        message.EventTypeID = kind
        encoded = encode(ds, self.syntax.is_implicit_VR, self.syntax.is_little_endian)
        assert encoded is not None, "it holds nothing but UIDs and numbers"
        message.EventInformation = BytesIO(encoded)
        encoder = N_EVENT_REPORT_RQ()
        encoder.primitive_to_message(message)
        return list(encoder.encode_msg(self.context_id, self.association.dimse.maximum_pdu_size))


def _answer(
    ledger: Ledger, slots: BoundedSemaphore, transaction_uid: str, title: str, there: _There
) -> None:
    """Answer on the association of the request; where that fails, the workflow does later."""
    try:
        there.written.event.wait(_PATIENCE_S)
        for what, function in there.written.handlers():
            there.association.unbind(what, function)
        if not there.association.is_established:
            return
        asked = promises.find_promise(ledger, transaction_uid, title)
        if there.report(*report_of(promises.judge(ledger, asked))) == SUCCESS:
            promises.answered(ledger, asked)
    except MedLockerError:
        return
    finally:
        slots.release()


def _note_status(event: Any, statuses: Queue[int]) -> None:
    if isinstance(event.message, N_EVENT_REPORT_RSP):
        statuses.put(event.message.command_set.Status)
