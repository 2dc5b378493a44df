"""Where objects lie between their arrival and their last delivery.

``incoming`` holds what is arriving, ``objects`` what was answered Success,
``results`` what locking made of it, ``workers`` who is at work. A name in ``objects`` or
``results`` is whole and durable, or not there; nothing from the network
becomes a name.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import tempfile
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from medlocker_dicom.errors import DestinationError, DiskFullError, UsageError
from medlocker_dicom.files import PART, PRIVATE, claimed, output_error, sync_folder, write_private

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_ID = re.compile(r"[0-9a-f]{64}")
SUFFIX = ".dcm"


@dataclass(frozen=True)
class Spool:
    """A folder that belongs to the node alone.

    Attributes
    ----------
    root
        On a disk that keeps what is synced to it.
    floor
        Free bytes below which nothing more is taken in.
    """

    root: Path
    floor: int

    @property
    def incoming(self) -> Path:
        """Folder of what is arriving, on the same disk."""
        return self.root / "incoming"

    @property
    def free(self) -> int:
        """Bytes free on its disk; OSError where it cannot be asked."""
        return shutil.disk_usage(self.root).free

    def prepare(self) -> None:
        """Make the folders, for the node's user alone; several processes may at a time.

        Raises
        ------
        DestinationError
            They cannot be made or written.
        """
        try:
            shards = [f"objects/{number:02x}" for number in range(256)]
            for kind in ("", "incoming", "objects", "results", *shards):
                (self.root / kind).mkdir(mode=0o700, parents=True, exist_ok=True)
            sync_folder(self.root / "objects")  # once, and not for each object
            sync_folder(self.root)
            tempfile.TemporaryFile(dir=self.incoming).close()  # no name that others would share
        except OSError as error:
            raise output_error(self.root, error) from error

    def check_room(self, size: int = 0) -> None:
        """Check that the disk stays above its floor.

        Parameters
        ----------
        size
            Bytes that are about to be written.

        Raises
        ------
        DiskFullError
            It would not.
        DestinationError
            It cannot be asked.
        """
        try:
            free = self.free
        except OSError as error:
            raise output_error(self.root, error) from error
        if free - size < self.floor:
            raise DiskFullError(
                f"{self.root}: {free >> 20} MiB are free, {self.floor >> 20} MiB must be",
                "free some: delivered objects leave by themselves",
            )

    def check_reserve(self) -> None:
        """Check that half of the floor is left: the queue and what is delivered need it.

        Raises
        ------
        DiskFullError, DestinationError
            It is not, or cannot be asked.
        """
        replace(self, floor=self.floor // 2).check_room()

    def adopt(self, part: Path, object_id: str) -> Path:
        """Make an arrived file durable under its name: fsync, rename, fsync of the folder.

        Parameters
        ----------
        part
            Whole, in `incoming` of a spool that is prepared.
        object_id
            64 hexadecimal digits.

        Raises
        ------
        OutputError
            The disk fails; the file is still in `incoming`.
        """
        path = self.object(object_id)
        try:
            descriptor = os.open(part, os.O_RDONLY)
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
            part.replace(path)
            sync_folder(path.parent)
        except OSError as error:
            raise output_error(path, error) from error
        return path

    def object(self, object_id: str) -> Path:
        """Return where an object lies; `object_id` is 64 hexadecimal digits."""
        return self._path("objects", object_id, "")

    def result(self, object_id: str, attempt: str) -> Path:
        """Return where an attempt's locked file lies; `attempt` is hexadecimal."""
        return self._path("results", object_id, f"-{attempt}")

    def write_result(self, object_id: str, attempt: str, data: bytes) -> Path:
        """Write a locked file in one step.

        Raises
        ------
        OutputError
            The disk fails; nothing remains.
        """
        path = self.result(object_id, attempt)
        write_private(path, data)
        return path

    @contextmanager
    def alone(self, worker: str) -> Iterator[None]:
        """Be the one worker of a name while the context lasts.

        On all machines that share the spool; a process that is killed has let go of its name.

        Raises
        ------
        UsageError
            Another process has the name.
        DestinationError, OutputError
            The spool cannot be written.
        """
        # A name is a user's: only its digest becomes one of a file.
        path = self.root / "workers" / hashlib.sha256(os.fsencode(worker)).hexdigest()[:32]
        try:
            path.parent.mkdir(mode=0o700, exist_ok=True)
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, PRIVATE)
        except OSError as error:
            raise output_error(path, error) from error
        try:
            if not claimed(descriptor):
                raise UsageError(
                    f"a worker called {worker!r} is at work already",
                    "give each worker a --name of its own",
                )
            yield
        finally:
            os.close(descriptor)

    def forget(self, object_id: str) -> None:
        """Delete an object and everything made of it; what is gone already is no fault."""
        for path in (self.object(object_id), *self.results(object_id)):
            path.unlink(missing_ok=True)

    def results(self, object_id: str) -> list[Path]:
        """List the locked files of all attempts at an object."""
        folder = self._path("results", object_id, "").parent
        return sorted(folder.glob(f"{object_id}-*{SUFFIX}"))

    def objects(self) -> Iterator[str]:
        """List the ids of all objects that lie here."""
        for path in sorted(self.root.glob(f"objects/*/*{SUFFIX}")):
            if _ID.fullmatch(path.stem):
                yield path.stem

    def sweep(self) -> int:
        """Remove what a killed process left half-arrived or half-written; before any is started.

        Returns
        -------
        int
            How many files.
        """
        parts = [*self.incoming.iterdir(), *self.root.glob(f"results/*/.*{PART}")]
        for part in parts:
            part.unlink(missing_ok=True)
        return len(parts)

    def _path(self, kind: str, object_id: str, more: str) -> Path:
        if not _ID.fullmatch(object_id):
            raise DestinationError(f"{object_id[:64]!r} is no object's id")
        return self.root / kind / object_id[:2] / f"{object_id}{more}{SUFFIX}"
