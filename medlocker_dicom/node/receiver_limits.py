"""What is arriving is bounded while it arrives: an object by its size, anything else by 1 MiB."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from medlocker_dicom.errors import DiskFullError, MedLockerError, PixelLayoutError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pynetdicom.association import Association
    from pynetdicom.dimse_messages import DIMSEMessage
    from pynetdicom.events import Event

    from medlocker_dicom.node.spool import Spool

MAX_MESSAGE: Final = 1 << 20
"""Most bytes of a command, and of a data set that is not stored."""

#: Elements of a C-STORE-RQ (PS3.7 table 9.3-1) beside those without which nothing is understood.
_NEEDED: Final = ("MessageID", "Priority", "AffectedSOPClassUID", "AffectedSOPInstanceUID")


class Limits:
    """Watches what associations receive, PDU by PDU.

    An object that is too large, or for which there is no room, is received to its end without
    being kept, so that its sender can be told; twice as much as is allowed ends the association.

    Parameters
    ----------
    spool
        Whose floor counts.
    largest
        Most bytes of an object.
    """

    def __init__(self, spool: Spool, largest: int) -> None:
        self._spool, self._largest = spool, largest
        self._refused: dict[Path, MedLockerError] = {}
        self._dropped: dict[Path, int] = {}
        self._whole: dict[Association, set[Path]] = {}
        self._lock = threading.Lock()

    def watch(self, event: Event) -> None:
        """Look at a message before the next PDU is added to it (``EVT_PDU_RECV``)."""
        message = event.assoc.dimse.message
        if message is None:
            return
        file: Any = message._data_set_file  # noqa: SLF001  pynetdicom offers no other way to it
        if file is None:
            data = message.data_set.tell() if message.data_set is not None else 0
            if data + message.encoded_command_set.tell() > MAX_MESSAGE:
                event.assoc.abort()
            return
        size = file.tell()
        path = Path(file.name)
        if path not in self._refused:
            error = self._fault(size)
            if error is None:
                return
            with self._lock:
                self._refused[path] = error
        with self._lock:
            self._dropped[path] = dropped = self._dropped.get(path, 0) + size
        file.seek(0)
        file.truncate()
        if dropped > 2 * self._largest:
            event.assoc.abort()

    def arrived(self, event: Event) -> None:
        """Know of a message that is whole (``EVT_DIMSE_RECV``).

        pynetdicom takes it from its queue, and where it is no valid request it forgets its file.
        """
        file: Any = event.message._data_set_file  # noqa: SLF001  as above
        if file is not None:
            with self._lock:
                self._whole.setdefault(event.assoc, set()).add(Path(file.name))
            if not all(keyword in event.message.command_set for keyword in _NEEDED):
                event.assoc.abort()  # pynetdicom gives no answer, and keeps the association

    def check(self, path: Path) -> None:
        """Check an object that has arrived.

        Raises
        ------
        PixelLayoutError, DiskFullError
            It was too large, or there was no room for it.
        """
        error = self._refused.get(path) or self._fault(path.stat().st_size)
        if error is not None:
            raise error

    def forget(self, path: Path) -> None:
        """Know nothing more of a file, which another may be named as."""
        with self._lock:
            self._refused.pop(path, None)
            self._dropped.pop(path, None)
            for paths in self._whole.values():
                paths.discard(path)

    def clear(self, association: Association) -> None:
        """Remove the files that an association has left: half-arrived, or not looked at."""
        messages: list[Any] = [association.dimse.message]
        messages += [message for _, message in list(association.dimse.msg_queue.queue)]
        with self._lock:
            left = self._whole.pop(association, set())
        for path in [*_files(messages), *left]:
            path.unlink(missing_ok=True)
            self.forget(path)

    def _fault(self, size: int) -> MedLockerError | None:
        if size > self._largest:
            return PixelLayoutError(f"has more than {self._largest} bytes")
        try:
            self._spool.check_room()
        except DiskFullError as error:
            return error
        return None


def _files(messages: list[DIMSEMessage | Any]) -> Iterator[Path]:
    """List the files of messages and of primitives, which name them differently."""
    for message in messages:
        for name in ("_data_set_file", "_dataset_file"):
            file = getattr(message, name, None)
            if file is not None:
                file.close()
                yield Path(file.name)
