"""What remains of a run in which a write fails, or a result is lost."""

import errno
import os
from collections.abc import Callable

import pytest

from desk import Desk, granted, record_of, results, same_pixels, tree


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
    assert "1/2 locked eye0.dcm" in outcome.err
    assert "2/2 already eye1.dcm" in outcome.err
    assert granted(office / "out") == before
    assert len(record_of(office / "out")["instances"]) == 2
    unlocked = office.unlock(office / "out", office / "back", "alice")
    assert unlocked.code == 0, unlocked.err
    assert same_pixels(source / "eye0.dcm", office / "back" / "eye0.dcm")


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
