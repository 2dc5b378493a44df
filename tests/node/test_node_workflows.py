"""What looks after the queue: no work is lost, or stays undone, while anyone works."""

import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from threading import Event
from types import SimpleNamespace
from typing import Any

import pytest
from sqlalchemy import Connection, text

from medlocker_dicom.database import place_of
from medlocker_dicom.errors import VaultError
from medlocker_dicom.node import ledger as queue
from medlocker_dicom.node import promises, workflows
from medlocker_dicom.node.commitment_messages import Reference
from medlocker_dicom.node.config import NodeConfig
from medlocker_dicom.node.ledger import Arrival, Ledger, Sending, State
from medlocker_dicom.node.workflows import (
    DbosQueue,
    Turn,
    Watch,
    answer_failed,
    bury,
    forget,
    mend,
    open_ledger,
    prepare,
    queue_at,
)

PATIENCE = 30  # s
LATER_MS = 61_000


@dataclass
class Said:
    """Stands for the log."""

    events: list[str] = field(default_factory=list)

    def warning(self, event: str, **_: object) -> None:
        """Keep what was said."""
        self.events.append(event)

    error = warning


@dataclass
class Desk:
    """A queue with DBOS's tables, and nobody who works."""

    ledger: Ledger
    said: Said = field(default_factory=Said)

    def arrive(self, number: int) -> str:
        """Take an object in."""
        arrival = Arrival(
            f"1.2.3.{number}", "1.2", "1.2", "1.4", "1.5", f"{number:064x}", 1, "A", "B", "::1"
        )
        queue.enter(self.ledger, arrival)
        return arrival.id

    def lock(self, number: int, *destinations: str) -> str:
        """Take an object in that is to be sent."""
        one = self.arrive(number)
        queue.outgoing(self.ledger, one, State.LOCKED, "all", f"1.2.4.{number}", "ab", destinations)
        return one

    def become(self, key: str, status: str, worker: str = "") -> None:
        """Let a workflow be in a state."""
        with self.ledger.writing() as connection:
            done = connection.execute(
                text(
                    f"UPDATE {self._table(connection)} SET status = :status, executor_id = :worker "
                    "WHERE workflow_uuid = :key"
                ),
                {"status": status, "worker": worker, "key": key},
            )
        assert done.rowcount == 1

    def status(self, key: str) -> tuple[str, str | None]:
        """Give a workflow's state and queue."""
        (found,) = queue_at(self.ledger).client.list_workflows(workflow_ids=[key])
        return found.status, found.queue_name

    def keys(self, workflow: str) -> set[str]:
        """Name the workflows of a kind."""
        found = queue_at(self.ledger).client.list_workflows(name=workflow)
        return {one.workflow_id for one in found}

    def workers(self) -> list[str]:
        """Name the workers that said a word."""
        with self.ledger.reading() as connection:
            return list(connection.scalars(text("SELECT name FROM node_worker")))

    def later(self, ms: int = LATER_MS) -> None:
        """Let time go by: a minute."""
        before = self.ledger.now
        object.__setattr__(self.ledger, "now", lambda: before() + ms)

    @staticmethod
    def _table(connection: Connection) -> str:
        schema = "dbos." if connection.dialect.name == "postgresql" else ""
        return f"{schema}workflow_status"


@pytest.fixture
def desk(vault_place: str) -> Iterator[Desk]:
    place = place_of(vault_place)
    prepare(place)
    made = open_ledger(place)
    yield Desk(made)
    made.close()


@pytest.mark.parametrize("spoke", [True, False], ids=["was alive", "never said a word"])
def test_what_a_dead_worker_had_taken_is_given_to_others(desk: Desk, spoke: bool) -> None:  # noqa: FBT001  pytest's
    """After a minute of silence, into the queue it came from; also of who left no name behind."""
    one = desk.lock(1, "archive")
    key = queue.delivery_key(one, "archive", 1)
    if spoke:
        queue.alive(desk.ledger, "dead")
    queue.alive(desk.ledger, "living")
    desk.become(key, "PENDING", "dead")
    desk.become(queue.process_key(one, 1), "PENDING", "living")
    now = [0.0]
    watch = Watch(lambda: now[0])
    assert bury(desk.ledger, "living", watch) == 0
    now[0] = 61.0
    assert bury(desk.ledger, "living", watch) == 1
    assert desk.status(key) == ("ENQUEUED", "deliver-archive")
    assert desk.status(queue.process_key(one, 1)) == ("PENDING", "process")
    assert bury(desk.ledger, "living", watch) == 0


def test_what_another_took_meanwhile_stays_with_it(desk: Desk) -> None:
    """Two find the same worker dead: who comes second takes nothing from who works already."""
    key = queue.process_key(desk.arrive(1), 1)
    desk.become(key, "PENDING", "dead")
    claimed = queue_at(desk.ledger).claimed("dead")
    assert claimed == {key}
    desk.become(key, "PENDING", "living")
    queue_at(desk.ledger).give_back("dead", claimed)
    assert desk.status(key)[0] == "PENDING"
    assert queue_at(desk.ledger).claimants() == {"living"}


def test_what_came_to_no_end_is_begun_again(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    """However much else waits: all of it is looked at in turn."""
    monkeypatch.setattr(workflows, "_MANY", 2)
    arrived = sorted(desk.arrive(number) for number in range(5))
    sent = sorted(desk.lock(number, "a", "b") for number in range(5, 8))
    desk.become(queue.process_key(arrived[-1], 1), "ERROR")
    desk.become(queue.delivery_key(sent[-1], "b", 1), "SUCCESS")
    turn = Turn()
    mend(desk.ledger, desk.said, turn)  # type: ignore[arg-type]  # stands for it
    assert desk.said.events == []
    desk.later()
    for _ in range(3):
        mend(desk.ledger, desk.said, turn)  # type: ignore[arg-type]  # the same
    assert sorted(desk.said.events) == ["begun again", "to be sent again"]
    assert desk.status(queue.process_key(arrived[-1], 2))[0] == "ENQUEUED"
    assert desk.status(queue.delivery_key(sent[-1], "b", 2))[0] == "ENQUEUED"
    assert queue.find(desk.ledger, arrived[-1]).tries == 1
    assert queue.find(desk.ledger, arrived[0]).tries == 0


@pytest.mark.parametrize("asked", [False, True], ids=["delivered", "asked to commit"])
def test_what_ends_just_then_is_not_begun_again(
    desk: Desk,
    monkeypatch: pytest.MonkeyPatch,
    asked: bool,  # noqa: FBT001  pytest's
) -> None:
    """A worker brings it to its end between the look at its row and the look at its workflow."""
    one, other = desk.arrive(1), desk.lock(2, "archive")
    desk.later()
    real = DbosQueue.over

    def over(self: DbosQueue, keys: Any) -> set[str]:
        queue.outgoing(desk.ledger, one, State.LOCKED, "all", "1.2.9", "ab", ["archive"])
        if asked:
            queue.sent(desk.ledger, other, "archive", "stored", "1.2.8")
        else:
            queue.delivered(desk.ledger, other, "archive", "stored")
        for key in (queue.process_key(one, 1), queue.delivery_key(other, "archive", 1)):
            desk.become(key, "SUCCESS")
        return real(self, keys)

    monkeypatch.setattr(DbosQueue, "over", over)
    mend(desk.ledger, desk.said, Turn())  # type: ignore[arg-type]  # stands for it
    assert desk.said.events == []
    assert queue.find(desk.ledger, one).state == State.LOCKED
    there = Sending.SENT if asked else Sending.DELIVERED
    assert queue.delivery(desk.ledger, other, "archive").state == there
    assert queue.delivery_key(other, "archive", 2) not in desk.keys(queue.DELIVER)


def test_the_last_two_deliveries_at_once_make_it_done(desk: Desk) -> None:
    """Neither sees of the other that it is there: one of them has to wait."""
    ids = [desk.lock(number, "a", "b") for number in range(20)]

    def deliver(name: str) -> None:
        for one in ids:
            queue.delivered(desk.ledger, one, name, "stored")

    with ThreadPoolExecutor(2) as pool:
        list(pool.map(deliver, "ab"))
    assert {queue.find(desk.ledger, one).state for one in ids} == {State.DONE}


def test_an_answer_that_failed_is_given_again_once(desk: Desk) -> None:
    """A sender's request of storage commitment whose answer came to its end by an error."""
    promises.promise(desk.ledger, "1.2.7", "CAMERA", [Reference("1.2", "1.2.3.1")])
    answer_failed(desk.ledger)
    (first,) = desk.keys(promises.PROMISE)
    desk.become(first, "ERROR")
    for _ in range(2):
        answer_failed(desk.ledger)
        assert len(desk.keys(promises.PROMISE)) == 2
    promises.answered(desk.ledger, promises.find_promise(desk.ledger, "1.2.7", "CAMERA"))
    (second,) = desk.keys(promises.PROMISE) - {first}
    assert second == f"{first[:-2]}-2"
    desk.become(second, "ERROR")
    answer_failed(desk.ledger)
    assert len(desk.keys(promises.PROMISE)) == 2


def test_what_succeeded_long_ago_is_forgotten(desk: Desk) -> None:
    """A week later its workflows are gone, and what failed or waits is not; its row stays."""
    names = ("done", "failed", "waiting")
    keys = {name: f"{desk.arrive(n)}-1" for n, name in enumerate(names)}
    sent = f"{desk.lock(3, 'archive')}-archive-1"
    for key in (keys["done"], sent):
        desk.become(key, "SUCCESS")
    desk.become(keys["failed"], "ERROR")
    with desk.ledger.writing() as connection:
        table = desk._table(connection)
        connection.execute(text(f"UPDATE {table} SET completed_at = created_at"))
    assert forget(desk.ledger) == 0
    desk.later(ms=7 * 24 * 3_600_000)
    assert forget(desk.ledger) == 2
    left = desk.keys(queue.PROCESS) | desk.keys(queue.DELIVER)
    assert left >= {keys["failed"], keys["waiting"]}
    assert not left & {keys["done"], sent}
    arrived = Arrival("1.2.3.0", "1.2", "1.2", "1.4", "1.5", f"{0:064x}", 1, "A", "B", "::1")
    assert queue.enter(desk.ledger, arrived) is queue.Entered.AGAIN
    assert keys["done"] not in desk.keys(queue.PROCESS)


def test_neither_silence_nor_errors_end_a_workers_heart(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is alive while an archive lets it wait, and while what looks after the queue fails."""
    waits, done, tries = Event(), Event(), iter([RuntimeError("Doe^Jane"), VaultError("away")])

    def recommit() -> None:
        waits.set()
        done.wait(PATIENCE)

    def alive(*arguments: Any) -> None:
        for error in tries:
            raise error
        real(*arguments)

    real: Callable[..., None] = queue.alive
    monkeypatch.setattr(queue, "alive", alive)
    monkeypatch.setattr(workflows, "BEAT_S", 0.05)
    work = SimpleNamespace(ledger=desk.ledger, recommit=recommit)
    threads = workflows._threads(work, "one", desk.said, done)  # type: ignore[arg-type]  # as above
    heart, _, commitment = threads
    assert [one.name for one in threads] == ["heart", "care", "commitment"]
    commitment.start()
    assert waits.wait(PATIENCE)
    heart.start()
    until = time.monotonic() + PATIENCE
    while desk.workers() != ["one"]:
        assert time.monotonic() < until
        time.sleep(0.05)
    done.set()
    for one in (heart, commitment):
        one.join(PATIENCE)
        assert not one.is_alive()
    assert desk.said.events == ["unexpected error", "the queue cannot be looked after"]


def test_a_destination_is_worked_no_harder_than_it_says(desk: Desk) -> None:
    """At most so many objects at once, and so many a minute; the rest waits."""
    limits = {"associations": 2, "per_minute": 4}
    there = {"kind": "dicom", "ae_title": "ARC", "host": "::1", "port": 4242, "limits": limits}
    config = NodeConfig.model_validate(
        {
            "spool": "spool",
            "vault": "vault.db",
            "issuer": "issuer.key",
            "destinations": {"archive": there},
            "routes": [
                {"name": "all", "lock": {"recipients": ["alice"]}, "destinations": ["archive"]}
            ],
        }
    )
    ids = {desk.lock(number, "archive") for number in range(8)}
    now, most, sent = set[str](), [0], set[str]()

    def deliver(one: str, *_: object) -> None:
        now.add(one)
        most.append(len(now))
        time.sleep(0.5)
        now.discard(one)
        sent.add(one)

    nothing = {name: lambda *_: None for name in ("process", "promise", "recommit")}
    work = SimpleNamespace(ledger=desk.ledger, deliver=deliver, **nothing)
    with workflows.working(desk.ledger.place, config, work, "one", desk.said):  # type: ignore[arg-type]  # as above
        until = time.monotonic() + PATIENCE
        while len(sent) < limits["per_minute"]:
            assert time.monotonic() < until
            time.sleep(0.05)
        time.sleep(3)
    assert len(sent) == limits["per_minute"]
    assert sent < ids
    assert max(most) == limits["associations"]
