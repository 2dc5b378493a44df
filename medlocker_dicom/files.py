"""Files that are whole or not there at all."""

from __future__ import annotations

import errno
import fcntl
import hashlib
import os
import re
import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from medlocker_dicom.errors import DestinationError, DiskFullError, OutputError, UsageError

if TYPE_CHECKING:
    from collections.abc import Iterator

# Neither a path, nor hidden, nor what moves a terminal's cursor.
_NAME = re.compile(r"\w(?:[\w .@+-]{0,62}[\w@+-])?")
PART = ".part"
PRIVATE = 0o600
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def write_file(path: Path, data: bytes) -> None:
    """Write a file in one step: data, fsync, rename, fsync of the folder.

    Parameters
    ----------
    path
        Replaced if it exists; its folder is made if it does not.
    data
        The whole content.

    Raises
    ------
    DiskFullError
        No space is left; nothing remains of the attempt.
    DestinationError
        The folder cannot be written.
    """
    _replace(path, data, 0o666 & ~_umask())


def move_file(path: Path, target: Path) -> None:
    """Give a file that is on the disk its own name, on the same disk; raises as `write_file`."""
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        path.replace(target)
        sync_folder(target.parent)
    except OSError as error:
        raise output_error(target, error) from error


def check_called(name: str) -> None:
    """Check what somebody is called: key files are named so.

    Raises
    ------
    UsageError
        It is no plain name of at most 64 characters.
    """
    if not _NAME.fullmatch(name):
        raise UsageError(
            f"{name!r} cannot be a recipient's name",
            "letters, digits, spaces and . _ @ + - are allowed, 64 at most; key files are named so",
        )


def write_private(path: Path, data: bytes) -> None:
    """Write a file for its owner alone, mode 0600; else as `write_file`."""
    _replace(path, data, PRIVATE)


def create_private(path: Path, data: bytes) -> None:
    """Write a new file for its owner alone, mode 0600, into a folder that is there.

    Raises
    ------
    DestinationError
        It exists, and stays as it is; or it cannot be written.
    DiskFullError
        As for `write_file`.
    """
    with _written(path, data, PRIVATE) as part:
        try:
            os.link(part, path)  # unlike a rename, refuses to replace
        except FileExistsError as error:
            raise DestinationError(f"{path} exists", "choose another name") from error


def _replace(path: Path, data: bytes, mode: int) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise output_error(path, error) from error
    with _written(path, data, mode) as part:
        part.replace(path)


@contextmanager
def _written(path: Path, data: bytes, mode: int) -> Iterator[Path]:
    """Write a file beside a path, durable, for the caller to give it the path's name."""
    part: Path | None = None
    try:
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=".", suffix=PART)
        part = Path(name)
        with os.fdopen(handle, "wb") as stream:
            stream.write(data)
            stream.flush()
            os.fchmod(stream.fileno(), mode)
            os.fsync(stream.fileno())
        yield part
        sync_folder(path.parent)
    except OSError as error:
        raise output_error(path, error) from error
    finally:
        if part is not None:  # also where a user's Ctrl-C came in between
            part.unlink(missing_ok=True)


def append_line(path: Path, line: bytes) -> None:
    """Append one line to a file and see it onto the disk.

    Raises
    ------
    OutputError
        As for `write_file`; a half-written line is for the reader to drop.
    """
    try:
        with path.open("ab") as stream:
            stream.write(line + b"\n")
            stream.flush()
            os.fsync(stream.fileno())
    except OSError as error:
        raise output_error(path, error) from error


def sha256_of(path: Path) -> str | None:
    """Digest a file; None where there is none that can be read."""
    try:
        if not path.is_file():  # opening a pipe would wait for its other end
            return None
        with path.open("rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()
    except OSError:
        return None


def output_error(path: Path, error: OSError) -> OutputError:
    """Name a failed write for the user."""
    if error.errno in _FULL:
        return DiskFullError(
            f"{path}: no space left", "free some and start again: what is done stays done"
        )
    return DestinationError(f"{path}: cannot be written: {error.strerror or error}")


def claimed(descriptor: int, how: int = fcntl.LOCK_EX) -> bool:
    """Lock an open file, as long as it is open; False where another process has it."""
    try:
        fcntl.flock(descriptor, how | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def sync_folder(folder: Path) -> None:
    """Make the names in a folder durable, where the file system can."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):
            raise
    finally:
        os.close(descriptor)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
