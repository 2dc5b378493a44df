"""Files are whole or not there."""

import errno
import os
from pathlib import Path

import pytest

from desk import tree
from medlocker_dicom import files
from medlocker_dicom.errors import DestinationError, DiskFullError
from medlocker_dicom.files import append_line, sha256_of, write_file, write_private


def test_a_file_is_written_with_its_folders(tmp_path: Path) -> None:
    """The content is there, in folders that were not, and nothing else."""
    write_file(tmp_path / "a" / "b" / "c.bin", b"content")
    assert (tmp_path / "a" / "b" / "c.bin").read_bytes() == b"content"
    assert tree(tmp_path) == {"a/b/c.bin"}


def test_a_file_is_replaced_in_one_step(tmp_path: Path) -> None:
    """A second write takes the first one's place."""
    write_file(tmp_path / "c.bin", b"one")
    write_file(tmp_path / "c.bin", b"two")
    assert (tmp_path / "c.bin").read_bytes() == b"two"
    assert tree(tmp_path) == {"c.bin"}


@pytest.mark.parametrize("mask", [0o022, 0o077])
def test_the_umask_decides_who_reads(tmp_path: Path, mask: int) -> None:
    """A written file has the mode that an opened one would have, not a temporary file's."""
    before = os.umask(mask)
    try:
        write_file(tmp_path / "c.bin", b"")
    finally:
        os.umask(before)
    assert (tmp_path / "c.bin").stat().st_mode & 0o777 == 0o666 & ~mask


def test_a_private_file_is_its_owners(tmp_path: Path) -> None:
    """Whatever the umask and the file before: readable and writable by the owner alone."""
    write_file(tmp_path / "c.bin", b"old")
    write_private(tmp_path / "c.bin", b"new")
    assert (tmp_path / "c.bin").read_bytes() == b"new"
    assert (tmp_path / "c.bin").stat().st_mode & 0o777 == 0o600


def test_a_digest_is_of_a_file_that_is_there(tmp_path: Path) -> None:
    """SHA-256 of FIPS 180-4's first example; none of what is absent, a folder or a pipe."""
    (tmp_path / "abc").write_bytes(b"abc")
    os.mkfifo(tmp_path / "pipe")
    digest = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    assert sha256_of(tmp_path / "abc") == digest
    for name in (".", "pipe", "absent", "abc/d"):
        assert sha256_of(tmp_path / name) is None


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT, errno.EFBIG])
def test_a_full_disk_leaves_what_was_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    """Whatever says that there is no space: the old file stays, no part remains."""
    write_file(tmp_path / "c.bin", b"old")

    def full(_: int) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(DiskFullError, match=r"c\.bin: no space left"):
        write_file(tmp_path / "c.bin", b"new")
    assert (tmp_path / "c.bin").read_bytes() == b"old"
    assert tree(tmp_path) == {"c.bin"}


def test_an_interrupt_leaves_no_part(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ctrl-C in the middle of a write leaves nothing behind."""

    def interrupted(_: int) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "fsync", interrupted)
    with pytest.raises(KeyboardInterrupt):
        write_file(tmp_path / "c.bin", b"new")
    assert tree(tmp_path) == set()


def test_a_file_in_place_of_a_folder_is_named(tmp_path: Path) -> None:
    """Where a folder cannot be made, the error names the path that was to be written."""
    (tmp_path / "a").write_bytes(b"")
    with pytest.raises(DestinationError, match=r"a/c\.bin: cannot be written: "):
        write_file(tmp_path / "a" / "c.bin", b"")


def test_lines_are_appended(tmp_path: Path) -> None:
    """Each call adds one line."""
    for line in (b"one", b"two"):
        append_line(tmp_path / "log", line)
    assert (tmp_path / "log").read_bytes() == b"one\ntwo\n"


def test_a_line_on_a_full_disk_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A line that may not have come onto the disk is an error."""

    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, "full")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(DiskFullError, match="log: no space left"):
        append_line(tmp_path / "log", b"one")


def test_folders_that_cannot_be_synced_are_let_pass(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Some file systems sync no folders; another failure is one."""
    codes = iter([errno.EINVAL, errno.EIO])

    def failing(_: int) -> None:
        raise OSError(next(codes), "no")

    monkeypatch.setattr(os, "fsync", failing)
    files.sync_folder(tmp_path)
    with pytest.raises(OSError, match="no"):
        files.sync_folder(tmp_path)
