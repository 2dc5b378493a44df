"""Work that never ends: its process does."""

import subprocess
import sys

import pytest

from medlocker_dicom.node.patience import GAVE_UP

BEGIN = """
import re, time
from medlocker_dicom.node import patience
patience.GRACE_S = 0.3
def say():
    print("gave up", flush=True)
def fail():
    raise RuntimeError("Doe^Jane")
"""


def ran(code: str) -> "subprocess.CompletedProcess[str]":
    """Run a process that has `patience`."""
    command = [sys.executable, "-c", BEGIN + code]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


def test_what_ends_in_time_goes_on() -> None:
    """Nothing of the watch is left."""
    done = ran("with patience.patience(0.2, say): pass\ntime.sleep(1)\nprint('went on')")
    assert (done.returncode, done.stdout, done.stderr) == (0, "went on\n", "")


def test_what_fails_goes_on() -> None:
    """An error is the caller's, and the watch ends with it."""
    done = ran(
        "try:\n    with patience.patience(0.2, say): fail()\n"
        "except RuntimeError: time.sleep(1); print('went on')"
    )
    assert (done.returncode, done.stdout) == (0, "went on\n")


@pytest.mark.parametrize(("last", "said"), [("say", "gave up\n"), ("fail", "")])
def test_what_takes_too_long_ends_the_process(last: str, said: str) -> None:
    """It says so first; where that fails it ends all the same."""
    done = ran(f"with patience.patience(0.2, {last}): time.sleep(60)")
    assert (done.returncode, done.stdout) == (GAVE_UP, said)


def test_what_lets_no_thread_run_ends_too() -> None:
    """A regular expression keeps the interpreter to itself; the place is told, no value."""
    done = ran(
        'with patience.patience(0.2, say): re.match("(a+)+$", "a" * 60 + "b", re.NOFLAG)  # Doe'
    )
    assert done.returncode not in {0, GAVE_UP}
    assert "re/__init__.py" in done.stderr
    assert "Doe" not in done.stderr
