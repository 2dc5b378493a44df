"""Metrics and health: from the queue, whatever process asks, and from all that count."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import pytest
from prometheus_client import values
from prometheus_client.parser import text_string_to_metric_families

from medlocker_dicom.database import place_of
from medlocker_dicom.errors import DiskFullError
from medlocker_dicom.node import ledger as queue
from medlocker_dicom.node.audit import Alert, spool_of
from medlocker_dicom.node.figures import health, ready
from medlocker_dicom.node.ledger import Arrival, Entered, Ledger, Sending, State, make_ledger
from medlocker_dicom.node.metrics import QueueCollector, clear, exposition, make_meters
from medlocker_dicom.node.spool import Spool

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

NOW = 1_800_000_000_000


@dataclass
class Clock:
    """Moments that a test sets."""

    ms: int = NOW

    def __call__(self) -> int:
        return self.ms


def arrival(number: int) -> Arrival:
    """Return an object of 100 bytes."""
    uid, digest = f"1.2.{number}", f"{number:064x}"
    return Arrival(uid, "1.2", "1.2.840", "1.2.3", "1.2.4", digest, 100, "CAM", "NODE", "::1")


@pytest.fixture
def clock() -> Clock:
    """Return the queue's clock."""
    return Clock()


@pytest.fixture
def ledger(vault_place: str, clock: Clock) -> Iterator[Ledger]:
    """Return an empty queue, in each kind of database."""

    made = replace(make_ledger(place_of(vault_place), lambda *_, **__: None), now=clock)
    yield made
    made.close()


@pytest.fixture
def spool(tmp_path: Path) -> Spool:
    """Return a spool whose disk has room."""
    made = Spool(tmp_path / "spool", 1)
    made.prepare()
    return made


@pytest.fixture
def busy(ledger: Ledger, clock: Clock) -> Ledger:
    """Return a queue with an object in each way: waiting, sent to one of two, parked, held."""
    for number in range(4):
        queue.enter(ledger, arrival(number))
        clock.ms += 1000
    sent, parked, held = (arrival(number).id for number in (1, 2, 3))
    for one in (sent, parked):
        queue.outgoing(ledger, one, State.LOCKED, "all", "1.2.9", "ab", ["archive", "research"])
    queue.delivered(ledger, sent, "archive", "0x0000")
    queue.park(ledger, parked, "archive", "0xA900")
    queue.hold(ledger, held, "no fundus photograph", "look", None)
    queue.alive(ledger, "node1-7")
    return ledger


def samples(text: bytes) -> dict[tuple[str, ...], float]:
    """Return name and values of labels, to value."""
    return {
        (one.name, *one.labels.values()): one.value
        for family in text_string_to_metric_families(text.decode())
        for one in family.samples
    }


def test_the_queue_is_read_when_it_is_asked(busy: Ledger, spool: Spool, clock: Clock) -> None:
    """Objects and deliveries by state, ages, sizes, workers, room: as they are in the tables."""
    clock.ms = NOW + 10_000
    found = samples(exposition(QueueCollector(busy, spool), make_meters()))
    expected = {
        ("medlocker_objects", "received"): 1,
        ("medlocker_objects", "locked"): 2,
        ("medlocker_objects", "held"): 1,
        ("medlocker_objects", "gone"): 0,
        ("medlocker_deliveries", "archive", "delivered"): 1,
        ("medlocker_deliveries", "archive", "parked"): 1,
        ("medlocker_deliveries", "research", "waiting"): 2,
        ("medlocker_received_total",): 4,
        ("medlocker_received_bytes_total",): 400,
        ("medlocker_oldest_waiting_seconds",): 10,
        ("medlocker_oldest_delivery_seconds", "research"): 9,
        ("medlocker_workers",): 1,
        ("medlocker_database_up",): 1,
        ("medlocker_spool_floor_bytes",): 1,
        ("medlocker_audit_waiting_bytes",): 0,
    }
    assert {key: found.get(key) for key in expected} == expected
    assert found["medlocker_spool_free_bytes",] > 0


def test_the_queue_is_not_asked_at_every_scrape(busy: Ledger, spool: Spool) -> None:
    """A careless scraper does not load the database: the answer is kept for seconds."""
    seconds = [0.0]
    collector, meters = QueueCollector(busy, spool, lambda: seconds[0]), make_meters()

    def received() -> float:
        return samples(exposition(collector, meters))["medlocker_received_total",]

    assert received() == 4
    queue.enter(busy, arrival(9))
    assert received() == 4
    seconds[0] = 6
    assert received() == 5


def test_a_database_that_is_away_is_told(quick_ledger: Ledger, spool: Spool) -> None:
    """The page of metrics still answers, and says so; health and readiness as well."""
    file = quick_ledger.place.file
    assert file is not None
    quick_ledger.close()
    file.write_bytes(b"no database" * 100)
    found = samples(exposition(QueueCollector(quick_ledger, spool), make_meters()))
    assert found["medlocker_database_up",] == 0
    assert ("medlocker_received_total",) not in found
    assert ready(quick_ledger, spool)["faults"] == ["the queue's database fails: VaultDamagedError"]
    assert health(quick_ledger, spool)["ok"] is False


@pytest.fixture
def quick_ledger(tmp_path: Path) -> Ledger:
    """Return an empty queue in SQLite."""
    return make_ledger(place_of(str(tmp_path / "queue.db")), lambda *_, **__: None)


def test_a_process_counts_what_it_sees(quick_ledger: Ledger, spool: Spool) -> None:
    """Stores by outcome, refusals by reason, seconds; reasons are classes and members alone."""
    meters = make_meters()
    for outcome in (Entered.NEW, Entered.NEW, Entered.AGAIN):
        meters.stored(outcome, 50)
    meters.refused(Alert.CALLING)
    meters.refused(DiskFullError("/spool: Zzyzx"))
    meters.locked(3.5)
    meters.delivered("archive", Sending.DELIVERED, 0.2)
    found = samples(exposition(QueueCollector(quick_ledger, spool), meters))
    expected = {
        ("medlocker_stores_total", "new"): 2,
        ("medlocker_stores_total", "again"): 1,
        ("medlocker_store_bytes_total",): 150,
        ("medlocker_refusals_total", Alert.CALLING.value): 1,
        ("medlocker_refusals_total", "DiskFullError"): 1,
        ("medlocker_lock_seconds_sum",): 3.5,
        ("medlocker_delivery_seconds_count", "archive", "delivered"): 1,
    }
    assert {key: found.get(key) for key in expected} == expected


COUNTING = """
import os, sys
from pathlib import Path
from medlocker_dicom.node.ledger import Entered
from medlocker_dicom.node.metrics import make_meters
meters = make_meters(Path(sys.argv[1]))
meters.stored(Entered.NEW, 10)
meters.locked(2)
os.kill(os.getpid(), 9)
"""


def test_one_page_tells_of_all_processes(
    quick_ledger: Ledger, spool: Spool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What processes counted before they were killed is there; a new start forgets it."""
    monkeypatch.setattr(values, "ValueClass", values.ValueClass)
    monkeypatch.setenv("PROMETHEUS_MULTIPROC_DIR", "")
    folder = tmp_path / "metrics"
    for _ in range(2):
        subprocess.run([sys.executable, "-c", COUNTING, str(folder)], check=False)
    meters = make_meters(folder)
    meters.stored(Entered.AGAIN, 5)
    collector = QueueCollector(quick_ledger, spool)
    found = samples(exposition(collector, meters, folder))
    assert found["medlocker_stores_total", "new"] == 2
    assert found["medlocker_stores_total", "again"] == 1
    assert found["medlocker_store_bytes_total",] == 25
    assert found["medlocker_lock_seconds_sum",] == 4
    clear(folder)
    assert ("medlocker_stores_total", "new") not in samples(exposition(collector, meters, folder))


def test_health_says_what_somebody_has_to_look_at(busy: Ledger, spool: Spool) -> None:
    """In words, with the figures, without a UID."""
    told = health(busy, spool)
    assert told["ok"] is False
    assert told["faults"] == [
        "objects held: 1; somebody has to look",
        "deliveries parked: 1; a destination refused them",
    ]
    assert told["objects"]["held"] == 1
    assert told["free_bytes"] > told["floor_bytes"] == 1
    assert "1.2.3" not in str(told)


def test_no_worker_is_a_fault_of_health_alone(quick_ledger: Ledger, spool: Spool) -> None:
    """Objects can still be received: they wait."""
    assert ready(quick_ledger, spool) == {"ready": True, "faults": []}
    assert health(quick_ledger, spool)["faults"] == ["no worker was alive in the last 60 s"]
    queue.alive(quick_ledger, "node1-7")
    assert health(quick_ledger, spool)["ok"] is True


def test_a_full_disk_is_not_ready(quick_ledger: Ledger, spool: Spool, tmp_path: Path) -> None:
    """Below the floor, or not there at all."""
    full, gone = replace(spool, floor=1 << 60), replace(spool, root=tmp_path / "gone")
    assert ready(quick_ledger, full)["ready"] is False
    assert "floor" in ready(quick_ledger, full)["faults"][0]
    assert ready(quick_ledger, gone)["faults"] == ["the spool cannot be reached"]


def test_audit_messages_that_wait_are_counted(quick_ledger: Ledger, spool: Spool) -> None:
    """From their folder, so of all processes."""
    folder = spool_of(spool.root)
    folder.mkdir()
    (folder / "1.audit").write_bytes(b"12345")
    found = samples(exposition(QueueCollector(quick_ledger, spool), make_meters()))
    assert found["medlocker_audit_waiting_bytes",] == 5
