"""Where connections wait until they begin to speak DICOM: one thread for all of them.

A probe that connects and is silent, or a TLS handshake that stalls, costs a
file descriptor until its time is over. pynetdicom's two threads an
association are only made for who sends an A-ASSOCIATE-RQ (PS3.8 section 9.3.2).
"""

from __future__ import annotations

import contextlib
import selectors
import socket
import ssl
import threading
from collections import deque
from dataclasses import dataclass
from time import monotonic
from typing import TYPE_CHECKING, Any, Final, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable

MAX_WAITING: Final = 256
"""Connections that have not said anything yet; one more closes the one that waited longest."""
MAX_SPEAKING: Final = 32
"""Connections whose A-ASSOCIATE-RQ is being read; further ones wait."""
PATIENCE_S: Final = 30.0
"""Seconds from the connection to the end of the A-ASSOCIATE-RQ (ARTIM, PS3.8 section 9.1.5)."""

_TICK_S: Final = 0.5
_ASSOCIATE_RQ: Final = b"\x01"


class Logger(Protocol):
    """What messages go to: structlog's loggers are such."""

    def info(self, event: str, **fields: Any) -> Any:
        """Say what happened."""

    def warning(self, event: str, **fields: Any) -> Any:
        """Say what should not have happened."""

    def error(self, event: str, **fields: Any) -> Any:
        """Say what went wrong on this side."""


@dataclass(eq=False)
class _Guest:
    socket: socket.socket
    address: Any
    until: float
    greeted: bool

    def shut(self) -> None:
        """End the connection for whoever reads or writes it; of TLS, without taking leave."""
        with contextlib.suppress(OSError):
            socket.socket.shutdown(self.socket, socket.SHUT_RDWR)


class Lobby:
    """Waits for connections to begin.

    Parameters
    ----------
    begin
        Is given the socket and address of a connection that has begun, in blocking mode, after
        its TLS handshake. It tells by `settled` when that has associated, was refused or ended.
    context
        For TLS; None for plain DICOM.
    patience_s
        Seconds from the connection to the end of its A-ASSOCIATE-RQ.
    log
        Is told of handshakes that failed.
    """

    def __init__(
        self,
        begin: Callable[[socket.socket, Any], None],
        context: ssl.SSLContext | None,
        patience_s: float,
        log: Logger,
    ) -> None:
        self._begin, self._context, self._patience, self._log = begin, context, patience_s, log
        self._arrived: deque[tuple[socket.socket, Any]] = deque()
        self._waiting: dict[socket.socket, _Guest] = {}  # the oldest first
        self._ready: deque[_Guest] = deque()
        self._speaking: dict[socket.socket, _Guest] = {}
        self._lock = threading.Lock()  # of what several threads change: _speaking
        self._selector = selectors.DefaultSelector()
        self._bell, self._door = socket.socketpair()
        self._bell.settimeout(0)
        self._door.settimeout(0)
        self._selector.register(self._door, selectors.EVENT_READ)
        self._open = True
        self._thread = threading.Thread(target=self._run, name="lobby", daemon=True)

    def start(self) -> None:
        """Begin to wait."""
        self._thread.start()

    def close(self) -> None:
        """End every connection that has not associated."""
        self._open = False
        self._wake()
        self._thread.join()
        for guest in [*self._waiting.values(), *self._ready]:
            guest.socket.close()
        for speaking in list(self._speaking.values()):
            speaking.shut()
        self._selector.close()
        self._bell.close()
        self._door.close()

    def admit(self, connection: socket.socket, address: Any) -> None:
        """Take in a connection that was accepted; from any thread."""
        self._arrived.append((connection, address))
        self._wake()

    def settled(self, connection: socket.socket) -> None:
        """Be told that a connection that has begun is no longer of the lobby's concern."""
        with self._lock:
            known = self._speaking.pop(connection, None)
        if known is not None:
            self._wake()

    @property
    def waiting(self) -> int:
        """How many connections have not associated."""
        return len(self._arrived) + len(self._waiting) + len(self._ready) + len(self._speaking)

    def _wake(self) -> None:
        with contextlib.suppress(BlockingIOError, OSError):
            self._bell.send(b"\0")

    def _run(self) -> None:
        while self._open:
            for key, _ in self._selector.select(_TICK_S):
                if key.fileobj is self._door:
                    with contextlib.suppress(OSError):
                        self._door.recv(4096)
                else:
                    self._hear(key.data)
            while self._arrived:
                self._seat(*self._arrived.popleft())
            self._expire()
            while self._ready and len(self._speaking) < MAX_SPEAKING:
                self._hand_over(self._ready.popleft())

    def _seat(self, connection: socket.socket, address: Any) -> None:
        """Let a new connection wait; too many close the one that has waited longest."""
        if len(self._waiting) + len(self._ready) >= MAX_WAITING:
            oldest = next(iter(self._waiting.values()), None) or self._ready.popleft()
            self._leave(oldest, "too many connections that say nothing")
        try:
            connection.settimeout(0)
            if self._context is not None:
                connection = self._context.wrap_socket(
                    connection, server_side=True, do_handshake_on_connect=False
                )
            self._selector.register(connection, selectors.EVENT_READ)
        except (OSError, ValueError):
            connection.close()
            return
        until = monotonic() + self._patience
        guest = _Guest(connection, address, until, greeted=self._context is None)
        self._selector.modify(connection, selectors.EVENT_READ, guest)
        self._waiting[connection] = guest

    def _hear(self, guest: _Guest) -> None:
        """Go on with a connection that sent something."""
        try:
            if not guest.greeted:
                self._greet(guest)
            elif self._speaks_dicom(guest):
                self._forget(guest)
                self._ready.append(guest)
            else:
                self._leave(guest, "")
        except ssl.SSLError as error:
            self._leave(guest, f"TLS handshake failed: {error.reason or type(error).__name__}")
        except OSError:
            self._leave(guest, "")

    def _greet(self, guest: _Guest) -> None:
        """Go on with a TLS handshake, as far as it goes without waiting."""
        assert isinstance(guest.socket, ssl.SSLSocket)
        events = selectors.EVENT_READ
        try:
            guest.socket.do_handshake()
            guest.greeted = True
        except ssl.SSLWantReadError:
            pass
        except ssl.SSLWantWriteError:
            events = selectors.EVENT_WRITE
        self._selector.modify(guest.socket, events, guest)

    @staticmethod
    def _speaks_dicom(guest: _Guest) -> bool:
        """Look at the first byte: a web browser, or a probe that is gone, needs no association.

        Behind TLS it cannot be looked at without taking it.
        """
        if isinstance(guest.socket, ssl.SSLSocket):
            return True
        return guest.socket.recv(1, socket.MSG_PEEK) == _ASSOCIATE_RQ

    def _hand_over(self, guest: _Guest) -> None:
        with self._lock:
            self._speaking[guest.socket] = guest
        try:
            guest.socket.settimeout(None)
            self._begin(guest.socket, guest.address)
        except (OSError, RuntimeError) as error:  # gone, or no further thread can be made
            self._log.error("connection not taken", kind=type(error).__name__)
            self.settled(guest.socket)
            guest.socket.close()

    def _expire(self) -> None:
        """Close what has waited too long; who has begun is woken by the end of its socket."""
        now = monotonic()
        with self._lock:
            speaking = list(self._speaking.values())
        for guest in speaking:
            if guest.until < now:
                guest.shut()
        late = [one for one in [*self._waiting.values(), *self._ready] if one.until < now]
        for guest in late:
            self._leave(guest, "" if guest.greeted else "TLS handshake took too long")

    def _leave(self, guest: _Guest, reason: str) -> None:
        if reason:
            self._log.warning("connection closed", address=guest.address[0], reason=reason)
        self._forget(guest)
        if guest in self._ready:
            self._ready.remove(guest)
        guest.socket.close()

    def _forget(self, guest: _Guest) -> None:
        if self._waiting.pop(guest.socket, None) is not None:
            self._selector.unregister(guest.socket)
