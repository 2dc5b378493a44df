"""Sockets that give up on a silent peer, and remember what the network said.

pynetdicom writes the reason of a failed connection into its log alone, and
waits for ever in a read or a write that has begun.
"""

from __future__ import annotations

import contextlib
import socket
import ssl
from typing import TYPE_CHECKING, Any, Final, cast

if TYPE_CHECKING:
    from collections.abc import Callable

TIMED_OUT: Final = "timed out"
_UNSENT: Final = 1 << 17
"""Most bytes that the kernel keeps unsent: what it has taken is soon on its way.

Without a limit it takes megabytes at once, and a slow line then looks like a silent peer.
"""


def network_words(error: OSError) -> str:
    """Say in words what the network said."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"TLS: its certificate is refused: {error.verify_message}"
    if isinstance(error, ssl.SSLError):
        reason = (error.reason or "the handshake failed").replace("_", " ").lower()
        return f"TLS: {reason}"
    if isinstance(error, TimeoutError):
        return TIMED_OUT
    if isinstance(error, socket.gaierror):
        return "its host name is unknown"
    return (error.strerror or type(error).__name__).lower()


class _Listening:
    """What both kinds of sockets do more than theirs."""

    heard: list[str] | None = None  # while ssl makes the socket
    patience: float | None = None

    def settimeout(self, value: float | None) -> None:
        """Wait no longer than `patience`, even where no end is asked for."""
        cast("Any", super()).settimeout(self.patience if value is None else value)

    def connect(self, address: Any) -> None:
        """Connect, with TLS's handshake where there is one."""
        self._told(lambda: cast("Any", super(_Listening, self)).connect(address))

    def recv(self, *arguments: Any) -> bytes:
        """Read."""
        data: bytes = self._told(lambda: cast("Any", super(_Listening, self)).recv(*arguments))
        return data

    def send(self, *arguments: Any) -> int:
        """Write."""
        count: int = self._told(lambda: cast("Any", super(_Listening, self)).send(*arguments))
        return count

    def _told(self, call: Callable[[], Any]) -> Any:
        try:
            return call()
        except OSError as error:
            if self.heard is not None:
                self.heard.append(network_words(error))
            raise


class _Plain(_Listening, socket.socket):
    pass


class _Secure(_Listening, ssl.SSLSocket):
    pass


class Door:
    """What one association goes through; stands where pynetdicom takes a TLS context.

    Parameters
    ----------
    context
        For TLS; None for none.
    patience
        Seconds without a byte after which a peer is given up.
    """

    def __init__(self, context: ssl.SSLContext | None, patience: float) -> None:
        self.heard: list[str] = []
        self._context = context
        self._patience = patience
        self._socket: _Plain | _Secure | None = None

    def wrap_socket(
        self,
        sock: socket.socket,
        server_side: bool = False,  # noqa: FBT001, FBT002  as ssl.SSLContext's
        server_hostname: str | None = None,
    ) -> socket.socket:
        """Take over a socket that is not connected yet."""
        del server_side
        if self._context is None:
            made: _Plain | _Secure = _Plain(fileno=sock.detach())
        else:
            self._context.sslsocket_class = _Secure
            made = cast("_Secure", self._context.wrap_socket(sock, server_hostname=server_hostname))
        # An object's last bytes do not wait until those before are acknowledged: 40 ms each time.
        made.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if hasattr(socket, "TCP_NOTSENT_LOWAT"):  # Linux, macOS
            made.setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, _UNSENT)
        made.heard, made.patience = self.heard, self._patience
        self._socket = made
        return made

    def cut(self) -> None:
        """End the connection at once: who waits in it wakes up."""
        if self._socket is not None:
            with contextlib.suppress(OSError):
                self._socket.shutdown(socket.SHUT_RDWR)
