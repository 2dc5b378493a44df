"""A run's memory: one line for each item that is done, durable before the next one starts."""

from __future__ import annotations

import fcntl
import json
import os
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from medlocker_dicom.errors import DestinationBusyError, DestinationError, UsageError
from medlocker_dicom.files import (
    PART,
    PRIVATE,
    append_line,
    claimed,
    output_error,
    sha256_of,
    sync_folder,
)

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

NAME = ".medlocker-journal"
#: Folder of results that are whole and not yet in the journal.
STAGED = ".medlocker-staged"
#: Longest line that is read back: a thumbnail and a few grants take a hundredth of it.
MAX_LINE = 16 << 20
_DROPPED = "dropped"
_MODE = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW


class Journal:
    """Lines of JSON in the destination folder; the first says what run it is.

    Parameters
    ----------
    folder
        The destination.
    lines
        What earlier runs have done: each has a ``path``, and the last one of a path counts;
        ``source_sha256`` and ``result_sha256`` say of what, hexadecimal.

    Attributes
    ----------
    entries
        By path.
    """

    def __init__(self, folder: Path, lines: list[dict[str, Any]]) -> None:
        self._folder = folder
        self.entries = {str(line["path"]): line for line in lines}
        self.entries = {path: line for path, line in self.entries.items() if _DROPPED not in line}

    def done(self, path: Path, source_sha256: str | None) -> dict[str, Any] | None:
        """Give the entry of an item whose source and result are what they were when it was added.

        Returns
        -------
        dict or None
            None where the item is to be done, or done again.
        """
        entry = self.entries.get(str(path), {})
        same_source = entry.get("source_sha256", "") == source_sha256
        same = same_source and entry.get("result_sha256", "") == sha256_of(self._folder / path)
        return entry if same else None

    def add(self, entry: dict[str, Any]) -> None:
        """Append an entry, which replaces an earlier one of its path, and see it onto the disk.

        Raises
        ------
        OutputError
            The destination is full or gone.
        """
        append_line(self._folder / NAME, json.dumps(entry).encode())
        self.entries[str(entry["path"])] = entry

    def drop(self, path: str) -> None:
        """Take back an item's entry: it is not done; raises as `add`."""
        append_line(self._folder / NAME, json.dumps({"path": path, _DROPPED: True}).encode())
        self.entries.pop(path, None)


@contextmanager
def open_journal(folder: Path, run: dict[str, Any]) -> Iterator[Journal]:
    """Open the journal of a destination for one process at a time.

    Parameters
    ----------
    folder
        Made if it is not there. With files in it, it must hold a journal.
    run
        What identifies the run: the same values go on where it was.

    Raises
    ------
    DestinationBusyError
        Another process is writing to it, of the same run.
    DestinationError
        The folder holds other files or another run, or cannot be written.
    """
    path = folder / NAME
    header = json.dumps(run, sort_keys=True).encode()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if any(one.name != NAME for one in folder.iterdir()) and not path.exists():
            raise DestinationError(
                f"{folder}: not empty", "choose a new folder, or one that an earlier run began"
            )
        if path.is_symlink() or (path.exists() and not path.is_file()):
            raise DestinationError(f"{path}: is no plain file", "choose a new folder")
        # Opened before it is written: of two processes that begin at once, one gets the lock.
        with os.fdopen(os.open(path, _MODE, PRIVATE), "r+b") as stream:
            if not claimed(stream.fileno()):
                if (first := stream.readline()).endswith(b"\n"):
                    _check_same(folder, _whole_lines(first, folder)[0][0], run)
                raise DestinationBusyError(
                    f"{folder}: another process is writing to it", "wait for it to end"
                )
            lines, whole = _whole_lines(stream.read(), folder)
            stream.truncate(whole)
            if not lines:
                lines = [json.loads(header)]
                append_line(path, header)
                sync_folder(folder)
            _check_same(folder, lines[0], run)
            _sweep(folder)
            yield Journal(folder, lines[1:])
    except OSError as error:
        raise output_error(folder, error) from error


def read_journal(folder: Path) -> tuple[dict[str, Any], Journal]:
    """Read the journal of a run that is over or was interrupted; nothing is changed.

    Returns
    -------
    tuple
        What identifies the run, and the journal.

    Raises
    ------
    UsageError
        There is none.
    DestinationBusyError
        A process is writing to it.
    DestinationError
        It is damaged.
    """
    path = folder / NAME
    if path.is_symlink() or not path.is_file():
        raise UsageError(f"{folder}: holds no journal of a run")
    try:
        with path.open("rb") as stream:
            if not claimed(stream.fileno(), fcntl.LOCK_SH):
                raise DestinationBusyError(
                    f"{folder}: another process is writing to it", "wait for it to end"
                )
            lines, _ = _whole_lines(stream.read(), folder)
    except OSError as error:
        raise output_error(folder, error) from error
    if not lines:
        raise UsageError(f"{folder}: its journal is empty")
    return lines[0], Journal(folder, lines[1:])


def is_claimed(folder: Path) -> bool:
    """Tell whether a process is writing to a folder that holds a journal."""
    try:
        with (folder / NAME).open("rb") as stream:
            return not claimed(stream.fileno(), fcntl.LOCK_SH)
    except OSError as error:
        raise output_error(folder, error) from error


def _check_same(folder: Path, first: dict[str, Any], run: dict[str, Any]) -> None:
    if first != json.loads(json.dumps(run)):
        since = "; where its vault has changed since: medlocker vault adopt"
        raise DestinationError(
            f"{folder}: holds a run with another source, other options, models or recipients",
            "choose a new folder, or repeat the command that began it"
            + (since if first.get("vault") else ""),
        )


def _sweep(folder: Path) -> None:
    """Remove what a killed process left half-written; not what others are writing now."""
    for part in folder.rglob(f".*{PART}"):
        if part.parent != folder / STAGED:
            part.unlink()


def _whole_lines(data: bytes, folder: Path) -> tuple[list[dict[str, Any]], int]:
    """Parse the lines that were written to their end; the rest was cut off by a crash."""
    whole = data.rfind(b"\n") + 1
    lines: list[dict[str, Any]] = []
    for line in data[:whole].splitlines():
        try:
            value = json.loads(line) if len(line) <= MAX_LINE else None
        except ValueError:
            value = None
        if not isinstance(value, dict) or (lines and not isinstance(value.get("path"), str)):
            raise DestinationError(
                f"{folder / NAME}: damaged", "choose a new folder and start over"
            )
        lines.append(value)
    return lines, whole
