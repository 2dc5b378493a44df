"""Sends objects to destinations: one `Senders` a process, used by all its threads."""

from __future__ import annotations

from threading import Lock
from typing import TYPE_CHECKING, Final, Protocol

from medlocker_dicom.errors import TransferSyntaxError, UsageError
from medlocker_dicom.node.apart import Apart, EndedError
from medlocker_dicom.node.config import StowDestination
from medlocker_dicom.node.outcome import Kind, Outcome
from medlocker_dicom.node.sender_link import (
    BrokenError,
    Link,
    NoContextError,
    Wanted,
    establish,
    tried,
)
from medlocker_dicom.node.sender_object import CRASHED, Sendable, begin, converted, sendable
from medlocker_dicom.node.stow import StowSender
from medlocker_dicom.node.tls import client_context

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from medlocker_dicom.node.config import DicomDestination
    from medlocker_dicom.node.sender_object import Convert

_MOST_CONTEXTS: Final = 120  # of the 128 that an association can have


class Sender(Protocol):
    """Sends to one destination."""

    def check(self) -> None:
        """Check what is needed to send."""

    def send(self, path: Path) -> Outcome:
        """Send a file."""

    def close(self) -> None:
        """Let go of what is kept for the next file."""


class Senders:
    """Sends to all destinations; nothing is opened before the first file.

    Parameters
    ----------
    destinations
        By name.
    ae_title
        As whom the node calls where a destination says nothing else.
    scratch
        Folder for what has to be written in another transfer syntax first, such as
        `Spool.incoming`, that a restart sweeps.
    """

    def __init__(
        self,
        destinations: Mapping[str, DicomDestination | StowDestination],
        ae_title: str,
        scratch: Path,
    ) -> None:
        self._senders: dict[str, Sender] = {}
        self._aparts: list[Apart] = []
        for name, one in destinations.items():
            self._aparts.append(Apart(begin))  # of its own: a codec that is slow holds up no other
            convert = self._aparts[-1].call
            if isinstance(one, StowDestination):
                self._senders[name] = StowSender(one, scratch, convert)
            else:
                self._senders[name] = DicomSender(one, ae_title, scratch, convert)

    def send(self, name: str, path: Path) -> Outcome:
        """Send a file to a destination, and say what became of it.

        Raises
        ------
        UsageError
            There is no such destination.
        NotDicomError
            The file cannot be read.
        OutputError
            No room to write it in another transfer syntax.
        """
        if name not in self._senders:
            raise UsageError(f"{name} is no destination")
        return self._senders[name].send(path)

    def check(self) -> None:
        """Check certificates and passwords; nobody is called.

        Raises
        ------
        UsageError
            One cannot be used.
        """
        for sender in self._senders.values():
            sender.check()

    def close(self) -> None:
        """Release the associations and connections that wait for a next file."""
        for apart in self._aparts:
            apart.close()
        for sender in self._senders.values():
            sender.close()


class DicomSender:
    """Sends to one archive by C-STORE; associations wait a while for the next file."""

    def __init__(
        self, destination: DicomDestination, ae_title: str, scratch: Path, convert: Convert
    ) -> None:
        self._destination, self._convert = destination, convert
        self._calling = destination.calling_ae_title or ae_title
        self._scratch = scratch
        self._lock = Lock()
        self._idle: list[Link] = []
        self._asked: dict[Wanted, None] = {}  # in order: what associations are proposed

    def check(self) -> None:
        """Check the certificates; raises as `Senders.check`."""
        if self._destination.tls is not None:
            client_context(self._destination.tls)

    def send(self, path: Path) -> Outcome:
        """Send a file; raises as `Senders.send`."""
        source = sendable(path)
        needed = [Wanted(source.class_uid, syntax) for syntax in source.candidates]
        kept = self._take(needed)
        try:
            if kept is not None:
                try:
                    return self._through(kept, source)
                except BrokenError as error:
                    if error.silent:
                        raise
            # The archive may have ended the association that was kept: that is no failure yet.
            return self._through(self._open(needed), source)
        except BrokenError as error:
            return tried(error)
        except NoContextError:
            return _unwanted(source)
        except TransferSyntaxError as error:
            return Outcome(Kind.PARK, str(error))
        except UsageError as error:  # of certificates
            return Outcome(Kind.RETRY, str(error))

    def close(self) -> None:
        """Release the associations that wait for a next file."""
        with self._lock:
            idle, self._idle = self._idle, []
        for link in idle:
            link.release()

    def _through(self, link: Link, source: Sendable) -> Outcome:
        try:
            outcome = self._store(link, source)
        except BaseException:
            link.abort()
            raise
        self._keep(link)
        return outcome

    def _store(self, link: Link, source: Sendable) -> Outcome:
        wanted = (Wanted(source.class_uid, one) for one in source.candidates)
        chosen = next((one.syntax for one in wanted if one in link.accepted), None)
        if chosen is None:
            return _unwanted(source)
        if chosen == source.syntax:
            return link.store(source.path)
        try:
            with converted(source, chosen, self._scratch, self._convert) as path:
                return link.store(path)
        except EndedError:
            return CRASHED

    def _take(self, needed: list[Wanted]) -> Link | None:
        """Take an association that waits, if one was asked for all that is needed."""
        with self._lock:
            self._idle = [link for link in self._idle if link.alive]
            for number in reversed(range(len(self._idle))):
                if self._idle[number].proposed.issuperset(needed):
                    link = self._idle.pop(number)
                    link.wake()
                    return link
        return None

    def _open(self, needed: list[Wanted]) -> Link:
        with self._lock:
            others = [one for one in self._asked if one not in needed]
            known = [*needed, *others][:_MOST_CONTEXTS]
            self._asked = dict.fromkeys(known)
        return establish(self._destination, self._calling, known)

    def _keep(self, link: Link) -> None:
        with self._lock:
            room = len(self._idle) < self._destination.limits.associations
            if room:
                link.rest()
                self._idle.append(link)
        if not room:
            link.release()


def _unwanted(source: Sendable) -> Outcome:
    tried_in = ", ".join(one.name for one in source.candidates)
    lossy = "" if len(source.candidates) > 1 else "; it is lossy, and so sent in no other"
    return Outcome(Kind.PARK, f"does not take {source.class_uid.name} in {tried_in}{lossy}")
