"""Findings are kept as they come, and survive a kill."""

from pathlib import Path

import pytest

from medlocker_dicom.errors import DestinationError
from medlocker_dicom.evaluation.results import Results, key_of


def test_findings_are_found_again(tmp_path: Path) -> None:
    """What one process kept, the next one has."""
    first = Results(tmp_path / "deep" / "rows.jsonl")
    assert first.get("a") is None
    assert first.put("a", {"n": 1, "pair": (1, 2)}) == {"n": 1, "pair": [1, 2]}
    first.put("b", {"n": 2})
    second = Results(tmp_path / "deep" / "rows.jsonl")
    assert second.get("a") == {"n": 1, "pair": [1, 2]}
    assert second.get("b") == {"n": 2}


def test_a_line_that_was_cut_is_dropped(tmp_path: Path) -> None:
    """A kill within a line costs that line alone, and what follows is whole."""
    path = tmp_path / "rows.jsonl"
    Results(path).put("a", {"n": 1})
    whole = path.read_bytes()
    path.write_bytes(whole + b'{"key": "b", "n"')
    again = Results(path)
    assert again.get("b") is None
    assert path.read_bytes() == whole
    again.put("b", {"n": 3})
    assert Results(path).get("b") == {"n": 3}


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
