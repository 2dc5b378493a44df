"""Durable workflows (DBOS): what was entered is done, whatever process dies meanwhile.

Work is entered in the same transaction as the row that it is about, so DBOS
keeps its tables in the ledger's database. A workflow is one call of `Work`,
which can be repeated; DBOS says which are left to do, retries none of its own
accord, and gives those of a worker that died to another.
"""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import partial
from threading import Event, Thread
from time import monotonic
from typing import TYPE_CHECKING, Final, NoReturn

from dbos import DBOS, DBOSClient, DBOSConfig
from dbos._dbos import _get_dbos_instance
from dbos._serialization import DBOSPortableJSON, DefaultSerializer
from sqlalchemy import select, tuple_

from medlocker_dicom.database import named
from medlocker_dicom.errors import DiskFullError, MedLockerError
from medlocker_dicom.node import ledger as queue
from medlocker_dicom.node.ledger import (
    DELIVER,
    PROCESS,
    SHARE,
    SILENCE_S,
    Sending,
    State,
    make_ledger,
)
from medlocker_dicom.node.promises import PROMISE, answer_again, find_promise
from medlocker_dicom.node.retention import tidy
from medlocker_dicom.node.schema import deliveries, objects, workers

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    from dbos import EnqueueOptions
    from sqlalchemy import Connection

    from medlocker_dicom.database import Place
    from medlocker_dicom.node.config import NodeConfig
    from medlocker_dicom.node.ledger import Ledger
    from medlocker_dicom.node.logs import Log
    from medlocker_dicom.node.work import Work

    Duty = Callable[[], object]

APPLICATION: Final = "medlocker"
#: Of the workflows' meaning, not of the program: work that an older program entered is done.
VERSION: Final = "1"
BEAT_S: Final = 5.0
"""Seconds between two words of a worker's."""
CARE_S: Final = 30.0
"""Seconds between two looks at what others left."""
POLL_S: Final = 0.2
"""Seconds between two looks into a queue."""
REMEMBERED: Final = timedelta(days=7)
"""For how long workflows that succeeded are kept, for whoever looks into a mishap."""
_MANY: Final = 500
_LEAVE_S: Final = 1.0
OVER: Final = ("SUCCESS", "ERROR", "CANCELLED", "MAX_RECOVERY_ATTEMPTS_EXCEEDED")
"""States of workflows that came to an end."""


def _refuse(_: object, serialized_data: str) -> NoReturn:
    raise ValueError(f"{len(serialized_data)} characters that are no JSON: not read")


# A row says itself how it is read, and pickle runs what it reads: the queue holds JSON alone.
DefaultSerializer.deserialize = _refuse  # type: ignore[assignment, method-assign]


def queue_of(workflow: str, *arguments: str) -> str:
    """Name the queue that a workflow waits in: one for a destination, or for a folder's run."""
    which = {DELIVER: 1, SHARE: 0}.get(workflow)
    return workflow if which is None else f"{workflow}-{arguments[which]}"


@dataclass(frozen=True)
class DbosQueue:
    """Enters workflows in transactions of the ledger's.

    Attributes
    ----------
    client
        Of DBOS, at the ledger's database.
    """

    client: DBOSClient = field(repr=False)

    def __call__(
        self, connection: Connection, workflow: str, key: str, *arguments: str, delay_s: float = 0
    ) -> None:
        """Enter a workflow; a key that was entered before is no fault."""
        options: EnqueueOptions = {
            "workflow_name": workflow,
            "queue_name": queue_of(workflow, *arguments),
            "workflow_id": key,
            "app_version": VERSION,
        }
        if delay_s > 0:
            options["delay_seconds"] = delay_s
        self.client.enqueue_in_transaction(connection, options, *arguments)

    def over(self, keys: Sequence[str]) -> set[str]:
        """Choose the workflows that have come to an end, or were never entered."""
        if not keys:
            return set()
        found = self.client.list_workflows(
            workflow_ids=list(keys), load_input=False, load_output=False
        )
        return set(keys) - {one.workflow_id for one in found if one.status not in OVER}

    def failed(self, workflow: str) -> list[tuple[str, ...]]:
        """List the arguments of a workflow's latest calls that ended by an error."""
        found = self.client.list_workflows(
            name=workflow, status="ERROR", sort_desc=True, limit=_MANY, load_output=False
        )
        return [tuple(one.input["args"]) for one in found if one.input is not None]

    def claimed(self, worker: str) -> set[str]:
        """List the workflows that a worker has taken and not brought to their end."""
        left = self.client.list_workflows(
            status="PENDING", executor_id=worker, load_input=False, load_output=False
        )
        return {one.workflow_id for one in left}

    def claimants(self) -> set[str]:
        """Name the workers that have taken anything and not brought it to its end."""
        begun = self.client.list_workflows(status="PENDING", load_input=False, load_output=False)
        return {one.executor_id for one in begun if one.executor_id is not None}

    def forget(self, before: datetime) -> int:
        """Delete what succeeded before a moment, some hundreds at once; how many workflows.

        The ledger's rows stay: they tell an object that comes again. What failed stays too.
        """
        found = self.client.list_workflows(
            name=[PROCESS, DELIVER, PROMISE],
            status="SUCCESS",
            completed_before=before.isoformat(),
            limit=_MANY,
            load_input=False,
            load_output=False,
        )
        if found:
            self.client.delete_workflows([one.workflow_id for one in found])
        return len(found)

    def give_back(self, worker: str, claimed: Iterable[str]) -> None:
        """Let any worker do what one had taken; what another has taken meanwhile stays with it."""
        for key in claimed:
            # A client's resume_workflow takes it from whoever has it. It goes back into its queue.
            self.client._sys_db.reenqueue_for_recovery(key, [worker], PROCESS)  # noqa: SLF001


def open_ledger(place: Place) -> Ledger:
    """Open the queue, with what enters work; both are made where they are not.

    Raises
    ------
    VaultError
        The database fails.
    """
    client = DBOSClient(
        system_database_url=_url(place),
        serializer=DBOSPortableJSON,
        application_name=APPLICATION,
        lazy=True,
    )
    return make_ledger(place, DbosQueue(client))


def prepare(place: Place) -> None:
    """Make the tables of ledger and DBOS, before any process works with them.

    Raises
    ------
    VaultError
        The database fails.
    """
    open_ledger(place).close()
    DBOS(config=dbos_config(place, "prepare"))
    DBOS.listen_queues([])  # else it could take work that it does not know, and end
    DBOS.launch()
    DBOS.destroy()


@contextmanager
def working(place: Place, config: NodeConfig, work: Work, name: str, log: Log) -> Iterator[None]:
    """Work on what is in the queue while the context lasts.

    Parameters
    ----------
    place
        Of the queue, prepared.
    config
        Says which destinations there are, and how hard they may be worked.
    work
        Does it.
    name
        Of this worker: the same after a restart, and no other's.
    log
        Is told of workers that died.
    """
    _register(work)
    DBOS(config=dbos_config(place, name))
    DBOS.listen_queues([PROCESS, PROMISE, *(f"{DELIVER}-{one}" for one in config.destinations)])
    DBOS.launch()
    done = Event()
    threads = _threads(work, name, log, done)
    try:
        _make_queues(config)
        for one in threads:
            one.start()
        yield
    finally:
        done.set()
        for one in threads:
            one.join(_LEAVE_S)
        DBOS.destroy(destroy_registry=True, workflow_completion_timeout_sec=10)


def _register(work: Work) -> None:
    @DBOS.workflow(name=PROCESS, max_recovery_attempts=None)
    def process(object_id: str) -> None:
        work.process(object_id)

    @DBOS.workflow(name=DELIVER, max_recovery_attempts=None)
    def deliver(object_id: str, destination: str, number: str) -> None:
        work.deliver(object_id, destination, int(number))

    @DBOS.workflow(name=PROMISE, max_recovery_attempts=None)
    def promise(transaction_uid: str, calling_ae_title: str, number: str) -> None:
        work.promise(transaction_uid, calling_ae_title, int(number))


def _make_queues(config: NodeConfig) -> None:
    DBOS.register_queue(
        PROCESS, worker_concurrency=1, polling_interval_sec=POLL_S, on_conflict="always_update"
    )
    DBOS.register_queue(
        PROMISE, worker_concurrency=2, polling_interval_sec=1.0, on_conflict="always_update"
    )
    for name, destination in config.destinations.items():
        limits = destination.limits
        DBOS.register_queue(
            f"{DELIVER}-{name}",
            global_concurrency=limits.associations,
            limiter=None
            if limits.per_minute is None
            else {"limit": limits.per_minute, "period": 60.0},
            polling_interval_sec=POLL_S,
            on_conflict="always_update",
        )


def _threads(work: Work, name: str, log: Log, done: Event) -> list[Thread]:
    """Make what says that this worker lives, and looks after what others left.

    Three threads: neither a slow disk nor an archive that is silent makes a worker seem dead.
    """
    ledger, others, own, turn = work.ledger, Watch(), Watch(), Turn()

    def give_on() -> None:
        if left := bury(ledger, name, others):
            log.warning("a worker is silent: its work is given to others", number=left)

    def take_up() -> None:
        if left := unbegun(ledger, name, own):
            log.warning("work was taken and not begun: it waits again", number=left)

    # On a full disk the first makes room for the rest: none waits for another to succeed.
    care: list[Duty] = [partial(_tidy, work), give_on, take_up, partial(mend, ledger, log, turn)]
    care += [partial(answer_failed, ledger), partial(forget, ledger)]
    jobs: dict[str, tuple[float, list[Duty]]] = {
        "heart": (BEAT_S, [partial(queue.alive, ledger, name)]),
        "care": (CARE_S, care),
        "commitment": (CARE_S, [work.recommit]),
    }
    return [
        Thread(target=_repeat, args=(pause_s, duties, log, done), name=which, daemon=True)
        for which, (pause_s, duties) in jobs.items()
    ]


def _repeat(pause_s: float, duties: Sequence[Duty], log: Log, done: Event) -> None:
    """Try each duty, again and again: none ends the thread."""
    while True:
        for duty in duties:
            try:
                duty()
            except MedLockerError as error:
                log.warning("the queue cannot be looked after", error=error)
            except Exception as error:  # noqa: BLE001  whatever it is: the next may succeed
                if not done.is_set():  # else the libraries were closed meanwhile
                    log.error("unexpected error", error=error)  # noqa: TRY400  no traceback
        if done.wait(pause_s):
            return


def _tidy(work: Work) -> None:
    """Delete what has been delivered for long enough; all of it where the disk is too full."""
    hours = work.config().keep_hours
    try:
        work.spool.check_room()
    except DiskFullError:
        hours = 0.0
    tidy(work.ledger, work.spool, hours)


@dataclass
class Watch:
    """Tells what stands still, by this process's clock: machines' clocks may differ.

    Attributes
    ----------
    clock
        Gives seconds, and never goes back.
    """

    clock: Callable[[], float] = monotonic
    _heard: dict[str, tuple[int, float]] = field(default_factory=dict)

    def silent(self, words: Mapping[str, int]) -> list[str]:
        """Name those whose last word, by worker, was the same for a minute."""
        now = self.clock()
        before = {one: said for one, said in self._heard.items() if words.get(one) == said[0]}
        self._heard = {one: before.get(one, (word, now)) for one, word in words.items()}
        return [one for one, (_, since) in self._heard.items() if now - since > SILENCE_S]

    def forget(self) -> None:
        """Begin anew: nobody could be heard."""
        self._heard.clear()


def bury(ledger: Ledger, name: str, watch: Watch) -> int:
    """Give what dead workers had begun to the living; how many workflows that are.

    Who has taken work and never said a word is watched as well: it may have ended before it could,
    or have been given up, and have taken more before it ended.

    Raises
    ------
    VaultError
        The database fails: whether anyone is silent has to be seen anew.
    """
    try:
        with named(ledger.place):
            words = dict.fromkeys(queue_at(ledger).claimants(), 0)
        with ledger.reading() as connection:
            rows = connection.execute(select(workers.c.name, workers.c.alive)).all()
        words |= {row.name: row.alive for row in rows}
        words.pop(name, None)
        left = 0
        for one in watch.silent(words):
            with named(ledger.place):
                claimed = queue_at(ledger).claimed(one)
                queue_at(ledger).give_back(one, claimed)
            left += len(claimed)
            queue.leave(ledger, one)  # if it lives, its next word enters it again
    except MedLockerError:
        watch.forget()
        raise
    return left


def unbegun(ledger: Ledger, name: str, watch: Watch) -> int:
    """Give back what this living worker took and never began; how many workflows that are.

    A database that fails between a claim and its answer leaves such: the queue says that they are
    being done, and no thread does them. What has waited so for a minute is meant.

    Raises
    ------
    VaultError
        The database fails: what waits has to be seen anew.
    """
    running = set(_get_dbos_instance()._active_workflows_set.activeList())  # noqa: SLF001  it has no other name
    try:
        with named(ledger.place):
            claimed = queue_at(ledger).claimed(name)
            idle = watch.silent(dict.fromkeys(claimed - running, 0))
            queue_at(ledger).give_back(name, idle)
    except MedLockerError:
        watch.forget()
        raise
    return len(idle)


@dataclass
class Turn:
    """How far `mend` has come: all rows in turn, so that those that wait for long hide no other.

    Attributes
    ----------
    object, delivery
        The last that were looked at; empty to begin again.
    """

    object: str = ""
    delivery: tuple[str, str] = ("", "")


def mend(ledger: Ledger, log: Log, turn: Turn) -> None:
    """Enter work again that the ledger waits for and that came to an end without a result.

    A database that fails in the wrong moment leaves such: nothing else looks after them.

    Raises
    ------
    VaultError
        The database fails.
    """
    old = ledger.now() - SILENCE_S * 1000
    which = objects.c.id
    waiting = select(which, objects.c.tries).where(
        objects.c.state == State.RECEIVED, objects.c.changed < old, which > turn.object
    )
    pair = tuple_(deliveries.c.object_id, deliveries.c.destination)
    sending = select(deliveries).where(
        deliveries.c.state == Sending.WAITING,
        deliveries.c.changed < old,
        pair > tuple_(*turn.delivery),
    )
    with ledger.reading() as connection:
        left = list(connection.execute(waiting.order_by(which).limit(_MANY)))
        unsent = list(connection.execute(sending.order_by(*pair.clauses).limit(_MANY)))
    turn.object = left[-1].id if len(left) == _MANY else ""
    last = (unsent[-1].object_id, unsent[-1].destination) if len(unsent) == _MANY else ("", "")
    turn.delivery = last
    objects_of = {queue.process_key(row.id, row.tries + 1): row for row in left}
    sendings_of = {
        queue.delivery_key(row.object_id, row.destination, row.tries + 1): row for row in unsent
    }
    with named(ledger.place):
        over = queue_at(ledger).over([*objects_of, *sendings_of])
    for key in over & objects_of.keys():
        row = objects_of[key]
        if queue.postpone(ledger, row.id, row.tries, "begun again: it came to no end", "", 0):
            log.warning("begun again", object=row.id)
    for key in over & sendings_of.keys():
        row = sendings_of[key]
        if queue.again(ledger, row.object_id, row.destination, row.tries, row.said or "", 0):
            log.warning("to be sent again", object=row.object_id, destination=row.destination)


def answer_failed(ledger: Ledger) -> None:
    """Answer senders again whose storage commitment could not be answered: the database failed.

    Raises
    ------
    VaultError
        The database fails.
    """
    with named(ledger.place):
        failed = queue_at(ledger).failed(PROMISE)
    for transaction_uid, calling_ae_title, number in failed:
        asked = find_promise(ledger, transaction_uid, calling_ae_title)
        if not asked.answered:
            answer_again(ledger, asked, int(number), 0)  # once: it has one key


def forget(ledger: Ledger) -> int:
    """Delete workflows that succeeded long ago, so that the queue grows by its rows alone.

    Returns
    -------
    int
        How many; there may be more.

    Raises
    ------
    VaultError
        The database fails.
    """
    before = datetime.fromtimestamp(ledger.now() / 1000, UTC) - REMEMBERED
    with named(ledger.place):
        return queue_at(ledger).forget(before)


def queue_at(ledger: Ledger) -> DbosQueue:
    """Give what enters a ledger's work: outside of tests it is DBOS."""
    assert isinstance(ledger.enqueue, DbosQueue)
    return ledger.enqueue


def dbos_config(place: Place, name: str) -> DBOSConfig:
    """Tell DBOS where its tables are, and what this process is called."""
    return DBOSConfig(
        name=APPLICATION,
        system_database_url=_url(place),
        serializer=DBOSPortableJSON,
        application_version=VERSION,
        executor_id=name,
        notification_listener_polling_interval_sec=POLL_S,
        log_level="WARNING",
        console_log_level="WARNING",
    )


def _url(place: Place) -> str:
    return place.url.render_as_string(hide_password=False)
