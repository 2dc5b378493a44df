"""Numbers, moments and states as the page says them."""

from __future__ import annotations

import re
from datetime import datetime
from typing import Final

from markupsafe import Markup

from medlocker_dicom.node.ledger import Sending, State

#: What each state of an object means to its reader.
STATES: Final = {
    State.RECEIVED: "received, to be locked",
    State.LOCKED: "locked, being delivered",
    State.PASSED: "passed on unlocked, being delivered",
    State.HELD: "held, somebody has to look",
    State.DONE: "delivered everywhere",
    State.GONE: "finished, deleted here",
    State.DISCARDED: "discarded",
}
#: The same of a delivery.
SENDINGS: Final = {
    Sending.WAITING: "waiting",
    Sending.SENT: "sent, commitment awaited",
    Sending.DELIVERED: "delivered",
    Sending.PARKED: "refused, somebody has to look",
}
_SAID: Final = 300  # characters of what a foreign program said
_DIGEST = re.compile(r"[0-9a-f]{32,}")


def moment(milliseconds: int | None) -> Markup:
    """Give a moment, milliseconds since 1970, as HTML in the node's time zone."""
    if milliseconds is None:
        return Markup("&ndash;")
    at = datetime.fromtimestamp(milliseconds // 1000).astimezone()
    element = Markup('<time datetime="{}">{}</time>')
    return element.format(at.isoformat(), at.strftime("%Y-%m-%d %H:%M:%S"))


def zone() -> str:
    """Give the node's time zone, such as ``UTC+01:00``."""
    offset = datetime.now().astimezone().strftime("%z")
    return f"UTC{offset[:3]}:{offset[3:]}"


def number(count: int) -> str:
    """Give a count with its thousands apart."""
    return f"{count:,}"


def plural(count: int, one: str, more: str) -> str:
    """Give a count with its noun: ``1 object``, ``2 objects``."""
    return f"{number(count)} {one if count == 1 else more}"


def size(count: int) -> str:
    """Give a number of bytes in a unit that fits."""
    amount = float(count)
    for unit in ("bytes", "KiB", "MiB", "GiB"):
        if amount < 1024:
            return f"{count} bytes" if unit == "bytes" else f"{amount:.1f} {unit}"
        amount /= 1024
    return f"{amount:.1f} TiB"


def said(text: str | None) -> str:
    """Give what a foreign program said on one line, cut where it goes on and on."""
    line = " ".join((text or "").split())
    return line if len(line) <= _SAID else f"{line[:_SAID]}…"


def short(text: str) -> str:
    """Give a digest by its beginning, and everything else as it is."""
    return f"{text[:16]}…" if _DIGEST.fullmatch(text) else said(text)


def ago(milliseconds: int) -> str:
    """Give a span as words: ``just now``, ``5 minutes``, ``3 hours``, ``2 days``."""
    minutes = max(0, milliseconds) // 60_000
    if minutes < 1:
        return "less than a minute"
    if minutes < 120:
        return plural(minutes, "minute", "minutes")
    if minutes < 48 * 60:
        return f"{minutes // 60} hours"
    return f"{minutes // (24 * 60)} days"
