"""The receiver against DCMTK, and against peers that say what DCMTK would not."""

import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
from pydicom import uid
from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate
from pydicom.filewriter import dcmwrite
from pynetdicom import AE
from pynetdicom.association import Association
from pynetdicom.dimse_primitives import C_FIND, C_STORE
from pynetdicom.dsutils import encode
from pynetdicom.pdu_primitives import P_DATA

from factories import save
from medlocker_dicom.dicom.syntaxes import SOURCE_CLASSES
from medlocker_dicom.errors import DiskFullError, VaultError
from medlocker_dicom.node import receiver_arrival
from medlocker_dicom.node.config import Listen
from medlocker_dicom.node.ledger import Entered, State
from medlocker_dicom.node.receiver import SECONDARY_CAPTURES, SYNTAXES, accepted_classes
from receiving import Station, dcmtk, instance, large, rows, station, store, threads, until, written

pytestmark = pytest.mark.usefixtures("tools")
PHOTOGRAPH = uid.OphthalmicPhotography8BitImageStorage


@pytest.fixture
def tools(peer: Any) -> None:
    for name in ("storescu", "echoscu", "dcmsend"):
        peer(name)


@pytest.fixture
def node(tmp_path: Path) -> Iterator[Station]:
    with station(tmp_path) as running:
        yield running


@contextmanager
def associated(
    port: int, called: str = "NODE", abstract: str = PHOTOGRAPH, syntax: str = SYNTAXES[0]
) -> Iterator[Association]:
    ae = AE("CAMERA")
    ae.add_requested_context(abstract, syntax)
    ae.acse_timeout = ae.dimse_timeout = ae.network_timeout = 20
    association = ae.associate("127.0.0.1", port, ae_title=called)
    try:
        yield association
    finally:
        if association.is_established:
            association.release()


def command(instance_uid: str, class_uid: str, data: bytes | None) -> C_STORE:
    request = C_STORE()
    request.MessageID = 1
    request.AffectedSOPClassUID = uid.UID(class_uid)
    request.AffectedSOPInstanceUID = uid.UID(instance_uid)
    request.Priority = 2
    request.DataSet = None if data is None else BytesIO(data)
    return request


def said(association: Association, request: C_STORE) -> tuple[int, str]:
    """Send a C-STORE-RQ that is not looked at before; give status and comment."""
    association._reactor_checkpoint.clear()  # else its own thread takes the answer
    assert until(lambda: association._is_paused)
    association.dimse.send_msg(request, 1)
    _, answer = association.dimse.get_msg(block=True)
    association._reactor_checkpoint.set()
    assert isinstance(answer, C_STORE)
    assert answer.Status is not None
    return answer.Status, str(answer.ErrorComment or "")


def encoded(ds: Dataset) -> bytes:
    data = encode(ds, is_implicit_vr=False, is_little_endian=True)
    assert data is not None
    return data


def test_echo_and_store_by_dcmtk(node: Station, tmp_path: Path) -> None:
    """C-ECHO, storescu and dcmsend succeed; every object is a row, a file and one workflow."""
    assert dcmtk("echoscu", "-aec", "NODE", "127.0.0.1", node.port)[0] == 0
    files = written(tmp_path, 1, 2, 3)
    assert store(node.port, *files[:2])[0] == 0
    assert dcmtk("dcmsend", "-aec", "NODE", "127.0.0.1", node.port, files[2])[0] == 0
    found = node.rows()
    assert [row.state for row in found] == [State.RECEIVED] * 3
    assert [row.calling_ae_title for row in found] == ["CAMERA", "CAMERA", "DCMSEND"]
    assert {row.id for row in found} == set(node.kept())
    assert sorted(node.queue.entered) == sorted(("process", f"{row.id}-1") for row in found)
    for row in found:
        assert hashlib.sha256(node.spool.object(row.id).read_bytes()).hexdigest() == row.sha256
    assert node.settled()


@pytest.mark.parametrize("syntax", SYNTAXES, ids=lambda one: one.name[:40])
def test_bytes_are_kept_as_received(node: Station, tmp_path: Path, syntax: uid.UID) -> None:
    """In every transfer syntax: what is behind the file meta information is what was sent."""
    ds = instance()
    if syntax.is_compressed and syntax != uid.DeflatedExplicitVRLittleEndian:
        ds.PixelData = encapsulate([b"what cannot be decoded is kept, too"])
    ds.file_meta.TransferSyntaxUID = syntax
    path = tmp_path / "one.dcm"
    dcmwrite(path, ds, enforce_file_format=True)
    with associated(node.port, syntax=syntax) as association:
        assert association.send_c_store(path).Status == 0
    (row,) = node.rows()
    assert row.transfer_syntax_uid == syntax
    assert row.study_instance_uid == ds.StudyInstanceUID
    kept = node.spool.object(row.id).read_bytes()
    sent = path.read_bytes()
    start = 132 + 12 + int.from_bytes(sent[140:144], "little")
    assert kept.endswith(sent[start:])
    assert len(kept) - len(sent[start:]) < 512


@pytest.mark.parametrize(
    ("program", "option"),
    [("dcmcjpeg", "-xs"), ("dcmcjpls", "-xt"), ("dcmcrle", "-xr")],
)
def test_compressed_by_dcmtk(
    node: Station, tmp_path: Path, program: str, option: str, peer: Any
) -> None:
    """What DCMTK compresses arrives compressed."""
    (plain,) = written(tmp_path)
    peer(program)(plain, tmp_path / "compressed.dcm")
    code, words = store(node.port, tmp_path / "compressed.dcm", options=(option,))
    assert code == 0, words
    (row,) = node.rows()
    assert uid.UID(row.transfer_syntax_uid).is_compressed


def test_all_classes_are_accepted(tmp_path: Path) -> None:
    """Photographs, all five Secondary Capture classes, and what is configured, private or not."""
    further = ["1.2.840.10008.5.1.4.1.1.7.77", "1.2.840.10008.5.1.4.1.1.2"]
    with station(tmp_path, {"further_classes": further}) as node:
        classes = accepted_classes(node.receiver.config.listen)
        assert len(SECONDARY_CAPTURES) == 5
        assert {*SOURCE_CLASSES, *SECONDARY_CAPTURES, *further} == set(classes)
        for one in classes:
            ds = instance()
            ds.SOPClassUID = uid.UID(one)
            ds.SOPInstanceUID = uid.UID(f"{one}.1")
            ds.file_meta.MediaStorageSOPClassUID = ds.SOPClassUID
            with associated(node.port, abstract=one) as association:
                request = command(ds.SOPInstanceUID, one, encoded(ds))
                assert said(association, request) == (0, "")
        assert {row.sop_class_uid for row in node.rows()} == set(classes)
        with associated(node.port, abstract=uid.CTImageStorage + ".9") as association:
            assert not association.is_established


def test_duplicates_and_conflicts(node: Station, tmp_path: Path) -> None:
    """Again: Success, nothing repeated. Another content of one UID: Success, kept and held."""
    (path,) = written(tmp_path)
    assert store(node.port, path)[0] == store(node.port, path)[0] == 0
    other = save(instance(1, patient_id="P-2"), tmp_path, "other.dcm")
    assert store(node.port, other)[0] == 0
    assert [row.state for row in node.rows()] == [State.RECEIVED, State.HELD]
    assert len(node.queue.entered) == 1
    assert len(node.kept()) == 2
    outcomes = [line["outcome"] for line in node.log.said("object received")]
    assert outcomes == [Entered.NEW, Entered.AGAIN, Entered.CONFLICT]


def test_what_is_delivered_and_gone_is_not_kept_again(node: Station, tmp_path: Path) -> None:
    """A duplicate of an object whose file was deleted leaves no file behind."""
    (path,) = written(tmp_path)
    assert store(node.port, path)[0] == 0
    (row,) = node.rows()
    with node.ledger.writing() as connection:
        connection.exec_driver_sql("UPDATE node_object SET state = 'gone'")
    node.spool.forget(row.id)
    assert store(node.port, path)[0] == 0
    assert node.kept() == []


HOSTILE = ["../../../../etc/passwd", "1.2.03", "1.2.3 4", "PATIENT^NAME", "1..2", "1.2\n.3", "1.2."]


@pytest.mark.filterwarnings("ignore:Invalid value for VR UI")  # pydicom's, of what we send
@pytest.mark.parametrize("bad", HOSTILE)
@pytest.mark.parametrize("where", ["SOPInstanceUID", "StudyInstanceUID", "SOPClassUID"])
def test_hostile_uids_are_refused(node: Station, bad: str, where: str) -> None:
    """C000 for what is no UID, wherever; no file, no row, and the value is in no log."""
    ds = instance()
    ds.add_new(where, "LO", bad)  # a VR that pydicom writes as it is
    data = encoded(ds).replace(b"LO", b"UI", 3) if where != "StudyInstanceUID" else encoded(ds)
    instance_uid = bad if where == "SOPInstanceUID" else ds.SOPInstanceUID
    with associated(node.port) as association:
        status, comment = said(association, command(instance_uid, PHOTOGRAPH, data))
    assert status == 0xC000
    assert bad not in comment
    assert bad not in repr(node.log.lines)
    assert node.rows() == node.kept() == []
    assert node.settled()


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")  # pynetdicom's
@pytest.mark.parametrize(
    ("context_id", "changes"),
    [
        (1, {"AffectedSOPInstanceUID": ""}),
        (1, {"AffectedSOPClassUID": ""}),
        (1, {"MessageID": None}),
        (1, {"Priority": None}),
        (1, {"CommandField": 0xFFFF}),
        (1, {"CommandField": None}),
        (99, {}),
    ],
)
def test_commands_that_are_none_leave_nothing(
    node: Station, context_id: int, changes: dict[str, Any]
) -> None:
    """A whole data set after a command that pynetdicom turns down: nothing of it stays."""
    wanted = Dataset()
    wanted.AffectedSOPClassUID, wanted.AffectedSOPInstanceUID = PHOTOGRAPH, "1.2.3"
    wanted.CommandField, wanted.MessageID, wanted.Priority = 0x0001, 1, 0
    wanted.CommandDataSetType = 0x0000
    for keyword, value in changes.items():
        if value is None:
            delattr(wanted, keyword)
        else:
            wanted[keyword].value = value
    with associated(node.port) as association:
        parts = {b"\x03": encode(wanted, True, True), b"\x02": encoded(instance())}  # noqa: FBT003  implicit, little
        for flag, part in parts.items():
            assert part is not None
            fragment = P_DATA()
            pair: Any = [context_id, flag + part]
            fragment.presentation_data_value_list = [pair]
            association.dul.send_pdu(fragment)
        assert until(lambda: not association.is_established)
    assert until(node.settled)
    assert node.rows() == node.kept() == []
    assert dcmtk("echoscu", "-aec", "NODE", "127.0.0.1", node.port)[0] == 0


@pytest.mark.parametrize(
    ("fields", "status", "words"),
    [
        ({"instance_uid": "1.2.3"}, 0xC000, "SOP Instance UIDs of the command"),
        ({"class_uid": uid.CTImageStorage}, 0xA900, "SOP Class UIDs of the command"),
        ({"data": b"no data set at all, just words"}, 0xC000, ""),
        ({"data": None}, 0xC000, "has no data set"),
        ({"data": b"\x08\x00\x18\x00UI\x04\x001.2\x00"}, 0xC000, "SOP Class UID is missing"),
        ({"data": b"\x08\x00\x05\x00SQ\0\0\xff\xff\xff\xff" * 2000}, 0xC000, ""),
    ],
)
def test_what_is_not_what_was_announced(
    node: Station, fields: dict[str, Any], status: int, words: str
) -> None:
    """Other UIDs than the command's, no data set, a damaged one: refused, nothing is kept."""
    ds = instance()
    values = {"instance_uid": ds.SOPInstanceUID, "class_uid": PHOTOGRAPH, "data": encoded(ds)}
    with associated(node.port) as association:
        got, comment = said(association, command(**(values | fields)))
        assert got == status
        assert words in comment
        assert said(association, command(**values)) == (0, "")
    assert len(node.rows()) == len(node.kept()) == 1
    assert node.settled()


def test_deflated_bomb_takes_no_memory(node: Station) -> None:
    """A data set that inflates without end is looked at as far as its series."""
    import zlib  # noqa: PLC0415  used here alone

    ds = instance()
    deflater = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    data = deflater.compress(encoded(ds)) + deflater.compress(bytes(1 << 28)) + deflater.flush()
    with associated(node.port, syntax=uid.DeflatedExplicitVRLittleEndian) as association:
        assert said(association, command(ds.SOPInstanceUID, PHOTOGRAPH, data))[0] == 0
    assert node.rows()[0].series_instance_uid == ds.SeriesInstanceUID


def test_errors_of_this_side(
    node: Station, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Database: 0110, entered by the next try. Disk: A700. Anything else: 0110, not in words."""
    (path,) = written(tmp_path)

    def failing(error: Exception) -> Any:
        def fail(*_: Any) -> None:
            raise error

        return fail

    for error, status in (
        (VaultError("queue.db: is damaged, or is no vault"), "Unknown Status: 0x110"),
        (DiskFullError("spool: no space left"), "Refused: OutOfResources"),
        (ValueError("Doe^Jane"), "Unknown Status: 0x110"),
    ):
        with monkeypatch.context() as patch:
            patch.setattr(receiver_arrival, "enter", failing(error))
            code, words = store(node.port, path)
        assert code != 0
        assert status in words
    assert node.rows() == []
    assert len(node.kept()) == 1  # for `recover`, or for the sender's next try
    assert "Doe" not in repr(node.log.lines)
    assert store(node.port, path)[0] == 0
    assert len(node.rows()) == len(node.kept()) == 1


def test_floor_of_the_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Below it: no association (2, 3, 2); in an open one A700, and not a byte is kept."""
    with station(tmp_path) as node:
        ds = instance()
        with associated(node.port) as association:
            monkeypatch.setattr(type(node.spool), "check_room", _no_room)
            assert said(association, command(ds.SOPInstanceUID, PHOTOGRAPH, encoded(ds)))[0] == (
                0xA700
            )
            with associated(node.port) as second:
                assert second.is_rejected
                assert _codes(second) == (2, 3, 2)
            monkeypatch.undo()
            assert said(association, command(ds.SOPInstanceUID, PHOTOGRAPH, encoded(ds)))[0] == 0
        assert len(node.kept()) == 1
        assert node.log.said("association refused")[0]["reason"].startswith("spool: 1 MiB")


def _no_room(*_: object) -> None:
    raise DiskFullError("spool: 1 MiB are free, 2 MiB must be")


def _codes(association: Association) -> tuple[Any, ...]:
    answer: Any = association.acceptor.primitive
    return answer.result, answer.result_source, answer.diagnostic


def test_too_large_is_refused_while_it_arrives(tmp_path: Path) -> None:
    """Never more than the limit is on disk; its sender is told, and the next object succeeds."""
    sizes: list[int] = []
    with station(tmp_path, {"largest": 300_000}) as node:
        limits = node.receiver._limits
        watch = limits.watch

        def watched(event: Any) -> None:
            watch(event)
            sizes.extend(part.stat().st_size for part in node.spool.incoming.iterdir())

        node.receiver._server.bind(*_watching(watched))  # type: ignore[union-attr]
        _, words = store(node.port, large(tmp_path, 500_000), *written(tmp_path), options=("-nh",))
        assert "Error: CannotUnderstand" in words
        assert [row.size < 300_000 for row in node.rows()] == [True]
        assert node.settled()
        code, words = store(node.port, large(tmp_path, 2_000_000))
        assert code != 0
        assert "abort" in words.lower()
        assert until(node.settled)
    assert 0 < max(sizes) <= 300_000 + 131_072


def _watching(watched: Any) -> tuple[Any, Any]:
    from pynetdicom import evt  # noqa: PLC0415  used here alone

    return evt.EVT_PDU_RECV, watched


def test_messages_that_are_not_stored_are_bounded(node: Station) -> None:
    """A query with a data set of megabytes ends the association, not the memory."""
    with associated(node.port) as association:
        request = C_FIND()
        request.MessageID = 1
        request.AffectedSOPClassUID = uid.UID("1.2.840.10008.5.1.4.1.2.2.1")
        request.Priority = 2
        request.Identifier = BytesIO(bytes(4 << 20))
        association.dimse.send_msg(request, 1)
        assert until(lambda: not association.is_established)
        assert association.is_aborted


def test_allow_list(tmp_path: Path) -> None:
    """By calling AE title and address; refused by A-ASSOCIATE-RJ, with the reason in the log."""
    peers = [
        {"ae_title": "CAMERA", "addresses": ["10.0.0.0/8", "127.0.0.1/32"]},
        {"ae_title": "ELSEWHERE", "addresses": ["10.0.0.0/8", "::1/128"]},
        {"ae_title": "ANYWHERE"},
    ]
    with station(tmp_path, {"peers": peers}) as node:
        files = written(tmp_path)
        assert store(node.port, *files)[0] == 0
        for title, good in (("ANYWHERE", True), ("ELSEWHERE", False), ("EVE", False)):
            words = ("-v", "-aec", "NODE", "-aet", title, "127.0.0.1", node.port)
            code, output = dcmtk("storescu", *words, *files)
            assert (code == 0) is good
            assert ("Calling AE Title Not Recognized" in output) is not good
        reasons = [line["reason"] for line in node.log.said("association refused")]
        assert ["address is not" in one for one in reasons] == [True, False]
        assert "not among listen.peers" in reasons[1]
        assert until(lambda: threads("Acceptor") == 0)


def test_called_title_must_be_ours(node: Station) -> None:
    """Another called AE title is refused for good (1, 1, 7)."""
    with associated(node.port, called="OTHER") as association:
        assert association.is_rejected
        assert _codes(association) == (1, 1, 7)
    assert "NODE" in node.log.said("association refused")[0]["reason"]


def test_too_many_associations(tmp_path: Path) -> None:
    """One more than is allowed is refused for now (2, 3, 2); an end makes room."""
    with station(tmp_path, {"associations": 2}) as node:
        with associated(node.port), associated(node.port), associated(node.port) as third:
            assert third.is_rejected
            assert _codes(third) == (2, 3, 2)
        assert until(lambda: threads("Acceptor") == 0)
        with associated(node.port) as again:
            assert again.is_established


def test_what_fails_while_judging_refuses(node: Station, monkeypatch: pytest.MonkeyPatch) -> None:
    """An error of ours admits nobody."""

    def fail(*_: object) -> None:
        raise OSError(5, "broken disk")

    monkeypatch.setattr(type(node.spool), "check_room", fail)
    with associated(node.port) as association:
        assert association.is_rejected
        assert _codes(association) == (2, 2, 1)


def test_memory_of_the_caller_outlives_it(node: Station, tmp_path: Path) -> None:
    """An object that has lost its row comes back with who had sent it."""
    assert store(node.port, *written(tmp_path))[0] == 0
    before = node.rows()
    with node.ledger.writing() as connection:
        connection.exec_driver_sql("DELETE FROM node_object")
    assert receiver_arrival.recover(node.spool, node.ledger, node.log) == 1
    (after,) = rows(node.ledger)
    same = ("id", "sop_instance_uid", "series_instance_uid", "sha256", "size", "called_ae_title")
    assert all(getattr(after, one) == getattr(before[0], one) for one in same)
    try:
        os.getxattr(node.spool.object(after.id), "user.medlocker.caller")
    except OSError:
        pytest.skip("this disk keeps no attributes of files")
    assert (after.calling_ae_title, after.address) == ("CAMERA", "127.0.0.1")


def test_listen_defaults_accept_what_dicom_md_lists() -> None:
    """Fifteen or fewer contexts fit into one association, each with every syntax."""
    assert len(accepted_classes(Listen())) == len(set(accepted_classes(Listen()))) >= 10
    assert len(SYNTAXES) == 12
