"""Storage commitment: what is promised is in the queue, and what is not there is said so."""

import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydicom import dcmread
from pydicom.uid import UID, ExplicitVRLittleEndian, ImplicitVRLittleEndian
from pynetdicom import AE, build_role, evt
from sqlalchemy import Connection

from archives import free_port, orthanc_in
from factories import make_fundus, make_pixels, save
from medlocker_dicom.database import place_of
from medlocker_dicom.errors import UsageError
from medlocker_dicom.node import commitment_service, promises
from medlocker_dicom.node import ledger as queue
from medlocker_dicom.node.commitment import answer, request
from medlocker_dicom.node.commitment_messages import (
    CLASS_UID,
    INSTANCE_UID,
    MOST_REFERENCES,
    Failure,
    MessageError,
    Reference,
    Report,
    read_report,
    read_request,
    report_of,
    request_of,
)
from medlocker_dicom.node.commitment_service import service
from medlocker_dicom.node.config import DicomDestination, Listen
from medlocker_dicom.node.ledger import Arrival, Ledger, Sending, State, make_ledger
from medlocker_dicom.node.outcome import Kind, Outcome
from medlocker_dicom.node.receiver import Receiver
from medlocker_dicom.node.sender import Senders
from medlocker_dicom.node.spool import Spool
from receiving import free_socket, node_config, until

OP8 = "1.2.840.10008.5.1.4.1.1.77.1.5.1"
SC = "1.2.840.10008.5.1.4.1.1.7"
ROOT = "1.2.826.0.1.3680043.10.9"
TRANSACTION = f"{ROOT}.77"


@dataclass
class Entered:
    """An `Enqueue` that remembers what was entered."""

    entries: list[tuple[str, str, tuple[str, ...], float]] = field(default_factory=list)

    def __call__(
        self, connection: Connection, workflow: str, key: str, *arguments: str, delay_s: float = 0
    ) -> None:
        assert connection.in_transaction()
        if key not in [one[1] for one in self.entries]:
            self.entries.append((workflow, key, arguments, delay_s))

    def of(self, workflow: str) -> list[tuple[tuple[str, ...], float]]:
        return [(one[2], one[3]) for one in self.entries if one[0] == workflow]


def enter(ledger: Ledger, number: int, content: str = "a", **more: Any) -> str:
    """Enter an object, as if it had been received; give its id."""
    values: dict[str, Any] = {
        "sop_instance_uid": f"{ROOT}.{number}",
        "sop_class_uid": OP8,
        "transfer_syntax_uid": str(ExplicitVRLittleEndian),
        "study_instance_uid": f"{ROOT}.1.1",
        "series_instance_uid": f"{ROOT}.1.2",
        "sha256": content * 64,
        "size": 1,
        "calling_ae_title": "CAMERA",
        "called_ae_title": "NODE",
        "address": "127.0.0.1",
    }
    arrival = Arrival(**(values | more))
    queue.enter(ledger, arrival)
    return arrival.id


def reference(number: int, class_uid: str = OP8) -> Reference:
    """Name one of those objects."""
    return Reference(class_uid, f"{ROOT}.{number}")


@pytest.fixture
def ledger(vault_place: str) -> Iterator[Ledger]:
    """Return an empty queue, in each kind of database."""
    made = make_ledger(place_of(vault_place), Entered())
    yield made
    made.close()


def asked_of(ledger: Ledger, *references: Reference, title: str = "CAMERA") -> Report:
    """Enter a request, and judge it."""
    promises.promise(ledger, TRANSACTION, title, references)
    return promises.judge(ledger, promises.find_promise(ledger, TRANSACTION, title))


def test_what_is_in_the_queue_is_committed_to(ledger: Ledger) -> None:
    """Received, held, gone: all are in the ledger; unknown, another class, discarded are not."""
    enter(ledger, 1)
    held = enter(ledger, 2)
    queue.hold(ledger, held, "why", "hint", None)
    discarded = enter(ledger, 3)
    queue.hold(ledger, discarded, "why", "hint", None)
    queue.discard(ledger, discarded, "me")
    report = asked_of(ledger, *map(reference, (1, 2, 3, 4)), reference(1, SC))
    assert report.transaction_uid == TRANSACTION
    assert report.committed == (reference(1), reference(2))
    assert report.failed == (
        Failure(reference(3), 0x0112),
        Failure(reference(4), 0x0112),
        Failure(reference(1, SC), 0x0119),
    )


def test_a_conflict_is_not_committed_to(ledger: Ledger) -> None:
    """Who sent the second of two contents is refused; who sent the first has its own."""
    enter(ledger, 1)
    enter(ledger, 1, "b", calling_ae_title="OTHER")
    assert asked_of(ledger, reference(1)).committed == (reference(1),)
    report = asked_of(ledger, reference(1), title="OTHER")
    assert report.failed == (Failure(reference(1), 0x0112),)


def test_many_at_once(ledger: Ledger) -> None:
    """More than a database takes in one question: each is found, in order."""
    for number in range(1, 1300, 100):
        enter(ledger, number)
    report = asked_of(ledger, *map(reference, range(1, 1300)))
    assert [one.instance_uid for one in report.committed] == [
        f"{ROOT}.{number}" for number in range(1, 1300, 100)
    ]
    assert len(report.failed) == 1299 - 13


def test_a_request_is_entered_with_its_answer(ledger: Ledger) -> None:
    """One transaction enters both; asked again, it is answered again."""
    asked_of(ledger, reference(1))
    entered = ledger.enqueue
    assert isinstance(entered, Entered)
    arguments = (TRANSACTION, "CAMERA", "1")
    assert entered.of(promises.PROMISE) == [(arguments, promises.ANSWER_S)]
    found = promises.find_promise(ledger, TRANSACTION, "CAMERA")
    assert not found.answered
    promises.answered(ledger, found)
    found = promises.find_promise(ledger, TRANSACTION, "CAMERA")
    assert found.answered
    promises.answer_again(ledger, found, 1, 30)
    assert entered.of(promises.PROMISE)[1] == ((TRANSACTION, "CAMERA", "2"), 30)
    time.sleep(0.01)
    asked_of(ledger, reference(2))
    found = promises.find_promise(ledger, TRANSACTION, "CAMERA")
    assert (found.answered, found.references) == (False, (reference(2),))
    assert len(entered.of(promises.PROMISE)) == 3
    with pytest.raises(UsageError, match="OTHER has not asked"):
        promises.find_promise(ledger, TRANSACTION, "OTHER")


def sent(ledger: Ledger, number: int, destination: str = "archive") -> str:
    """Enter an object whose result was sent, and asked for."""
    object_id = enter(ledger, number)
    uid = f"{ROOT}.5.{number}"
    queue.outgoing(ledger, object_id, State.LOCKED, "all", uid, "", [destination])
    queue.sent(ledger, object_id, destination, "asked", TRANSACTION)
    return object_id


def test_a_report_settles_deliveries(ledger: Ledger) -> None:
    """Committed: delivered; refused: to be sent again, and why; not mentioned: still awaited."""
    ids = [sent(ledger, number) for number in (1, 2, 3)]
    locked = [Reference(SC, f"{ROOT}.5.{number}") for number in (1, 2, 3)]
    report = Report(TRANSACTION, (locked[0],), (Failure(locked[1], 0x0112),))
    assert promises.settle(ledger, report) == 3
    rows = [queue.delivery(ledger, one, "archive") for one in ids]
    assert [row.state for row in rows] == [Sending.DELIVERED, Sending.WAITING, Sending.SENT]
    assert rows[1].said == "not committed to: 0112H no such SOP instance"
    assert queue.find(ledger, ids[0]).state == State.DONE
    assert [row.object_id for row in promises.overdue(ledger, -1)] == [ids[2]]
    assert promises.overdue(ledger, 60) == []
    entries = ledger.enqueue
    assert isinstance(entries, Entered)
    assert ((ids[1], "archive", "2"), promises.AGAIN_S) in entries.of(queue.DELIVER)
    assert promises.settle(ledger, report) == 3  # it comes a second time: nothing more happens
    assert queue.delivery(ledger, ids[1], "archive").tries == 1
    assert promises.settle(ledger, Report(f"{ROOT}.78", tuple(locked), ())) == 0
    assert queue.delivery(ledger, ids[2], "archive").state == Sending.SENT


UIDS = st.integers(0, 10**20).map(lambda number: f"2.25.{number}")
REFERENCES = st.builds(Reference, UIDS, UIDS)
FAILURES = st.builds(Failure, REFERENCES, st.integers(0, 0xFFFF))


@given(UIDS, st.lists(REFERENCES, max_size=5), st.lists(FAILURES, max_size=5))
def test_messages_say_what_they_are_built_of(
    uid: str, committed: list[Reference], failed: list[Failure]
) -> None:
    """A report, and a request of anything, come back as they were."""
    report = Report(uid, tuple(committed), tuple(failed))
    kind, ds = report_of(report)
    assert read_report(ds) == report
    assert kind == (2 if failed else 1)
    if committed:
        assert read_request(request_of(uid, committed)) == (uid, tuple(committed))


def test_messages_that_cannot_be_used() -> None:
    """No instance, no UID, one with a path in it, too many of them: each has its status."""
    cases: list[tuple[Callable[[Any], Any], int]] = [
        (lambda ds: setattr(ds, "ReferencedSOPSequence", []), 0x0114),
        (lambda ds: delattr(ds, "TransactionUID"), 0x0114),
        (lambda ds: delattr(ds.ReferencedSOPSequence[0], "ReferencedSOPInstanceUID"), 0x0114),
        (lambda ds: ds.add_new("TransactionUID", "LO", "../../etc"), 0x0115),
        (lambda ds: ds.add_new("ReferencedSOPSequence", "LO", "text"), 0x0115),
        (
            lambda ds: setattr(
                ds, "ReferencedSOPSequence", [ds.ReferencedSOPSequence[0]] * (MOST_REFERENCES + 1)
            ),
            0x0213,
        ),
    ]
    for change, status in cases:
        ds = request_of(TRANSACTION, [reference(1)])
        change(ds)
        with pytest.raises(MessageError) as caught:
            read_request(ds)
        assert caught.value.status == status


@dataclass
class Node:
    """A node's receiver that runs."""

    ledger: Ledger
    port: int
    listen: Listen


@contextmanager
def node(folder: Path, **listen: Any) -> Iterator[Node]:
    """Run a receiver with storage commitment, in this process."""
    config = node_config(folder, listen)
    spool = Spool(config.spool, config.floor)
    spool.prepare()
    ledger = make_ledger(place_of(str(folder / "queue.db")), Entered())

    class Quiet:
        def info(self, event: str, **fields: Any) -> None: ...

        def warning(self, event: str, **fields: Any) -> None: ...

        def error(self, event: str, **fields: Any) -> None: ...

    with free_socket() as listening:
        receiver = Receiver(config, spool, ledger, Quiet(), listening, further=[service(ledger)])
        receiver.start()
        try:
            yield Node(ledger, receiver.port, config.listen)
        finally:
            receiver.stop(0.5)
            ledger.close()


class Camera:
    """A sender that asks for storage commitment."""

    def __init__(self) -> None:
        self.reports: list[tuple[int, Report]] = []

    def report(self, event: Any) -> tuple[int, None]:
        self.reports.append((event.event_type, read_report(event.event_information)))
        return 0x0000, None

    def call(self, port: int) -> Any:
        """Open an association."""
        ae = AE("CAMERA")
        ae.add_requested_context(CLASS_UID, [ExplicitVRLittleEndian, ImplicitVRLittleEndian])
        ae.add_requested_context(OP8, [ExplicitVRLittleEndian])
        association = ae.associate(
            "127.0.0.1",
            port,
            ae_title="NODE",
            evt_handlers=[(evt.EVT_N_EVENT_REPORT, self.report)],
        )
        assert association.is_established
        return association

    @contextmanager
    def listening(self, status: int = 0x0000) -> Iterator[int]:
        """Listen for reports; answer them so; give the port."""
        ae = AE("CAMERA")
        ae.require_called_aet = True
        ae.add_supported_context(CLASS_UID, [ImplicitVRLittleEndian], scu_role=False, scp_role=True)

        def hear(event: Any) -> tuple[int, None]:
            self.report(event)
            return status, None

        handlers: list[Any] = [(evt.EVT_N_EVENT_REPORT, hear)]
        server = ae.start_server(("127.0.0.1", 0), block=False, evt_handlers=handlers)
        assert server is not None
        try:
            yield server.server_address[1]
        finally:
            server.shutdown()


def ask(association: Any, *references: Reference, **more: Any) -> int:
    """Send a request; give the status of its answer."""
    values = {"action_type": 1, "class_uid": CLASS_UID, "instance_uid": INSTANCE_UID} | more
    ds = request_of(TRANSACTION, references)
    status, _ = association.send_n_action(ds, **values)
    return int(status.Status)


def answered(ledger: Ledger) -> bool:
    """Tell whether the camera's request is."""
    return promises.find_promise(ledger, TRANSACTION, "CAMERA").answered


def test_a_sender_that_waits(tmp_path: Path) -> None:
    """It is told on the association that it asked on, and the node knows that it was."""
    camera = Camera()
    with node(tmp_path) as here:
        enter(here.ledger, 1)
        association = camera.call(here.port)
        assert ask(association, reference(1), reference(2)) == 0
        assert until(lambda: camera.reports)
        assert until(lambda: answered(here.ledger))
        association.release()
        found = promises.find_promise(here.ledger, TRANSACTION, "CAMERA")
        assert answer(here.ledger, here.listen, found).said == "answered already"
    failed = (Failure(reference(2), 0x0112),)
    assert camera.reports == [(2, Report(TRANSACTION, (reference(1),), failed))]


def test_a_sender_that_goes_on(tmp_path: Path) -> None:
    """It sends while it is reported to: every object is stored, and each report arrives."""
    camera, count = Camera(), 30
    path = save(make_fundus(), tmp_path)
    with node(tmp_path) as here:
        enter(here.ledger, 1)
        association = camera.call(here.port)
        ds = dcmread(path)
        for number in range(count):
            ds.SOPInstanceUID = UID(f"{ROOT}.9.{number}")
            assert association.send_c_store(ds).Status == 0x0000
            if number % 10 == 3:
                assert ask(association, reference(1)) == 0
        assert association.is_established
        assert until(lambda: len(camera.reports) == 3)
        association.release()
    assert {kind for kind, _ in camera.reports} == {1}


def test_a_sender_that_hangs_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is told on a new association, where node.yaml says; else nothing is lost either."""
    camera, hung_up, soon = Camera(), threading.Event(), commitment_service._answer

    def late(*arguments: Any) -> None:
        hung_up.wait(10)
        soon(*arguments)

    monkeypatch.setattr(commitment_service, "_answer", late)
    with camera.listening() as port, node(tmp_path) as here:
        enter(here.ledger, 1)
        association = camera.call(here.port)
        assert ask(association, reference(1)) == 0
        association.abort()
        hung_up.set()
        found = promises.find_promise(here.ledger, TRANSACTION, "CAMERA")
        assert answer(here.ledger, here.listen, found) == Outcome(
            Kind.PARK, "listen.peers does not say where CAMERA listens"
        )
        peer = {"ae_title": "CAMERA", "host": "127.0.0.1"}
        gone = Listen.model_validate({"peers": [peer | {"port": free_port()}]})
        outcome = answer(here.ledger, gone, found)
        assert outcome == Outcome(Kind.RETRY, "cannot be connected to: connection refused")
        there = Listen.model_validate({"peers": [peer | {"port": port}]})
        assert answer(here.ledger, there, found) == Outcome(Kind.STORED, "answered")
        assert answered(here.ledger)
    assert camera.reports[-1] == (1, Report(TRANSACTION, (reference(1),), ()))


def test_a_sender_that_refuses_its_report(tmp_path: Path) -> None:
    """It says 0110: it is told again later."""
    camera = Camera()
    with camera.listening(0x0110) as port, node(tmp_path) as here:
        promises.promise(here.ledger, TRANSACTION, "CAMERA", [reference(1)])
        found = promises.find_promise(here.ledger, TRANSACTION, "CAMERA")
        peer = {"ae_title": "CAMERA", "host": "127.0.0.1", "port": port}
        outcome = answer(here.ledger, Listen.model_validate({"peers": [peer]}), found)
        assert outcome.kind is Kind.RETRY
        assert outcome.said == "report of storage commitment: 0110H processing failure"
        assert not answered(here.ledger)


def test_requests_that_are_none(tmp_path: Path) -> None:
    """Another action, another instance, nothing in it: a status, and nothing is entered."""
    with node(tmp_path) as here:
        association = Camera().call(here.port)
        assert ask(association, reference(1), action_type=2) == 0x0123
        assert ask(association, reference(1), instance_uid=f"{ROOT}.1") == 0x0112
        assert ask(association) == 0x0114
        entered = here.ledger.enqueue
        assert isinstance(entered, Entered)
        assert entered.entries == []
        association.release()


def destination(port: int, **more: Any) -> DicomDestination:
    """Build one that is asked to commit."""
    values = {"kind": "dicom", "ae_title": "ARCHIVE", "host": "127.0.0.1", "port": port}
    return DicomDestination.model_validate(values | {"timeout_s": 5, "commitment": True} | more)


@contextmanager
def committing(status: int, then: Callable[[Any], None]) -> Iterator[int]:
    """Run an archive that answers requests with `status`, and then does something."""
    ae = AE("ARCHIVE")
    ae.add_supported_context(CLASS_UID)

    def take(event: Any) -> tuple[int, None]:
        threading.Timer(0.2, then, [event]).start()
        return status, None

    handlers: list[Any] = [(evt.EVT_N_ACTION, take)]
    server = ae.start_server(("127.0.0.1", 0), block=False, evt_handlers=handlers)
    assert server is not None
    try:
        yield server.server_address[1]
    finally:
        server.shutdown()


def test_an_archive_that_reports_at_once(tmp_path: Path) -> None:
    """Its report on the same association settles the delivery, and is answered Success."""
    statuses: list[int] = []

    def report(event: Any) -> None:
        uid, references = read_request(event.action_information)
        kind, ds = report_of(Report(uid, references, ()))
        status, _ = event.assoc.send_n_event_report(ds, kind, CLASS_UID, INSTANCE_UID)
        statuses.append(status.Status)

    ledger = make_ledger(place_of(str(tmp_path / "queue.db")), Entered())
    object_id = sent(ledger, 1)
    with committing(0x0000, report) as port:
        outcome = request(
            destination(port),
            "NODE",
            TRANSACTION,
            [Reference(SC, f"{ROOT}.5.1")],
            lambda one: promises.settle(ledger, one),
        )
        assert outcome == Outcome(Kind.STORED, "asked to commit")
        assert until(lambda: statuses)
    assert statuses == [0x0000]
    assert queue.delivery(ledger, object_id, "archive").state == Sending.DELIVERED
    ledger.close()


@pytest.mark.parametrize(
    ("status", "kind"),
    [(0x0110, Kind.RETRY), (0x0213, Kind.RETRY), (0x0122, Kind.PARK), (0x0124, Kind.RETRY)],
)
def test_an_archive_that_refuses(status: int, kind: Kind) -> None:
    """Its status leads where that of an object would."""
    with committing(status, lambda _: None) as port:
        outcome = request(destination(port), "NODE", TRANSACTION, [reference(1)], lambda _: 0)
    assert outcome.kind is kind
    assert outcome.said.startswith(f"storage commitment: {status:04X}H")


def test_an_archive_without_commitment(tmp_path: Path) -> None:
    """It offers none, or is not there: said so."""
    ae = AE("ARCHIVE")
    ae.add_supported_context(OP8)
    server = ae.start_server(("127.0.0.1", 0), block=False)
    assert server is not None
    there = destination(server.server_address[1])
    outcome = request(there, "NODE", TRANSACTION, [reference(1)], lambda _: 0)
    server.shutdown()
    assert outcome == Outcome(Kind.PARK, "does not offer storage commitment")
    outcome = request(destination(free_port()), "NODE", TRANSACTION, [reference(1)], lambda _: 0)
    assert outcome == Outcome(Kind.RETRY, "cannot be connected to: connection refused")
    missing = dict.fromkeys(("certificate", "key", "authorities"), tmp_path / "none.pem")
    there = destination(free_port(), tls=missing)
    outcome = request(there, "NODE", TRANSACTION, [reference(1)], lambda _: 0)
    assert outcome.kind is Kind.RETRY
    assert "none.pem: cannot be read" in outcome.said


def test_a_report_of_nothing_that_was_asked(tmp_path: Path) -> None:
    """Somebody reports what nobody asked for: refused, and no delivery changes."""
    with node(tmp_path) as here:
        object_id = sent(here.ledger, 1)
        ae = AE("EVE")
        ae.add_requested_context(CLASS_UID)
        roles: list[Any] = [build_role(CLASS_UID, scp_role=True)]
        association = ae.associate("127.0.0.1", here.port, ae_title="NODE", ext_neg=roles)
        report = Report(f"{ROOT}.78", (Reference(SC, f"{ROOT}.5.1"),), ())
        kind, ds = report_of(report)
        status, _ = association.send_n_event_report(ds, kind, CLASS_UID, INSTANCE_UID)
        assert status.Status == 0x0115
        del ds.TransactionUID
        status, _ = association.send_n_event_report(ds, kind, CLASS_UID, INSTANCE_UID)
        assert status.Status == 0x0114
        association.release()
        assert queue.delivery(here.ledger, object_id, "archive").state == Sending.SENT


@pytest.fixture
def orthanc_here(peer: Callable[[str], object], tmp_path: Path) -> Iterator[tuple[Any, Node]]:
    """Return an Orthanc and a node that know each other."""
    peer("Orthanc")
    folder = tmp_path / "orthanc"
    folder.mkdir()
    camera = {"ae_title": "ORTHANC", "host": "127.0.0.1"}
    with node(tmp_path) as here:
        modalities = {"node": ["NODE", "127.0.0.1", here.port]}
        with orthanc_in(folder, DicomModalities=modalities) as archive:
            listen = Listen.model_validate(
                {"ae_title": "NODE", "peers": [camera | {"port": archive.dicom}]}
            )
            yield archive, Node(here.ledger, here.port, listen)


def test_orthanc_commits(orthanc_here: tuple[Any, Node], tmp_path: Path) -> None:
    """It is sent one of two objects, and asked for both: one delivered, one 0112H."""
    archive, here = orthanc_here
    ds = make_fundus(make_pixels(), instance_uid=f"{ROOT}.5.1")
    path = save(ds, tmp_path)
    there = destination(archive.dicom, ae_title="ORTHANC", calling_ae_title="NODE")
    senders = Senders({"archive": there}, "NODE", tmp_path)
    assert senders.send("archive", path).kind is Kind.STORED
    senders.close()
    ids = [sent(here.ledger, number) for number in (1, 2)]
    references = [Reference(str(ds.SOPClassUID), f"{ROOT}.5.{number}") for number in (1, 2)]
    outcome = request(
        there, "NODE", TRANSACTION, references, lambda one: promises.settle(here.ledger, one)
    )
    assert outcome == Outcome(Kind.STORED, "asked to commit")

    def states() -> list[str]:
        return [queue.delivery(here.ledger, one, "archive").state for one in ids]

    assert until(lambda: states() == [Sending.DELIVERED, Sending.WAITING], 20), states()
    said = queue.delivery(here.ledger, ids[1], "archive").said
    assert said == "not committed to: 0112H no such SOP instance"


def test_orthanc_is_promised(orthanc_here: tuple[Any, Node], tmp_path: Path) -> None:
    """It sends an object, and asks for it and for another: told which the node has."""
    archive, here = orthanc_here
    ds = make_fundus(make_pixels(), instance_uid=f"{ROOT}.1")
    archive.rest("/instances", save(ds, tmp_path).read_bytes())
    (name,) = archive.json("/tools/lookup", ds.SOPInstanceUID.encode())
    archive.rest("/modalities/node/store", name["ID"].encode())
    pairs = [[str(ds.SOPClassUID), f"{ROOT}.{number}"] for number in (1, 2)]
    body = json.dumps({"DicomInstances": pairs}).encode()
    told = archive.json("/modalities/node/storage-commitment", body)
    found = promises.find_promise(here.ledger, told["ID"], "ORTHANC")
    outcome = answer(here.ledger, here.listen, found)
    assert outcome.kind is Kind.STORED, outcome
    assert until(lambda: archive.json(told["Path"])["Status"] != "Pending", 20)
    result = archive.json(told["Path"])
    assert result["Status"] == "Failure"
    assert [one["SOPInstanceUID"] for one in result["Success"]] == [f"{ROOT}.1"]
    (failure,) = result["Failures"]
    assert (failure["SOPInstanceUID"], failure["FailureReason"]) == (f"{ROOT}.2", 0x0112)
