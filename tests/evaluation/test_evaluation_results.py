"""Findings are kept as they come, and survive a kill."""

from pathlib import Path

import pytest

from medlocker_dicom.errors import (
    DestinationBusyError,
    DestinationError,
    DiskFullError,
    OutputError,
)
from medlocker_dicom.evaluation.results import Results, key_of


def test_findings_are_found_again(tmp_path: Path) -> None:
    """What one process kept, the next one has."""
    first = Results(tmp_path / "deep" / "rows.jsonl")
    assert first.get("a") is None
    assert first.put("a", {"n": 1, "pair": (1, 2)}) == {"key": "a", "n": 1, "pair": [1, 2]}
    first.put("b", {"n": 2})
    with pytest.raises(DestinationBusyError, match=r"rows.jsonl: another process is writing"):
        Results(tmp_path / "deep" / "rows.jsonl")
    with first:
        pass
    second = Results(tmp_path / "deep" / "rows.jsonl")
    assert second.get("a") == {"key": "a", "n": 1, "pair": [1, 2]}
    assert second.get("b") == {"key": "b", "n": 2}


def test_a_line_that_was_cut_is_dropped(tmp_path: Path) -> None:
    """A kill within a line costs that line alone, and what follows is whole."""
    path = tmp_path / "rows.jsonl"
    with Results(path) as first:
        first.put("a", {"n": 1})
    whole = path.read_bytes()
    path.write_bytes(whole + b'{"key": "b", "n"')
    with Results(path) as again:
        assert again.get("b") is None
        assert path.read_bytes() == whole
        again.put("b", {"n": 3})
    with Results(path) as last:
        assert last.get("b") == {"key": "b", "n": 3}


def test_a_folder_that_cannot_be(tmp_path: Path) -> None:
    """A file where the folder has to be is one clear error."""
    (tmp_path / "out").write_bytes(b"")
    with pytest.raises(OutputError, match="out"):
        Results(tmp_path / "out" / "rows.jsonl")


def test_a_full_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A finding that cannot be kept ends the study in words."""
    with (
        Results(tmp_path / "rows.jsonl") as results,
        Path("/dev/full").open("ab", buffering=0) as full,
    ):
        monkeypatch.setattr(results, "_stream", full)
        with pytest.raises(DiskFullError, match=r"rows.jsonl"):
            results.put("a", {"n": 1})
    assert results.get("a") is None


@pytest.mark.parametrize("content", [b"notes of mine\n", b"[1]\n", b'{"no": "key"}\n', b"\xff\n"])
def test_another_file_is_left_alone(tmp_path: Path, content: bytes) -> None:
    """What is no file of findings is refused, and stays as it is."""
    path = tmp_path / "rows.jsonl"
    path.write_bytes(content)
    with pytest.raises(DestinationError, match=r"rows.jsonl: not what an evaluation writes"):
        Results(path)
    assert path.read_bytes() == content


def test_keys_tell_words_apart() -> None:
    """Words in another order, or divided otherwise, are another key."""
    assert len({key_of("a", "b"), key_of("b", "a"), key_of("ab"), key_of("a b")}) == 4
