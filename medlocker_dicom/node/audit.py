"""What the node tells an audit trail (PS3.15 A.5.3, IHE ATNA): who moved, saw or was refused what.

A patient is named by a keyed hash of the patient ID: who holds the key and the ID finds
the messages, and the trail alone tells no identity. The patient's name is never there.
Study Instance UIDs are plain: without them a trail is of no use.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import socket
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import StrEnum
from typing import TYPE_CHECKING, Final

from medlocker_dicom.node import audit_message, syslog
from medlocker_dicom.node.audit_message import Event, Participant, Thing, dcm
from medlocker_dicom.node.audit_trail import Backlog, ShippedTrail, Trail

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from medlocker_dicom.node.config import NodeConfig

_ACTIVITY: Final = dcm("110100", "Application Activity")
_BEGIN: Final = dcm("110102", "Begin Transferring DICOM Instances")
_ACCESSED: Final = dcm("110103", "DICOM Instances Accessed")
_TRANSFERRED: Final = dcm("110104", "DICOM Instances Transferred")
_DELETED: Final = dcm("110105", "DICOM Study Deleted")
_EXPORT: Final = dcm("110106", "Export")
_ALERT: Final = dcm("110113", "Security Alert")
_AUTHENTICATION: Final = dcm("110114", "User Authentication")

_STARTED: Final = dcm("110120", "Application Start")
_STOPPED: Final = dcm("110121", "Application Stop")
_LOGIN: Final = dcm("110122", "Login")
_NODE_AUTHENTICATION: Final = dcm("110126", "Node Authentication")
_RESTRICTED: Final = dcm("110132", "Use of Restricted Function")

_URI: Final = dcm("110037", "URI")
_STUDY: Final = dcm("110180", "Study Instance UID")
_NODE: Final = dcm("110182", "Node ID")
_PATIENT: Final = audit_message.Code("2", "RFC-3881", "Patient Number")

SUCCESS: Final = 0
MINOR: Final = 4
SERIOUS: Final = 8


class Held(StrEnum):
    """What a receiver knew of instances before (EventActionCode of PS3.15 A.5.3.7)."""

    NOT = "C"
    """It did not hold them."""
    SAME = "R"
    """It holds the same."""
    OTHER = "U"
    """It holds others of the same UID."""


class Alert(StrEnum):
    """Why somebody was turned away."""

    CALLED = "the called AE title is not the node's"
    CALLING = "the calling AE title is not allowed"
    ADDRESS = "the address is not allowed for this AE title"
    TLS = "the TLS handshake failed"
    CERTIFICATE = "the certificate is not trusted"
    SILENT = "the connection said nothing"


@dataclass(frozen=True)
class Peer:
    """The other side.

    Attributes
    ----------
    ae_title
        Empty where it has none.
    place
        IP address, host name or URL.
    """

    ae_title: str
    place: str


@dataclass(frozen=True)
class Moved:
    """Instances of one study of one patient.

    Attributes
    ----------
    study
        Study Instance UID; empty where they have none.
    classes
        SOP Class UID to number of instances.
    patient_id
        Of which a keyed hash is told; None where it is not known.
    """

    study: str
    classes: Mapping[str, int]
    patient_id: str | None = field(default=None, repr=False)


@dataclass(frozen=True)
class Auditor:
    """Tells an audit trail what happens; never raises for the trail's sake, never waits for it.

    Attributes
    ----------
    trail
        None where node.yaml names none.
    ae_titles
        The node's.
    secret
        Key of the patients' hashes; the same as the log's.
    now
        Gives the moment, with a time zone.
    host
        Of this machine.
    """

    trail: Trail | None
    ae_titles: tuple[str, ...]
    secret: bytes = field(repr=False)
    now: Callable[[], datetime] = lambda: datetime.now(UTC)
    host: str = field(default_factory=socket.gethostname)

    def started(self) -> None:
        """Tell that the node, or one of its processes, started (A.5.3.1)."""
        self._tell(Event(_ACTIVITY, "E", kind=_STARTED), (self._us(audit_message.APPLICATION),))

    def stopped(self, outcome: int = SUCCESS) -> None:
        """Tell that it stopped; `outcome` is `SUCCESS`, `MINOR` or `SERIOUS`."""
        event = Event(_ACTIVITY, "E", outcome, _STOPPED)
        self._tell(event, (self._us(audit_message.APPLICATION),))

    def receiving(self, peer: Peer, moved: Moved) -> None:
        """Tell that a sender begins to send (A.5.3.3)."""
        self._tell(Event(_BEGIN, "E"), self._from(peer), self._things(moved))

    def received(self, peer: Peer, moved: Moved, held: Held, outcome: int = SUCCESS) -> None:
        """Tell what a sender sent (A.5.3.7), from the receiver's side."""
        event = Event(_TRANSFERRED, str(held), outcome)
        self._tell(event, self._from(peer), self._things(moved))

    def sending(self, peer: Peer, moved: Moved) -> None:
        """Tell that a destination begins to be sent to (A.5.3.3)."""
        self._tell(Event(_BEGIN, "E"), self._to(peer), self._things(moved))

    def sent(self, peer: Peer, moved: Moved, outcome: int = SUCCESS) -> None:
        """Tell what a destination was sent (A.5.3.7): what it held before is not known here."""
        self._tell(Event(_TRANSFERRED, "E", outcome), self._to(peer), self._things(moved))

    def accessed(self, user: str, place: str, moved: Moved) -> None:
        """Tell that somebody looked at instances on the page (A.5.3.6)."""
        self._tell(Event(_ACCESSED, "R"), (_person(user, place),), self._things(moved))

    def released(self, user: str, place: str, moved: Moved) -> None:
        """Tell that somebody let instances leave unlocked (A.5.3.11, of a restricted function)."""
        event = Event(_ALERT, "E", MINOR, _RESTRICTED, "instances are released unlocked")
        who = (self._us(None), _person(user, place))
        self._tell(event, who, self._things(moved))

    def discarded(self, user: str, place: str, moved: Moved) -> None:
        """Tell that somebody let instances go nowhere (A.5.3.8)."""
        self._tell(Event(_DELETED, "D"), (_person(user, place),), self._things(moved))

    def exported(self, user: str, place: str, url: str, moved: Moved) -> None:
        """Tell that somebody took instances, or grants for them, out by a download (A.5.3.4)."""
        source = Participant(user, (), place, requestor=True, role=audit_message.SOURCE)
        medium = Participant(url, role=audit_message.DESTINATION_MEDIA, medium=_URI)
        self._tell(Event(_EXPORT, "R"), (source, medium), self._things(moved))

    def refused(self, peer: Peer, alert: Alert) -> None:
        """Tell that somebody was turned away before anything was received (A.5.3.11)."""
        event = Event(_ALERT, "E", MINOR, _NODE_AUTHENTICATION, str(alert))
        us = Participant(str(os.getpid()), self.ae_titles, self.host, requestor=True)
        thing = Thing(peer.place, _NODE, 2, 13, "a peer", details={"Alert Description": str(alert)})
        self._tell(event, (us, _process(peer)), (thing,))

    def logged_in(self, user: str, place: str, outcome: int = SUCCESS) -> None:
        """Tell of a login at the page, or that it failed (A.5.3.12)."""
        event = Event(_AUTHENTICATION, "E", outcome, _LOGIN)
        self._tell(event, (_person(user, place), self._us(None)))

    def close(self) -> None:
        """Let go of the trail; what was told is kept."""
        if self.trail is not None:
            self.trail.close()

    def backlog(self) -> Backlog:
        """Tell what has not gone its way."""
        return Backlog(0, 0, 0) if self.trail is None else self.trail.backlog()

    def pseudonym(self, patient_id: str) -> str:
        """Give what stands for a patient: 32 hexadecimal digits of HMAC-SHA256."""
        key = hmac.digest(self.secret, b"audit of patients", hashlib.sha256)
        return hmac.digest(key, patient_id.strip().encode(), hashlib.sha256).hex()[:32]

    def _tell(self, event: Event, who: Sequence[Participant], things: Sequence[Thing] = ()) -> None:
        if self.trail is None:
            return
        now = self.now()
        text = audit_message.compose(event, now, tuple(who), self.host, tuple(things))
        self.trail.append(syslog.line(text, now, self.host, failed=event.outcome > SUCCESS))

    def _us(self, role: audit_message.Code | None) -> Participant:
        return Participant(str(os.getpid()), self.ae_titles, self.host, role=role)

    def _from(self, peer: Peer) -> tuple[Participant, Participant]:
        return (
            _process(peer, audit_message.SOURCE, requestor=True),
            self._us(audit_message.DESTINATION),
        )

    def _to(self, peer: Peer) -> tuple[Participant, Participant]:
        us = Participant(
            str(os.getpid()), self.ae_titles, self.host, requestor=True, role=audit_message.SOURCE
        )
        return (us, _process(peer, audit_message.DESTINATION))

    def _things(self, moved: Moved) -> tuple[Thing, Thing]:
        known = moved.patient_id is not None and moved.patient_id.strip() != ""
        patient = self.pseudonym(moved.patient_id or "") if known else "unknown"
        return (
            Thing(moved.study or "unknown", _STUDY, 2, 3, "study", classes=moved.classes),
            Thing(patient, _PATIENT, 1, 1, "withheld"),
        )


def make_auditor(config: NodeConfig, secret: bytes) -> Auditor:
    """Make what node.yaml asks for; the spool's folder ``audit`` holds what waits for a server.

    Raises
    ------
    UsageError
        The server's certificates cannot be read.
    OSError
        The spool cannot be written.
    """
    trail: Trail | None = None
    if config.audit.file is not None:
        trail = Trail(config.audit.file)
    elif config.audit.syslog_host is not None:
        line = syslog.line_to(config.audit)
        trail = ShippedTrail(spool_of(config.spool), line)
    return Auditor(trail, (config.listen.ae_title,), secret)


def spool_of(spool: Path) -> Path:
    """Give the folder of messages that wait for their server."""
    return spool / "audit"


def _process(
    peer: Peer, role: audit_message.Code | None = None, *, requestor: bool = False
) -> Participant:
    titles = (peer.ae_title,) if peer.ae_title else ()
    name = peer.ae_title or peer.place
    return Participant(name, titles, peer.place, requestor=requestor, role=role)


def _person(user: str, place: str) -> Participant:
    return Participant(user, (), place, requestor=True)
