"""DICOM audit messages as XML (PS3.15 A.5.1): one line of UTF-8 each."""

from __future__ import annotations

import re
from base64 import b64encode
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, NamedTuple
from xml.etree import ElementTree as ET

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime

#: What XML 1.0 cannot hold, and what would break a line: an AE title comes from the network.
_ODD = re.compile("[^ -\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]|\x7f")
_MAX_TEXT: Final = 256
_DECLARATION: Final = '<?xml version="1.0" encoding="UTF-8"?>'


class Code(NamedTuple):
    """A coded value (PS3.16 Annex D): value, scheme, meaning."""

    value: str
    scheme: str
    meaning: str


def dcm(value: str, meaning: str) -> Code:
    """Return a code of DICOM's."""
    return Code(value, "DCM", meaning)


APPLICATION: Final = dcm("110150", "Application")
DESTINATION: Final = dcm("110152", "Destination Role ID")
DESTINATION_MEDIA: Final = dcm("110154", "Destination Media")
SOURCE: Final = dcm("110153", "Source Role ID")


@dataclass(frozen=True)
class Event:
    """What happened (PS3.15 A.5.2, EventIdentification).

    Attributes
    ----------
    code
        EventID.
    action
        ``C``, ``R``, ``U``, ``D`` or ``E``.
    outcome
        0 success, 4 minor, 8 serious, 12 major failure.
    kind
        EventTypeCode; None for none.
    description
        In words of ours; empty for none.
    """

    code: Code
    action: str
    outcome: int = 0
    kind: Code | None = None
    description: str = ""


@dataclass(frozen=True)
class Participant:
    """A person or process that took part (ActiveParticipant).

    Attributes
    ----------
    user
        Of our process its number; of another's its AE title or URL; of a person the name.
    ae_titles
        Its own.
    place
        IP address, host name or URL; empty for none.
    requestor
        Whether it began the event.
    role
        RoleIDCode; None for none.
    medium
        MediaType of a medium; None for none.
    """

    user: str
    ae_titles: tuple[str, ...] = ()
    place: str = ""
    requestor: bool = False
    role: Code | None = None
    medium: Code | None = None


@dataclass(frozen=True)
class Thing:
    """What it was about (ParticipantObjectIdentification).

    Attributes
    ----------
    identity, kind
        ParticipantObjectID and its ParticipantObjectIDTypeCode.
    type_code, role
        1 person, 2 system object; role as of PS3.15 A.5.1.2.2, None for none.
    name
        ParticipantObjectName, which the schema asks for; never a patient's.
    classes
        SOP Class UID to number of instances.
    details
        Type to text.
    """

    identity: str
    kind: Code
    type_code: int
    role: int | None
    name: str
    classes: Mapping[str, int] | None = None
    details: Mapping[str, str] | None = None


def compose(
    event: Event,
    moment: datetime,
    participants: tuple[Participant, ...],
    source: str,
    things: tuple[Thing, ...] = (),
) -> str:
    """Write an audit message; what XML cannot hold is replaced, what is long is cut.

    Parameters
    ----------
    event, participants, things
        What happened, who took part, what it was about.
    moment
        When; with a time zone.
    source
        AuditSourceID: who reports it.

    Returns
    -------
    str
        One line.
    """
    root = ET.Element("AuditMessage")
    attributes = {
        "EventActionCode": event.action,
        "EventDateTime": moment.isoformat(timespec="milliseconds"),
        "EventOutcomeIndicator": str(event.outcome),
    }
    element = ET.SubElement(root, "EventIdentification", attributes)
    _code(element, "EventID", event.code)
    if event.kind is not None:
        _code(element, "EventTypeCode", event.kind)
    if event.description:
        ET.SubElement(element, "EventOutcomeDescription").text = clean(event.description)
    for participant in participants:
        _participant(root, participant)
    place = ET.SubElement(root, "AuditSourceIdentification", {"AuditSourceID": clean(source)})
    ET.SubElement(place, "AuditSourceTypeCode", {"csd-code": "4"})  # application server
    for thing in things:
        _thing(root, thing)
    return _DECLARATION + ET.tostring(root, "unicode")


def clean(text: str) -> str:
    """Return a text as XML can hold it, on one line, at most 256 characters."""
    return _ODD.sub("\ufffd", text[:_MAX_TEXT])


def _participant(root: ET.Element, participant: Participant) -> None:
    attributes = {"UserID": clean(participant.user)}
    if participant.ae_titles:  # A.5.2.2
        titles = ";".join(clean(one) for one in participant.ae_titles)
        attributes["AlternativeUserID"] = f"AETITLES={titles}"
    attributes["UserIsRequestor"] = str(participant.requestor).lower()
    if participant.place:
        attributes["NetworkAccessPointID"] = clean(participant.place)
        attributes["NetworkAccessPointTypeCode"] = _place_kind(participant.place)
    element = ET.SubElement(root, "ActiveParticipant", attributes)
    if participant.role is not None:
        _code(element, "RoleIDCode", participant.role)
    if participant.medium is not None:
        _code(ET.SubElement(element, "MediaIdentifier"), "MediaType", participant.medium)


def _place_kind(place: str) -> str:
    """Tell NetworkAccessPointTypeCode: 1 host name, 2 IP address, 5 URI."""
    if "://" in place:
        return "5"
    return "2" if re.fullmatch(r"[0-9.]+|[0-9A-Fa-f]*:[0-9A-Fa-f:.]*(%\w+)?", place) else "1"


def _thing(root: ET.Element, thing: Thing) -> None:
    attributes = {
        "ParticipantObjectID": clean(thing.identity),
        "ParticipantObjectTypeCode": str(thing.type_code),
    }
    if thing.role is not None:
        attributes["ParticipantObjectTypeCodeRole"] = str(thing.role)
    element = ET.SubElement(root, "ParticipantObjectIdentification", attributes)
    _code(element, "ParticipantObjectIDTypeCode", thing.kind)
    ET.SubElement(element, "ParticipantObjectName").text = clean(thing.name)
    for key, value in (thing.details or {}).items():
        encoded = b64encode(clean(value).encode()).decode()
        ET.SubElement(element, "ParticipantObjectDetail", {"type": key, "value": encoded})
    if thing.classes is not None:
        description = ET.SubElement(element, "ParticipantObjectDescription")
        for uid, number in thing.classes.items():
            about = {"UID": clean(uid), "NumberOfInstances": str(number)}
            ET.SubElement(description, "SOPClass", about)


def _code(parent: ET.Element, name: str, code: Code) -> None:
    attributes = {
        "csd-code": code.value,
        "codeSystemName": code.scheme,
        "displayName": code.meaning,
        "originalText": code.meaning,
    }
    ET.SubElement(parent, name, attributes)
