"""What is cut off: by kill -9 at each step, by a sender that leaves, by processes that die."""

import itertools
import signal
import socket
import sys
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
from pydicom import uid
from pynetdicom import AE
from pynetdicom.dimse_messages import C_STORE_RQ
from pynetdicom.dimse_primitives import C_STORE

from medlocker_dicom.database import place_of
from medlocker_dicom.node.ledger import enter, make_ledger
from medlocker_dicom.node.receiver_admission import Caller
from medlocker_dicom.node.receiver_arrival import describe, recover
from medlocker_dicom.node.spool import Spool
from receiving import Recorded, Spoken, free_socket, large, rows, station, store, until, written
from receiving_process import STEPS, started


@pytest.fixture(autouse=True)
def tools(peer: Any) -> None:
    peer("storescu")


@pytest.mark.parametrize("step", STEPS)
def test_killed_at_each_step(tmp_path: Path, step: str) -> None:
    """Never Success; after a restart and the sender's next try there is exactly one of all."""
    database = str(tmp_path / "queue.db")
    path = large(tmp_path, 400_000)
    with free_socket() as listening:
        process = started(tmp_path, database, listening, step=step)
        code, words = store(listening.getsockname()[1], path)
        assert process.wait(10) == -signal.SIGKILL
    assert code != 0
    assert "(Success)" not in words
    log, queue = Spoken(), Recorded()
    ledger = make_ledger(place_of(database), queue)
    spool = Spool(tmp_path / "spool", 0)
    before = len(rows(ledger))
    found = recover(spool, ledger, log)
    assert found == (step in ("renamed", "adopted", "entered, not committed"))
    assert before == (step == "entered")
    assert len(list(spool.objects())) == before + found == len(rows(ledger))
    assert list(spool.incoming.iterdir()) == []
    assert recover(spool, ledger, log) == 0
    ledger.close()
    with station(tmp_path) as node:
        assert store(node.port, path)[0] == 0
        assert len(node.rows()) == len(node.kept()) == 1
        # the one that died had entered it, or one of the two here did
        assert before + len(queue.entered) + len(node.queue.entered) == 1
        assert node.settled()


@pytest.mark.parametrize("how", ["abort", "cut"])
def test_sender_leaves_in_the_middle(tmp_path: Path, how: str) -> None:
    """By A-ABORT, or as if its cable were cut: no row, no file, and nothing half-arrived."""
    with station(tmp_path) as node:
        ae = AE("CAMERA")
        ae.add_requested_context(uid.SecondaryCaptureImageStorage)
        association = ae.associate("127.0.0.1", node.port, ae_title="NODE")
        request = C_STORE()
        request.MessageID, request.Priority = 1, 2
        request.AffectedSOPClassUID = uid.SecondaryCaptureImageStorage
        request.AffectedSOPInstanceUID = uid.UID("1.2.3")
        request.DataSet = BytesIO(bytes(1 << 20))
        message = C_STORE_RQ()
        message.primitive_to_message(request)
        for part in itertools.islice(message.encode_msg(1, 16384), 20):
            association.dul.send_pdu(part)
        assert until(lambda: not node.settled())
        if how == "abort":
            association.abort()
        else:
            assert association.dul.socket is not None
            association.dul.socket.close()
        assert until(node.settled)
        assert node.rows() == node.kept() == []


def test_recover_leaves_what_it_cannot_vouch_for(tmp_path: Path) -> None:
    """A damaged object without a row stays and is told of; what is gone by its row goes."""
    spool, log = Spool(tmp_path / "spool", 0), Spoken()
    spool.prepare()
    ledger = make_ledger(place_of(str(tmp_path / "queue.db")), Recorded())
    ids = []
    for path in written(tmp_path, 1, 2, 3):
        arrival = describe(path, Caller("A", "B", "::1"))
        spool.adopt(path, arrival.id)
        ids.append(arrival.id)
        if not ids[2:]:
            enter(ledger, arrival)
    with ledger.writing() as connection:
        connection.exec_driver_sql(f"UPDATE node_object SET state = 'gone' WHERE id = '{ids[0]}'")
    with spool.object(ids[2]).open("ab") as stream:
        stream.write(b"\0\0")
    unreadable = spool.object("f" * 64)
    unreadable.parent.mkdir(exist_ok=True)
    unreadable.write_bytes(b"noise")
    (spool.incoming / "receiver-0-x.dcm").write_bytes(b"half")
    assert recover(spool, ledger, log) == 0
    assert sorted(spool.objects()) == sorted([*ids[1:], "f" * 64])
    assert [line["object"] for line in log.said("object in the spool is damaged")] == ["f" * 64]
    assert log.said("object in the spool is not the one that was stored") == [{"object": ids[2]}]
    assert list(spool.incoming.iterdir()) == []
    ledger.close()


def test_a_spool_prepared_by_several_at_a_time(tmp_path: Path) -> None:
    """As the receivers of a node do when it starts: none finds another's traces."""
    spool = Spool(tmp_path / "spool", 0)
    spool.prepare()
    with ThreadPoolExecutor(8) as pool:
        for done in [pool.submit(spool.prepare) for _ in range(100)]:
            done.result()
    assert list(spool.incoming.iterdir()) == []


def test_two_processes_share_a_port(tmp_path: Path) -> None:
    """When one is killed the other goes on; its successor clears up; SIGTERM ends them well."""
    database = str(tmp_path / "queue.db")
    with free_socket() as listening:
        port = listening.getsockname()[1]
        pair = [started(tmp_path, database, listening, number) for number in (1, 2)]
        try:
            for number in range(1, 5):
                assert store(port, *written(tmp_path, number))[0] == 0
            pair[0].kill()
            pair[0].wait(10)
            left = tmp_path / "spool" / "incoming" / "receiver-1-half.dcm"
            left.write_bytes(b"half")
            for number in range(5, 9):
                assert store(port, *written(tmp_path, number))[0] == 0
            pair[0] = started(tmp_path, database, listening, 1)
            assert until(lambda: not left.exists())
        finally:
            for process in pair:
                process.terminate()
            ends = [process.wait(20) for process in pair]
    assert ends == [0, 0]
    ledger = make_ledger(place_of(database), Recorded())
    assert len(rows(ledger)) == 8
    ledger.close()


def sockets(pid: int) -> int:
    """Count a process's sockets (Linux)."""
    found = 0
    for path in Path(f"/proc/{pid}/fd").iterdir():
        with suppress(FileNotFoundError):  # closed meanwhile
            found += str(path.readlink()).startswith("socket:")
    return found


@pytest.mark.skipif(sys.platform != "linux", reason="connections are counted in Linux's /proc")
def test_connections_are_spread_over_processes(tmp_path: Path) -> None:
    """Who has some lets the other come first: four senders do not end at one process."""

    def connections() -> list[int]:
        return [sockets(process.pid) for process in pair]

    with free_socket() as listening, ExitStack() as stack:
        place = listening.getsockname()
        pair = [started(tmp_path, str(tmp_path / "queue.db"), listening, n) for n in (1, 2)]
        try:
            # The port, its duplicate, and the lobby's pair: both are listening.
            assert until(lambda: min(connections()) >= 4, 60)
            before = connections()
            for _ in range(8):
                stack.enter_context(socket.create_connection(place, 10))
            assert until(lambda: sum(connections()) == sum(before) + 8)
            shares = [now - then for now, then in zip(connections(), before, strict=True)]
        finally:
            for process in pair:
                process.terminate()
                process.wait(20)
    assert min(shares) >= 2
