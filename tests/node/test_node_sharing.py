"""A folder that several processes lock together."""

import base64
import os
import pickle
import re
import shutil
import signal
import sqlite3
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING

import pytest
from dbos._sys_db import SystemDatabase

from desk import QUICK, Desk, granted, record_of, refused, results, same_pixels, tree
from medlocker_dicom.database import Place
from medlocker_dicom.errors import SourceError
from medlocker_dicom.folder.journal import NAME, STAGED
from medlocker_dicom.node import sharing, workflows
from medlocker_dicom.node.ledger import SILENCE_S
from medlocker_dicom.node.workflows import Watch, open_ledger, prepare, queue_at
from postgres import database

if TYPE_CHECKING:
    import subprocess

SLOW = (
    "--models",
    "dr_classifier_tiny",
    *("--strategy", "paper"),
    "--budget",
    "1500",
    "--margin",
    "1",
)
"""Options that make a lock take half a second: a process can be met in the middle of it."""
PATIENCE = 150  # s


def _words(desk: Desk, queue: str, *more: str | Path, quick: bool = True) -> list[str | Path]:
    """Give the command that all of a run's processes are started with."""
    people = ("--to", desk.public("alice"), "--issuer", desk.person("issuer"))
    speed = QUICK if quick else SLOW
    return ["lock", desk / "src", desk / "out", *people, *speed, "--queue", queue, *more]


def _until(happens: Callable[[], bool]) -> None:
    until = time.monotonic() + PATIENCE
    while not happens():
        assert time.monotonic() < until
        time.sleep(0.05)


def _hold(process: "subprocess.Popen[str]", staged: Path, begun: int) -> None:
    """Stop a process in the middle of a file, when so many are begun."""

    def held() -> bool:
        process.send_signal(signal.SIGSTOP)
        if len(list(staged.glob("*.starts"))) == begun:
            return True
        process.send_signal(signal.SIGCONT)
        return False

    _until(held)


def _said(process: "subprocess.Popen[str]", code: int = 0) -> str:
    """Wait for a process; give what it said of its work."""
    out, err = process.communicate(timeout=PATIENCE)
    assert process.returncode == code, out + err
    assert "Traceback" not in err
    return err


def _check(desk: Desk, count: int) -> None:
    """Every file is locked once, in its place, with a key that opens it."""
    names = {f"eye{number}.dcm" for number in range(count)}
    assert results(desk / "out") == names
    record = record_of(desk / "out")
    assert {one["path"] for one in record["instances"]} == names
    assert len(record["instances"]) == count
    assert not record["failed"]
    assert granted(desk / "out") == {one["locked_sop_instance_uid"] for one in record["instances"]}
    assert desk.unlock(desk / "out", desk / "back", "alice").code == 0
    assert all(same_pixels(desk / "src" / name, desk / "back" / name) for name in names)


def test_two_processes_share_a_folder(office: Desk, vault_place: str) -> None:
    """Both lock, one leads; the results are those of one process, and nothing else stays."""
    office.eyes("src", 24)
    command = _words(office, vault_place)
    with office.spawn(*command) as one, office.spawn(*command) as other:
        said = [_said(one), _said(other)]
    helped = [re.search(r"(\d+) files done by this process", text) for text in said]
    (found,) = [match for match in helped if match]
    assert 0 < int(found[1]) < 24
    assert sum(text.count(" locked eye") for text in said) == 24
    _check(office, 24)
    again = office.run(*command)
    assert again.code == 0, again.err
    assert again.err.count(" already eye") == 24


def test_processes_that_die_are_replaced(office: Desk, postgresql: str) -> None:
    """The leader is killed, then a helper is: the last one locks it all, each file once."""
    office.eyes("src", 7)
    staged = office / "out" / STAGED
    with database(postgresql) as url:
        _die(office, _words(office, url, quick=False), staged)
    _check(office, 7)
    assert len((office / "out" / NAME).read_text().splitlines()) == 1 + 7


def _die(office: Desk, command: list[str | Path], staged: Path) -> None:
    with office.spawn(*command) as leader:
        _hold(leader, staged, 1)
        with office.spawn(*command) as helper:
            _hold(helper, staged, 2)
            with office.spawn(*command) as last:
                leader.kill()
                helper.kill()
                said = _said(last)
    assert said.count(" locked eye") + said.count(" already eye") == 7


def test_an_interrupted_helper_gives_its_file_back(office: Desk) -> None:
    """Ctrl-C: the process ends at once, and nobody waits for its file."""
    office.eyes("src", 5)
    command = _words(office, str(office / "queue.db"), quick=False)
    staged = office / "out" / STAGED
    with office.spawn(*command) as leader:
        _hold(leader, staged, 1)
        with office.spawn(*command) as helper:
            _hold(helper, staged, 2)
            helper.send_signal(signal.SIGINT)
            helper.send_signal(signal.SIGCONT)
            said = _said(helper, 130)
        began = time.monotonic()
        leader.send_signal(signal.SIGCONT)
        said += _said(leader)
    assert "medlocker: interrupted" in said
    assert time.monotonic() - began < SILENCE_S
    _check(office, 5)


def test_what_ends_processes_is_a_failure(office: Desk) -> None:
    """A file that three processes came to their end over is not begun a fourth time."""
    office.eyes("src", 2)
    command = _words(office, str(office / "queue.db"))
    office.good(*command)
    (office / "out" / "eye1.dcm").unlink()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sharing, "_MOST_STARTS", 0)
        words = "0 processes came to their end over it"
        assert "lock it alone" in refused(office, 3, words, *command)
    office.good(*command)
    _check(office, 2)


def test_starts_are_counted(tmp_path: Path) -> None:
    """Three may begin a file; the fourth is told."""
    starts = tmp_path / STAGED / "one.starts"
    for _ in range(3):
        sharing._count(starts, Path("eye.dcm"))
    with pytest.raises(SourceError, match=r"eye.dcm: 3 processes"):
        sharing._count(starts, Path("eye.dcm"))


def test_one_bad_file_does_not_stop_the_others(office: Desk) -> None:
    """What fails elsewhere fails here with the same words; of two twins one is locked."""
    office.eyes("src", 2)
    office.put("src/bad.dcm", b"x" * 200)
    shutil.copy(office / "src" / "eye0.dcm", office / "src" / "twin.dcm")
    (office / "src" / "link.dcm").symlink_to("eye1.dcm")
    outcome = office.run(*_words(office, str(office / "queue.db")))
    assert outcome.code == 3
    errors = "\n".join(outcome.errors)
    assert len(outcome.errors) == 3, errors
    for words in ("bad.dcm: ", "SOP Instance UID", "link.dcm: is a symbolic link"):
        assert words in errors
    assert len(record_of(office / "out")["failed"]) == 3
    assert len(results(office / "out")) == 2
    assert not [path for path in tree(office / "out") if path.startswith(STAGED)]


def test_other_processes_words_are_not_believed(
    office: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who can write the queue cannot put words into the journal: the file is locked again."""
    office.eyes("src", 2)
    real, lies = sharing._locked, iter(range(3))

    def tampered(*arguments: object) -> dict[str, str]:
        said = real(*arguments)  # type: ignore[arg-type]
        if next(lies, None) is None:
            return said
        return said | {"text": said["text"].replace("eye", "../../eye")}

    monkeypatch.setattr(sharing, "_locked", tampered)
    office.good(*_words(office, str(office / "queue.db")))
    assert next(lies, None) is None
    _check(office, 2)


def test_a_process_that_cannot_write_ends_alone(
    office: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A full disk ends the run with one error; the same command goes on where it was."""
    from medlocker_dicom.errors import DiskFullError  # noqa: PLC0415  beside its use

    office.eyes("src", 3)
    command = _words(office, str(office / "queue.db"))
    with monkeypatch.context() as patch:
        real, left = sharing._locked, iter(range(1))

        def full(*arguments: object) -> dict[str, str]:
            if next(left, None) is None:
                raise DiskFullError("no space left")
            return real(*arguments)  # type: ignore[arg-type]

        patch.setattr(sharing, "_locked", full)
        refused(office, 9, "no space left", *command)
    office.good(*command)
    _check(office, 3)


def test_a_file_that_was_taken_and_never_begun_is_locked(
    office: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The database fails between a claim and its answer: the process sees that, and takes it up."""
    office.eyes("src", 2)
    real, failures = SystemDatabase.get_workflow_statuses, iter(range(3))

    def failing(self: SystemDatabase, keys: list[str]) -> object:
        if next(failures, None) is None:
            return real(self, keys)
        raise ConnectionError("the database went away")

    monkeypatch.setattr(SystemDatabase, "get_workflow_statuses", failing)
    monkeypatch.setattr(workflows, "SILENCE_S", 1)
    monkeypatch.setattr(sharing, "BEAT_S", 0.3)
    office.good(*_words(office, str(office / "queue.db")))
    assert next(failures, None) is None
    _check(office, 2)


def test_a_vault_is_kept_by_the_leader(owner: Desk) -> None:
    """With a vault and packets apart: all is in it, once."""
    owner.eyes("src", 6)
    command = _words(owner, str(owner / "queue.db"), "--detached")
    command[command.index("--to") + 1] = "alice"
    index = command.index("--issuer")
    del command[index : index + 2]
    with owner.spawn(*command) as one, owner.spawn(*command) as other:
        said = [_said(one), _said(other)]
    assert sum(text.count(" locked eye") for text in said) == 6
    assert "6 instances" in owner.good("vault", "check").out
    assert len(list((owner / "out" / "packets").iterdir())) == 6


def test_options_that_differ_are_told_at_once(office: Desk) -> None:
    """Another command on the same folder is refused, also while it is being locked."""
    office.eyes("src", 2)
    command = _words(office, str(office / "queue.db"), quick=False)
    with office.spawn(*command) as leader:
        _until((office / "out" / NAME).exists)
        _until(lambda: (office / "out" / NAME).stat().st_size > 0)
        refused(office, 9, "other options", *command, "--seed", "7")
        _said(leader)


def test_nothing_to_share_is_an_error(office: Desk) -> None:
    """As without a queue; none is made."""
    (office / "src").symlink_to("src")
    refused(office, 2, "src", *_words(office, str(office / "queue.db")))
    assert not (office / "queue.db").exists()


def test_a_password_in_the_queues_url_is_refused(office: Desk) -> None:
    """Everyone on the machine sees the command line."""
    office.eyes("src", 1)
    url = "postgresql://owner:hunter2@127.0.0.1:1/none"
    assert "hunter2" not in refused(office, 2, "a password on the command", *_words(office, url))
    plain = "postgresql://owner@127.0.0.1:1/none"
    refused(office, 10, "127.0.0.1:1", *_words(office, plain))


def test_names_that_are_no_text_and_a_helpers_exit_code(office: Desk) -> None:
    """Bytes that have no encoding are locked too; what failed is every process's exit code."""
    office.eyes("src", 6)
    (office / "src" / "eye5.dcm").rename(office / "src" / os.fsdecode(b"\xe9ye.dcm"))
    office.put("src/bad.dcm", b"x" * 200)
    command = _words(office, str(office / "queue.db"))
    with office.spawn(*command) as one, office.spawn(*command) as other:
        said = _said(one, 3) + _said(other, 3)
    assert "another process leads" in said
    assert len(record_of(office / "out")["instances"]) == 6
    assert (office / "out" / os.fsdecode(b"\xe9ye.dcm")).exists()


def test_a_path_that_is_not_of_the_run_is_not_locked(office: Desk) -> None:
    """Whoever writes the queue has nothing locked but what the command names."""
    office.eyes("src", 1)
    office.eye("other/eye.dcm", 7)
    crew = sharing.Sharing(None, "one")  # type: ignore[arg-type]
    run = SimpleNamespace(source=office / "src")
    names = ("../other/eye.dcm", str(office / "other" / "eye.dcm"), "eye0.dcm%00", "")
    assert [crew._path(run, name) for name in names] == [None] * 4  # type: ignore[arg-type]
    assert crew._path(run, "eye0.dcm") == Path("eye0.dcm")  # type: ignore[arg-type]


def test_no_pickle_is_read(tmp_path: Path) -> None:
    """A row of the queue that says it is a pickle is not read: it would run what it holds."""
    place = Place.of_file(tmp_path / "queue.db")
    prepare(place)
    ledger = open_ledger(place)
    with ledger.writing() as connection:
        ledger.enqueue(connection, "process", "one", "an-object")
    made = tmp_path / "made"
    data = base64.b64encode(pickle.dumps(_Bomb(str(made)))).decode()
    with closing(sqlite3.connect(tmp_path / "queue.db")) as rows, rows:
        rows.execute(
            "UPDATE workflow_status SET inputs = ?, output = ?, serialization = 'py_pickle', "
            "status = 'SUCCESS'",
            (data, data),
        )
    (found,) = queue_at(ledger).client.list_workflows()
    assert not made.exists()
    assert found.output in (None, data)
    ledger.close()


def test_who_is_silent_is_told_by_ones_own_clock() -> None:
    """A minute without a new word; other machines' clocks do not matter."""
    now = [0.0]
    watch = Watch(lambda: now[0])
    assert watch.silent({"slow": -99_999_999, "fast": 99_999_999}) == []
    now[0] = 61.0
    assert watch.silent({"slow": -99_999_998, "fast": 99_999_999}) == ["fast"]
    watch.forget()
    assert watch.silent({"slow": -99_999_998, "fast": 99_999_999}) == []


class _Bomb:
    def __init__(self, path: str) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, ...]:
        return Path.touch, (Path(self.path),)
