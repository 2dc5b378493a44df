"""An archive that answers as a test wants: in this process, and nothing is kept but in memory."""

import socket
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

from pydicom.uid import UID, ExplicitVRLittleEndian, ImplicitVRLittleEndian
from pynetdicom import AE, evt
from pynetdicom.sop_class import (  # type: ignore[attr-defined]  # made at run time
    OphthalmicPhotography8BitImageStorage,
    SecondaryCaptureImageStorage,
)

CLASSES = (OphthalmicPhotography8BitImageStorage, SecondaryCaptureImageStorage)
Act = Callable[[Any], int]


@dataclass
class Scripted:
    """A running archive.

    Attributes
    ----------
    port
        On loopback.
    received
        Data sets as they came, encoded, by SOP Instance UID.
    associations
        How many were established.
    """

    port: int
    received: dict[str, bytes] = field(default_factory=dict)
    associations: int = 0


@contextmanager
def scripted(
    act: Act = lambda _: 0,
    *,
    syntaxes: Sequence[UID] = (ExplicitVRLittleEndian, ImplicitVRLittleEndian),
    handlers: Sequence[Any] = (),
    prepare: Callable[[Any], None] = lambda _: None,
) -> Iterator[Scripted]:
    """Run an archive that answers each C-STORE with what `act` makes of the event."""
    ae = AE("ARCHIVE")
    for one in CLASSES:
        ae.add_supported_context(one, list(syntaxes))
    prepare(ae)
    archive = Scripted(0)

    def store(event: Any) -> int:
        archive.received[event.request.AffectedSOPInstanceUID] = event.request.DataSet.getvalue()
        return act(event)

    def count(_: Any) -> None:
        archive.associations += 1

    server = ae.start_server(
        ("127.0.0.1", 0),
        block=False,
        evt_handlers=[(evt.EVT_C_STORE, store), (evt.EVT_ESTABLISHED, count), *handlers],
    )
    assert server is not None
    archive.port = server.server_address[1]
    try:
        yield archive
    finally:
        ae.shutdown()  # ends associations too: their threads would keep the process


@contextmanager
def listening(serve: Callable[[socket.socket], None]) -> Iterator[int]:
    """Accept connections and leave each to `serve`, in a thread of its own; give the port."""
    connections: list[socket.socket] = []
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 17)  # connections inherit it

        def accept() -> None:
            while True:
                try:
                    connection = server.accept()[0]
                except OSError:
                    return
                connections.append(connection)
                threading.Thread(target=serve, args=(connection,), daemon=True).start()

        threading.Thread(target=accept, daemon=True).start()
        yield server.getsockname()[1]
        server.shutdown(socket.SHUT_RDWR)
    for connection in connections:
        connection.close()


@contextmanager
def relay(port: int, forward: Callable[[int], float]) -> Iterator[int]:
    """Stand between a sender and an archive.

    `forward` gets how many bytes the sender has sent so far, and says how many
    seconds to wait before more are read.
    """

    stopped = threading.Event()

    def back(upstream: socket.socket, connection: socket.socket) -> None:
        try:
            while data := upstream.recv(1 << 16):
                connection.sendall(data)
        except OSError:
            pass

    def serve(connection: socket.socket) -> None:
        total = 0
        with socket.create_connection(("127.0.0.1", port)) as upstream:
            threading.Thread(target=back, args=(upstream, connection), daemon=True).start()
            try:
                while data := connection.recv(1 << 13):
                    upstream.sendall(data)
                    total += len(data)
                    stopped.wait(forward(total))
            except OSError:
                pass
            with suppress(OSError):
                upstream.shutdown(socket.SHUT_RDWR)  # else the other thread's read keeps it open

    with listening(serve) as door:
        try:
            yield door
        finally:
            stopped.set()
