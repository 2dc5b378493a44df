"""What happens apart: it answers, crashes, freezes, or cannot begin, and nothing else notices."""

import errno
import logging
import os
import re
import signal
import subprocess
import sys
import time
import warnings
from collections.abc import Callable
from multiprocessing.context import SpawnProcess
from pathlib import Path
from threading import Thread

import pytest

from medlocker_dicom.errors import MedLockerError, VaultError
from medlocker_dicom.node.apart import (
    Apart,
    ClosedError,
    EndedError,
    EndlessError,
    UnbegunError,
    quiet,
)

SOON = 60.0  # s


def begin(name: str = "") -> Callable[..., bytes]:
    """Begin to do what the words say."""
    if name == "no vault":
        raise VaultError("the vault is away", "start it")
    if name == "a fault":
        raise RuntimeError("Doe^Jane")
    return do


def begin_slowly() -> Callable[..., bytes]:
    """Begin after ten minutes."""
    time.sleep(600)
    return do


def do(what: str, more: str = "") -> bytes:
    """Do what the words say."""
    if what == "end":
        os.kill(os.getpid(), signal.SIGKILL)
    elif what == "freeze":  # it keeps the interpreter to itself
        re.match("(a+)+$", "a" * 60 + "b")
    elif what == "sleep":
        time.sleep(600)
    elif what == "warn":
        quiet()
        warnings.warn("Doe^Jane", stacklevel=1)
        logging.getLogger("pydicom").error("Doe^Jane")
    elif what == "raise":
        raise RuntimeError("Doe^Jane")
    elif what == "refuse":
        raise VaultError("the vault is away", more)
    return f"{os.getpid()} {what}".encode()


def process_of(apart: Apart) -> int:
    """Tell the number of the process that answers."""
    return int(apart.call(SOON, "hello").split()[0])


def test_one_process_answers_call_after_call() -> None:
    """It is another than this one, and the same each time; threads wait for each other."""
    apart, heard = Apart(begin), []
    threads = [Thread(target=lambda: heard.append(process_of(apart))) for _ in range(4)]
    for one in threads:
        one.start()
    for one in threads:
        one.join()
    assert len(heard) == 4
    assert len(set(heard)) == 1
    assert heard[0] != os.getpid()


@pytest.mark.parametrize("what", ["freeze", "sleep"])
def test_what_takes_too_long_is_ended(what: str, capfd: pytest.CaptureFixture[str]) -> None:
    """Whether it lets other threads run or not; where it stood is told; the next call is served."""
    apart = Apart(begin)
    before = process_of(apart)
    with pytest.raises(EndlessError):
        apart.call(0.5, what)
    assert process_of(apart) != before
    assert "test_node_apart.py" in capfd.readouterr().err


@pytest.mark.parametrize("what", ["end", "raise"])
def test_what_crashes_is_told(what: str, capfd: pytest.CaptureFixture[str]) -> None:
    """By a signal or by a fault of ours, whose words may be a patient's and are not told."""
    apart = Apart(begin)
    before = process_of(apart)
    with pytest.raises(EndedError):
        apart.call(SOON, what)
    assert process_of(apart) != before
    assert "Doe" not in "".join(capfd.readouterr())


def test_an_error_of_ours_comes_back() -> None:
    """With its words and its hint; the process goes on."""
    apart = Apart(begin)
    before = process_of(apart)
    with pytest.raises(MedLockerError, match="the vault is away") as caught:
        apart.call(SOON, "refuse", "start it")
    assert caught.value.hint == "start it"
    assert process_of(apart) == before


def test_libraries_are_quiet(capfd: pytest.CaptureFixture[str]) -> None:
    """What they warn of and log may be a patient's, and goes nowhere."""
    assert Apart(begin).call(SOON, "warn").endswith(b"warn")
    assert "Doe" not in "".join(capfd.readouterr())


@pytest.mark.parametrize(
    ("name", "words"), [("no vault", "the vault is away"), ("a fault", "cannot begin")]
)
def test_what_cannot_begin(name: str, words: str, capfd: pytest.CaptureFixture[str]) -> None:
    """It is tried anew at each call."""
    apart = Apart(begin, (name,))
    for _ in range(2):
        with pytest.raises(UnbegunError, match=words):
            apart.call(SOON, "hello")
    assert "Doe" not in "".join(capfd.readouterr())


def test_no_process_to_be_had(monkeypatch: pytest.MonkeyPatch) -> None:
    """The next call begins one."""
    apart = Apart(begin)
    with monkeypatch.context() as patch:
        refused = OSError(errno.EAGAIN, os.strerror(errno.EAGAIN))
        patch.setattr(SpawnProcess, "start", lambda _: (_ for _ in ()).throw(refused))
        with pytest.raises(UnbegunError, match="temporarily unavailable"):
            apart.call(SOON, "hello")
    assert process_of(apart) != os.getpid()


@pytest.mark.parametrize("begun", [True, False])
def test_it_is_closed_while_it_works(*, begun: bool) -> None:
    """Whoever waits is told, by what no handler of errors takes for an end of the work."""
    apart, told = Apart(begin if begun else begin_slowly), []
    left = Path(f"/proc/{process_of(apart)}") if begun else Path("/none")

    def wait() -> None:
        with pytest.raises(ClosedError):
            apart.call(SOON, "sleep")
        told.append("closed")

    thread = Thread(target=wait)
    thread.start()
    time.sleep(0.5)
    apart.close()
    thread.join(SOON)
    assert told == ["closed"]
    assert not issubclass(ClosedError, Exception)
    assert not left.exists()
    with pytest.raises(ClosedError):
        apart.call(SOON, "hello")


def test_it_does_not_outlive_its_time(tmp_path: Path) -> None:
    """Who has it is killed while it is frozen, works or waits: it ends by itself."""
    code = """
import os, sys
sys.path.insert(0, sys.argv[1])
from threading import Thread
from test_node_apart import Apart, begin, process_of
if __name__ == "__main__":
    frozen, busy, waiting = Apart(begin), Apart(begin), Apart(begin)
    print(*map(process_of, (frozen, busy, waiting)), flush=True)
    Thread(target=frozen.call, args=(3.0, "freeze"), daemon=True).start()
    Thread(target=busy.call, args=(600.0, "sleep"), daemon=True).start()
    import time; time.sleep(1)
    os.kill(os.getpid(), 9)
"""
    script = tmp_path / "script.py"
    script.write_text(code)
    command = [sys.executable, str(script), str(Path(__file__).parent)]
    said = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, check=False)
    until = time.monotonic() + 30
    left = [Path(f"/proc/{number}") for number in said.stdout.decode().split()]
    assert len(left) == 3
    while any(one.exists() for one in left):
        assert time.monotonic() < until
        time.sleep(0.1)
