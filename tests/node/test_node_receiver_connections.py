"""TLS, probes and stalls: what many connections, or slow ones, do to a sender that works."""

import os
import socket
import ssl
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from medlocker_dicom.errors import UsageError
from medlocker_dicom.node import listener, listener_lobby
from medlocker_dicom.node.config import TLS, Listen
from medlocker_dicom.node.listener import MAX_PDU, bind
from medlocker_dicom.node.listener_lobby import MAX_WAITING
from medlocker_dicom.node.tls import client_context, server_context
from receiving import Station, dcmtk, station, store, threads, until, written
from receiving_certificates import certificates


@pytest.fixture(autouse=True)
def tools(peer: Any) -> None:
    for name in ("storescu", "echoscu"):
        peer(name)


@pytest.fixture
def papers(tmp_path: Path) -> Path:
    return certificates(tmp_path / "papers")


def tls(papers: Path, name: str = "node") -> dict[str, Path]:
    files = {"certificate": f"{name}.pem", "key": f"{name}.key", "authorities": "ca.pem"}
    return {key: papers / file for key, file in files.items()}


def by_tls(papers: Path, name: str = "camera") -> tuple[str, ...]:
    own = (str(papers / f"{name}.key"), str(papers / f"{name}.pem"))
    return ("+tls", *own, "+cf", str(papers / "ca.pem"))


def test_tls_by_dcmtk(tmp_path: Path, papers: Path) -> None:
    """With a certificate of the authority: stored. A stranger's, none, or no TLS: nothing."""
    with station(tmp_path, {"tls": tls(papers)}) as node:
        files = written(tmp_path, 1, 2)
        code, words = store(node.port, *files, options=by_tls(papers))
        assert code == 0, words
        for options in (by_tls(papers, "stranger"), ("+tla", "-ic"), ()):
            assert store(node.port, *files, options=("-ta", "5", *options))[0] != 0
        assert len(node.rows()) == 2
        assert until(lambda: len(node.log.said("connection closed")) >= 2)


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_versions_of_tls(tmp_path: Path, papers: Path, version: ssl.TLSVersion) -> None:
    """1.2 and 1.3 are spoken; the client's context checks the server's certificate and host."""
    with station(tmp_path, {"tls": tls(papers)}) as node:
        context = client_context(TLS(**tls(papers, "camera")))
        context.minimum_version = context.maximum_version = version
        with (
            socket.create_connection(("127.0.0.1", node.port), 10) as plain,
            context.wrap_socket(plain, server_hostname="127.0.0.1") as wrapped,
        ):
            assert wrapped.version() == version.name.replace("_", ".")
        with (
            socket.create_connection(("127.0.0.1", node.port), 10) as plain,
            pytest.raises(ssl.SSLCertVerificationError),
        ):
            context.wrap_socket(plain, server_hostname="archive.example")


def test_old_versions_of_tls_are_refused(tmp_path: Path, papers: Path) -> None:
    """TLS 1.1 gets no handshake."""
    with station(tmp_path, {"tls": tls(papers)}) as node:
        context = client_context(TLS(**tls(papers, "camera")))
        for bound in ("minimum_version", "maximum_version"):
            with pytest.warns(DeprecationWarning, match="TLSv1_1 is deprecated"):
                setattr(context, bound, ssl.TLSVersion.TLSv1_1)
        context.set_ciphers("ALL:@SECLEVEL=0")
        with (
            socket.create_connection(("127.0.0.1", node.port), 10) as plain,
            pytest.raises((ssl.SSLError, ConnectionError)),
        ):
            context.wrap_socket(plain, server_hostname="127.0.0.1")


@pytest.mark.parametrize("make", [server_context, client_context])
@pytest.mark.parametrize(
    ("changes", "fault"),
    [
        ({"certificate": "none.pem"}, "none.pem: cannot be read"),
        ({"key": "camera.key"}, "camera.key: is not the key of"),
        ({"authorities": "node.key"}, "node.key: holds no certificates"),
        ({"certificate": "noise.pem"}, "noise.pem, "),
        ({"key": "locked.key"}, "locked.key: are no certificate and key"),
    ],
)
def test_unusable_files_are_named(
    papers: Path, make: Callable[[TLS], object], changes: dict[str, str], fault: str
) -> None:
    """One error that names the file; a key with a passphrase asks nobody at a terminal."""
    (papers / "noise.pem").write_text("noise")
    words = ["openssl", "pkcs8", "-topk8", "-in", "node.key", "-out", "locked.key"]
    subprocess.run([*words, "-passout", "pass:secret"], cwd=papers, check=True)
    files = tls(papers) | {key: papers / name for key, name in changes.items()}
    with pytest.raises(UsageError, match=fault):
        make(TLS(**files))


@contextmanager
def probes(port: int, number: int, say: bytes = b"") -> Iterator[list[socket.socket]]:
    """Keep connections open that say nothing, or too little."""
    with ExitStack() as stack:
        made = []
        for _ in range(number):
            made.append(stack.enter_context(socket.create_connection(("127.0.0.1", port), 10)))
            made[-1].sendall(say)
        yield made


@pytest.mark.parametrize("secure", [False, True], ids=["plain", "TLS"])
def test_probes_and_a_stalled_handshake(tmp_path: Path, papers: Path, secure: bool) -> None:  # noqa: FBT001  pytest's
    """200 silent connections and a TLS handshake that stalls: a sender goes on as without them."""
    listen = {"tls": tls(papers)} if secure else {}
    options = by_tls(papers) if secure else ()
    with station(tmp_path, listen) as node:
        before = threads("")
        hello = b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc"  # a ClientHello that never goes on
        with probes(node.port, 200), probes(node.port, 1, hello if secure else b"\x01"):
            # Two receivers would share the port: each takes its time where much waits already.
            assert until(lambda: _lobby(node).waiting >= 200, 25)
            assert threads("") <= before + 3  # the one that said a byte of a PDU
            begun = time.monotonic()
            assert store(node.port, *written(tmp_path, 1, 2, 3), options=options)[0] == 0
            assert time.monotonic() - begun < 10
        assert len(node.rows()) == 3
        assert until(lambda: _lobby(node).waiting == 0)
        assert until(lambda: threads("") <= before)


def _lobby(node: Station) -> listener_lobby.Lobby:
    server = node.receiver._server
    assert server is not None
    return server.lobby


def test_silent_connections_end(
    tmp_path: Path, papers: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After its time: nothing said, a handshake begun, half an A-ASSOCIATE-RQ; all are closed."""
    monkeypatch.setattr(listener, "PATIENCE_S", 1.0)
    half = b"\x01\x00\x00\x00\x01\x00" + bytes(10)
    for listen, said in (({}, b""), ({}, half), ({"tls": tls(papers)}, b"\x16\x03\x01")):
        with station(tmp_path, listen) as node, probes(node.port, 5, said) as made:
            for probe in made:
                probe.settimeout(10)
                with suppress(ConnectionError):
                    while probe.recv(100):
                        pass
            assert until(lambda node=node: _lobby(node).waiting == 0)  # type: ignore[misc]
            assert until(lambda: threads("Acceptor") == 0)


def test_slow_request_ends(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A byte from time to time does not keep a connection that has not associated."""
    monkeypatch.setattr(listener, "PATIENCE_S", 1.0)
    with station(tmp_path) as node, probes(node.port, 1, b"\x01\0\0\0\1\0") as (probe,):
        begun = time.monotonic()
        with suppress(ConnectionError):
            while time.monotonic() - begun < 10:
                probe.sendall(b"\0")
                time.sleep(0.1)
        assert time.monotonic() - begun < 5


def test_more_probes_than_there_is_room_for(tmp_path: Path) -> None:
    """The one that has waited longest goes; a sender still gets in."""
    alone = {"processes": 1}  # it lets no others accept first
    with station(tmp_path, alone) as node, probes(node.port, MAX_WAITING + 20):
        assert until(lambda: len(node.log.said("connection closed")) >= 20, 60)
        assert store(node.port, *written(tmp_path))[0] == 0
        assert _lobby(node).waiting <= MAX_WAITING


@pytest.mark.parametrize(
    "said",
    [b"GET / HTTP/1.0\r\n\r\n", b"\x16\x03\x01\x02\x00", b"\x01\0" + (MAX_PDU + 1).to_bytes(4)],
    ids=["HTTP", "TLS", "4 GiB"],
)
def test_what_is_no_dicom_is_closed(tmp_path: Path, said: bytes) -> None:
    """A browser, TLS where there is none, and a PDU of any size: closed at once."""
    with station(tmp_path) as node, probes(node.port, 1, said) as (probe,):
        probe.settimeout(5)
        with suppress(ConnectionError):
            while probe.recv(100):
                pass
        assert until(lambda: threads("Acceptor") == 0)
        assert dcmtk("echoscu", "-aec", "NODE", "127.0.0.1", node.port)[0] == 0


def test_silent_association_ends(tmp_path: Path) -> None:
    """An association without a word for `idle_s` is aborted, and its half object removed."""
    from pynetdicom import AE  # noqa: PLC0415  used here alone

    with station(tmp_path, {"idle_s": 1}) as node:
        ae = AE("CAMERA")
        ae.add_requested_context("1.2.840.10008.1.1")
        association = ae.associate("127.0.0.1", node.port, ae_title="NODE")
        assert association.is_established
        assert until(lambda: association.is_aborted)
        assert until(lambda: threads("Acceptor") == 0)


def test_port_that_is_taken(tmp_path: Path) -> None:
    """Named, with what the system says."""
    with station(tmp_path) as node:
        taken = Listen(port=node.port)
        with pytest.raises(UsageError, match=rf"127\.0\.0\.1:{node.port}: .* in use"):
            bind(taken)
        with pytest.raises(UsageError, match="cannot be listened to"):
            bind(Listen(address="no.such.host.invalid"))


def test_port_is_shared_by_those_that_inherit_it(tmp_path: Path) -> None:
    """One that stops leaves the other its socket."""
    from medlocker_dicom.node.receiver import Receiver  # noqa: PLC0415  the same
    from receiving import free_socket, node_config  # noqa: PLC0415  used here alone

    with (
        station(tmp_path) as node,
        free_socket() as opened,
        socket.socket(fileno=os.dup(opened.fileno())) as shared,  # as a child process has it
    ):
        config = node_config(tmp_path)
        pair = [
            Receiver(config, node.spool, node.ledger, node.log, shared, number) for number in (1, 2)
        ]
        for one in pair:
            one.start()
            assert not os.get_blocking(opened.fileno())
        pair[1].stop()
        assert pair[0].port == shared.getsockname()[1]
        assert store(pair[0].port, *written(tmp_path))[0] == 0
        pair[0].stop()
