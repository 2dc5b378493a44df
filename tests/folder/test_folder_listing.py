"""Which files a run is about, and where its results may go."""

import os
from pathlib import Path

import pytest

from desk import unprivileged
from medlocker_dicom.errors import DestinationError, SourceError, UsageError
from medlocker_dicom.folder.listing import (
    check_apart,
    check_names,
    folder_of,
    list_files,
    plain_file,
)


def _touch(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"x")


def test_files_come_in_a_fixed_order_without_our_own(tmp_path: Path) -> None:
    """Hidden files, DICOMDIR, key files and a lock run's records are no work."""
    _touch(tmp_path, "b.dcm", "a/2", "a/1", "DICOMDIR", ".hid", ".git/x", "keys/alice.mlkey")
    _touch(tmp_path, "lock.json", "report.html", "a/report.html")
    found = [str(path) for path in list_files(tmp_path)]
    assert found == ["a/1", "a/2", "a/report.html", "b.dcm"]


def test_what_is_no_plain_file_is_listed_and_refused(tmp_path: Path) -> None:
    """Linked files and folders, broken links and pipes come out by name; nothing is followed."""
    _touch(tmp_path, "src/a.dcm", "elsewhere/b.dcm")
    source = tmp_path / "src"
    (source / "link.dcm").symlink_to(tmp_path / "elsewhere" / "b.dcm")
    (source / "folder").symlink_to(tmp_path / "elsewhere")
    (source / "broken").symlink_to(tmp_path / "nowhere")
    (source / ".hidden").symlink_to(tmp_path / "elsewhere")
    os.mkfifo(source / "pipe.dcm")
    listed = list_files(source)
    assert [str(path) for path in listed] == ["a.dcm", "broken", "folder", "link.dcm", "pipe.dcm"]
    assert plain_file(source, listed[0]) == source / "a.dcm"
    for path in listed[1:4]:
        with pytest.raises(SourceError, match=f"{path}: is a symbolic link"):
            plain_file(source, path)
    with pytest.raises(SourceError, match=r"pipe\.dcm: is no plain file"):
        plain_file(source, listed[4])


def test_a_link_that_is_named_is_followed(tmp_path: Path) -> None:
    """Who names one file means it, whatever it is."""
    _touch(tmp_path, "b.dcm")
    link = tmp_path / "link.dcm"
    link.symlink_to(tmp_path / "b.dcm")
    assert [plain_file(link, path) for path in list_files(link)] == [link]


def test_a_closed_folder_is_listed_and_refused() -> None:
    """A folder that may not be read is named; a source that may not be is an error."""
    with unprivileged() as source:
        _touch(source, "a.dcm", "closed/b.dcm", "shut/c.dcm")
        (source / "closed").chmod(0)
        (source / "shut").chmod(0o400)  # names can be read, nothing else
        listed = list_files(source)
        assert [str(path) for path in listed] == ["a.dcm", "closed", "shut/c.dcm"]
        for path in listed[1:]:
            with pytest.raises(SourceError, match=f"{path}: .*cannot be read"):
                plain_file(source, path)
        with pytest.raises(UsageError, match="closed: cannot be read"):
            list_files(source / "closed")


@pytest.mark.parametrize("name", ["lock.json", "report.html", "keys", "packets"])
def test_names_of_results_are_refused(tmp_path: Path, name: str) -> None:
    """What a lock run writes at the top cannot be in its source, whether file or folder."""
    _touch(tmp_path, f"file/{name}", f"folder/{name}/a", f"below/a/{name}")
    with pytest.raises(UsageError, match=f"{name}: has the name of something"):
        check_names(tmp_path / "file", "keys", "packets")
    with pytest.raises(UsageError, match=f"{name}: has the name of something"):
        check_names(tmp_path / "file" / name, "keys", "packets")
    check_names(tmp_path / "below", "keys", "packets")
    if name in ("keys", "packets"):
        check_names(tmp_path / "folder", name)  # results go into it too
        check_names(tmp_path / "file")  # the run writes no such folder
    else:
        with pytest.raises(UsageError, match=f"{name}: has the name of something"):
            check_names(tmp_path / "folder")


def test_a_file_is_its_own_list(tmp_path: Path) -> None:
    """One file is listed by its name, relative to its folder."""
    _touch(tmp_path, "a.dcm", "b.dcm")
    assert list_files(tmp_path / "a.dcm") == [Path("a.dcm")]
    assert folder_of(tmp_path / "a.dcm") == tmp_path


@pytest.mark.parametrize("name", ["absent", "empty"])
def test_nothing_to_work_on_is_an_error(tmp_path: Path, name: str) -> None:
    """A folder that is not there or holds nothing is named."""
    (tmp_path / "empty").mkdir()
    with pytest.raises(UsageError, match=name):
        list_files(tmp_path / name)


@pytest.mark.parametrize("target", ["src", "src/out", "src/a/out", ".", "src/../src", "link/out"])
def test_source_and_destination_lie_apart(tmp_path: Path, target: str) -> None:
    """A destination in the source, around it, or it under another name is refused."""
    _touch(tmp_path, "src/a/1")
    (tmp_path / "link").symlink_to(tmp_path / "src")
    with pytest.raises(DestinationError, match="lie inside each other"):
        check_apart(tmp_path / "src", tmp_path / target)


def test_a_single_file_may_have_its_results_beside_it(tmp_path: Path) -> None:
    """The folder of a single file may hold the destination, but may not be it."""
    _touch(tmp_path, "a.dcm")
    check_apart(tmp_path / "a.dcm", tmp_path / "out")
    with pytest.raises(DestinationError, match="lie inside each other"):
        check_apart(tmp_path / "a.dcm", tmp_path)


def test_names_that_begin_alike_are_apart(tmp_path: Path) -> None:
    """`src-locked` is not inside `src`."""
    _touch(tmp_path, "src/1")
    check_apart(tmp_path / "src", tmp_path / "src-locked")
    assert not (tmp_path / "src-locked").exists()
