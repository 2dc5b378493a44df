"""Storage commitment as the node asks for it, and as it answers later (PS3.4 annex J).

A destination is asked by N-ACTION, and reports on the same association or on
one that it opens (see `commitment_service`). A sender whose association has
ended is reported to on a new one.
"""

from __future__ import annotations

from threading import Event
from typing import TYPE_CHECKING, Any, Final

from pydicom.uid import UID, ExplicitVRLittleEndian, ImplicitVRLittleEndian
from pynetdicom import build_role, evt
from pynetdicom.dimse_messages import N_EVENT_REPORT_RSP

from medlocker_dicom.errors import MedLockerError, UsageError
from medlocker_dicom.node import promises
from medlocker_dicom.node.commitment_messages import (
    CLASS_UID,
    INSTANCE_UID,
    LONGEST,
    REQUEST,
    MessageError,
    Reference,
    Report,
    read_report,
    report_of,
    request_of,
)
from medlocker_dicom.node.config import DicomDestination
from medlocker_dicom.node.outcome import Kind, Outcome, by_status, words_of
from medlocker_dicom.node.sender_link import (
    BrokenError,
    NoContextError,
    Wanted,
    establish,
    tried,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from pynetdicom.events import EventHandlerType

    from medlocker_dicom.node.config import Listen
    from medlocker_dicom.node.ledger import Ledger
    from medlocker_dicom.node.promises import Promise

    Hear = Callable[[Report], int]

LINGER_S: Final = 2.0
"""Seconds that a destination may report on the association that it was asked on."""
SYNTAXES: Final = (ExplicitVRLittleEndian, ImplicitVRLittleEndian)
SUCCESS: Final = 0x0000
RESOURCES: Final = 0x0213
_PROCESSING_FAILURE: Final = 0x0110
_NO_SUCH_ARGUMENT: Final = 0x0114
_INVALID_VALUE: Final = 0x0115
_PATIENCE_S: Final = 30.0
_WANTED: Final = tuple(Wanted(UID(CLASS_UID), syntax) for syntax in SYNTAXES)


def request(  # noqa: PLR0913  what a request is
    destination: DicomDestination,
    ae_title: str,
    transaction_uid: str,
    references: Sequence[Reference],
    hear: Hear,
    *,
    linger_s: float = LINGER_S,
) -> Outcome:
    """Ask a destination to commit to what it has (N-ACTION).

    `ledger.sent` with the transaction comes first: the report may be faster than the answer.

    Parameters
    ----------
    destination
        Whom.
    ae_title
        The node's: where a report comes to on a new association.
    transaction_uid
        New, and nobody can guess it.
    references
        What it has.
    hear
        Is given a report that comes on this association, before it is answered; says how many
        deliveries it is about, as `promises.settle` does.
    linger_s
        How long such a report is waited for.

    Returns
    -------
    Outcome
        `Kind.STORED` means that the request was taken, and that a report will come.
    """
    written = Written(N_EVENT_REPORT_RSP)
    handlers: list[EventHandlerType] = [(evt.EVT_N_EVENT_REPORT, on_report, [hear])]
    ds = request_of(transaction_uid, references)
    try:
        calling = destination.calling_ae_title or ae_title
        link = establish(destination, calling, _WANTED, handlers=[*handlers, *written.handlers()])
        status = link.say(lambda one: one.send_n_action(ds, REQUEST, CLASS_UID, INSTANCE_UID)[0])
    except BrokenError as error:
        return tried(error)
    except NoContextError:
        return Outcome(Kind.PARK, "does not offer storage commitment")
    except UsageError as error:  # of certificates
        return Outcome(Kind.RETRY, str(error))
    if status == SUCCESS:
        written.event.wait(linger_s)
    link.release()
    outcome = by_status(status)
    said = "asked to commit" if status == SUCCESS else f"storage commitment: {outcome.said}"
    return Outcome(outcome.kind, said, outcome.most)


def answer(ledger: Ledger, listen: Listen, asked: Promise) -> Outcome:
    """Answer a sender on a new association (N-EVENT-REPORT), and enter that it was taken.

    Returns
    -------
    Outcome
        `Kind.PARK` where nothing says where the sender listens.
    """
    if asked.answered:
        return Outcome(Kind.STORED, "answered already")
    there = _where(listen, asked.calling_ae_title)
    if there is None:
        said = f"listen.peers does not say where {asked.calling_ae_title} listens"
        return Outcome(Kind.PARK, said)
    kind, ds = report_of(promises.judge(ledger, asked))
    roles = [build_role(CLASS_UID, scp_role=True)]
    try:
        link = establish(there, listen.ae_title, _WANTED, roles=roles)
        status = link.say(lambda one: one.send_n_event_report(ds, kind, CLASS_UID, INSTANCE_UID)[0])
    except BrokenError as error:
        return tried(error)
    except NoContextError:
        return Outcome(Kind.RETRY, "takes no report of storage commitment")
    link.release()
    if status != SUCCESS:
        return Outcome(Kind.RETRY, f"report of storage commitment: {words_of(status)}")
    promises.answered(ledger, asked)
    return Outcome(Kind.STORED, "answered")


def _where(listen: Listen, title: str) -> DicomDestination | None:
    for peer in listen.peers:
        if peer.ae_title == title and peer.host is not None and peer.port is not None:
            return DicomDestination(
                kind="dicom",
                ae_title=title,
                host=peer.host,
                port=peer.port,
                tls=listen.tls,
                timeout_s=_PATIENCE_S,
            )
    return None


def on_report(event: Any, hear: Hear) -> tuple[int, None]:
    """Hear a destination's report: a handler of EVT_N_EVENT_REPORT."""
    try:
        check_length(event.request.EventInformation)
        known = hear(read_report(event.event_information))
    except MessageError as error:
        return error.status, None
    except MedLockerError:
        return _PROCESSING_FAILURE, None  # it is asked again some time
    return (SUCCESS if known else _INVALID_VALUE), None


def check_length(encoded: Any) -> None:
    """Check a data set before it is decoded.

    Raises
    ------
    MessageError
        There is none, or too much of it.
    """
    if encoded is None:
        raise MessageError(_NO_SUCH_ARGUMENT)
    if len(encoded.getbuffer()) > LONGEST:
        raise MessageError(RESOURCES)


class Written:
    """Tells when a message of a kind has gone out on an association.

    Parameters
    ----------
    kind
        A class of `pynetdicom.dimse_messages`, of messages without a data set.

    Attributes
    ----------
    event
        Set then.
    """

    def __init__(self, kind: type) -> None:
        self.event = Event()
        self._kind = kind
        self._queued = False

    def handlers(self) -> list[tuple[Any, Callable[[Any], None]]]:
        """Give what is to be bound to the association."""
        return [(evt.EVT_DIMSE_SENT, self._message), (evt.EVT_PDU_SENT, self._pdu)]

    def _message(self, event: Any) -> None:
        self._queued = self._queued or isinstance(event.message, self._kind)

    def _pdu(self, _: Any) -> None:
        if self._queued:
            self.event.set()
