"""What became of an object that was sent, by what the destination said."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from random import uniform
from types import MappingProxyType
from typing import Final


class Kind(StrEnum):
    """What is to be done next."""

    STORED = "stored"
    """Nothing: the destination has it, or did what was asked."""
    RETRY = "retry"
    """It is tried again later: nothing says that the object is at fault."""
    PARK = "park"
    """Somebody has to look: the destination does not want this object."""


@dataclass(frozen=True)
class Outcome:
    """What became of one attempt.

    Attributes
    ----------
    kind
        What is to be done next.
    said
        Why, in words of ours, with the status in hexadecimal: a peer's own words may name a
        patient.
    most
        Tries after which `Kind.RETRY` is no longer worth it; None for no last try.
    """

    kind: Kind
    said: str
    most: int | None = None

    def after(self, tries: int) -> Kind:
        """Say what is to be done next, this try included in `tries`."""
        worn = self.kind is Kind.RETRY and self.most is not None and tries >= self.most
        return Kind.PARK if worn else self.kind


FEW_TRIES: Final = 5
"""For failures that may be the destination's state or the object's fault: nobody can tell.

An archive says 0110 where its database is locked and where an object makes it
stumble. The first passes within some tries, the second never does.
"""

_FIRST_DELAY_S: Final = 5.0
LONGEST_DELAY_S: Final = 900.0
"""Seconds between two tries, at most."""

#: PS3.4 table B.2-1 and PS3.7 annex C; also as failure reasons of PS3.18 table I.2-2.
_WORDS: Final = MappingProxyType(
    {
        0x0000: "stored",
        0x0105: "no such attribute",
        0x0106: "invalid attribute value",
        0x0107: "attribute list error",
        0x0110: "processing failure",
        0x0111: "has an instance of this UID already",
        0x0112: "no such SOP instance",
        0x0113: "no such event type",
        0x0114: "no such argument",
        0x0115: "invalid argument value",
        0x0116: "attribute value out of range",
        0x0117: "invalid SOP instance",
        0x0118: "no such SOP class",
        0x0119: "class and instance conflict",
        0x0120: "missing attribute",
        0x0122: "SOP class not supported",
        0x0123: "no such action",
        0x0124: "not authorised",
        0x0131: "duplicate transaction UID",
        0x0210: "duplicate invocation",
        0x0211: "unrecognised operation",
        0x0212: "mistyped argument",
        0x0213: "resource limitation",
        0xB000: "stored, with elements coerced",
        0xB006: "stored, with elements discarded",
        0xB007: "stored, though it does not match its SOP class",
        0xC122: "transfer syntax not supported",
    }
)
#: 0111 is no status of C-STORE by the standard; archives that answer it have the instance.
_STORED: Final = frozenset({0x0000, 0x0111, 0xB000, 0xB006, 0xB007})
#: They speak of the node, or of the moment, and not of the object.
_RETRY: Final = frozenset({0x0124, 0x0210, 0x0213})
_PROCESSING_FAILURE: Final = 0x0110


def delay_s(tries: int) -> float:
    """Say how long to wait before try `tries` + 1: twice as long each time, up to 15 minutes.

    A fifth more or less, so that what failed together does not come back together.
    """
    wait = min(_FIRST_DELAY_S * 2.0 ** min(tries, 20), LONGEST_DELAY_S)
    return wait * uniform(0.8, 1.2)  # noqa: S311  no secret


def words_of(status: int) -> str:
    """Name a status (PS3.7 annex C, PS3.4 B.2.3): hexadecimal, then words."""
    known = _WORDS.get(status)
    if known is None and status >> 8 == 0xA7:
        known = "out of resources"
    elif known is None and status >> 8 == 0xA9:
        known = "the data set does not match its SOP class"
    elif known is None and status >> 12 == 0xC:
        known = "cannot be understood"
    return f"{status:04X}H {known or 'of unknown meaning'}"


def by_status(status: int) -> Outcome:
    """Judge the status of a C-STORE response, or a failure reason of STOW-RS.

    Parameters
    ----------
    status
        PS3.4 B.2.3, PS3.7 9.1.1.1.9, PS3.18 table I.2-2; 0 to FFFF.
    """
    said = words_of(status)
    if status in _STORED:
        return Outcome(Kind.STORED, said)
    if status == _PROCESSING_FAILURE:
        return Outcome(Kind.RETRY, said, FEW_TRIES)
    if status in _RETRY or status >> 8 == 0xA7:
        return Outcome(Kind.RETRY, said)
    return Outcome(Kind.PARK, said)
