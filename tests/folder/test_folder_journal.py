"""A run's memory survives what a run does not."""

import errno
import os
from pathlib import Path

import pytest

from desk import tree
from medlocker_dicom.errors import DestinationError, DiskFullError
from medlocker_dicom.files import sha256_of
from medlocker_dicom.folder.journal import NAME, open_journal

RUN = {"format": "test", "source": "/here"}


def _begin(folder: Path, *paths: str) -> bytes:
    with open_journal(folder, RUN) as journal:
        for path in paths:
            journal.add({"path": path, "n": 1})
    return (folder / NAME).read_bytes()


def _paths(folder: Path) -> list[str]:
    with open_journal(folder, RUN) as journal:
        return list(journal.entries)


def test_entries_come_back(tmp_path: Path) -> None:
    """What was added is there when the same run opens the folder again."""
    _begin(tmp_path / "new" / "out", "a", "b")
    assert _paths(tmp_path / "new" / "out") == ["a", "b"]


def test_the_last_entry_of_a_path_counts(tmp_path: Path) -> None:
    """An item that had to be done again replaces what was written of it."""
    _begin(tmp_path, "a", "b")
    with open_journal(tmp_path, RUN) as journal:
        journal.add({"path": "a", "n": 2})
        assert journal.entries["a"]["n"] == 2
    with open_journal(tmp_path, RUN) as journal:
        assert [entry["n"] for entry in journal.entries.values()] == [2, 1]


def test_every_cut_of_a_journal_is_read(tmp_path: Path) -> None:
    """A crash may cut the last line anywhere: whole lines count, the rest is written again."""
    whole = _begin(tmp_path, "a", "b")
    starts = [0, *(n + 1 for n, byte in enumerate(whole) if byte == 10)]
    for cut in range(len(whole) + 1):
        (tmp_path / NAME).write_bytes(whole[:cut])
        lines = sum(start <= cut for start in starts[1:])
        assert _paths(tmp_path) == ["a", "b"][: max(0, lines - 1)]
        assert (tmp_path / NAME).read_bytes().endswith(b"\n")


def test_another_run_is_refused(tmp_path: Path) -> None:
    """Other values in the first line: nothing is added, nothing is changed."""
    before = _begin(tmp_path, "a")
    with (
        pytest.raises(DestinationError, match="another source, other options"),
        open_journal(tmp_path, RUN | {"source": "/there"}),
    ):
        pytest.fail("was opened")
    assert (tmp_path / NAME).read_bytes() == before


@pytest.mark.parametrize("line", [b"{", b"[]", b"{}", b'{"path": 1}', b"\xff"])
def test_a_damaged_line_is_refused(tmp_path: Path, line: bytes) -> None:
    """A whole line that is no entry is no crash's doing: the journal is not believed."""
    whole = _begin(tmp_path, "a")
    (tmp_path / NAME).write_bytes(whole + line + b"\n")
    with pytest.raises(DestinationError, match="damaged"), open_journal(tmp_path, RUN):
        pytest.fail("was opened")


def test_a_folder_with_files_is_refused(tmp_path: Path) -> None:
    """A folder that no run began stays as it is."""
    (tmp_path / "thesis.doc").write_bytes(b"x")
    with pytest.raises(DestinationError, match="not empty"), open_journal(tmp_path, RUN):
        pytest.fail("was opened")
    assert tree(tmp_path) == {"thesis.doc"}


def test_one_process_at_a_time(tmp_path: Path) -> None:
    """A second opening of the same folder is refused while the first one lasts, not after."""
    with open_journal(tmp_path, RUN) as journal:
        with (
            pytest.raises(DestinationError, match="another process is writing"),
            open_journal(tmp_path, RUN),
        ):
            pytest.fail("was opened")
        journal.add({"path": "a"})
    assert _paths(tmp_path) == ["a"]


def test_a_journal_that_leads_elsewhere_is_refused(tmp_path: Path) -> None:
    """A link in the journal's place is not followed: what it leads to stays as it is."""
    victim = tmp_path / "victim"
    victim.write_bytes(b"no journal")
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / NAME).symlink_to(victim)
    (tmp_path / "pipe").mkdir()
    os.mkfifo(tmp_path / "pipe" / NAME)
    for folder in ("out", "pipe"):
        with (
            pytest.raises(DestinationError, match="journal: is no plain file"),
            open_journal(tmp_path / folder, RUN),
        ):
            pytest.fail("was opened")
    assert victim.read_bytes() == b"no journal"


def test_what_is_done_is_known_by_its_digests(tmp_path: Path) -> None:
    """Done is an item whose source and result are those that were written down, no other."""
    result = tmp_path / "a"
    with open_journal(tmp_path, RUN) as journal:
        result.write_bytes(b"result")
        entry = {"path": "a", "source_sha256": "5" * 64, "result_sha256": sha256_of(result)}
        journal.add(entry)
        journal.add({"path": "b"})
        assert journal.done(Path("a"), "5" * 64) == entry
        assert journal.done(Path("a"), "6" * 64) is None
        assert journal.done(Path("a"), None) is None
        assert journal.done(Path("b"), None) is None
        result.write_bytes(b"")
        assert journal.done(Path("a"), "5" * 64) is None
        result.unlink()
        assert journal.done(Path("a"), "5" * 64) is None


def test_a_process_that_has_only_just_begun_holds_the_folder(tmp_path: Path) -> None:
    """A journal that is claimed but still empty is another process's, not a new one."""
    import fcntl  # noqa: PLC0415  this test alone

    with (tmp_path / NAME).open("wb") as stream:
        fcntl.flock(stream, fcntl.LOCK_EX)
        with (
            pytest.raises(DestinationError, match="another process is writing"),
            open_journal(tmp_path, RUN),
        ):
            pytest.fail("was opened")
    assert (tmp_path / NAME).read_bytes() == b""


def test_what_a_killed_process_left_is_swept(tmp_path: Path) -> None:
    """Half-written files go when the run goes on; files of others' stay."""
    _begin(tmp_path, "a")
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / ".k3j.part").write_bytes(b"half")
    (tmp_path / "music.part").write_bytes(b"whole")
    _begin(tmp_path)
    assert tree(tmp_path) == {NAME, "music.part"}


def test_an_entry_on_a_full_disk_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An entry that did not reach the disk is not counted as done."""

    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, "full")

    with open_journal(tmp_path, RUN) as journal:
        monkeypatch.setattr(os, "fsync", full)
        with pytest.raises(DiskFullError):
            journal.add({"path": "a"})
        assert journal.entries == {}
