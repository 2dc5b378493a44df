"""What remains of a run in which a write fails, or a result is lost."""

import errno
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from desk import Desk, granted, record_of, results, same_pixels, tree
from medlocker_dicom.dicom.fundus import read_fundus
from medlocker_dicom.dicom.locked import read_locked


def _fail_after(writes: int) -> Callable[[int], None]:
    """Stand in for fsync: so many succeed, then the disk is full."""
    left, real = iter(range(writes)), os.fsync

    def fsync(descriptor: int) -> None:
        if next(left, None) is None:
            raise OSError(errno.ENOSPC, "No space left on device")
        real(descriptor)

    return fsync


@pytest.mark.parametrize("writes", range(14))
def test_a_full_disk_at_any_write(
    office: Desk, monkeypatch: pytest.MonkeyPatch, writes: int
) -> None:
    """Full at the n-th write: one error, each file in the folder is in the journal, it goes on."""
    source, more = office.eyes("src", 2), ("--issuer", office.person("issuer"), "--budget", "2")
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", _fail_after(writes))
        outcome = office.lock(source, office / "out", *more)
    assert (outcome.code, len(outcome.errors)) == (9, 1)
    assert "no space left" in outcome.errors[0]
    assert not [path for path in tree(office.root) if path.endswith(".part")]
    journal = (office / "out" / ".medlocker-journal").read_text()
    assert all(f'"path": "{path}"' in journal for path in results(office / "out"))
    again = office.lock(source, office / "out", *more)
    assert again.code == 0, again.err
    assert results(office / "out") == {"eye0.dcm", "eye1.dcm"}
    assert office.unlock(office / "out", office / "back", "alice").code == 0


def test_a_lost_file_comes_back_with_a_key_that_opens_it(office: Desk) -> None:
    """Locked again under a new key, a file has its new grant in the key files."""
    source = office.eyes("src", 2)
    assert office.lock(source, office / "out").code == 0
    before = granted(office / "out")
    (office / "out" / "eye0.dcm").unlink()
    outcome = office.lock(source, office / "out")
    assert outcome.code == 0
    assert "2/2 locked eye0.dcm" in outcome.err
    assert "1/2 already eye1.dcm" in outcome.err
    assert granted(office / "out") == before
    assert len(record_of(office / "out")["instances"]) == 2
    unlocked = office.unlock(office / "out", office / "back", "alice")
    assert unlocked.code == 0, unlocked.err
    assert same_pixels(source / "eye0.dcm", office / "back" / "eye0.dcm")


@pytest.mark.parametrize("damage", [b"", b"DICM"])
def test_a_damaged_result_is_done_again(office: Desk, damage: bytes) -> None:
    """A locked file that is not what was written is locked again, and its key opens it."""
    source = office.eyes("src", 2)
    assert office.lock(source, office / "out").code == 0
    (office / "out" / "eye0.dcm").write_bytes(damage)
    outcome = office.lock(source, office / "out")
    assert outcome.code == 0
    assert "2/2 locked eye0.dcm" in outcome.err
    assert "1/2 already eye1.dcm" in outcome.err
    assert office.unlock(office / "out", office / "back", "alice").code == 0
    (office / "back" / "eye1.dcm").write_bytes(damage)
    again = office.unlock(office / "out", office / "back", "alice")
    assert "1/2 already eye0.dcm" in again.err
    assert "2/2 unlocked eye1.dcm" in again.err
    assert same_pixels(source / "eye1.dcm", office / "back" / "eye1.dcm")


def test_a_replaced_source_is_done_again(office: Desk) -> None:
    """Another photograph under a name that is done takes its place, record and key included."""
    source = office.eyes("src", 2)
    assert office.lock(source, office / "out").code == 0
    assert office.unlock(office / "out", office / "back", "alice").code == 0
    office.eye("src/eye0.dcm", 2)
    outcome = office.lock(source, office / "out")
    assert "2/2 locked eye0.dcm" in outcome.err
    assert "1/2 already eye1.dcm" in outcome.err
    locked = {one["locked_sop_instance_uid"] for one in record_of(office / "out")["instances"]}
    assert len(locked) == 2
    assert granted(office / "out") == locked
    again = office.unlock(office / "out", office / "back", "alice")
    assert "1/2 unlocked eye0.dcm" in again.err
    assert "2/2 already eye1.dcm" in again.err
    assert same_pixels(source / "eye0.dcm", office / "back" / "eye0.dcm")
    office.eye("src/eye9.dcm", 0)  # its UID is free again
    assert "3/3 locked eye9.dcm" in office.lock(source, office / "out").err


def test_a_source_that_spoilt_leaves_what_was_locked_of_it(office: Desk) -> None:
    """Where a file that is done cannot be done again, its last good lock stays with its key."""
    source = office.eyes("src", 2)
    assert office.lock(source, office / "out").code == 0
    (source / "eye0.dcm").write_bytes(b"spoilt")
    outcome = office.lock(source, office / "out")
    assert outcome.code == 3
    assert results(office / "out") == {"eye0.dcm", "eye1.dcm"}
    assert office.unlock(office / "out", office / "back", "alice").code == 0


def test_the_owners_records_are_the_owners(office: Desk) -> None:
    """What tells grades and places is readable by its owner alone; what is sent is as usual."""
    assert office.lock(office.eyes("src", 1), office / "out").code == 0
    modes = {path: (office / "out" / path).stat().st_mode & 0o777 for path in tree(office / "out")}
    private = {path for path, mode in modes.items() if mode == 0o600}
    assert private == {".medlocker-journal", "lock.json", "report.html"}


def test_what_is_no_plain_file_fails_by_name(office: Desk) -> None:
    """A link, a pipe and a linked folder fail in lock, verify and unlock; the rest is done."""
    source = office.eyes("src", 1)
    assert office.lock(source, office / "out").code == 0
    for folder in (source, office / "out"):
        (folder / "link.dcm").symlink_to(source / "eye0.dcm")
        (folder / "sub").symlink_to(source)
        os.mkfifo(folder / "pipe.dcm")
    for outcome in (
        office.lock(source, office / "new"),
        office.verify(office / "out", "alice"),
        office.unlock(office / "out", office / "back", "alice"),
    ):
        assert outcome.code == 3
        assert len(outcome.errors) == 3
        assert "link.dcm: is a symbolic link" in outcome.errors[0]
        assert "pipe.dcm: is no plain file" in outcome.errors[1]
        assert "sub: is a symbolic link" in outcome.errors[2]
    assert results(office / "new") == results(office / "back") == {"eye0.dcm"}


@pytest.mark.parametrize(
    ("excess", "words"),
    [(MemoryError, "needs more memory than there is"), (RecursionError, "is nested too deeply")],
)
def test_one_files_excess_is_its_own_failure(
    office: Desk, monkeypatch: pytest.MonkeyPatch, excess: type[Exception], words: str
) -> None:
    """Memory or stack that runs out on one file: named, and the next file is still done."""

    def failing(real: Callable[..., Any]) -> Callable[..., Any]:
        def read(path: Path, *more: Any) -> Any:
            if path.name == "eye0.dcm":
                raise excess
            return real(path, *more)

        return read

    source = office.eyes("src", 2)
    assert office.lock(source, office / "whole").code == 0
    monkeypatch.setattr("medlocker_dicom.folder.lock.read_fundus", failing(read_fundus))
    monkeypatch.setattr("medlocker_dicom.folder.unlock.read_locked", failing(read_locked))
    for outcome in (
        office.lock(source, office / "out"),
        office.verify(office / "whole", "alice"),
        office.unlock(office / "whole", office / "back", "alice"),
    ):
        assert (outcome.code, len(outcome.errors)) == (3, 1)
        assert f"eye0.dcm: {words}" in outcome.errors[0]
    assert results(office / "out") == results(office / "back") == {"eye1.dcm"}


def test_a_source_that_grew_is_added_to(office: Desk) -> None:
    """New files in the source join the run; key file and record cover all."""
    assert office.lock(office.eyes("src", 1), office / "out").code == 0
    outcome = office.lock(office.eyes("src", 3), office / "out")
    assert outcome.out.startswith("3 locked, 0 failed")
    assert outcome.err.count(" already ") == 1
    assert len(granted(office / "out")) == 3


def test_a_finished_run_changes_nothing(office: Desk) -> None:
    """Started again, it writes no locked file and leaves equal records."""
    source = office.eyes("src", 2)
    assert office.lock(source, office / "out").code == 0
    before = {path: (office / "out" / path).read_bytes() for path in tree(office / "out")}
    assert office.lock(source, office / "out").code == 0
    after = {path: (office / "out" / path).read_bytes() for path in tree(office / "out")}
    assert after == before
