"""Parallel senders and the queue's database: SQLite and a real PostgreSQL."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier
from typing import Any

import pytest

from factories import save
from medlocker_dicom.database import place_of
from medlocker_dicom.node.ledger import Arrival, Entered, Ledger, enter, make_ledger
from postgres import database
from receiving import Recorded, dcmtk, instance, rows, station, written

SENDERS = 6


@pytest.fixture(params=["sqlite", "postgresql"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    if request.param == "sqlite":
        yield str(tmp_path / "queue.db")
        return
    with database(request.getfixturevalue("postgresql")) as url:
        yield url


@pytest.fixture
def ledger(place: str) -> Iterator[Ledger]:
    made = make_ledger(place_of(place), Recorded())
    yield made
    made.close()


def test_parallel_senders(tmp_path: Path, place: str, peer: Any) -> None:
    """Each sends objects of its own and one that all send: all succeed, each is there once."""
    peer("storescu")
    shared = written(tmp_path, 999)

    def send(number: int) -> int:
        folder = tmp_path / str(number)
        folder.mkdir()
        files = [*written(folder, *range(10 * number, 10 * number + 5)), *shared]
        return dcmtk("storescu", "-aec", "NODE", "127.0.0.1", node.port, *files)[0]

    with station(tmp_path, place=place) as node, ThreadPoolExecutor(SENDERS) as pool:
        assert list(pool.map(send, range(1, SENDERS + 1))) == [0] * SENDERS
        assert len(node.rows()) == len(node.kept()) == 5 * SENDERS + 1
        assert len(node.queue.entered) == len(set(node.queue.entered)) == 5 * SENDERS + 1
        assert node.settled()


def arrival(sha256: str) -> Arrival:
    return Arrival("1.2.3", "1.2", "1.2", "1.4", "1.5", sha256, 1, "A", "B", "::1")


@pytest.mark.parametrize("same", [True, False], ids=["one object", "one UID"])
def test_entering_at_the_same_moment(ledger: Ledger, same: bool) -> None:  # noqa: FBT001  pytest's
    """One object twice is one, and no error; two contents of one UID are one, and one held."""
    barrier = Barrier(SENDERS)

    def one(number: int) -> Entered:
        barrier.wait()
        return enter(ledger, arrival("0" * 64 if same else f"{number:064x}"))

    with ThreadPoolExecutor(SENDERS) as pool:
        outcomes = list(pool.map(one, range(SENDERS)))
    rest = Entered.AGAIN if same else Entered.CONFLICT
    assert sorted(outcomes) == sorted([Entered.NEW] + [rest] * (SENDERS - 1))
    assert len(rows(ledger)) == (1 if same else SENDERS)


def test_conflict_on_each_database(tmp_path: Path, place: str, peer: Any) -> None:
    """Two contents of one UID, one after the other: both kept, the second held."""
    peer("storescu")
    (first,) = written(tmp_path)
    second = save(instance(1, patient_id="P-2"), tmp_path, "other.dcm")
    with station(tmp_path, place=place) as node:
        words = ("storescu", "-aec", "NODE", "127.0.0.1", node.port, first, second, first)
        assert dcmtk(*words)[0] == 0
        assert [row.state for row in node.rows()] == ["received", "held"]
        assert len(node.kept()) == 2
