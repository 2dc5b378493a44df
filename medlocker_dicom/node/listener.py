"""pynetdicom's server, made fit for a port that anybody may reach.

Accepting never waits for a peer: what was accepted waits in the lobby until it
speaks. Every association has an end at which what it left is cleared away.
"""

from __future__ import annotations

import errno
import os
import socket
import threading
from socketserver import TCPServer
from time import sleep
from typing import TYPE_CHECKING, Any, Final

from pynetdicom import evt
from pynetdicom.transport import AssociationSocket, RequestHandler, ThreadedAssociationServer

from medlocker_dicom.errors import UsageError
from medlocker_dicom.node.listener_lobby import PATIENCE_S, Lobby

if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable

    from pynetdicom.ae import ApplicationEntity
    from pynetdicom.association import Association
    from pynetdicom.events import Event, EventHandlerType
    from pynetdicom.presentation import PresentationContext

    from medlocker_dicom.node.config import Listen
    from medlocker_dicom.node.listener_lobby import Logger

MAX_PDU: Final = 1 << 20
"""Longest PDU that is read, in bytes: eight times what is announced for P-DATA-TF, and more than
an A-ASSOCIATE-RQ with 128 presentation contexts needs."""

_BACKLOG: Final = 512
_LAST_S: Final = 10.0
_YIELD_S: Final = 0.005
_MOST_YIELDS: Final = 4
#: Acknowledge at once, which Linux forgets again: DCMTK's senders write a PDU in pieces, and wait
#: for the first to be acknowledged before they send the next (RFC 896, RFC 1122 4.2.3.2).
_QUICKACK: Final = getattr(socket, "TCP_QUICKACK", None)


def bind(listen: Listen) -> socket.socket:
    """Open the port; processes that inherit the socket share what comes in.

    Raises
    ------
    UsageError
        It cannot be listened to.
    """
    place = f"{listen.address}:{listen.port}"
    try:
        family, _, _, _, address = socket.getaddrinfo(
            listen.address, listen.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        listening = socket.socket(family, socket.SOCK_STREAM)
    except OSError as error:
        raise UsageError(f"{place}: cannot be listened to: {error.strerror}") from error
    try:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind(address)
        listening.listen(_BACKLOG)
        listening.settimeout(0)  # another process may have taken what woke this one
    except OSError as error:
        listening.close()
        raise UsageError(f"{place}: cannot be listened to: {error.strerror}") from error
    return listening


class Wire(AssociationSocket):
    """Reads a PDU at once, and none that is too long."""

    def recv(self, nr_bytes: int) -> bytearray:
        """Read `nr_bytes`, or less where the connection ends.

        Raises
        ------
        OSError
            The peer announces more than `MAX_PDU`, or is silent for too long.
        """
        if nr_bytes > MAX_PDU:
            raise OSError(errno.EMSGSIZE, f"a PDU of {nr_bytes} bytes was announced")
        assert self.socket is not None
        if _QUICKACK is not None:
            self.socket.setsockopt(socket.IPPROTO_TCP, _QUICKACK, 1)
        data = bytearray(nr_bytes)
        view, there = memoryview(data), 0
        while there < nr_bytes:
            got = self.socket.recv_into(view[there:])
            if got == 0:
                break
            there += got
        view.release()
        del data[there:]
        return data


class _Handler(RequestHandler):
    """Runs one association to its end."""

    server: Listener
    association: Association | None = None

    def handle(self) -> None:
        """Let the association run; whatever becomes of it, nothing of it remains."""
        try:
            super().handle()
            if self.association is not None:
                self.association.join()
                self.association.dul.join(_LAST_S)  # which may be taking in a last message
        finally:
            self.server.ended(self.association, self.request)

    def _create_association(self) -> Association:
        """Make the association, with a socket of ours in the place of pynetdicom's."""
        self.association = association = super()._create_association()
        association.dul.socket = None
        association.dul.event_queue.get_nowait()  # Evt5, which the new socket says again
        association.set_socket(Wire(association, client_socket=self.request))
        return association


def _wake(event: Event) -> None:
    """Let an association end whose peer left before it asked for one: it would wait on."""
    if event.assoc.requestor.primitive is None:
        event.assoc.dul.to_user_queue.put(None)  # as a timeout gives


class Listener(ThreadedAssociationServer):
    """Listens on a socket that other processes may listen on, too.

    Parameters
    ----------
    ae, address, ae_title, contexts, ssl_context, evt_handlers
        As pynetdicom gives them.
    listening
        As `bind` makes it; what is listened on is a duplicate of it.
    shared
        Whether other processes accept what comes to it, too.
    idle_s
        Seconds of silence after which a connection ends.
    ending
        Is called with each association when it has ended, however it did.
    log
        Where connections that never associate are told of.
    """

    daemon_threads = True

    def __init__(  # noqa: PLR0913, PLR0917  the first six are pynetdicom's
        self,
        ae: ApplicationEntity,
        address: tuple[str, int],
        ae_title: str,
        contexts: list[PresentationContext],
        ssl_context: ssl.SSLContext | None,
        evt_handlers: list[EventHandlerType] | None,
        *,
        listening: socket.socket,
        shared: bool,
        idle_s: float,
        ending: Callable[[Association], None],
        log: Logger,
    ) -> None:
        self._listening, self._shared = listening, shared
        self._idle_s, self._ending = idle_s, ending
        patience = min(idle_s, PATIENCE_S)
        self.lobby = Lobby(self._begin, ssl_context, patience, log)
        self._admitted: set[Association] = set()
        self._lock = threading.Lock()
        # The context is the lobby's: pynetdicom would wait for handshakes where it accepts.
        super().__init__(ae, address, ae_title, contexts, None, evt_handlers, _Handler)
        self.bind(evt.EVT_CONN_CLOSE, _wake)
        self.lobby.start()

    def server_bind(self) -> None:
        """Take the socket that is there already."""
        assert self.socket is not None
        self.socket.close()
        # Not socket.dup: it makes the port block for a moment, in every process that shares it,
        # and one that then accepts what another has taken would wait there.
        self.socket = socket.socket(fileno=os.dup(self._listening.fileno()))
        self.socket.settimeout(0)
        self.server_address = self.socket.getsockname()

    def server_activate(self) -> None:
        """Do nothing: it listens already."""

    def server_close(self) -> None:
        """Close this process's end alone: a shutdown would reach the others'."""
        assert self.socket is not None
        self.socket.close()

    def get_request(self) -> tuple[socket.socket, Any]:
        """Accept, without waiting for whoever called.

        A process that has much to do gives the others of the port a moment to come first.
        """
        assert self.socket is not None
        if self._shared:
            sleep(_YIELD_S * min(self.lobby.waiting + len(self.admitted), _MOST_YIELDS))
        try:
            return self.socket.accept()
        except OSError as error:
            if error.errno in (errno.EMFILE, errno.ENFILE):
                sleep(0.1)  # else it would be tried again without end until some are closed
            raise

    def process_request(self, request: Any, client_address: Any) -> None:
        """Let a new connection wait in the lobby."""
        self.lobby.admit(request, client_address)

    def _begin(self, connection: socket.socket, address: Any) -> None:
        connection.settimeout(self._idle_s)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        super().process_request(connection, address)

    def admit(self, association: Association, most: int) -> bool:
        """Count an association in; False where there are `most` already."""
        with self._lock:
            if len(self._admitted) >= most:
                return False
            self._admitted.add(association)
            return True

    @property
    def admitted(self) -> list[Association]:
        """Those that were counted in, and have not ended."""
        with self._lock:
            return list(self._admitted)

    def settled(self, association: Association) -> None:
        """Be told that a request for an association was answered, or is about to be."""
        wire = association.dul.socket
        if wire is not None and wire.socket is not None:
            self.lobby.settled(wire.socket)

    def ended(self, association: Association | None, connection: socket.socket) -> None:
        """Clear away what an association leaves."""
        self.lobby.settled(connection)
        self.shutdown_request(connection)
        if association is not None:
            with self._lock:
                self._admitted.discard(association)
            self._ending(association)

    def shutdown(self) -> None:
        """Accept no more, and end what has not associated."""
        TCPServer.shutdown(self)  # pynetdicom's looks for it in a list of start_server's
        self.server_close()
        self.lobby.close()
