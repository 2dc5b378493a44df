"""One association with an archive, that objects are sent through one after the other."""

from __future__ import annotations

from time import monotonic
from typing import TYPE_CHECKING, Any, Final, NamedTuple, cast

from pynetdicom import AE, _config, build_context, evt
from pynetdicom.pdu_primitives import A_ABORT, A_P_ABORT

from medlocker_dicom.dicom.writing import IMPLEMENTATION_CLASS_UID, IMPLEMENTATION_VERSION
from medlocker_dicom.errors import NotDicomError
from medlocker_dicom.node.outcome import Kind, Outcome, by_status
from medlocker_dicom.node.sender_queue import Inlet, Outlet, PeerGoneError
from medlocker_dicom.node.sender_sockets import TIMED_OUT, Door, network_words
from medlocker_dicom.node.tls import client_context

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path
    from ssl import SSLContext

    from pydicom.dataset import Dataset
    from pydicom.uid import UID
    from pynetdicom.association import Association
    from pynetdicom.events import EventHandlerType
    from pynetdicom.pdu_primitives import SCP_SCU_RoleSelectionNegotiation

    from medlocker_dicom.node.config import DicomDestination

# Files are sent as they are, fragment by fragment: the library has no other switch.
_config.STORE_SEND_CHUNKED_DATASET = True

IDLE_S: Final = 2
"""Seconds that an association waits for the next object.

Few: an archive may take one association at a time, and another worker waits for it.
"""
_LATER_S: Final = 1
_FAREWELL_S: Final = 5
_MOST_MESSAGES: Final = 1 << 16


class Wanted(NamedTuple):
    """A SOP class in a transfer syntax."""

    class_uid: UID
    syntax: UID


class BrokenError(Exception):
    """An association ended before its answer.

    Parameters
    ----------
    said
        How, in words.
    silent
        Whether the peer just said nothing for too long.
    """

    def __init__(self, said: str, *, silent: bool = False) -> None:
        super().__init__(said)
        self.silent = silent


class NoContextError(Exception):
    """The peer accepted the association, and nothing that was to be sent in it."""


class Link:
    """An association that is established.

    Parameters
    ----------
    association, door
        What pynetdicom made, and what it goes through.
    proposed
        What the peer was asked for.
    patience
        Seconds until a silent peer is given up.
    """

    def __init__(
        self, association: Association, door: Door, proposed: frozenset[Wanted], patience: float
    ) -> None:
        self.association = association
        self.proposed = proposed
        self.used = monotonic()
        self._door = door
        self._patience = patience
        self._messages = 0
        accepted = association.accepted_contexts
        self.accepted = frozenset(
            Wanted(cast("UID", one.abstract_syntax), one.transfer_syntax[0]) for one in accepted
        )

    @property
    def alive(self) -> bool:
        """Whether it can still be used, as far as this side knows."""
        fresh = monotonic() - self.used < IDLE_S
        return fresh and self.association.is_established and self.association.is_alive()

    def store(self, path: Path) -> Outcome:
        """Send a file by C-STORE, in a syntax that was accepted for it.

        Raises
        ------
        BrokenError
            The association ended before the answer.
        NotDicomError
            The file cannot be read to its end.
        """
        self._messages = self._messages % (_MOST_MESSAGES - 1) + 1
        number = self._messages
        try:
            return by_status(self.say(lambda one: one.send_c_store(path, number, priority=0)))
        except OSError as error:
            raise NotDicomError(f"{path}: cannot be read: {error.strerror}") from error

    def say(self, what: Callable[[Association], Dataset]) -> int:
        """Send a message, and give the status of its answer.

        Raises
        ------
        BrokenError
            The association ended before the answer.
        """
        began = monotonic()
        try:
            status = what(self.association)
        except PeerGoneError as error:
            broken = self._broken(began - self._patience * error.silent)
            self._door.cut()
            self.abort()
            raise broken from error
        except RuntimeError as error:  # it has ended in this moment
            self.abort()
            raise self._broken(began) from error
        if "Status" not in status:
            self.abort()
            raise self._broken(began)
        return int(status.Status)

    def _broken(self, began: float) -> BrokenError:
        if self._door.heard:
            said = self._door.heard[0]
            return BrokenError(said, silent=said == TIMED_OUT)
        if monotonic() - began >= self._patience:
            return BrokenError(f"no answer for {self._patience:g} s", silent=True)
        return BrokenError("the association was broken off")

    def rest(self) -> None:
        """Let it wait for the next object; it ends by itself after a while.

        That is later than it is `alive`, so that none is used while it goes.
        """
        self.used = monotonic()
        self.association.network_timeout_response = "A-RELEASE"
        self.association.network_timeout = IDLE_S + _LATER_S

    def wake(self) -> None:
        """Let it not end by itself any more: an object is made ready for it."""
        self.association.network_timeout = None

    def release(self) -> None:
        """End it in order."""
        self.association.acse_timeout = min(self._patience, _FAREWELL_S)
        self.association.release()

    def abort(self) -> None:
        """End it at once."""
        self.association.abort()


def establish(
    destination: DicomDestination,
    calling_ae_title: str,
    proposed: Sequence[Wanted],
    *,
    roles: Sequence[SCP_SCU_RoleSelectionNegotiation] = (),
    handlers: Sequence[EventHandlerType] = (),
) -> Link:
    """Ask an archive for an association.

    Parameters
    ----------
    destination
        Whom.
    calling_ae_title
        As whom.
    proposed
        Up to 128 presentation contexts, each of one transfer syntax: so the peer chooses
        for each, and not among them.
    roles
        Role selection (PS3.7 D.3.3.4).
    handlers
        pynetdicom's, further ones.

    Raises
    ------
    BrokenError
        There is none, and why.
    NoContextError
        The peer takes nothing of this.
    """
    patience = destination.timeout_s
    door = Door(_context(destination), patience)
    ae = AE(calling_ae_title)
    ae.implementation_class_uid = IMPLEMENTATION_CLASS_UID
    ae.implementation_version_name = IMPLEMENTATION_VERSION
    ae.connection_timeout = ae.acse_timeout = ae.dimse_timeout = patience
    ae.network_timeout = None  # else it ends by itself while an object is made ready
    opened: list[bool] = []
    began = monotonic()
    try:
        association = ae.associate(
            destination.host,
            destination.port,
            [build_context(*one) for one in proposed],
            ae_title=destination.ae_title,
            ext_neg=list(roles),
            tls_args=(cast("SSLContext", door), destination.host),
            evt_handlers=[
                (evt.EVT_CONN_OPEN, lambda _: opened.append(True)),
                (evt.EVT_ACSE_RECV, _note_abort, [door.heard]),
                *handlers,
            ],
        )
    except OSError as error:  # of the host's name
        raise BrokenError(network_words(error)) from error
    if not association.is_established:
        raise _refusal(association, door, opened, monotonic() - began)
    association.dul.to_provider_queue = Outlet(association.dul, patience)
    association.dimse.msg_queue = Inlet(association.dul)
    return Link(association, door, frozenset(proposed), patience)


def _context(destination: DicomDestination) -> SSLContext | None:
    """Read the certificates anew: they are renewed while the node runs."""
    return None if destination.tls is None else client_context(destination.tls)


def _note_abort(event: Any, heard: list[str]) -> None:
    if isinstance(event.primitive, A_ABORT):
        heard.append("the association was aborted")
    elif isinstance(event.primitive, A_P_ABORT):
        heard.append("the connection was closed")


def _refusal(
    association: Association, door: Door, opened: list[bool], waited_s: float
) -> BrokenError | NoContextError:
    """Find out why there is no association."""
    answer = association.acceptor.primitive
    if association.is_rejected and answer is not None:
        return BrokenError(
            f"association rejected ({answer.result}, {answer.result_source}, "
            f"{answer.diagnostic}): {answer.result_str.lower()}, {answer.reason_str.lower()}"
        )
    if answer is not None and answer.result == 0 and association.rejected_contexts:
        return NoContextError()
    if door.heard:
        words = door.heard[0]
        return BrokenError(words if opened else f"cannot be connected to: {words}")
    if waited_s >= (association.acse_timeout or 0):
        return BrokenError(f"no answer for {waited_s:.0f} s", silent=True)
    return BrokenError("the association was broken off before it began")


def tried(error: BrokenError) -> Outcome:
    """Judge an association that failed: it says nothing of the object, so it is tried again.

    That holds for a permanent rejection too: somebody enters a title, and all goes its way.
    """
    return Outcome(Kind.RETRY, str(error))
