"""C-STORE: what archives answer, and what becomes of the object."""

import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from pydicom import dcmread
from pydicom.uid import ExplicitVRLittleEndian, ImplicitVRLittleEndian

from archives import free_port
from factories import make_fundus, make_pixels, save
from medlocker_dicom.errors import NotDicomError, OutputError, UsageError
from medlocker_dicom.node.apart import Apart, EndedError, EndlessError, UnbegunError
from medlocker_dicom.node.config import DicomDestination
from medlocker_dicom.node.outcome import Kind, Outcome, by_status
from medlocker_dicom.node.sender import Senders
from medlocker_dicom.node.sender_link import IDLE_S
from medlocker_dicom.node.sender_object import CRASHED
from scripted_archive import Act, listening, relay, scripted

SLOW_S = 1.5  # until a silent peer is given up, in these tests


@pytest.fixture
def sender(tmp_path: Path) -> Iterator[Callable[..., Senders]]:
    """Return what makes the senders of one archive, closed in the end."""
    with ExitStack() as stack:

        def make(port: int, **more: Any) -> Senders:
            where = {"kind": "dicom", "ae_title": "ARCHIVE", "host": "127.0.0.1", "port": port}
            archive = DicomDestination.model_validate(where | {"timeout_s": SLOW_S} | more)
            senders = Senders({"archive": archive}, "MEDLOCKER", tmp_path)
            stack.callback(senders.close)
            return senders

        yield make


def pixels_in(encoded: bytes) -> bytes:
    """Return the Pixel Data of an encoded data set in explicit or implicit little endian."""
    from io import BytesIO  # noqa: PLC0415

    implicit = encoded[4:6] != b"CS" and encoded[4:6] != b"UI"
    ds = dcmread(BytesIO(encoded), force=True)
    assert ds.is_implicit_VR is implicit
    data: bytes = ds.PixelData
    return data


def files(folder: Path, count: int) -> list[Path]:
    """Write some different instances."""
    uids = [f"1.2.826.0.1.3680043.10.9.{number + 1}" for number in range(count)]
    made = [
        make_fundus(make_pixels(seed=n), bits=None, instance_uid=uid) for n, uid in enumerate(uids)
    ]
    return [save(ds, folder, f"{number}.dcm") for number, ds in enumerate(made)]


@pytest.mark.parametrize(
    ("status", "kind", "words"),
    [
        (0x0000, Kind.STORED, "0000H stored"),
        (0xB000, Kind.STORED, "B000H stored, with elements coerced"),
        (0xB006, Kind.STORED, "B006H stored, with elements discarded"),
        (0xB007, Kind.STORED, "B007H stored, though it does not match its SOP class"),
        (0x0111, Kind.STORED, "0111H has an instance of this UID already"),
        (0xA700, Kind.RETRY, "A700H out of resources"),
        (0xA7FF, Kind.RETRY, "A7FFH out of resources"),
        (0x0110, Kind.RETRY, "0110H processing failure"),
        (0x0124, Kind.RETRY, "0124H not authorised"),
        (0xA900, Kind.PARK, "A900H the data set does not match its SOP class"),
        (0xC000, Kind.PARK, "C000H cannot be understood"),
        (0xC123, Kind.PARK, "C123H cannot be understood"),
        (0x0122, Kind.PARK, "0122H SOP class not supported"),
        (0xFE01, Kind.PARK, "FE01H of unknown meaning"),
    ],
)
def test_statuses(
    status: int, kind: Kind, words: str, sender: Callable[..., Senders], tmp_path: Path
) -> None:
    """Each status of an archive, as it comes over the network, leads where DICOM.md says."""
    (path,) = files(tmp_path, 1)
    with scripted(lambda _: status) as archive:
        outcome = sender(archive.port).send("archive", path)
    assert (outcome.kind, outcome.said) == (kind, words)


def test_a_processing_failure_is_tried_some_times() -> None:
    """0110 may be the archive's moment or the object's fault: after some tries it is parked."""
    outcome = by_status(0x0110)
    assert [outcome.after(tries) for tries in (1, 4, 5, 6)] == [Kind.RETRY] * 2 + [Kind.PARK] * 2
    assert by_status(0xA700).after(10_000) is Kind.RETRY
    assert by_status(0).after(10_000) is Kind.STORED


def test_what_arrives_is_what_was_sent(sender: Callable[..., Senders], tmp_path: Path) -> None:
    """Sent in its own syntax, the data set arrives byte for byte, over one association."""
    paths = files(tmp_path, 5)
    with scripted() as archive:
        senders = sender(archive.port)
        assert {senders.send("archive", path).kind for path in paths} == {Kind.STORED}
    assert archive.associations == 1
    for path in paths:
        encoded = archive.received[str(dcmread(path, stop_before_pixels=True).SOPInstanceUID)]
        assert path.read_bytes().endswith(encoded)
        assert len(encoded) > 4000


def test_several_threads(sender: Callable[..., Senders], tmp_path: Path) -> None:
    """Threads share the senders: each has an association, some are kept, nothing is lost."""
    paths = files(tmp_path, 12)
    outcomes: list[Outcome] = []
    with scripted() as archive:
        senders = sender(archive.port, limits={"associations": 4})

        def work(mine: list[Path]) -> None:
            outcomes.extend(senders.send("archive", path) for path in mine)

        threads = [threading.Thread(target=work, args=(paths[n::4],)) for n in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert [one.kind for one in outcomes] == [Kind.STORED] * 12
        assert len(archive.received) == 12
        assert archive.associations <= 4


def test_an_association_that_went_is_replaced(
    sender: Callable[..., Senders], tmp_path: Path
) -> None:
    """An archive that aborts what waits: the next object goes over a new association, at once."""
    first, second, third = files(tmp_path, 3)
    seen: list[Any] = []

    def note(event: Any) -> int:
        seen.append(event.assoc)
        return 0

    with scripted(note) as archive:
        senders = sender(archive.port)
        assert senders.send("archive", first).kind is Kind.STORED
        seen[0].abort()
        time.sleep(0.2)
        assert senders.send("archive", second).kind is Kind.STORED
        assert archive.associations == 2
        seen[1].dul.socket.socket.shutdown(socket.SHUT_RDWR)  # without a word
        assert senders.send("archive", third).kind is Kind.STORED
    assert archive.associations == 3


def test_an_archive_that_is_down(sender: Callable[..., Senders], tmp_path: Path) -> None:
    """It is said that nobody listens; tried again later."""
    (path,) = files(tmp_path, 1)
    port = free_port()
    outcome = sender(port).send("archive", path)
    assert outcome == Outcome(Kind.RETRY, "cannot be connected to: connection refused")


def _abort(event: Any) -> int:
    event.assoc.abort()
    return 0


def _hang(event: Any) -> int:
    del event
    time.sleep(2 * SLOW_S)
    return 0


@pytest.mark.parametrize(
    ("act", "words"),
    [(_abort, "the association was aborted"), (_hang, "no answer for 1.5 s")],
)
def test_no_answer(act: Act, words: str, sender: Callable[..., Senders], tmp_path: Path) -> None:
    """An archive that aborts after the object, and one that never answers: tried again later."""
    (path,) = files(tmp_path, 1)
    with scripted(act) as archive:
        assert sender(archive.port).send("archive", path) == Outcome(Kind.RETRY, words)


def test_rejections(sender: Callable[..., Senders], tmp_path: Path) -> None:
    """A title that the archive does not know, and one association too many: both tried again."""
    (path,) = files(tmp_path, 1)

    def named(ae: Any) -> None:
        ae.require_called_aet = True

    def full(ae: Any) -> None:
        ae.maximum_associations = 1

    with scripted(prepare=named) as archive:
        outcome = sender(archive.port, ae_title="OTHER").send("archive", path)
        assert outcome.kind is Kind.RETRY
        assert outcome.said.startswith("association rejected (1, 1, 7): rejected permanent")
        assert "called ae title not recognised" in outcome.said
    with scripted(prepare=full) as archive:
        assert sender(archive.port).send("archive", path).kind is Kind.STORED  # and keeps its place
        outcome = sender(archive.port).send("archive", path)
        assert outcome.kind is Kind.RETRY
        assert outcome.said.startswith("association rejected (2, 3, 2): rejected transient")


@pytest.mark.parametrize(
    ("serve", "words"),
    [
        (lambda _: None, "no answer for"),
        (lambda connection: connection.close(), "the connection was closed"),
        (lambda connection: connection.sendall(b"HTTP/1.1 4"), "the connection was closed"),
    ],
)
def test_no_archive_listens(
    serve: Callable[[Any], None], words: str, sender: Callable[..., Senders], tmp_path: Path
) -> None:
    """Nobody who answers, who hangs up, or a web server: tried again, within the timeout."""
    (path,) = files(tmp_path, 1)
    began = time.monotonic()
    with listening(serve) as port:
        outcome = sender(port).send("archive", path)
    assert outcome.kind is Kind.RETRY
    assert any(one in outcome.said for one in (words, "connection reset by peer", "broken pipe"))
    assert time.monotonic() - began < 3 * SLOW_S


def test_an_archive_that_stops_reading(sender: Callable[..., Senders], tmp_path: Path) -> None:
    """Hung in the middle of an object: given up after the timeout, and not twice."""
    path = save(make_fundus(make_pixels((1, 1200, 1200, 3))), tmp_path)
    began = time.monotonic()
    with scripted() as archive, relay(archive.port, lambda sent: 60 * (sent > 100_000)) as port:
        outcome = sender(port).send("archive", path)
        assert outcome.kind is Kind.RETRY
        assert outcome.said in ("timed out", "no answer for 1.5 s")
        assert time.monotonic() - began < 4 * SLOW_S
        assert not archive.received


def test_a_slow_line_is_no_silent_archive(sender: Callable[..., Senders], tmp_path: Path) -> None:
    """An object that takes longer than the timeout arrives, as long as bytes flow."""
    path = save(make_fundus(make_pixels((1, 800, 800, 3))), tmp_path)
    began = time.monotonic()
    with scripted() as archive, relay(archive.port, lambda _: 0.02) as port:
        assert sender(port, timeout_s=3).send("archive", path).kind is Kind.STORED
    assert time.monotonic() - began > 4
    (encoded,) = archive.received.values()
    assert path.read_bytes().endswith(encoded)


def test_an_abort_in_the_middle(sender: Callable[..., Senders], tmp_path: Path) -> None:
    """Aborted while the object is on its way: tried again, and nothing waits for a timeout."""
    path = save(make_fundus(make_pixels((1, 1000, 1000, 3))), tmp_path)
    counted: list[int] = []

    def abort_early(event: Any) -> None:
        counted.append(len(event.data))
        if sum(counted) > 200_000:
            event.assoc.dul.socket.socket.close()

    from pynetdicom import evt  # noqa: PLC0415

    began = time.monotonic()
    with scripted(handlers=[(evt.EVT_DATA_RECV, abort_early)]) as archive:
        outcome = sender(archive.port, timeout_s=30).send("archive", path)
    assert outcome.kind is Kind.RETRY
    assert time.monotonic() - began < 15


def test_idle_associations_end(sender: Callable[..., Senders], tmp_path: Path) -> None:
    """One that waited too long is not used again; `close` leaves no thread behind."""
    first, second = files(tmp_path, 2)
    before = threading.active_count()
    with scripted() as archive:
        senders = sender(archive.port)
        senders.send("archive", first)
        link = senders._senders["archive"]._idle[0]  # type: ignore[attr-defined]
        link.used -= IDLE_S
        senders.send("archive", second)
        assert archive.associations == 2
        link.release()
        senders.close()
        time.sleep(0.2)
    assert threading.active_count() <= before + 1


def test_only_implicit(sender: Callable[..., Senders], tmp_path: Path) -> None:
    """An archive of Implicit VR alone gets the object converted, pixels bit by bit."""
    (path,) = files(tmp_path, 1)
    with scripted(syntaxes=[ImplicitVRLittleEndian]) as archive:
        assert sender(archive.port).send("archive", path).kind is Kind.STORED
    (encoded,) = archive.received.values()
    assert pixels_in(encoded) == dcmread(path).PixelData
    assert [one.name for one in tmp_path.iterdir()] == [path.name]


PARKED = Outcome(
    Kind.PARK, "cannot be written as Implicit VR Little Endian (its codec takes too long)"
)


@pytest.mark.parametrize(("end", "expected"), [(EndedError, CRASHED), (EndlessError, PARKED)])
def test_a_codec_that_does_not_come_back(
    sender: Callable[..., Senders],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    end: type[Exception],
    expected: Outcome,
) -> None:
    """It has a process of its own: tried some times or parked, and nothing of it is left."""
    (path,) = files(tmp_path, 1)
    monkeypatch.setattr(Apart, "call", lambda *_: (_ for _ in ()).throw(end))
    with scripted(syntaxes=[ImplicitVRLittleEndian]) as archive:
        outcome = sender(archive.port).send("archive", path)
    assert outcome == expected
    assert archive.received == {}
    assert [one.name for one in tmp_path.iterdir()] == [path.name]


def test_a_conversion_that_cannot_begin(
    sender: Callable[..., Senders], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No memory for another process: an error that passes, and no fault of the object's."""
    (path,) = files(tmp_path, 1)
    monkeypatch.setattr(Apart, "call", lambda *_: (_ for _ in ()).throw(UnbegunError("no memory")))
    with (
        scripted(syntaxes=[ImplicitVRLittleEndian]) as archive,
        pytest.raises(OutputError, match="no memory"),
    ):
        sender(archive.port).send("archive", path)


def test_no_context(sender: Callable[..., Senders], tmp_path: Path) -> None:
    """An archive that takes no such class: parked, and in words that say which."""
    path = save(make_fundus(make_pixels(bits=16)), tmp_path)
    with scripted(syntaxes=[ExplicitVRLittleEndian]) as archive:
        outcome = sender(archive.port).send("archive", path)
    assert outcome.kind is Kind.PARK
    assert outcome.said == (
        "does not take Ophthalmic Photography 16 Bit Image Storage in "
        "Explicit VR Little Endian, Implicit VR Little Endian"
    )


def test_what_cannot_be_sent(sender: Callable[..., Senders], tmp_path: Path) -> None:
    """No such destination, no such file, no DICOM file: errors, for nobody was asked."""
    senders = sender(free_port())
    with pytest.raises(UsageError, match="elsewhere is no destination"):
        senders.send("elsewhere", tmp_path / "0.dcm")
    with pytest.raises(NotDicomError, match="cannot be read"):
        senders.send("archive", tmp_path / "none.dcm")
    (tmp_path / "text.dcm").write_text("no DICOM")
    with pytest.raises(NotDicomError, match="no file meta information"):
        senders.send("archive", tmp_path / "text.dcm")
