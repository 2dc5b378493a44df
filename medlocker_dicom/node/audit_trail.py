"""Where audit messages go: a file, or by way of a spool to a server of syslog.

Whoever appends waits for one write and for nothing else. Written is written: a process
that is killed loses nothing, and a thread syncs each second against a loss of power. What
cannot be written (a full disk) waits in memory, up to a bound, and is loudly counted.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import random
import socket
import threading
import time
from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Protocol

from medlocker_dicom.files import PRIVATE, claimed
from medlocker_dicom.node.logs import Log

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

MAX_IN_MEMORY: Final = 10_000
"""Messages that wait in memory while the disk takes none."""
SEGMENT_BYTES: Final = 1 << 20
"""Size from which another file of the spool is begun; what a crash may send twice."""
LONGEST_WAIT_S: Final = 60.0
_SYNC_S: Final = 1.0
_OPEN: Final = ".open"
_READY: Final = ".audit"
_log: Final = Log("audit")


class Sends(Protocol):
    """Takes messages to where they are kept."""

    def send(self, messages: Sequence[bytes]) -> None:
        """Send messages, and see that they arrive; `OSError` where they may not have."""

    def close(self) -> None:
        """End the connection."""


@dataclass(frozen=True)
class Backlog:
    """What has not gone its way.

    Attributes
    ----------
    spooled
        Bytes on the disk that wait for the server.
    in_memory
        Messages that wait for the disk.
    lost
        Messages that did not fit into memory either.
    """

    spooled: int
    in_memory: int
    lost: int


class Trail:
    """A file that messages are appended to, one a line, by any number of processes.

    Parameters
    ----------
    path
        The file; renaming it (logrotate) is enough to begin another.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._waiting: deque[bytes] = deque()
        self._lost = 0
        self._failing = False
        self._dirty = False
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._new = threading.Event()
        self._thread = threading.Thread(target=self._run, name="audit", daemon=True)
        self._thread.start()

    def append(self, message: bytes) -> None:
        """Keep a message, which is one line; a disk that fails is told, never raised."""
        if b"\n" in message:
            raise ValueError("an audit message is one line")
        with self._lock:
            self._waiting.append(message)
            self._write_waiting()
        self._new.set()

    def close(self) -> None:
        """Write and sync what can be; messages that cannot be are lost, and told."""
        self._stop.set()
        self._new.set()
        self._thread.join()
        with self._lock:
            self._write_waiting()
            if self._waiting:
                self._lost += len(self._waiting)
                _log.error("audit messages are lost", number=len(self._waiting))
            self._waiting.clear()
        self._sync()

    def backlog(self) -> Backlog:
        """Tell what has not gone its way."""
        with self._lock:
            return Backlog(self._spooled(), len(self._waiting), self._lost)

    def _run(self) -> None:
        """Sync what was written, and try again what was not, each second that needs it."""
        while not self._stop.is_set():
            self._new.wait(_SYNC_S)
            self._new.clear()
            with self._lock:
                self._write_waiting()
            self._sync()
            self._go_on()

    def _go_on(self) -> None:
        self._stop.wait(_SYNC_S)

    def _spooled(self) -> int:
        return 0

    def _write(self, message: bytes) -> None:
        append(self._path, message)

    def _write_waiting(self) -> None:
        """Write what waits, in order; with the lock held."""
        try:
            while self._waiting:
                self._write(self._waiting[0])
                self._waiting.popleft()
                self._dirty = True
            self._failing = False
        except OSError as error:
            if not self._failing:  # told once, not once for each message
                _log.error("audit messages cannot be written, and wait in memory", error=error)
            self._failing = True
            while len(self._waiting) > MAX_IN_MEMORY:
                self._waiting.popleft()
                self._lost += 1
                _log.error("an audit message is lost", number=self._lost)

    def _sync(self) -> None:
        with self._lock:
            dirty, self._dirty = self._dirty, False
        if dirty:
            with contextlib.suppress(OSError):  # renamed in between: the system syncs it
                self._sync_file()

    def _sync_file(self) -> None:
        descriptor = os.open(self._path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


class ShippedTrail(Trail):
    """A spool of messages, which a thread ships to a server, and removes when they are there.

    A process appends to a file of its own, which it holds a lock on (``.open``), and which
    it renames when it is to be shipped (``.audit``). Of a process that died the lock is
    gone: whoever finds its file ships it. After a crash, or where a connection breaks,
    messages may arrive twice.

    Parameters
    ----------
    folder
        Of the spool; made if it is not there. May be shared by processes.
    line
        Sends.
    wait_s
        Seconds to wait after a failure for the first time; doubled for each further one.
    """

    def __init__(self, folder: Path, line: Sends, wait_s: float = 1.0) -> None:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._folder = folder
        self._line = line
        self._wait_s = wait_s
        self._failures = 0
        self._number = 0
        self._descriptor: int | None = None
        super().__init__(folder)

    def close(self) -> None:
        """Ship what can be shipped now; the rest stays in the spool for the next process."""
        super().close()
        self._ship()
        self._line.close()

    def _go_on(self) -> None:
        if not self._ship():
            wait = min(self._wait_s * 2 ** min(self._failures - 1, 10), LONGEST_WAIT_S)
            self._stop.wait(wait * random.uniform(0.5, 1))  # noqa: S311  jitter

    def _spooled(self) -> int:
        total = 0
        for path in (*self._folder.glob(f"*{_OPEN}"), *self._folder.glob(f"*{_READY}")):
            with contextlib.suppress(OSError):  # shipped in between
                total += path.stat().st_size
        return total

    def _write(self, message: bytes) -> None:
        if self._descriptor is not None and os.fstat(self._descriptor).st_size >= SEGMENT_BYTES:
            self._hand_over()
        if self._descriptor is None:
            self._begin()
        assert self._descriptor is not None
        write_line(self._descriptor, message)

    def _begin(self) -> None:
        """Begin a file: under its name only when the lock is had."""
        self._number += 1
        name = f"{time.time_ns():020d}-{socket.gethostname()}-{os.getpid()}-{self._number}"
        new = self._folder / f".{name}"
        flags = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
        descriptor = os.open(new, flags, PRIVATE)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            self._path = self._folder / f"{name}{_OPEN}"
            new.rename(self._path)
        except OSError:
            os.close(descriptor)
            raise
        self._descriptor = descriptor

    def _hand_over(self) -> None:
        """Make the file that is appended to ready for shipping; with the lock held."""
        if self._descriptor is not None:
            self._path.rename(self._path.with_suffix(_READY))
            os.close(self._descriptor)
            self._descriptor = None

    def _sync_file(self) -> None:
        with self._lock:
            if self._descriptor is not None:
                os.fsync(self._descriptor)

    def _ship(self) -> bool:
        """Ship all files of the spool; tell whether that went well."""
        try:
            with self._lock:
                self._hand_over()
            adopt(self._folder)
            for path in sorted(self._folder.glob(f"*{_READY}")):
                ship(path, self._line.send)
        except OSError as error:
            self._failures += 1
            if self._failures == 1:
                _log.warning("audit messages wait: their server does not take them", error=error)
            return False
        if self._failures:
            _log.info("audit messages are sent again", tries=self._failures)
        self._failures = 0
        return True


def append(path: Path, message: bytes) -> None:
    """Append a line to a file that others append to; all of it, or nothing.

    Raises
    ------
    OSError
        The disk fails.
    """
    flags = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC
    descriptor = os.open(path, flags, PRIVATE)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        write_line(descriptor, message)
    finally:
        os.close(descriptor)


def write_line(descriptor: int, message: bytes) -> None:
    """Append a line to an open file that is locked; all of it, or nothing.

    Raises
    ------
    OSError
        The disk fails.
    """
    size = os.fstat(descriptor).st_size
    # A line that somebody's crash left half is ended: it spoils none but itself.
    broken = size > 0 and os.pread(descriptor, 1, size - 1) != b"\n"
    data = (b"\n" if broken else b"") + message + b"\n"
    try:
        if os.write(descriptor, data) < len(data):
            raise OSError(errno.ENOSPC, "no space left")  # noqa: TRY301  as the next would say
    except OSError:
        with contextlib.suppress(OSError):
            os.ftruncate(descriptor, size)
        raise


def adopt(folder: Path) -> None:
    """Make ready what processes that died have left."""
    for path in folder.glob(f"*{_OPEN}"):
        with _alone(path) as descriptor:
            if descriptor is not None:
                path.rename(path.with_suffix(_READY))


def ship(path: Path, send: Callable[[Sequence[bytes]], None]) -> None:
    """Send a file's lines and remove it; one that another process ships is left to it.

    Raises
    ------
    OSError
        They may not have arrived: the file is still there.
    """
    with _alone(path) as descriptor:
        if descriptor is None:
            return
        with open(descriptor, "rb", closefd=False) as stream:
            lines = stream.read().split(b"\n")
        send([one for one in lines if one.endswith(b">")])  # XML that is whole
        path.unlink()


@contextlib.contextmanager
def _alone(path: Path) -> Iterator[int | None]:
    """Open a file and have it alone; None where another process has it, or it is gone."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        yield None
        return
    try:
        mine = claimed(descriptor) and path.exists()
        mine = mine and path.stat().st_ino == os.fstat(descriptor).st_ino
        yield descriptor if mine else None
    finally:
        os.close(descriptor)
