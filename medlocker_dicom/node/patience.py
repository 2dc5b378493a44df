"""An end to work that never ends: the process gives it up, and is started anew without it.

A thread cannot be ended from outside, and a codec or a network may wait for ever. The supervisor
starts a process anew, and what else it had begun is begun again, as after any crash.
"""

from __future__ import annotations

import faulthandler
import os
from contextlib import contextmanager
from threading import Timer
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

GAVE_UP: Final = 75
"""Exit status of a process that gave up (EX_TEMPFAIL of sysexits.h)."""
GRACE_S: Final = 30.0
"""Seconds for saying so; where code lets no other thread run, the process ends after them."""
_STDERR: Final = 2


@contextmanager
def patience(seconds: float, give_up: Callable[[], None]) -> Iterator[None]:
    """End the process where what is done inside takes too long; one thread at a time.

    Parameters
    ----------
    seconds
        How long it may take.
    give_up
        Is called before the process ends, in another thread; whatever it raises, it ends.
    """

    def end() -> None:
        try:
            give_up()
        finally:
            os._exit(GAVE_UP)

    timer = Timer(seconds, end)
    timer.daemon = True
    # Not of Python's threads: it needs no interpreter. It writes places in source, and no value.
    faulthandler.dump_traceback_later(seconds + GRACE_S, exit=True, file=_STDERR)
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
        faulthandler.cancel_dump_traceback_later()
