"""The node's processes: started, started anew where one dies, ended together."""

from __future__ import annotations

import multiprocessing
import os
import signal
import time
from dataclasses import dataclass, field
from threading import Thread
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from multiprocessing.context import SpawnProcess

    from medlocker_dicom.node.logs import Log

_POLL_S: Final = 0.2
#: Waits before a process that dies again and again is started anew.
_WAITS_S: Final = (0.0, 1.0, 5.0, 15.0)
#: One that lived so long is not dying again and again.
_SOUND_S: Final = 60.0
_PATIENCE_S: Final = 20.0


@dataclass(frozen=True)
class Child:
    """A process of the node.

    Attributes
    ----------
    name
        For people.
    target
        What it runs: a function of a module, which ends at SIGTERM.
    arguments
        Of the function.
    beside
        Whether it may run beside the one that it takes the place of, which then ends in peace.
    """

    name: str
    target: Callable[..., None]
    arguments: tuple[Any, ...] = ()
    beside: bool = False


def _be(child: Child) -> None:
    """Be a child: do what it does, and end where the supervisor is gone."""
    Thread(target=_mind_parent, name="parent", daemon=True).start()
    child.target(*child.arguments)


def _mind_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os.kill(os.getpid(), signal.SIGTERM)


@dataclass
class _Running:
    child: Child
    process: SpawnProcess
    since: float
    deaths: int = 0
    due: float | None = None


@dataclass
class Supervisor:
    """Keeps processes running.

    Attributes
    ----------
    children
        Gives the processes: asked at the start, and again at SIGHUP; None where all stays as it is.
    log
        Is told of those that die.
    """

    children: Callable[[], Sequence[Child] | None]
    log: Log
    _running: list[_Running] = field(default_factory=list)
    _ending: bool = False
    _again: bool = False

    def run(self) -> None:
        """Keep the processes running until SIGTERM or SIGINT; SIGHUP replaces them one by one."""
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._end)
        signal.signal(signal.SIGHUP, self._reload)
        self._running = [self._start(child) for child in self.children() or ()]
        try:
            while not self._ending:
                time.sleep(_POLL_S)
                self._revive()
                if self._again:
                    self._again = False
                    self._replace()
        finally:
            self._stop(self._running)

    def _end(self, *_: object) -> None:
        self._ending = True

    def _reload(self, *_: object) -> None:
        self._again = True

    def _start(self, child: Child) -> _Running:
        context = multiprocessing.get_context("spawn")
        process = context.Process(target=_be, args=(child,), name=child.name)
        process.start()
        return _Running(child, process, time.monotonic())

    def _revive(self) -> None:
        """Start anew what died, after a wait where it dies again and again."""
        for index, one in enumerate(self._running):
            if one.process.is_alive():
                continue
            now = time.monotonic()
            if one.due is None:
                if now - one.since > _SOUND_S:
                    one.deaths = 0
                one.due = now + _WAITS_S[min(one.deaths, len(_WAITS_S) - 1)]
                self.log.error("a process ended", number=one.process.exitcode)
            if now >= one.due:
                fresh = self._start(one.child)
                fresh.deaths = one.deaths + 1
                self._running[index] = fresh

    def _replace(self) -> None:
        """Start processes as node.yaml says now, and end those from before."""
        children = self.children()
        if children is None:
            return
        before, self._running = self._running, []
        self._running = [self._start(child) for child in children if child.beside]
        self._stop(before)
        self._running += [self._start(child) for child in children if not child.beside]
        self.log.info("node.yaml was read again")

    def _stop(self, running: Sequence[_Running]) -> None:
        """End processes; what does not end in time is killed, which loses nothing."""
        for one in running:
            if one.process.is_alive():
                one.process.terminate()
        until = time.monotonic() + _PATIENCE_S
        for one in running:
            one.process.join(max(0.1, until - time.monotonic()))
            if one.process.is_alive():
                one.process.kill()
                one.process.join()
