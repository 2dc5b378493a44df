"""Syslog as audit trails use it: RFC 5424 messages, RFC 5425 frames over TLS (PS3.15 A.6)."""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import socket
import ssl
import sys
import termios
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from medlocker_dicom.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from datetime import datetime
    from pathlib import Path

    from medlocker_dicom.node.config import Audit

_FACILITY: Final = 10  # security and authorisation (PS3.15 A.6)
_NOTICE: Final = 5
_WARNING: Final = 4
_BOM: Final = "\ufeff"  # RFC 5424 section 6.4: MSG is UTF-8
_NAME: Final = "medlocker-node"
_MSGID: Final = "DICOM+RFC3881"
_STEP_S: Final = 0.005


def line(message: str, moment: datetime, host: str, *, failed: bool) -> bytes:
    """Put RFC 5424's header before a message.

    Parameters
    ----------
    message
        On one line.
    moment
        With a time zone.
    host
        Who says it.
    failed
        Whether it tells of a failure: then its severity is warning, else notice.
    """
    priority = _FACILITY * 8 + (_WARNING if failed else _NOTICE)
    name = re.sub(r"[^!-~]", "?", host)[:255] or "-"
    when = moment.isoformat(timespec="milliseconds")
    return f"<{priority}>1 {when} {name} {_NAME} {os.getpid()} {_MSGID} - {_BOM}{message}".encode()


def frame(message: bytes) -> bytes:
    """Frame a message by its length (RFC 5425 section 4.3)."""
    return b"%d %b" % (len(message), message)


@dataclass
class Line:
    """A connection to a server of syslog over TLS, made when it is needed.

    Attributes
    ----------
    host, port
        Of the server; its certificate has to name it.
    context
        Of TLS.
    timeout_s
        Seconds until a silent server is given up for this time.
    unacknowledged
        Tells how many bytes the other side's system has not confirmed; None for `unacknowledged`.
    """

    host: str
    port: int
    context: ssl.SSLContext
    timeout_s: float = 20.0
    unacknowledged: Callable[[socket.socket], int] | None = None
    _socket: ssl.SSLSocket | None = None

    def send(self, messages: Sequence[bytes]) -> None:
        """Send messages; returns when the other side's system has confirmed all of them.

        Raises
        ------
        OSError
            It cannot be reached, or went away: some may have arrived. The next call
            connects anew.
        """
        try:
            connection = self._connected()
            for message in messages:
                connection.sendall(frame(message))
            self._confirm(connection)
        except OSError:
            self.close()
            raise

    def close(self) -> None:
        """End the connection."""
        if self._socket is not None:
            with contextlib.suppress(OSError):
                self._socket.close()
            self._socket = None

    def _connected(self) -> ssl.SSLSocket:
        if self._socket is not None:
            try:
                self._check_open(self._socket)
            except OSError:  # it was closed while nothing was to be said
                self.close()
        if self._socket is None:
            plain = socket.create_connection((self.host, self.port), self.timeout_s)
            try:
                self._socket = self.context.wrap_socket(plain, server_hostname=self.host)
            except BaseException:
                plain.close()
                raise
        return self._socket

    def _confirm(self, connection: ssl.SSLSocket) -> None:
        """Wait until the other side's system has all: syslog itself confirms nothing."""
        until = time.monotonic() + self.timeout_s
        while (self.unacknowledged or unacknowledged)(connection) > 0:
            if time.monotonic() > until:
                raise TimeoutError(f"{self.host} does not take what it is sent")
            self._check_open(connection)  # of a connection that was reset, no more is confirmed
            time.sleep(_STEP_S)
        self._check_open(connection)

    def _check_open(self, connection: ssl.SSLSocket) -> None:
        """Check that the other side has not closed; servers of syslog say nothing else."""
        connection.settimeout(0)
        try:
            while connection.recv(1024):
                pass
        except (ssl.SSLWantReadError, BlockingIOError):
            return
        finally:
            connection.settimeout(self.timeout_s)
        raise ConnectionResetError("the server has closed the connection")


def line_to(audit: Audit) -> Line:
    """Make the connection that node.yaml asks for.

    Raises
    ------
    UsageError
        No server is named, or a certificate or key cannot be read.
    """
    if audit.syslog_host is None:
        raise UsageError("audit: no syslog_host is named")
    context = ssl.create_default_context()
    if audit.authorities is not None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        _load(audit.authorities, context.load_verify_locations)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    if audit.certificate is not None:
        # Without a password of ours, OpenSSL would ask for one at a terminal.
        _load(audit.certificate, lambda path: context.load_cert_chain(path, audit.key, ""))
    return Line(audit.syslog_host, audit.syslog_port, context)


def unacknowledged(connection: socket.socket) -> int:
    """Tell how many bytes of a connection the other side has not confirmed (Linux; else 0)."""
    if sys.platform != "linux":
        return 0
    left = bytearray(4)
    fcntl.ioctl(connection.fileno(), termios.TIOCOUTQ, left)
    return int.from_bytes(left, sys.byteorder)


def _load(path: Path, load: Callable[[Path], None]) -> None:
    try:
        load(path)
    except (OSError, ValueError) as error:
        raise UsageError(
            f"{path}: cannot be used for TLS", "audit needs certificates and an open key in PEM"
        ) from error
