"""A receiver as a process: ``FOLDER DATABASE DESCRIPTOR NUMBER [STEP]``.

At STEP, one of `STEPS`, it kills itself as if the power had failed.
"""

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from medlocker_dicom.database import place_of
from medlocker_dicom.node import receiver_arrival
from medlocker_dicom.node.ledger import make_ledger
from medlocker_dicom.node.receiver import Receiver, serve
from medlocker_dicom.node.receiver_limits import Limits
from medlocker_dicom.node.spool import Spool
from receiving import Recorded, Spoken, node_config

STEPS: dict[str, tuple[object, str, bool]] = {
    "while it arrives": (Limits, "watch", True),
    "arrived": (receiver_arrival, "describe", False),
    "described": (receiver_arrival, "describe", True),
    "before it is adopted": (Spool, "adopt", False),
    "synced": (os, "fsync", True),
    "renamed": (Path, "replace", True),
    "adopted": (Spool, "adopt", True),
    "entered, not committed": (Recorded, "__call__", True),
    "entered": (receiver_arrival, "enter", True),
}
"""Name of a step: what is called there, and whether to die after it rather than before."""


def dying(call: Callable[..., Any], *, afterwards: bool) -> Callable[..., Any]:
    def die(*arguments: Any, **more: Any) -> None:
        if afterwards:
            call(*arguments, **more)
        os.kill(os.getpid(), signal.SIGKILL)

    return die


def started(
    folder: Path, database: str, listening: socket.socket, number: int = 0, step: str = ""
) -> subprocess.Popen[bytes]:
    """Start the process; it has the port before this returns."""
    words = [sys.executable, __file__, folder, database, listening.fileno(), number, step]
    return subprocess.Popen(
        [str(one) for one in words],
        pass_fds=[listening.fileno()],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )


def main(folder: str, database: str, descriptor: str, number: str, step: str) -> None:
    config = node_config(Path(folder))
    ledger = make_ledger(place_of(database), Recorded())
    spool = Spool(config.spool, config.floor)
    spool.prepare()
    if step:
        where, name, afterwards = STEPS[step]
        setattr(where, name, dying(getattr(where, name), afterwards=afterwards))
    listening = socket.socket(fileno=int(descriptor))
    serve(Receiver(config, spool, ledger, Spoken(), listening, int(number)))


if __name__ == "__main__":
    main(*sys.argv[1:])
