"""A process apart, for what may never come back: codecs and networks on strangers' pixels.

No thread can be ended from outside, and some codecs let no other thread run. What freezes or
crashes here takes nothing else with it; whoever waits for it gives it up, and the next call begins
anew.
"""

from __future__ import annotations

import faulthandler
import json
import logging
import multiprocessing
import os
import signal
import warnings
from dataclasses import dataclass, field
from threading import Lock, Thread
from time import monotonic
from typing import TYPE_CHECKING, Any, Final

from medlocker_dicom.errors import MedLockerError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from multiprocessing.connection import Connection
    from multiprocessing.context import SpawnProcess

    Begin = Callable[..., Callable[..., bytes]]

_BEGIN_S: Final = 600.0
_GRACE_S: Final = 5.0
_LAST_S: Final = 0.5
#: First byte of what it says: an answer, or an error of ours as [message, hint].
_ANSWER: Final = b"="
_ERROR: Final = b"!"


class UnbegunError(MedLockerError):
    """The process cannot begin: what it needs is away. Says why, and what to do."""


class EndedError(Exception):
    """The process ended while it worked: a crash, or no memory. Its argument is the exit code."""


class EndlessError(Exception):
    """It took too long, and was ended."""


class ClosedError(BaseException):
    """Whoever has the process ends, and calls come to nothing.

    No `Exception`: what was called for was neither done nor found impossible, so nothing may be
    entered of it.
    """


@dataclass
class Apart:
    """One process, started by the first call, which does one thing at a time.

    It ends with the process that has it.

    Attributes
    ----------
    begin
        Function of a module, called in the process: makes what answers calls, from words to bytes.
        It sets up a log, or is `quiet`.
    arguments
        Of `begin`.
    """

    begin: Begin
    arguments: tuple[Any, ...] = ()
    _process: SpawnProcess | None = field(default=None, init=False)
    _line: Connection | None = field(default=None, init=False)
    _one: Lock = field(default_factory=Lock, init=False)
    _closed: bool = field(default=False, init=False)

    def call(self, seconds: float, *words: str) -> bytes:
        """Have it do something; callers wait for each other.

        Where it takes too long, places in source where it stood go to stderr, and no value.

        Parameters
        ----------
        seconds
            How long that may take.
        words
            What is given to it.

        Raises
        ------
        UnbegunError
            It cannot begin.
        EndedError, EndlessError
            It began and did not come back.
        ClosedError
            `close` was called.
        MedLockerError
            What it did raised such, with these words.
        """
        with self._one:
            line = self._begun()
            began = monotonic()
            try:
                line.send_bytes(json.dumps([seconds, *words]).encode())
                said = line.recv_bytes() if line.poll(seconds + _GRACE_S) else b""
            except (EOFError, OSError):
                said = b""
            if not said:
                code = self._end()
                if self._closed:
                    raise ClosedError
                if monotonic() - began >= seconds:
                    raise EndlessError
                raise EndedError(code)
        if said[:1] == _ERROR:
            raise MedLockerError(*json.loads(said[1:]))
        return said[1:]

    def close(self) -> None:
        """End the process, and let no other begin; for when the one that has it ends."""
        self._closed = True
        if (process := self._process) is not None:
            process.kill()  # whoever waits for it notices

    def _begun(self) -> Connection:
        if self._closed:
            raise ClosedError
        if self._line is not None and self._process is not None and self._process.is_alive():
            return self._line
        self._end()
        context = multiprocessing.get_context("spawn")
        try:
            line, far = context.Pipe()
            with far:
                process = context.Process(
                    target=_be, args=(far, self.begin, self.arguments), daemon=True
                )
                process.start()
        except OSError as error:  # no more processes, or no memory
            raise UnbegunError(f"a process apart cannot begin: {error.strerror}") from error
        self._process, self._line = process, line
        try:
            said = line.recv_bytes() if line.poll(_BEGIN_S) else b""
        except (EOFError, OSError):
            said = b""
        if said != _ANSWER:
            self._end()
            if self._closed:
                raise ClosedError
            raise UnbegunError(*json.loads(said[1:] or '["a process apart cannot begin"]'))
        return line

    def _end(self) -> int | None:
        """Let nothing of the process remain; gives its exit code."""
        code = None
        if self._process is not None:
            self._process.join(_LAST_S)  # of one that ended, the exit code tells more than a kill's
            self._process.kill()
            self._process.join()
            code = self._process.exitcode
        if self._line is not None:
            self._line.close()
        self._process = self._line = None
        return code


def quiet() -> None:
    """Let libraries say nothing, in a process that has no log: their words may be a patient's."""
    logging.disable()
    warnings.simplefilter("ignore")


def _be(line: Connection, begin: Begin, arguments: tuple[Any, ...]) -> None:
    """Be the process, until the other end of the line is gone."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal's is for who has this process
    Thread(target=_mind_parent, name="parent", daemon=True).start()
    try:
        do = begin(*arguments)
        line.send_bytes(_ANSWER)
        while True:
            seconds, *words = json.loads(line.recv_bytes())
            # Not of Python's threads: it needs no interpreter, and nobody who waits.
            faulthandler.dump_traceback_later(seconds, exit=True)
            said = _said(do, words)
            faulthandler.cancel_dump_traceback_later()
            line.send_bytes(said)
    except MedLockerError as error:
        line.send_bytes(_words(error))
    except BaseException:  # noqa: BLE001  whatever it is, its words and its traceback may be a patient's
        os._exit(1)


def _mind_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(0)


def _said(do: Callable[..., bytes], words: Sequence[str]) -> bytes:
    try:
        return _ANSWER + do(*words)
    except MedLockerError as error:
        return _words(error)


def _words(error: MedLockerError) -> bytes:
    return _ERROR + json.dumps([str(error), error.hint]).encode()
