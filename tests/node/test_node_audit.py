"""Audit messages: as PS3.15 A.5 wants them, without a patient's identity, and not lost."""

from __future__ import annotations

import os
import signal
import stat
import subprocess
import sys
import time
from base64 import b64decode
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import pytest
from audit_factories import certificate, code_of, parsed, syslog_server
from pydantic import ValidationError

from medlocker_dicom.errors import UsageError
from medlocker_dicom.node import audit_trail, syslog
from medlocker_dicom.node.audit import (
    MINOR,
    SERIOUS,
    Alert,
    Auditor,
    Held,
    Moved,
    Peer,
    make_auditor,
    spool_of,
)
from medlocker_dicom.node.audit_trail import Backlog, ShippedTrail, Trail
from medlocker_dicom.node.config import Audit, NodeConfig

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path
    from xml.etree import ElementTree as ET

CAMERA = Peer("CAMERA", "10.0.0.7")
ARCHIVE = Peer("ARCHIVE", "archive.hospital")
OPHTHALMIC = "1.2.840.10008.5.1.4.1.1.77.1.5.1"
MOVED = Moved("1.2.3", {OPHTHALMIC: 2}, "ZZYZX-4711")
WAIT_S = 20


class Kept(Trail):
    """Keeps messages in a list."""

    def __init__(self) -> None:
        self.lines: list[bytes] = []

    def append(self, message: bytes) -> None:
        self.lines.append(message)


@pytest.fixture
def kept() -> Kept:
    """Return a trail to look into."""
    return Kept()


@pytest.fixture
def auditor(kept: Kept) -> Auditor:
    """Return an auditor whose moment and host are known."""
    now = datetime(2026, 11, 23, 4, 5, 6, 7000, tzinfo=UTC)
    return Auditor(kept, ("MEDLOCKER",), b"secret", lambda: now, "node1")


def event(root: ET.Element) -> tuple[str, str, str, str]:
    """Return EventID, type, action and outcome."""
    element = root[0]
    kind = element.find("EventTypeCode")
    return (
        code_of(element.find("EventID"))[0],
        "" if kind is None else code_of(kind)[0],
        element.attrib["EventActionCode"],
        element.attrib["EventOutcomeIndicator"],
    )


def roles(root: ET.Element) -> list[tuple[str, str, str]]:
    """Return role, AE titles and whether it is the requestor, of each participant."""
    return [
        (
            "" if one.find("RoleIDCode") is None else code_of(one.find("RoleIDCode"))[0],
            one.get("AlternativeUserID", ""),
            one.attrib["UserIsRequestor"],
        )
        for one in root.iter("ActiveParticipant")
    ]


@pytest.mark.parametrize(
    ("tell", "expected"),
    [
        (lambda it: it.started(), ("110100", "110120", "E", "0")),
        (lambda it: it.stopped(SERIOUS), ("110100", "110121", "E", "8")),
        (lambda it: it.receiving(CAMERA, MOVED), ("110102", "", "E", "0")),
        (lambda it: it.received(CAMERA, MOVED, Held.NOT), ("110104", "", "C", "0")),
        (lambda it: it.received(CAMERA, MOVED, Held.SAME), ("110104", "", "R", "0")),
        (lambda it: it.received(CAMERA, MOVED, Held.OTHER, MINOR), ("110104", "", "U", "4")),
        (lambda it: it.sending(ARCHIVE, MOVED), ("110102", "", "E", "0")),
        (lambda it: it.sent(ARCHIVE, MOVED, SERIOUS), ("110104", "", "E", "8")),
        (lambda it: it.accessed("anna", "10.0.0.9", MOVED), ("110103", "", "R", "0")),
        (lambda it: it.released("anna", "::1", MOVED), ("110113", "110132", "E", "4")),
        (lambda it: it.discarded("anna", "::1", MOVED), ("110105", "", "D", "0")),
        (lambda it: it.exported("anna", "::1", "https://n/g", MOVED), ("110106", "", "R", "0")),
        (lambda it: it.refused(CAMERA, Alert.CALLING), ("110113", "110126", "E", "4")),
        (lambda it: it.refused(Peer("", "::1"), Alert.TLS), ("110113", "110126", "E", "4")),
        (lambda it: it.logged_in("anna", "10.0.0.9"), ("110114", "110122", "E", "0")),
        (lambda it: it.logged_in("eve", "10.0.0.9", SERIOUS), ("110114", "110122", "E", "8")),
    ],
)
def test_every_message_is_as_the_standard_says(
    auditor: Auditor,
    kept: Kept,
    tell: Callable[[Auditor], None],
    expected: tuple[str, str, str, str],
) -> None:
    """Structure, codes, action, outcome, header; and never the patient's ID."""
    tell(auditor)
    (line,) = kept.lines
    root = parsed(line)
    assert event(root) == expected
    assert root[0].attrib["EventDateTime"] == "2026-11-23T04:05:06.007+00:00"
    assert b"ZZYZX" not in line


def test_a_transfer_names_both_sides_the_study_and_a_pseudonym(
    auditor: Auditor, kept: Kept
) -> None:
    """AE titles, addresses, roles; study UID with classes; the patient by a keyed hash."""
    auditor.received(CAMERA, MOVED, Held.NOT)
    auditor.sent(ARCHIVE, MOVED)
    received, sent = map(parsed, kept.lines)
    assert roles(received) == [
        ("110153", "AETITLES=CAMERA", "true"),
        ("110152", "AETITLES=MEDLOCKER", "false"),
    ]
    assert roles(sent) == [
        ("110153", "AETITLES=MEDLOCKER", "true"),
        ("110152", "AETITLES=ARCHIVE", "false"),
    ]
    places = [
        (one.get("NetworkAccessPointID"), one.get("NetworkAccessPointTypeCode"))
        for root in (received, sent)
        for one in root.iter("ActiveParticipant")
    ]
    assert places == [("10.0.0.7", "2"), ("node1", "1"), ("node1", "1"), ("archive.hospital", "1")]
    study, patient = received.iter("ParticipantObjectIdentification")
    assert code_of(study[0]) == ("110180", "DCM")
    assert study.attrib["ParticipantObjectID"] == "1.2.3"
    (counted,) = study.iter("SOPClass")
    assert counted.attrib == {"UID": OPHTHALMIC, "NumberOfInstances": "2"}
    assert code_of(patient[0]) == ("2", "RFC-3881")
    assert patient.attrib["ParticipantObjectID"] == auditor.pseudonym("ZZYZX-4711 ")
    assert auditor.pseudonym("ZZYZX-4711") != Auditor(kept, (), b"other").pseudonym("ZZYZX-4711")


def test_what_is_not_known_is_said_to_be_unknown(auditor: Auditor, kept: Kept) -> None:
    """Study and patient have to be there by the standard, even without identity."""
    auditor.received(CAMERA, Moved("", {OPHTHALMIC: 1}), Held.NOT)
    things = list(parsed(kept.lines[0]).iter("ParticipantObjectIdentification"))
    assert [one.attrib["ParticipantObjectID"] for one in things] == ["unknown", "unknown"]


def test_an_alert_says_why(auditor: Auditor, kept: Kept) -> None:
    """In words, and as the detail that the standard wants."""
    auditor.refused(CAMERA, Alert.ADDRESS)
    root = parsed(kept.lines[0])
    assert root[0][2].text == Alert.ADDRESS
    (detail,) = root.iter("ParticipantObjectDetail")
    assert detail.attrib["type"] == "Alert Description"
    assert b64decode(detail.attrib["value"]).decode() == Alert.ADDRESS


def test_a_peer_cannot_write_into_the_message(auditor: Auditor, kept: Kept) -> None:
    """Markup, line breaks, NUL and lone surrogates in an AE title or a user's name."""
    for name in (
        '"/><x a="',
        "A\nB",
        "A\0B\x7f",
        "\ud800",
        "x" * 10_000,
        "\N{GREEK SMALL LETTER PI}",
    ):
        auditor.refused(Peer(name, name), Alert.CALLING)
        auditor.logged_in(name, name, MINOR)
    for line in kept.lines:
        parsed(line)
        assert len(line) < 4096


def configured(spool: Path, **audit: object) -> NodeConfig:
    """Return a configuration with that audit."""
    destination = {"kind": "dicom", "ae_title": "ARC", "host": "::1", "port": 4242}
    route = {"name": "all", "lock": {"recipients": ["alice"]}, "destinations": ["archive"]}
    content = {"spool": spool, "vault": "v", "issuer": "i", "audit": audit}
    more = {"destinations": {"archive": destination}, "routes": [route]}
    return NodeConfig.model_validate(content | more)


def test_nothing_is_written_where_nothing_is_configured(tmp_path: Path) -> None:
    """No audit in node.yaml: no file, no thread, no fault."""
    auditor = make_auditor(configured(tmp_path), b"secret")
    auditor.started()
    auditor.close()
    assert auditor.backlog() == Backlog(0, 0, 0)
    assert list(tmp_path.iterdir()) == []


def test_a_file_holds_one_message_a_line(tmp_path: Path) -> None:
    """Appended by several at once; not for others to read; renamed by logrotate at any time."""
    path = tmp_path / "audit.log"
    auditors = [make_auditor(configured(tmp_path, file=path), b"secret") for _ in range(2)]
    for auditor in auditors:
        auditor.started()
    path.rename(tmp_path / "audit.log.1")
    for auditor in auditors:
        auditor.stopped()
        auditor.close()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    for name, kind in (("audit.log.1", "110120"), ("audit.log", "110121")):
        lines = (tmp_path / name).read_bytes().splitlines()
        assert [event(parsed(line))[1] for line in lines] == [kind, kind]


APPENDING = """
import sys
from pathlib import Path
from medlocker_dicom.node.audit_trail import Trail
trail = Trail(Path(sys.argv[1]))
print("ready", flush=True)
for number in range(1_000_000):
    trail.append(b"%d %d <%s>" % (int(sys.argv[2]), number, b"x" * 2000))
    print(number, flush=True)
"""


def test_killed_processes_lose_nothing(tmp_path: Path) -> None:
    """Two processes append until they are killed: what each said it did is there, in order."""
    path = tmp_path / "audit.log"
    words = [sys.executable, "-c", APPENDING, str(path)]
    running = [
        subprocess.Popen([*words, str(number)], stdout=subprocess.PIPE, text=True)
        for number in range(2)
    ]
    for process in running:
        assert process.stdout
        assert process.stdout.readline() == "ready\n"
    time.sleep(0.5)
    said = []
    for process in running:
        os.kill(process.pid, signal.SIGKILL)
        output = process.communicate()[0].split("\n")[:-1]
        said.append(int(output[-1]))
    lines = path.read_bytes().split(b"\n")[:-1]
    for number, last in enumerate(said):
        mine = [int(one.split()[1]) for one in lines if one.startswith(b"%d " % number)]
        assert mine == list(range(len(mine)))
        assert len(mine) > last > 10


def test_a_half_written_line_spoils_no_other(tmp_path: Path) -> None:
    """What a crash of the machine left is ended, and the next message stands alone."""
    path = tmp_path / "audit.log"
    path.write_bytes(b"<85>1 half of a mess")
    audit_trail.append(path, b"<85>1 whole>")
    assert path.read_bytes() == b"<85>1 half of a mess\n<85>1 whole>\n"


def test_a_full_disk_is_waited_for_and_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Messages wait in memory, in order; those beyond the bound are lost, and that is told."""
    monkeypatch.setattr(audit_trail, "MAX_IN_MEMORY", 3)
    folder = tmp_path / "away"
    trail = Trail(folder / "audit.log")  # its folder is not there: every write fails
    for number in range(5):
        trail.append(b"%d>" % number)
    assert trail.backlog() == Backlog(0, 3, 2)
    folder.mkdir()
    trail.append(b"5>")
    assert trail.backlog() == Backlog(0, 0, 2)
    trail.close()
    assert (folder / "audit.log").read_bytes().split() == [b"2>", b"3>", b"4>", b"5>"]


def test_a_message_is_one_line(tmp_path: Path) -> None:
    """A break in it would make two of it."""
    trail = Trail(tmp_path / "audit.log")
    with pytest.raises(ValueError, match="one line"):
        trail.append(b"a\nb")
    trail.close()


@pytest.fixture(scope="module")
def tls(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Return certificate and key of the server, and of the node."""
    return certificate(tmp_path_factory.mktemp("tls"))


def until(condition: Callable[[], object]) -> None:
    """Wait for something that a thread does."""
    end = time.monotonic() + WAIT_S
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.01)


def shipping(tls: tuple[Path, Path], spool: Path, port: int) -> NodeConfig:
    """Return a configuration that ships to a port of this machine."""
    pem, key = tls
    server = {"syslog_host": "localhost", "syslog_port": port}
    return configured(spool, **server, authorities=pem, certificate=pem, key=key)


def test_messages_arrive_over_tls_in_frames(tls: tuple[Path, Path], tmp_path: Path) -> None:
    """Octet-counted frames on one connection; what arrived leaves the spool."""
    with syslog_server(*tls) as server:
        auditor = make_auditor(shipping(tls, tmp_path, server.port), b"secret")
        for _ in range(200):
            auditor.received(CAMERA, MOVED, Held.NOT)
        until(lambda: len(server.messages) == 200)
        auditor.close()
        assert server.connections == 1
        assert {event(parsed(one))[0] for one in server.messages} == {"110104"}
    assert list(spool_of(tmp_path).iterdir()) == []


def test_a_server_that_is_away_is_waited_for(tls: tuple[Path, Path], tmp_path: Path) -> None:
    """Nobody waits while it is away; each message comes when it is back, over several restarts."""
    with syslog_server(*tls) as server:
        port = server.port
    line = syslog.line_to(shipping(tls, tmp_path, port).audit)
    auditor = Auditor(ShippedTrail(tmp_path / "audit", line, wait_s=0.05), ("MEDLOCKER",), b"s")
    begun = time.monotonic()
    for number in range(50):
        auditor.received(CAMERA, Moved(f"1.2.{number}", {}), Held.NOT)
    assert time.monotonic() - begun < 5
    assert auditor.backlog().spooled > 50 * 500
    seen: set[str] = set()
    for _ in range(2):
        with syslog_server(*tls, port, leaves_after=20) as server:
            until(lambda: len(server.messages) >= 20)
        seen |= {studies(one) for one in server.messages}
    with syslog_server(*tls, port) as server:
        until(lambda: auditor.backlog().spooled == 0)
        seen |= {studies(one) for one in server.messages}
    auditor.close()
    assert seen == {f"1.2.{number}" for number in range(50)}


def studies(line: bytes) -> str:
    """Return the study that a message is about."""
    return next(parsed(line).iter("ParticipantObjectIdentification")).attrib["ParticipantObjectID"]


SPOOLING = """
import sys, time
from pathlib import Path
from medlocker_dicom.node.audit_trail import ShippedTrail
class Away:
    def send(self, messages): raise ConnectionRefusedError(111, "nobody")
    def close(self): pass
trail = ShippedTrail(Path(sys.argv[1]), Away())
for number in range(300):
    trail.append(b"%d>" % number)
print("done", flush=True)
time.sleep(60)
"""


class Box:
    """Keeps what is sent."""

    def __init__(self) -> None:
        self.sent: list[bytes] = []

    def send(self, messages: Sequence[bytes]) -> None:
        self.sent.extend(messages)

    def close(self) -> None:
        """Do nothing."""


@pytest.fixture
def dying(tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    """Return a process that has spooled 300 messages, and waits."""
    words = [sys.executable, "-c", SPOOLING, str(tmp_path)]
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout
        assert process.stdout.readline() == "done\n"
        yield process
        process.kill()


def test_a_killed_process_leaves_its_messages_to_the_next(
    tmp_path: Path, dying: subprocess.Popen[str]
) -> None:
    """While it lives the file it appends to is its own; once it is dead, anybody ships it."""
    box = Box()
    trail = ShippedTrail(tmp_path, box)
    trail.append(b"mine>")
    dying.kill()
    dying.wait()
    until(lambda: len(box.sent) >= 301)
    trail.close()
    assert set(box.sent) == {b"mine>", *(b"%d>" % number for number in range(300))}
    assert list(tmp_path.iterdir()) == []


def test_two_shippers_do_not_ship_the_same(tmp_path: Path) -> None:
    """A file that one ships is left alone by the other."""
    path = tmp_path / "1.audit"
    path.write_bytes(b"a>\nhalf")
    sent: list[bytes] = []

    def send(messages: Sequence[bytes]) -> None:
        audit_trail.ship(path, lambda _: pytest.fail("shipped twice"))
        sent.extend(messages)

    audit_trail.ship(path, send)
    audit_trail.ship(path, lambda _: pytest.fail("it is gone"))
    assert sent == [b"a>"]


def test_unconfirmed_messages_are_sent_again(tls: tuple[Path, Path], tmp_path: Path) -> None:
    """Bytes that the other system has not confirmed are not taken for delivered."""
    with syslog_server(*tls) as server:
        line = syslog.line_to(shipping(tls, tmp_path, server.port).audit)
        line.unacknowledged = lambda _: 1
        line.timeout_s = 0.1
        with pytest.raises(TimeoutError):
            line.send([b"x>"])
        line.unacknowledged = None
        line.send([b"x>"])
        line.close()
        until(lambda: len(server.messages) == 2)


def test_a_stranger_is_told_nothing(tls: tuple[Path, Path], tmp_path: Path) -> None:
    """A server whose certificate is another's gets no message: they wait."""
    folder = tmp_path / "stranger"
    folder.mkdir()
    with syslog_server(*certificate(folder)) as server:
        auditor = make_auditor(shipping(tls, tmp_path, server.port), b"secret")
        auditor.started()
        time.sleep(0.3)
        auditor.close()
        assert server.messages == []
    assert auditor.backlog().spooled > 0


def test_certificates_that_are_none(tmp_path: Path) -> None:
    """Refused when the node starts, by name."""
    for wrong in ({"authorities": tmp_path / "no"}, {"certificate": tmp_path, "key": tmp_path}):
        with pytest.raises(UsageError, match="cannot be used for TLS"):
            make_auditor(configured(tmp_path, syslog_host="localhost", **wrong), b"secret")
    with pytest.raises(UsageError, match="no syslog_host"):
        syslog.line_to(Audit())
    with pytest.raises(ValidationError, match="certificate and key belong together"):
        Audit(certificate=tmp_path)
