"""An end to work that never ends: the process gives it up, and is started anew without it.

A thread cannot be ended from outside, and a codec or a network may wait for ever. What the process
had begun besides is begun again, as after any crash.
"""

from __future__ import annotations

import faulthandler
import os
from contextlib import contextmanager
from threading import Timer
from typing import TYPE_CHECKING, Final

from medlocker_dicom.files import PRIVATE, output_error

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

GAVE_UP: Final = 75
"""Exit status of a process that gave up (EX_TEMPFAIL of sysexits.h)."""
GRACE_S: Final = 90.0
"""Seconds for saying so, longer than a database is waited for; then the process ends anyhow."""


@contextmanager
def patience(seconds: float, give_up: Callable[[], None], trace: Path) -> Iterator[None]:
    """End the process where what is done inside takes too long; one thread at a time.

    Code that lets no other thread run, as codecs do, lets none give up either. The process then
    ends a little later, and leaves `trace` (see `ended_over`).

    Parameters
    ----------
    seconds
        How long it may take.
    give_up
        Is called before the process ends, in another thread; whatever it raises, it ends.
    trace
        File that gets the places in source where the process stood, and no value; it is there
        for as long as the work goes on.

    Raises
    ------
    OutputError
        `trace` cannot be written.
    """

    def end() -> None:
        try:
            give_up()
        finally:
            os._exit(GAVE_UP)

    timer = Timer(seconds, end)
    timer.daemon = True
    try:
        trace.parent.mkdir(mode=0o700, exist_ok=True)
        descriptor = os.open(trace, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, PRIVATE)
    except OSError as error:
        raise output_error(trace, error) from error
    try:
        # Not of Python's threads: it needs no interpreter.
        faulthandler.dump_traceback_later(seconds + GRACE_S, exit=True, file=descriptor)
        timer.start()
        yield
    finally:
        timer.cancel()
        faulthandler.cancel_dump_traceback_later()
        os.close(descriptor)
        trace.unlink(missing_ok=True)


def ended_over(trace: Path) -> bool:
    """Tell whether a process ended over what has this trace, without a word; forgets it.

    A process that was killed leaves a trace too, but nothing in it.
    """
    try:
        stood = trace.stat().st_size > 0
    except OSError:
        return False
    trace.unlink(missing_ok=True)
    return stood
