"""Work that never ends: its process does."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from medlocker_dicom.errors import DestinationError
from medlocker_dicom.node.patience import GAVE_UP, ended_over, patience

BEGIN = """
import re, sys, time
from pathlib import Path
from medlocker_dicom.node import patience
trace = Path(sys.argv[1])
def say():
    print("gave up", flush=True)
def fail():
    raise RuntimeError("Doe^Jane")
"""
Ran = Callable[[str], "subprocess.CompletedProcess[str]"]


@pytest.fixture
def trace(tmp_path: Path) -> Path:
    """Return a place for a trace, in a folder that is not there."""
    return tmp_path / "ab" / "trace.txt"


@pytest.fixture
def ran(trace: Path) -> Ran:
    """Return what runs a process that has `patience`."""

    def run(code: str) -> "subprocess.CompletedProcess[str]":
        command = [sys.executable, "-c", BEGIN + code, str(trace)]
        return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)

    return run


def test_what_ends_in_time_goes_on(ran: Ran, trace: Path) -> None:
    """Nothing of the watch is left, whether it ended well or not."""
    done = ran("""
with patience.patience(5, say, trace): print(trace.exists())
try:
    with patience.patience(5, say, trace): fail()
except RuntimeError: print("failed")
time.sleep(6)
""")
    assert (done.returncode, done.stdout, done.stderr) == (0, "True\nfailed\n", "")
    assert not trace.exists()


@pytest.mark.parametrize(("last", "said"), [("say", "gave up\n"), ("fail", "")])
def test_what_takes_too_long_ends_the_process(ran: Ran, trace: Path, last: str, said: str) -> None:
    """It says so first; where that fails it ends all the same."""
    done = ran(f"with patience.patience(0.2, {last}, trace): time.sleep(60)")
    assert (done.returncode, done.stdout) == (GAVE_UP, said)
    assert not ended_over(trace)


def test_what_lets_no_thread_run_leaves_a_trace(ran: Ran, trace: Path) -> None:
    """A regular expression keeps the interpreter to itself; places are told once, and no value."""
    done = ran("""
patience.GRACE_S = 0.2
with patience.patience(0.2, say, trace): re.match("(a+)+$", "a" * 60 + "b", re.NOFLAG)  # Doe
""")
    assert done.returncode not in {0, GAVE_UP}
    assert done.stdout == ""
    assert "re/__init__.py" in trace.read_text()
    assert "Doe" not in trace.read_text()
    assert ended_over(trace)
    assert not ended_over(trace)


def test_who_is_killed_leaves_nothing_to_say(ran: Ran, trace: Path) -> None:
    """A node that is killed begins again with what it had begun."""
    ran("import os\nwith patience.patience(60, say, trace): os.kill(os.getpid(), 9)")
    assert trace.exists()
    assert not ended_over(trace)


def test_a_trace_that_cannot_be_written(tmp_path: Path) -> None:
    """Is an error before anything is begun."""
    (tmp_path / "file").write_bytes(b"")
    with (
        pytest.raises(DestinationError, match="file/trace"),
        patience(60, lambda: None, tmp_path / "file" / "trace"),
    ):
        pytest.fail("was begun")
