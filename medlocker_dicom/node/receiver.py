"""The receiver: C-ECHO and C-STORE (PS3.4 Annex A and B), answered when it is true.

pynetdicom speaks; this says what is accepted, and what is answered. Several
processes may each run one on the same port (`serve`).
"""

from __future__ import annotations

import signal
import tempfile
import threading
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final

from pydicom import uid
from pydicom.dataset import Dataset
from pynetdicom import AE, _config, evt
from pynetdicom.presentation import PresentationContext
from pynetdicom.service_class import ServiceClass, StorageServiceClass
from pynetdicom.sop_class import register_uid, uid_to_service_class

from medlocker_dicom.dicom.syntaxes import CODECS, SOURCE_CLASSES
from medlocker_dicom.errors import MedLockerError, NotDicomError, OutputError, SourceError
from medlocker_dicom.node import audit
from medlocker_dicom.node.audit import Auditor
from medlocker_dicom.node.ledger import Entered
from medlocker_dicom.node.listener import Listener, bind
from medlocker_dicom.node.listener_lobby import PATIENCE_S
from medlocker_dicom.node.metrics import Meters, make_meters
from medlocker_dicom.node.receiver_admission import BROKEN, Caller, Refusal, crowded, stranger
from medlocker_dicom.node.receiver_arrival import Announced, take_in
from medlocker_dicom.node.receiver_limits import Limits
from medlocker_dicom.node.tls import server_context

if TYPE_CHECKING:
    import socket
    from collections.abc import Sequence

    from pynetdicom.association import Association
    from pynetdicom.events import Event, EventHandlerType

    from medlocker_dicom.node.config import Listen, NodeConfig
    from medlocker_dicom.node.ledger import Ledger
    from medlocker_dicom.node.listener_lobby import Logger
    from medlocker_dicom.node.spool import Spool

SYNTAXES: Final = (
    uid.ExplicitVRLittleEndian,
    uid.ImplicitVRLittleEndian,
    uid.DeflatedExplicitVRLittleEndian,
    *CODECS,
)
"""Transfer syntaxes that are accepted. Of several that a sender offers for one presentation
context the first of these is taken: pixels as they are before pixels that it has to compress."""

SECONDARY_CAPTURES: Final = MappingProxyType(
    {
        str(known): known.name
        for known in (
            uid.SecondaryCaptureImageStorage,
            uid.MultiFrameSingleBitSecondaryCaptureImageStorage,
            uid.MultiFrameGrayscaleByteSecondaryCaptureImageStorage,
            uid.MultiFrameGrayscaleWordSecondaryCaptureImageStorage,
            uid.MultiFrameTrueColorSecondaryCaptureImageStorage,
        )
    }
)
"""SOP Class UID to name: all five."""

_VERIFICATION: Final = "1.2.840.10008.1.1"
MAX_PDU: Final = 131072
"""Bytes of a P-DATA-TF that are announced."""

_HELD: Final = {
    Entered.NEW: audit.Held.NOT,
    Entered.AGAIN: audit.Held.SAME,
    Entered.CONFLICT: audit.Held.OTHER,
}
_AT_ONCE: Final = 4  # writers to the database of a process; it takes one after the other anyway
_COMMENT: Final = 64  # characters of an Error Comment (0000,0902), LO


def accepted_classes(listen: Listen) -> list[str]:
    """List the SOP Class UIDs that are stored."""
    return list(dict.fromkeys([*SOURCE_CLASSES, *SECONDARY_CAPTURES, *listen.further_classes]))


@dataclass(frozen=True)
class Service:
    """What else the port serves, such as storage commitment.

    Attributes
    ----------
    contexts
        Accepted presentation contexts.
    handlers
        Of pynetdicom's events; not of EVT_REQUESTED, EVT_PDU_RECV, EVT_DIMSE_RECV, EVT_C_STORE.
    """

    contexts: Sequence[PresentationContext] = ()
    handlers: Sequence[EventHandlerType] = ()


@dataclass
class Receiver:
    """Receives objects into the spool and the queue.

    While one runs, files of `tempfile` of this process lie in the spool: a process runs one, and
    little else.

    Attributes
    ----------
    config
        Of the node.
    spool, ledger
        Where objects go.
    log
        Is told what was received and refused; never a patient's name or a UID.
    listening
        As `listener.bind` makes it; None to open the port here.
    number
        Of the process among those that share the port.
    further
        What else the port serves.
    auditor, meters
        Are told of what was received and refused.
    """

    config: NodeConfig
    spool: Spool
    ledger: Ledger
    log: Logger
    listening: socket.socket | None = None
    number: int = 0
    further: Sequence[Service] = ()
    auditor: Auditor = field(default_factory=lambda: Auditor(None, (), b""))
    meters: Meters = field(default_factory=make_meters)
    _server: Listener | None = field(default=None, init=False)
    _before: tuple[Any, ...] = field(default=(), init=False)

    def start(self) -> None:
        """Begin to receive.

        Raises
        ------
        UsageError
            The port cannot be listened to, or a file for TLS is unusable.
        OutputError
            The spool cannot be written.
        """
        listen = self.config.listen
        context = None if listen.tls is None else server_context(listen.tls)
        self.spool.prepare()
        listening = self.listening or bind(listen)
        self._limits = Limits(self.spool, listen.largest)
        self._entering = threading.BoundedSemaphore(_AT_ONCE)
        self._settle()
        server = _entity(listen).make_server(
            listening.getsockname(),
            contexts=self._contexts(),
            ssl_context=context,
            evt_handlers=self._handlers(),
            server_class=Listener,
            listening=listening,
            shared=listen.processes > 1 and self.listening is not None,
            idle_s=listen.idle_s,
            ending=self._limits.clear,
            log=self.log,
        )
        if self.listening is None:
            listening.close()  # the server has a duplicate
        assert isinstance(server, Listener)
        self._server = server
        self._thread = threading.Thread(target=server.serve_forever, name="accept", daemon=True)
        self._thread.start()
        self.log.info("receiver started", address=server.server_address[0], port=self.port)

    @property
    def port(self) -> int:
        """The port that is listened to."""
        assert self._server is not None, "start comes first"
        return int(self._server.server_address[1])

    def stop(self, patience_s: float = 5.0) -> None:
        """Accept no more, let associations end for a while, then abort those that are left."""
        server = self._server
        if server is None:
            return
        self._server = None
        server.shutdown()
        self._thread.join()
        waiting = threading.Event()
        for _ in range(int(patience_s / 0.05)):
            if not server.admitted:
                break
            waiting.wait(0.05)
        for association in server.admitted:
            association.abort(block=False)
        for association in server.admitted:
            association.join(1.0)
        self._unsettle()
        self.log.info("receiver stopped", port=server.server_address[1])

    def _settle(self) -> None:
        """Let pynetdicom write what arrives into the spool, and log no message's content."""
        prefix = f"receiver-{self.number}-"
        self._before = (
            tempfile.tempdir,
            tempfile.template,
            _config.STORE_RECV_CHUNKED_DATASET,
            _config.LOG_HANDLER_LEVEL,
        )
        for part in self.spool.incoming.glob(f"{prefix}*"):  # of this one's predecessor
            part.unlink(missing_ok=True)
        tempfile.tempdir, tempfile.template = str(self.spool.incoming), prefix
        _config.STORE_RECV_CHUNKED_DATASET, _config.LOG_HANDLER_LEVEL = True, "none"

    def _unsettle(self) -> None:
        tempfile.tempdir, tempfile.template, chunked, level = self._before
        _config.STORE_RECV_CHUNKED_DATASET, _config.LOG_HANDLER_LEVEL = chunked, level

    def _contexts(self) -> list[PresentationContext]:
        contexts = [_context(_VERIFICATION, SYNTAXES[:2])]
        for one in accepted_classes(self.config.listen):
            if uid_to_service_class(one) is ServiceClass:  # a private class, or a newer one
                register_uid(one, f"Further{one.replace('.', '_')}", StorageServiceClass)
            contexts.append(_context(one, SYNTAXES))
        return contexts + [one for service in self.further for one in service.contexts]

    def _handlers(self) -> list[EventHandlerType]:
        further = [one for service in self.further for one in service.handlers]
        return [
            (evt.EVT_REQUESTED, self._requested),
            (evt.EVT_PDU_RECV, self._limits.watch),
            (evt.EVT_DIMSE_RECV, self._limits.arrived),
            (evt.EVT_C_STORE, self._stored),
            *further,
        ]

    def _requested(self, event: Event) -> None:
        """Admit or refuse an association; what fails here refuses it."""
        association, server = event.assoc, self._server
        refusal: Refusal | None = BROKEN
        caller = Caller("", "", str(association.requestor.address))
        try:
            caller = _caller(association)
            if server is not None:
                refusal = self._refusal(server, association, caller)
                server.settled(association)
        except Exception as error:  # noqa: BLE001  pynetdicom would log it, and accept
            self.log.error("association not judged", kind=type(error).__name__)  # noqa: TRY400  as below
        if refusal is not None:
            try:
                self.log.warning("association refused", reason=refusal.reason, **vars(caller))
                if refusal.alert is not None:
                    peer = audit.Peer(caller.calling_ae_title, caller.address)
                    self.auditor.refused(peer, refusal.alert)
            finally:  # whether that can be told or not
                association.acse.send_reject(*refusal.codes)
                association.kill()

    def _refusal(
        self, server: Listener, association: Association, caller: Caller
    ) -> Refusal | None:
        refusal = stranger(self.config.listen, caller)
        if refusal is not None:
            return refusal
        try:
            self.spool.check_room()
        except OutputError as error:
            return crowded(str(error))
        if not server.admit(association, self.config.listen.associations):
            return crowded("as many associations as listen.associations allows are open")
        return None

    def _stored(self, event: Event) -> int | Dataset:
        """Answer a C-STORE-RQ; nothing raised here may become pynetdicom's answer."""
        caller = _caller(event.assoc)
        path = Path(event.dataset_path) if event.dataset_path else None
        try:
            return self._store(event, path, caller)
        except MedLockerError as error:
            self.log.warning(
                "object refused",
                status=f"{error.status:04X}",
                reason=str(error),
                kind=type(error).__name__,
                **vars(caller),
            )
            self.meters.refused(error)
            return _answer(error)
        except Exception as error:  # noqa: BLE001  the sender is told, whatever it is
            # Its words and its traceback may be a patient's.
            self.log.error("object failed", kind=type(error).__name__, **vars(caller))  # noqa: TRY400
            return MedLockerError.status
        finally:
            if path is not None:
                path.unlink(missing_ok=True)  # an object of the queue has another name by now
                self._limits.forget(path)

    def _store(self, event: Event, path: Path | None, caller: Caller) -> int:
        if path is None:
            raise NotDicomError("the command has no data set")
        self._limits.check(path)
        request: Any = event.request
        announced = Announced(str(request.AffectedSOPInstanceUID), str(request.AffectedSOPClassUID))
        with self._entering:
            arrival, entered = take_in(self.spool, self.ledger, path, announced, caller)
        self.log.info(
            "object received",
            object=arrival.id,
            size=arrival.size,
            outcome=entered.value,
            **vars(caller),
        )
        self.meters.stored(entered, arrival.size)
        self.auditor.received(
            audit.Peer(caller.calling_ae_title, caller.address),
            audit.Moved(arrival.study_instance_uid, {arrival.sop_class_uid: 1}),
            _HELD[entered],
        )
        return 0x0000


def serve(receiver: Receiver) -> None:
    """Run a receiver as all that a process does, until SIGTERM or SIGINT.

    The supervisor opens the port by `listener.bind`, runs `recover` once, and starts
    ``config.listen.processes`` processes that inherit the socket, each with its own number and
    ledger; one that died is started anew with the number that it had. What the libraries log and
    warn of tells values, and is for the process's log to tame.
    """
    stopped = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stopped.set())
    receiver.start()
    stopped.wait()
    receiver.stop()


def _entity(listen: Listen) -> AE:
    ae = AE(ae_title=listen.ae_title)
    ae.maximum_pdu_size = MAX_PDU
    ae.maximum_associations = 1 << 20  # the listener counts
    ae.network_timeout = listen.idle_s
    ae.dimse_timeout = listen.idle_s
    ae.acse_timeout = min(listen.idle_s, PATIENCE_S)
    ae.require_called_aet = True
    return ae


def _context(abstract: str, syntaxes: Sequence[str]) -> PresentationContext:
    context = PresentationContext()
    context.abstract_syntax = uid.UID(abstract)
    context.transfer_syntax = [uid.UID(one) for one in syntaxes]
    return context


def _caller(association: Association) -> Caller:
    request: Any = association.requestor.primitive
    address = association.requestor.address
    return Caller(
        str(request.calling_ae_title).strip(), str(request.called_ae_title).strip(), str(address)
    )


def _answer(error: MedLockerError) -> Dataset:
    """Answer an error; what is the sender's fault is said to it, what is ours is not."""
    status = Dataset()
    status.Status = error.status
    if isinstance(error, SourceError):
        words = str(error).encode("ascii", "replace").decode().replace("\\", "?")
        status.ErrorComment = words[:_COMMENT]
    return status
