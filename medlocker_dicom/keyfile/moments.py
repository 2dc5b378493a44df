"""Moments in whole seconds of UTC, as numbers that are signed and as text that is stored."""

import re
from datetime import UTC, datetime
from typing import Final

EXAMPLE: Final = "2026-01-01T00:00:00Z"
_FORM: Final = "%Y-%m-%dT%H:%M:%SZ"
_TEXT = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}Z")
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def whole_seconds(moment: datetime) -> datetime:
    """Give a moment in UTC, its fraction of a second cut off.

    Raises
    ------
    ValueError
        It has no time zone.
    """
    if moment.utcoffset() is None:
        raise ValueError("the moment has no time zone")
    return moment.astimezone(UTC).replace(microsecond=0)


def is_whole(moment: datetime) -> bool:
    """Tell whether a moment is in whole seconds of UTC, and not before 1970."""
    return moment.tzinfo is UTC and not moment.microsecond and moment >= _EPOCH


def seconds(moment: datetime) -> int:
    """Whole seconds from 1970."""
    return int(moment.timestamp())


def moment_of(seconds: int) -> datetime:
    """Give the moment so many seconds after 1970."""
    return datetime.fromtimestamp(seconds, UTC)


def text_of(moment: datetime) -> str:
    """Write a moment like ``2026-01-01T00:00:00Z``."""
    return moment.strftime(_FORM)


def parse(text: str) -> datetime | None:
    """Read what `text_of` writes.

    Returns
    -------
    datetime or None
        None where the text is written otherwise, or names no moment.
    """
    if not _TEXT.fullmatch(text):
        return None
    try:
        return datetime.strptime(text, _FORM).replace(tzinfo=UTC)
    except ValueError:
        return None
