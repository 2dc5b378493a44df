"""Which files a run is about, and where its results may go."""

from pathlib import Path

import pytest

from medlocker_dicom.errors import DestinationError, UsageError
from medlocker_dicom.folder.listing import check_apart, folder_of, list_files


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


def test_links_do_not_lead_out(tmp_path: Path) -> None:
    """Neither a linked file nor a linked folder is listed: it may lie anywhere."""
    _touch(tmp_path, "src/a.dcm", "elsewhere/b.dcm")
    (tmp_path / "src" / "link.dcm").symlink_to(tmp_path / "elsewhere" / "b.dcm")
    (tmp_path / "src" / "folder").symlink_to(tmp_path / "elsewhere")
    assert list_files(tmp_path / "src") == [Path("a.dcm")]


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
