"""What a study has found so far: one JSON line a finding, by a key; killed, it goes on."""

from __future__ import annotations

import hashlib
import json
import os
from typing import TYPE_CHECKING, Any, Self

from medlocker_dicom.errors import DestinationBusyError, DestinationError
from medlocker_dicom.files import claimed, output_error

if TYPE_CHECKING:
    from pathlib import Path

Row = dict[str, Any]


class Results:
    """Findings in a file, of one process at a time; leave by ``with``.

    Parameters
    ----------
    path
        The file; made where it is not there. A last line that was not finished is dropped.

    Raises
    ------
    DestinationError
        It holds something else.
    DestinationBusyError
        Another process writes to it.
    OutputError
        It cannot be written.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._stream = path.open("ab")
        except OSError as error:
            raise output_error(path, error) from error
        try:
            self._rows = self._read()
        except BaseException:
            self._stream.close()
            raise

    def __enter__(self) -> Self:
        """Give itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Let others write."""
        self._stream.close()

    def get(self, key: str) -> Row | None:
        """Give what was found under a key, None where nothing was."""
        return self._rows.get(key)

    def put(self, key: str, row: Row) -> Row:
        """Keep a finding; gives it back as it will be read."""
        line = json.dumps({"key": key} | row)
        try:
            self._stream.write(line.encode() + b"\n")
            self._stream.flush()
            os.fsync(self._stream.fileno())
        except OSError as error:
            raise output_error(self._path, error) from error
        self._rows[key] = json.loads(line)
        return self._rows[key]

    def _read(self) -> dict[str, Row]:
        if not claimed(self._stream.fileno()):
            raise DestinationBusyError(
                f"{self._path}: another process is writing to it", "wait for it to end"
            )
        text = self._path.read_bytes()
        whole = text[: text.rfind(b"\n") + 1]
        try:
            lines = [json.loads(line) for line in whole.splitlines()]
            rows = {line["key"]: line for line in lines}
        except (ValueError, KeyError, TypeError) as error:
            raise DestinationError(
                f"{self._path}: not what an evaluation writes", "name another folder"
            ) from error
        self._stream.truncate(len(whole))
        return rows


def key_of(*parts: str) -> str:
    """Give the key of whatever these words determine."""
    return hashlib.sha256("\n".join(parts).encode("utf-8", "surrogateescape")).hexdigest()[:24]
