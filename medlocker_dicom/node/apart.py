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
from threading import Lock
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
#: First byte of what it says: an answer, or an error of ours as [message, hint].
_ANSWER: Final = b"="
_ERROR: Final = b"!"


class UnbegunError(MedLockerError):
    """The process cannot begin: what it needs is away. Says why, and what to do."""


class EndedError(Exception):
    """The process ended while it worked: a crash, or no memory."""


class EndlessError(Exception):
    """It took too long, and was ended."""


@dataclass
class Apart:
    """One process, started by the first call, which does one thing at a time.

    It ends with the process that has it. Where that is killed, it comes to the end of what it does,
    or of the time that it has for that.

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
                self._end()
                raise EndlessError if monotonic() - began >= seconds else EndedError
        if said[:1] == _ERROR:
            raise MedLockerError(*json.loads(said[1:]))
        return said[1:]

    def _begun(self) -> Connection:
        if self._line is not None and self._process is not None and self._process.is_alive():
            return self._line
        self._end()
        context = multiprocessing.get_context("spawn")
        line, far = context.Pipe()
        self._process = context.Process(
            target=_be, args=(far, self.begin, self.arguments), daemon=True
        )
        self._process.start()
        far.close()
        self._line = line
        try:
            said = line.recv_bytes() if line.poll(_BEGIN_S) else b""
        except (EOFError, OSError):
            said = b""
        if said != _ANSWER:
            self._end()
            raise UnbegunError(*json.loads(said[1:] or '["a process apart cannot begin"]'))
        return line

    def _end(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.join()
        if self._line is not None:
            self._line.close()
        self._process = self._line = None


def quiet() -> None:
    """Let libraries say nothing, in a process that has no log: their words may be a patient's."""
    logging.disable()
    warnings.simplefilter("ignore")


def _be(line: Connection, begin: Begin, arguments: tuple[Any, ...]) -> None:
    """Be the process, until the other end of the line is gone."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal's is for who has this process
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


def _said(do: Callable[..., bytes], words: Sequence[str]) -> bytes:
    try:
        return _ANSWER + do(*words)
    except MedLockerError as error:
        return _words(error)


def _words(error: MedLockerError) -> bytes:
    return _ERROR + json.dumps([str(error), error.hint]).encode()
