"""Writes the tables of pacs/conformance.md from the code: python tests/node/make_conformance.py."""

from __future__ import annotations

import ast
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pynetdicom
from pydicom.uid import UID

from medlocker_dicom import database, errors
from medlocker_dicom.dicom import uids
from medlocker_dicom.dicom.capture import CODECS
from medlocker_dicom.dicom.syntaxes import SOURCE_CLASSES
from medlocker_dicom.dicom.writing import IMPLEMENTATION_CLASS_UID, IMPLEMENTATION_VERSION
from medlocker_dicom.node import (
    receiver,
    receiver_admission,
    receiver_arrival,
    receiver_header,
    receiver_limits,
    sender_object,
    spool,
    tls,
)
from medlocker_dicom.node.config import DicomDestination, Listen, Peer
from medlocker_dicom.node.outcome import FEW_TRIES, Kind, by_status, words_of
from medlocker_dicom.node.receiver_admission import Caller

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

STATEMENT = Path(__file__).parents[2] / "pacs" / "conformance.md"
_BLOCK = re.compile(r"(<!-- table: ([a-z-]+) -->\n).*?(<!-- end -->)", re.DOTALL)
_WORDS = {
    0x0000: "Success: the object is durable and in the queue",
    0xA700: "out of resources: the disk is below its floor, or the database is busy; repeat later",
    0xA900: "the data set does not match its SOP class",
    0xC000: "cannot be understood",
    0x0110: "processing failure",
    0x0124: "not authorised",
}
_DOES = {
    Kind.STORED: "delivered",
    Kind.RETRY: "tried again, with growing pauses, without an end",
    Kind.PARK: "parked: somebody has to look",
}


def table(head: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """Write a table of Markdown."""
    lines = [head, ["---"] * len(head), *rows]
    return "".join("| " + " | ".join(str(cell) for cell in line) + " |\n" for line in lines)


def accepted_classes() -> str:
    """SOP classes that are stored."""
    rows = [
        (UID(one).name, f"`{one}`", "yes" if one in SOURCE_CLASSES else "held, or as routed")
        for one in receiver.accepted_classes(Listen())
    ]
    return table(("SOP class", "UID", "locked"), rows)


def accepted_syntaxes() -> str:
    """Transfer syntaxes that are accepted, in the order of preference."""
    rows = [
        (number, one.name, f"`{one}`") for number, one in enumerate(_uids(receiver.SYNTAXES), 1)
    ]
    return table(("preference", "transfer syntax", "UID"), rows)


def sent_syntaxes() -> str:
    """Transfer syntaxes that locked objects are proposed in."""
    names: dict[UID, str] = dict.fromkeys(sender_object.NATIVE, "uncompressed, and for any")
    names |= {syntax: f"`codec: {name}`" for name, (syntax, _) in CODECS.items()}
    return table(
        ("transfer syntax", "UID", "for"),
        [(one.name, f"`{one}`", why) for one, why in names.items()],
    )


def answered() -> str:
    """Statuses of C-STORE responses, with the errors that lead to them."""
    by: dict[int, list[str]] = {0x0000: []}
    for name in sorted(_raised()):
        by.setdefault(getattr(errors, name).status, []).append(name)
    rows = [
        (f"{status:04X}", _WORDS[status], ", ".join(sorted(names)) or "-")
        for status, names in sorted(by.items())
    ]
    return table(("status", "meaning", "error"), rows)


def rejected() -> str:
    """A-ASSOCIATE-RJ that the node sends."""
    listen = Listen(peers=(Peer.model_validate({"ae_title": "A", "addresses": ["10.0.0.1/32"]}),))
    node, here = listen.ae_title, "10.0.0.1"
    cases = [
        ("the called AE title is not the node's", Caller("A", "OTHER", here)),
        ("the calling AE title is not in `listen.peers`", Caller("B", node, here)),
        ("the address is not among that AE title's", Caller("A", node, "10.0.0.2")),
    ]
    rows: list[tuple[str, str]] = []
    for words, caller in cases:
        refusal = receiver_admission.stranger(listen, caller)
        assert refusal is not None, words
        rows.append((words, _codes(refusal.codes)))
    busy = receiver_admission.crowded("")
    rows.append(("too many associations, or the disk is below its floor", _codes(busy.codes)))
    rows.append(("an error of the node's", _codes(receiver_admission.BROKEN.codes)))
    return table(("why", "result, source, reason (PS3.8 table 9-21)"), rows)


def judged() -> str:
    """What becomes of a delivery, by the status that a destination answers."""
    known = (0x0000, 0x0110, 0x0111, 0x0122, 0x0124, 0x0213, 0xA700, 0xA900)
    rows = [_judged(status) for status in (*known, 0xB000, 0xB006, 0xB007, 0xC000)]
    return table(("status", "the node does"), rows)


def association() -> str:
    """Policies of associations, with defaults."""
    listen, timeout = Listen(), DicomDestination.model_fields["timeout_s"].default
    most = listen.processes * listen.associations
    limits = DicomDestination.model_fields["limits"].default
    rows = [
        ("AE title", f"{listen.ae_title} (`listen.ae_title`)"),
        ("port", f"{listen.port} (`listen.port`)"),
        ("maximum PDU, announced", f"{receiver.MAX_PDU} bytes"),
        (
            "associations accepted at once",
            f"{most} (`listen.processes` times `listen.associations`)",
        ),
        ("asynchronous operations", "none: one operation at a time"),
        ("an association without a word ends after", f"{listen.idle_s:g} s (`listen.idle_s`)"),
        ("largest object", f"{listen.largest >> 30} GiB (`listen.largest`)"),
        (
            "associations requested at once, of one destination",
            f"{limits.associations} (`limits.associations`)",
        ),
        ("a silent destination is given up after", f"{timeout:g} s (`timeout_s`)"),
        ("implementation class UID, as SCU and in files", f"`{IMPLEMENTATION_CLASS_UID}`"),
        ("implementation version name, as SCU and in files", IMPLEMENTATION_VERSION),
        ("implementation class UID, as SCP", f"`{pynetdicom.PYNETDICOM_IMPLEMENTATION_UID}`"),
    ]
    return table(("what", "value"), rows)


def secured() -> str:
    """TLS of both roles."""
    rows = [
        ("TLS 1.3", "all that it has"),
        ("TLS 1.2", ", ".join(f"`{one}`" for one in tls._CIPHERS.split(":"))),
    ]
    return table(("version", "cipher suites, as OpenSSL names them"), rows)


TABLES = {
    "accepted-classes": accepted_classes,
    "accepted-syntaxes": accepted_syntaxes,
    "sent-syntaxes": sent_syntaxes,
    "answered": answered,
    "rejected": rejected,
    "judged": judged,
    "association": association,
    "tls": secured,
}


def rendered(statement: str) -> str:
    """Return the statement with its tables as the code is."""
    return _BLOCK.sub(lambda it: it[1] + "\n" + TABLES[it[2]]() + "\n" + it[3], statement)


def blocks(statement: str) -> list[str]:
    """List the tables that a statement has."""
    return [match[2] for match in _BLOCK.finditer(statement)]


def _judged(status: int) -> tuple[str, str]:
    outcome = by_status(status)
    does = _DOES[outcome.kind]
    if outcome.most is not None:
        assert outcome.most == FEW_TRIES
        does = f"tried again {FEW_TRIES} times, then parked"
    return words_of(status), does


def _codes(codes: tuple[int, int, int]) -> str:
    return ", ".join(map(str, codes))


def _uids(uids: Sequence[Any]) -> list[UID]:
    return [UID(one) for one in uids]


def _raised() -> set[str]:
    """Name the errors that the modules which receive an object speak of."""
    modules = (receiver, receiver_arrival, receiver_header, receiver_limits, spool, database, uids)
    sources = [Path(module.__file__ or "").read_text() for module in modules]
    names = {
        node.func.id
        for source in sources
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)
    }
    found = {name for name in names if name.endswith("Error") and hasattr(errors, name)}
    return found - {"UsageError"}  # of node.yaml: the node does not start


if __name__ == "__main__":
    STATEMENT.write_text(rendered(STATEMENT.read_text()))
