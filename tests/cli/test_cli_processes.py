"""Real processes: killed, interrupted, two at once, out of space."""

import fcntl
import os
import resource
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from desk import QUICK, Desk, granted, record_of, refused, results, same_pixels, tree
from issuing import Issuing
from medlocker_dicom import database
from medlocker_dicom.dicom.locked import read_locked
from medlocker_dicom.vault.reissue import BATCH

EYES = 8


def _start(office: Desk) -> "subprocess.Popen[str]":
    """Start a lock of many eyes that goes no further than a line ahead of who reads its lines.

    Its standard error is a pipe of one packet (pipe(7)): a second write waits for a read.
    """
    source = office.eyes("src", EYES)
    issuer = ("--issuer", office.person("issuer"))
    ours, its = os.pipe2(os.O_DIRECT | os.O_CLOEXEC)
    fcntl.fcntl(its, fcntl.F_SETPIPE_SZ, 1)
    try:
        process = office.spawn(
            "lock", source, office / "out", "--to", office.public("alice"), *issuer, *QUICK, err=its
        )
    finally:
        os.close(its)
    process.stderr = open(ours)  # noqa: PTH123, SIM115  closed as any process's pipes are
    return process


def _until(process: "subprocess.Popen[str]", words: str) -> str:
    """Read a process's lines until one begins with ``words``."""
    assert process.stderr is not None
    for line in process.stderr:
        if line.startswith(words):
            return line
    pytest.fail(f"the process ended before it said {words!r}")


def _stamps(folder: Path) -> dict[str, tuple[int, int]]:
    """Return inode and time of each locked file: both stay if it is not written again."""
    stats = {path: (folder / path).stat() for path in results(folder)}
    return {path: (stat.st_ino, stat.st_mtime_ns) for path, stat in stats.items()}


def _journalled(folder: Path) -> set[str]:
    import json  # noqa: PLC0415  this function alone

    lines = (folder / ".medlocker-journal").read_bytes().split(b"\n")[:-1]
    return {json.loads(line)["path"] for line in lines[1:]}


def _resumes(office: Desk) -> None:
    """Go on after a cut; check that nothing was done twice and that all is whole."""
    done, before = _journalled(office / "out"), _stamps(office / "out")
    assert 0 < len(done) < EYES
    more = ("--issuer", office.person("issuer"))
    outcome = office.lock(office / "src", office / "out", *more)
    assert outcome.code == 0, outcome.err
    assert outcome.err.count(" already ") == len(done)
    assert outcome.err.count(" locked ") == EYES - len(done)
    after = _stamps(office / "out")
    assert {path: after[path] for path in done} == {path: before[path] for path in done}
    names = {f"eye{n}.dcm" for n in range(EYES)}
    assert results(office / "out") == names
    record = record_of(office / "out")
    assert [one["path"] for one in record["instances"]] == sorted(names)
    locked = {read_locked(office / "out" / name).ds.SOPInstanceUID for name in names}
    assert {one["locked_sop_instance_uid"] for one in record["instances"]} == locked
    assert granted(office / "out") == locked
    assert office.unlock(office / "out", office / "back", "alice").code == 0
    assert all(same_pixels(office / "src" / name, office / "back" / name) for name in names)
    whole = office.lock(office / "src", office / "whole", *more)
    assert whole.code == 0
    uids = {one["locked_sop_instance_uid"] for one in record_of(office / "whole")["instances"]}
    assert uids == locked  # a run that nobody cut gives the same


def test_a_killed_run_goes_on(office: Desk) -> None:
    """SIGKILL in the middle: started again it does the rest alone, and ends as an uncut run."""
    with _start(office) as process:
        _until(process, "3/")
        process.send_signal(signal.SIGKILL)
    assert process.returncode == -signal.SIGKILL
    assert not (office / "out" / "lock.json").exists()
    _resumes(office)


def test_two_processes_and_an_interrupt(office: Desk) -> None:
    """While one process runs another is refused; interrupted, the first one's work goes on."""
    with _start(office) as process:
        _until(process, "2/")
        second = office.lock(office / "src", office / "out", "--issuer", office.person("issuer"))
        process.send_signal(signal.SIGINT)
        assert process.stderr is not None
        said = process.stderr.read()
    assert (second.code, len(second.errors)) == (9, 1)
    assert "another process is writing" in second.errors[0]
    assert "interrupted; start again" in said
    assert process.returncode == 130
    assert "Traceback" not in said
    assert not [path for path in tree(office / "out") if path.endswith(".part")]
    _resumes(office)


@pytest.fixture
def tmpfs(tmp_path: Path) -> Iterator[Path]:
    """Give a file system of 400 kB; skips where none may be mounted."""
    folder = tmp_path / "tmpfs"
    folder.mkdir()
    mount = shutil.which("mount")
    command = [str(mount), "-t", "tmpfs", "-o", "size=400k", "tmpfs", str(folder)]
    if mount is None or subprocess.run(command, capture_output=True, check=False).returncode:
        pytest.skip("no file system may be mounted here")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def test_a_disk_that_fills_up(office: Desk, tmpfs: Path) -> None:
    """A lock run stops with one error; what is done is whole, and goes on when there is room."""
    source, more = office.eyes("src", EYES), ("--issuer", office.person("issuer"))
    outcome = office.lock(source, tmpfs / "out", *more)
    assert (outcome.code, len(outcome.errors)) == (9, 1)
    assert "no space left" in outcome.errors[0]
    done = results(tmpfs / "out")
    assert done == _journalled(tmpfs / "out")
    assert 0 < len(done) < EYES
    subprocess.run(["mount", "-o", "remount,size=4m", str(tmpfs)], check=True)
    again = office.lock(source, tmpfs / "out", *more)
    assert again.code == 0, again.err
    assert again.err.count(" already ") == len(done)
    assert office.unlock(tmpfs / "out", office / "back", "alice").code == 0
    assert same_pixels(office / "src" / "eye7.dcm", office / "back" / "eye7.dcm")


def test_a_vault_on_a_disk_that_fills_up(tmp_path: Path, tmpfs: Path) -> None:
    """Issuing stops with one error and nothing half-issued; with room it does the rest."""
    desk = Issuing(tmp_path, str(tmp_path / "vault.db"), 1200)
    desk.prepare().vault.close()
    size = (tmp_path / "vault.db").stat().st_size
    subprocess.run(["mount", "-o", f"remount,size={size + (1200 << 10)}", str(tmpfs)], check=True)
    shutil.move(tmp_path / "vault.db", tmpfs / "vault.db")
    desk = replace(desk, place=str(tmpfs / "vault.db"))
    with desk.start() as process:
        _, err = process.communicate()
    assert process.returncode == 9
    assert err.count("medlocker: error: ") == 1
    assert "vault.db: no space left" in err
    subprocess.run(["mount", "-o", "remount,size=40m", str(tmpfs)], check=True)
    grants, live = desk.check()
    assert grants == live < 2400
    assert (grants - 1200) % BATCH == 0
    assert desk.finish() == 2400 - grants
    assert desk.check() == (2400, 2400)


def test_a_vault_that_another_process_holds(owner: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who writes waits, then says so; who reads does not wait; afterwards all is as before."""
    monkeypatch.setattr(database, "PATIENCE", 0.2)
    program = (
        "import sqlite3, sys\n"
        "held = sqlite3.connect(sys.argv[1], isolation_level=None)\n"
        "held.execute('BEGIN IMMEDIATE')\n"
        "print('held', flush=True)\n"
        "sys.stdin.read()\n"
    )
    command = [sys.executable, "-c", program, str(owner / "data/medlocker/vault.db")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"held\n"
        said = refused(
            owner, 10, "another process has held it", "recipient", "add", owner.public("bob")
        )
        assert "try again later" in said
        assert "alice" in owner.good("recipient", "list").out
        holder.communicate()
    owner.good("recipient", "add", owner.public("bob"))
    assert "all in order" in owner.good("vault", "check").out


def test_unlocking_onto_a_disk_that_fills_up(archive: Desk, tmpfs: Path) -> None:
    """An original that does not fit is not there at all."""
    (tmpfs / "filler").write_bytes(bytes(300 << 10))
    outcome = archive.unlock(archive / "locked", tmpfs / "back", "alice")
    assert (outcome.code, len(outcome.errors)) == (9, 1)
    assert "no space left" in outcome.errors[0]
    assert results(tmpfs / "back") == {"eye0.dcm"}
    assert same_pixels(archive / "src" / "eye0.dcm", tmpfs / "back" / "eye0.dcm")


def test_a_file_that_may_not_grow(archive: Desk, desk: Desk) -> None:
    """Where the system caps file sizes an original over it is refused, nothing of it remains."""
    command = [sys.executable, "-m", "medlocker_dicom.cli.main", "unlock", archive / "locked"]
    done = subprocess.run(
        [*map(str, command), str(desk / "back"), "--identity", str(archive.person("alice"))],
        capture_output=True,
        text=True,
        check=False,
        env=os.environ,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, 50_000)),
    )
    assert done.returncode == 9
    assert done.stderr.count("medlocker: error: ") == 1
    assert "no space left" in done.stderr
    assert tree(desk / "back") == {".medlocker-journal"}


@pytest.mark.parametrize(
    ("given", "spin"),
    [
        ({}, "1000"),
        ({"GOMP_SPINCOUNT": "7"}, "7"),
        ({"OMP_WAIT_POLICY": "ACTIVE"}, "None"),
    ],
)
def test_threads_do_not_spin_for_long(given: dict[str, str], spin: str) -> None:
    """It is said before torch is loaded, which reads it then; and not where the user says."""
    program = (
        "import os, sys, medlocker_dicom.cli.main;"
        "print(os.environ.get('GOMP_SPINCOUNT'), 'torch' in sys.modules)"
    )
    rest = {k: v for k, v in os.environ.items() if k not in {"GOMP_SPINCOUNT", "OMP_WAIT_POLICY"}}
    done = subprocess.run(
        [sys.executable, "-c", program],
        env=rest | given,
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    )
    assert done.stdout.split() == [spin, "False"]
