"""A folder's lock run, shared by processes on one machine or several.

Each process runs the same command. One of them leads: it holds the journal, enters the files in
the queue, and puts what was locked in its place. All of them lock, the leader too. Where the
leader dies, another takes its place; where another dies, its file is given to the rest.

The queue's database is not trusted: what comes back through it is sealed with the issuer's secret.
"""

from __future__ import annotations

import fcntl
import hmac
import json
import logging
import os
import socket
from concurrent.futures import Future
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from hashlib import sha256
from itertools import islice
from pathlib import Path
from queue import Empty, SimpleQueue
from secrets import token_hex
from threading import Event, Thread
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import quote

from dbos import DBOS

from medlocker_dicom import errors
from medlocker_dicom.database import named
from medlocker_dicom.errors import MedLockerError, OutputError, SourceError, VaultError
from medlocker_dicom.files import append_line
from medlocker_dicom.folder.journal import STAGED, is_claimed
from medlocker_dicom.folder.listing import folder_of, list_files
from medlocker_dicom.node import ledger as queue
from medlocker_dicom.node.ledger import SHARE
from medlocker_dicom.node.workflows import (
    BEAT_S,
    OVER,
    POLL_S,
    Watch,
    bury,
    dbos_config,
    open_ledger,
    prepare,
    queue_at,
    queue_of,
    unbegun,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from medlocker_dicom.database import Place
    from medlocker_dicom.folder.lock import LockRun, Outcome
    from medlocker_dicom.node.ledger import Ledger

#: Files in the queue at a time: enough for a hundred processes, and little to look through.
_WINDOW: Final = 1000
_MANY: Final = 100
_MOST_STARTS: Final = 3
_LEAVE_S: Final = 10.0


@dataclass(frozen=True)
class _Job:
    """A file that the queue gave to this process, and where its outcome goes."""

    path: str
    outcome: Future[dict[str, str]]


@dataclass
class Sharing:
    """The crew of a run: all processes that were started with it.

    Attributes
    ----------
    ledger
        With the queue.
    name
        Of this process, and no other's.
    done
        Files that this process locked, or could not lock.
    closed
        Whether it takes no more.
    """

    ledger: Ledger
    name: str
    done: int = 0
    closed: bool = False
    _jobs: SimpleQueue[_Job] = field(default_factory=SimpleQueue)
    _at_hand: list[_Job] = field(default_factory=list)
    _files: dict[str, Path] = field(default_factory=dict)

    def left(self, run: LockRun) -> Iterator[dict[str, Any]]:
        """Give what was locked for a leader that died; failures are forgotten, and tried again."""
        self.listen(run.key)  # the last leader may just have ended the run
        while finished := self._finished(run):
            for key, said in finished.items():
                outcome = _opened(run, key, said)
                if isinstance(outcome, dict):
                    yield outcome
                self._forget(key)

    def lock(
        self,
        run: LockRun,
        paths: Sequence[Path],
        owners: Mapping[str, str],  # noqa: ARG002  what others do now is seen when it is entered
    ) -> Iterator[tuple[Path, Outcome]]:
        """Have each file staged by whoever is free."""
        waiting, entered = iter(paths), dict[str, Path]()
        while True:
            more = {_key(run, one): one for one in islice(waiting, _WINDOW - len(entered))}
            self._enter(run, more)
            entered |= more
            if not entered:
                return
            finished = self._finished(run)
            for key, said in finished.items():
                path, outcome = entered.pop(key, None), _opened(run, key, said)
                if path is not None and outcome is not None:
                    yield path, outcome
                self._forget(key)
                if path is not None and outcome is None:  # whoever had it gave it up
                    self._enter(run, {key: path})
                    entered[key] = path
            if len(finished) < _MANY:
                self._work(run, 0 if finished else POLL_S)

    def end(self, run: LockRun) -> None:
        """Tell all that the run is over."""
        client, name = queue_at(self.ledger).client, queue_of(SHARE, run.key)
        with named(self.ledger.place):
            left = client.list_workflows(queue_name=name, load_input=False, load_output=False)
            client.delete_workflows([one.workflow_id for one in left])
            client.delete_queue(name)

    def help(self, run: LockRun) -> bool:
        """Lock while another process leads.

        Returns
        -------
        bool
            Whether the run is over; else its leader is gone.
        """
        while not self._is_over(run):
            if not is_claimed(run.destination):
                return self._is_over(run)
            self._work(run, 1.0)
        return True

    def handed(self, path: str) -> dict[str, str]:
        """Have a file locked by the main thread, which a user can interrupt."""
        job = _Job(path, Future())
        self._jobs.put(job)
        if self.closed:
            self.give_up()
        return job.outcome.result()

    def give_up(self) -> None:
        """Return what was handed and is not done: others do it."""
        self.closed = True
        with suppress(Empty):
            while True:
                self._at_hand.append(self._jobs.get_nowait())
        for job in self._at_hand:
            if not job.outcome.done():
                job.outcome.set_result({})

    def _work(self, run: LockRun, patience_s: float) -> None:
        """Lock a file, if there is one before long."""
        try:
            job = self._jobs.get(timeout=patience_s) if patience_s else self._jobs.get_nowait()
        except Empty:
            return
        self._at_hand.append(job)
        path = self._path(run, job.path)
        said = {} if path is None else _locked(run, path)
        self._at_hand.remove(job)
        job.outcome.set_result(said)
        self.done += bool(said)

    def _path(self, run: LockRun, text: str) -> Path | None:
        """Read a path from the queue; None for one that is no file of this run."""
        if not self._files:
            self._files.update((_text(path), path) for path in list_files(run.source))
        return self._files.get(text)

    def listen(self, run_key: str) -> None:
        """Make a run's queue, if there is none, and take work from it."""
        DBOS.register_queue(
            queue_of(SHARE, run_key),
            worker_concurrency=1,
            polling_interval_sec=POLL_S,
            on_conflict="always_update",
        )

    def _enter(self, run: LockRun, files: Mapping[str, Path]) -> None:
        if files:
            with self.ledger.writing() as connection:
                for key, path in files.items():
                    self.ledger.enqueue(connection, SHARE, key, run.key, _text(path))

    def _is_over(self, run: LockRun) -> bool:
        with named(self.ledger.place):
            name = queue_of(SHARE, run.key)
            return queue_at(self.ledger).client.retrieve_queue(name) is None

    def _finished(self, run: LockRun) -> dict[str, Any]:
        """Give what came back, by key."""
        with named(self.ledger.place):
            found = queue_at(self.ledger).client.list_workflows(
                queue_name=queue_of(SHARE, run.key),
                status=list(OVER),
                limit=_MANY,
                load_input=False,
            )
        return {one.workflow_id: one.output for one in found}

    def _forget(self, key: str) -> None:
        with named(self.ledger.place):
            queue_at(self.ledger).client.delete_workflow(key)


@contextmanager
def sharing(place: Place, run_key: str) -> Iterator[Sharing]:
    """Share a run's work while the context lasts.

    Parameters
    ----------
    place
        Of the queue, made where there is none.
    run_key
        See `LockRun.key`.

    Raises
    ------
    VaultError
        The database fails.
    """
    with _alone(place):
        prepare(place)
    crew = Sharing(open_ledger(place), f"{socket.gethostname()[:64]}-{os.getpid()}-{token_hex(4)}")

    @DBOS.workflow(name=SHARE, max_recovery_attempts=None)
    def share(run_key: str, path: str) -> dict[str, str]:  # noqa: ARG001  names the queue
        return crew.handed(path)

    DBOS(config=dbos_config(place, crew.name))
    name = queue_of(SHARE, run_key)
    DBOS.listen_queues([name])
    DBOS.launch()
    done = Event()
    heart = Thread(target=_beat, args=(crew, done), name="heart", daemon=True)
    try:
        queue.alive(crew.ledger, crew.name)
        crew.listen(run_key)
        heart.start()
        yield crew
    finally:
        done.set()
        crew.give_up()
        DBOS.destroy(destroy_registry=True, workflow_completion_timeout_sec=5)
        logging.getLogger("dbos").handlers.clear()  # they hold this moment's standard error
        # Where the database is gone, others find out by themselves: nobody waits for it here.
        leaving = Thread(target=_leave, args=(crew,), daemon=True)
        leaving.start()
        leaving.join(_LEAVE_S)


def _leave(crew: Sharing) -> None:
    """Give what this process had begun to the others, and its name back."""
    with suppress(MedLockerError), named(crew.ledger.place):
        begun = queue_at(crew.ledger)
        begun.give_back(crew.name, begun.claimed(crew.name))
        queue.leave(crew.ledger, crew.name)
    crew.ledger.close()


@contextmanager
def _alone(place: Place) -> Iterator[None]:
    """Make a file's tables one process at a time; a server sees to that itself."""
    if place.file is None:
        yield
        return
    place.file.parent.mkdir(parents=True, exist_ok=True)
    folder = os.open(place.file.parent, os.O_RDONLY)
    try:
        fcntl.flock(folder, fcntl.LOCK_EX)
        yield
    finally:
        os.close(folder)


def _beat(crew: Sharing, done: Event) -> None:
    """Say that this process lives, and give away what dead ones had begun, and it had not."""
    others, own = Watch(), Watch()
    while not done.wait(BEAT_S):
        try:
            queue.alive(crew.ledger, crew.name)
            bury(crew.ledger, crew.name, others)
            unbegun(crew.ledger, crew.name, own)
        except MedLockerError:  # said by whoever waits for the database
            others.forget()
            own.forget()


def _text(path: Path) -> str:
    """Write a path for the queue: ASCII, whatever its bytes."""
    return quote(os.fsencode(path))


def _key(run: LockRun, path: Path) -> str:
    """Name the work on a file."""
    return f"{run.key}-{sha256(os.fsencode(path)).hexdigest()[:32]}"


def _locked(run: LockRun, path: Path) -> dict[str, str]:
    """Stage a file, and seal what came of it.

    Raises
    ------
    OutputError, VaultError
        This process cannot go on; others may.
    """
    key = _key(run, path)
    starts = run.destination / STAGED / f"{key}.starts"
    try:
        _count(starts, folder_of(run.source) / path)
        outcome: dict[str, Any] = {"entry": run.stage(path, {})}
    except (OutputError, VaultError):
        raise
    except MedLockerError as error:
        words = {"class": type(error).__name__, "message": str(error), "hint": error.hint}
        outcome = {"error": words}
    finally:  # a process that can do this does not come to its end over it
        starts.unlink(missing_ok=True)
    text = json.dumps(outcome)
    return {"text": text, "seal": _seal(run, key, text)}


def _count(starts: Path, whole: Path) -> None:
    """Enter that a file is begun.

    Raises
    ------
    SourceError
        It was begun so often without an end that it must be what ends the processes.
    """
    try:
        begun = starts.stat().st_size
    except OSError:
        begun = 0
    if begun >= _MOST_STARTS:
        raise SourceError(
            f"{whole}: {begun} processes came to their end over it",
            "lock it alone, with more memory",
        )
    starts.parent.mkdir(parents=True, exist_ok=True)
    append_line(starts, b"")


def _opened(run: LockRun, key: str, said: object) -> Outcome | None:
    """Read what a process returned: an entry, why it failed, or None where it gave up."""
    match said:
        case {"text": str(text), "seal": str(seal)} if _is_sealed(run, key, text, seal):
            outcome = json.loads(text)
        case _:
            return None
    if "entry" in outcome:
        entry: dict[str, Any] = outcome["entry"]
        return entry
    words = outcome["error"]
    error: MedLockerError = getattr(errors, words["class"])(words["message"], words["hint"])
    return error


def _is_sealed(run: LockRun, key: str, text: str, seal: str) -> bool:
    """Tell whether a process with the issuer's secret said this of this file."""
    if not (text.isascii() and seal.isascii()):
        return False
    return hmac.compare_digest(seal, _seal(run, key, text))


def _seal(run: LockRun, key: str, text: str) -> str:
    return run.locker.issuer.derive("shared lock", key, text.encode()).hex()
