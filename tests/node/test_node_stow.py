"""STOW-RS: Orthanc holds what was sent, and what servers answer leads where it should."""

import json
import threading
import time
import tracemalloc
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import cache
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from dicomweb_client import DICOMwebClient
from pydicom import dcmread
from pydicom.uid import JPEG2000, UID, ExplicitVRLittleEndian, JPEG2000Lossless, JPEGLSLossless

from archives import DICOMWEB, Archive, free_port, orthanc_in
from factories import make_fundus, make_pixels, save
from medlocker_dicom.node.apart import Apart
from medlocker_dicom.node.config import StowDestination
from medlocker_dicom.node.outcome import Kind, Outcome
from medlocker_dicom.node.sender import Senders
from medlocker_dicom.node.sender_object import begin
from medlocker_dicom.node.stow import StowSender
from scripted_archive import listening

SLOW_S = 1.0
PASSWORD = "correct horse battery"


def destination(url: str, **more: Any) -> StowDestination:
    """Build one."""
    return StowDestination.model_validate({"kind": "stow", "url": url, "timeout_s": SLOW_S} | more)


@pytest.fixture
def send(tmp_path: Path) -> Iterator[Callable[..., Outcome]]:
    """Return what sends a file to a port of this machine, with further settings."""
    with ExitStack() as stack:

        def call(port: int, path: Path, **more: Any) -> Outcome:
            archive = destination(f"http://127.0.0.1:{port}/dicom-web/", **more)
            senders = Senders({"archive": archive}, "MEDLOCKER", tmp_path)
            stack.callback(senders.close)
            return senders.send("archive", path)

        yield call


def failed(reason: int) -> bytes:
    """Return an answer that says why it failed."""
    item = {"00081197": {"vr": "US", "Value": [reason]}}
    return json.dumps({"00081198": {"vr": "SQ", "Value": [item]}}).encode()


def stored(warning: int | None = None) -> bytes:
    """Return an answer that says what was stored."""
    item = {} if warning is None else {"00081196": {"vr": "US", "Value": [warning]}}
    return json.dumps({"00081199": {"vr": "SQ", "Value": [item]}}).encode()


@contextmanager
def answering(*answers: tuple[int, bytes], pause_s: float = 0) -> Iterator[tuple[int, list[Any]]]:
    """Run a server that answers so, the last one for ever; give its port, and what it got."""
    got: list[Any] = []

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            got.append((self.path, dict(self.headers), body))
            code, content = answers[min(len(got), len(answers)) - 1]
            time.sleep(pause_s)
            self.send_response(code)
            self.send_header("Content-Type", "application/dicom+json")
            self.send_header("Content-Length", str(len(content)))
            if 300 <= code < 400:
                self.send_header("Location", "http://127.0.0.1:1/elsewhere")
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server.server_address[1], got
        server.shutdown()


@pytest.mark.parametrize(
    ("code", "body", "kind", "words"),
    [
        (200, stored(), Kind.STORED, "HTTP 200"),
        (200, b"", Kind.STORED, "HTTP 200"),
        (200, b"<xml/>", Kind.STORED, "HTTP 200"),
        (200, stored(0xB000), Kind.STORED, "HTTP 200, B000H stored, with elements coerced"),
        (202, stored(0xB007), Kind.STORED, "HTTP 202, B007H stored, though"),
        (200, failed(0xA700), Kind.RETRY, "HTTP 200, A700H out of resources"),
        (202, b"", Kind.RETRY, "HTTP 202 without a reason"),
        (202, failed(0xC000), Kind.PARK, "HTTP 202, C000H cannot be understood"),
        (409, failed(0x0111), Kind.STORED, "HTTP 409, 0111H has an instance of this UID already"),
        (409, failed(0x0110), Kind.RETRY, "HTTP 409, 0110H processing failure"),
        (409, failed(0xA901), Kind.PARK, "HTTP 409, A901H the data set"),
        (409, b"{", Kind.PARK, "HTTP 409"),
        (409, b"[" * 100_000, Kind.PARK, "HTTP 409"),
        (409, b'{"00081198": {"Value": 7}}', Kind.PARK, "HTTP 409"),
        (200, b'{"00081198": {"Value": [7]}}', Kind.RETRY, "HTTP 200, 0110H processing failure"),
        (200, failed(1 << 20), Kind.RETRY, "HTTP 200, 0110H processing failure"),
        (400, b"", Kind.PARK, "HTTP 400"),
        (413, b"", Kind.PARK, "HTTP 413"),
        (301, b"", Kind.RETRY, "HTTP 301"),
        (401, b"", Kind.RETRY, "HTTP 401"),
        (403, b"", Kind.RETRY, "HTTP 403"),
        (404, b"", Kind.RETRY, "HTTP 404"),
        (429, b"", Kind.RETRY, "HTTP 429"),
        (500, b"", Kind.RETRY, "HTTP 500"),
        (503, b"", Kind.RETRY, "HTTP 503"),
        (200, b" " * (3 << 20), Kind.STORED, "HTTP 200"),
    ],
)
def test_answers(  # noqa: PLR0917  a table's columns
    code: int, body: bytes, kind: Kind, words: str, send: Callable[..., Outcome], tmp_path: Path
) -> None:
    """Each answer leads where the standard or good sense says; a strange or long one too."""
    path = save(make_fundus(), tmp_path)
    with answering((code, body)) as (port, got):
        outcome = send(port, path)
    assert outcome.kind is kind
    assert outcome.said.startswith(words)
    assert len(got) == 1


def test_the_message(send: Callable[..., Outcome], tmp_path: Path) -> None:
    """One part that is the file, byte for byte, and says how long it is."""
    path = save(make_fundus(), tmp_path)
    with answering((200, b"")) as (port, got):
        send(port, path)
    ((place, headers, body),) = got
    assert place == "/dicom-web/studies"
    boundary = headers["Content-Type"].partition("boundary=")[2]
    head, _, rest = body.partition(b"\r\n\r\n")
    assert head == f"--{boundary}\r\nContent-Type: application/dicom".encode()
    assert rest == path.read_bytes() + f"\r\n--{boundary}--\r\n".encode()
    assert "Authorization" not in headers
    assert headers["Accept"] == "application/dicom+json"


@pytest.mark.parametrize("refusal", [(415, b""), (409, failed(0xC122))])
def test_an_archive_without_the_syntax(
    refusal: tuple[int, bytes], send: Callable[..., Outcome], tmp_path: Path
) -> None:
    """A lossless object goes once more, uncompressed, bit by bit; a lossy one is parked."""
    ds = make_fundus()
    native = ds.PixelData
    ds.compress(JPEGLSLossless, generate_instance_uid=False)
    path = save(ds, tmp_path)
    with answering(refusal, (200, b"")) as (port, got):
        assert send(port, path).kind is Kind.STORED
    assert len(got) == 2
    part = got[1][2].partition(b"\r\n\r\n")[2]
    (tmp_path / "sent.dcm").write_bytes(part)
    sent = dcmread(tmp_path / "sent.dcm", stop_before_pixels=True)
    assert sent.file_meta.TransferSyntaxUID == ExplicitVRLittleEndian
    assert native in part
    ds.file_meta.TransferSyntaxUID = JPEG2000
    path = save(ds, tmp_path)
    with answering(refusal, (200, b"")) as (port, got):
        assert send(port, path).kind is Kind.PARK
    assert len(got) == 1


def test_the_password_is_told_to_nobody_else(
    send: Callable[..., Outcome], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """It is in the request, and neither in a log nor in a repr; it is read anew each time."""
    caplog.set_level("DEBUG")
    path = save(make_fundus(), tmp_path)
    secret = tmp_path / "password"
    login = {"user": "node", "password_file": secret}
    with answering((200, b"")) as (port, got):
        outcome = send(port, path, **login)
        assert outcome.kind is Kind.RETRY
        assert outcome.said.endswith("password: holds no password")
        secret.write_text(f"{PASSWORD}\nsecond line\n")
        sender = StowSender(
            destination(f"http://127.0.0.1:{port}", **login), tmp_path, Apart(begin).call
        )
        assert sender.send(path).kind is Kind.STORED
        sender.close()
    assert got[0][1]["Authorization"] == "Basic bm9kZTpjb3JyZWN0IGhvcnNlIGJhdHRlcnk="
    assert PASSWORD not in caplog.text + repr(vars(sender)) + repr(sender)
    assert "bm9kZTpj" not in caplog.text + repr(vars(sender))


def test_silence(send: Callable[..., Outcome], tmp_path: Path) -> None:
    """Nobody there, nobody who answers, nobody who reads: tried again, within the timeout."""
    path = save(make_fundus(make_pixels((1, 1500, 1500, 3))), tmp_path)
    assert send(free_port(), path) == Outcome(Kind.RETRY, "connection refused")
    began = time.monotonic()
    with answering((200, b""), pause_s=3 * SLOW_S) as (port, _):
        assert send(port, path) == Outcome(Kind.RETRY, "timed out")
    with listening(lambda _: None) as port:
        assert send(port, path) == Outcome(Kind.RETRY, "timed out")
    with listening(lambda connection: connection.close()) as port:
        assert send(port, path).kind is Kind.RETRY
    assert time.monotonic() - began < 8 * SLOW_S


def test_an_object_is_not_in_memory(tmp_path: Path) -> None:
    """Of 20 MB some KB are in memory at once, as they go."""
    path = save(make_fundus(make_pixels((1, 2600, 2600, 3))), tmp_path)
    assert path.stat().st_size > 20_000_000
    with listening(_swallow) as port:
        sender = StowSender(
            destination(f"http://127.0.0.1:{port}", timeout_s=10), tmp_path, Apart(begin).call
        )
        tracemalloc.start()
        try:
            outcome = sender.send(path)
            peak = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
        sender.close()
    assert outcome.kind is Kind.STORED
    assert peak < 4_000_000


def _swallow(connection: Any) -> None:
    """Read a request of any length into one small buffer, then answer."""
    buffer = bytearray(1 << 16)
    end = b"--\r\n"
    while count := connection.recv_into(buffer):
        if buffer[:count].endswith(end):
            break
    connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")


@pytest.fixture(scope="module")
def start(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[], Archive]]:
    """Return what starts this file's Orthanc at the first call, and then returns it."""
    settings = {"Plugins": [str(DICOMWEB)], "RegisteredUsers": {"node": PASSWORD}}
    with ExitStack() as stack:
        folder = tmp_path_factory.mktemp("orthanc")
        yield cache(lambda: stack.enter_context(orthanc_in(folder, **settings)))


@pytest.mark.parametrize("syntax", [ExplicitVRLittleEndian, JPEGLSLossless, JPEG2000Lossless])
def test_orthanc(
    syntax: UID,
    peer: Callable[[str], object],
    start: Callable[[], Archive],
    send: Callable[..., Outcome],
    tmp_path: Path,
) -> None:
    """Orthanc gives back over DICOMweb what was sent, bit by bit; a second time is no fault."""
    peer("Orthanc")
    if not DICOMWEB.exists():
        pytest.skip("orthanc-dicomweb is not installed")
    archive = start()
    archive.empty()
    ds = make_fundus()
    if syntax.is_compressed:
        ds.compress(syntax, generate_instance_uid=False)
    path = save(ds, tmp_path)
    secret = tmp_path / "password"
    login = {"user": "node", "password_file": secret, "timeout_s": 20}
    secret.write_text("wrong\n")
    assert send(archive.http, path, **login) == Outcome(Kind.RETRY, "HTTP 401")
    secret.write_text(f"{PASSWORD}\n")
    for _ in range(2):
        assert send(archive.http, path, **login).kind is Kind.STORED
    client = DICOMwebClient(f"http://127.0.0.1:{archive.http}/dicom-web", headers=archive.login)
    kept = client.retrieve_instance(
        ds.StudyInstanceUID,
        ds.SeriesInstanceUID,
        ds.SOPInstanceUID,
        media_types=(("application/dicom", "*"),),
    )
    assert kept.file_meta.TransferSyntaxUID == syntax
    assert kept.PixelData == dcmread(path).PixelData
