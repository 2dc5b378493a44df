"""What a study has found so far: one JSON line a finding, by a key; killed, it goes on."""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING, Any

from medlocker_dicom.errors import DestinationError
from medlocker_dicom.files import append_line, write_file

if TYPE_CHECKING:
    from pathlib import Path

Row = dict[str, Any]


class Results:
    """Findings in a file.

    Parameters
    ----------
    path
        The file; made where it is not there. A last line that was not finished is dropped.

    Raises
    ------
    DestinationError
        It holds something else.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._rows: dict[str, Row] = {}
        path.parent.mkdir(parents=True, exist_ok=True)
        text = path.read_bytes() if path.exists() else b""
        whole = text[: text.rfind(b"\n") + 1]
        try:
            for line in whole.splitlines():
                row = json.loads(line)
                self._rows[row.pop("key")] = row
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise DestinationError(
                f"{path}: not what an evaluation writes", "name another folder"
            ) from error
        if whole != text:
            write_file(path, whole)

    def get(self, key: str) -> Row | None:
        """Give what was found under a key, None where nothing was."""
        return self._rows.get(key)

    def put(self, key: str, row: Row) -> Row:
        """Keep a finding; gives it back as it will be read."""
        line = json.dumps({"key": key} | row)
        append_line(self._path, line.encode())
        self._rows[key] = json.loads(json.dumps(row))
        return self._rows[key]


def key_of(*parts: str) -> str:
    """Give the key of whatever these words determine."""
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:24]
