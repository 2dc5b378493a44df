"""Canonical JSON: one text for one value, read strictly.

Canonical means sorted member names, no spaces, ASCII with escapes, no
floating point numbers, one newline at the end. Bytes are standard base64 with
padding. Errors name a member, never its content, which may be secret.
"""

import base64
import binascii
import json
from collections.abc import Mapping
from datetime import datetime
from typing import Any, NoReturn

from medlocker_dicom.errors import KeyRefusedError
from medlocker_dicom.keyfile import moments

Record = dict[str, Any]


def dumps(record: Mapping[str, object]) -> bytes:
    """Serialise a record to canonical JSON.

    Parameters
    ----------
    record
        Members of text, integers, None, lists and records.

    Returns
    -------
    bytes
        ASCII, ending in one newline.
    """
    text = json.dumps(record, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return text.encode("ascii") + b"\n"


def loads(data: bytes, what: type[KeyRefusedError], *, max_bytes: int, max_values: int) -> Record:
    """Parse JSON text whose size and number of values are bounded.

    A few bytes of JSON can ask for many bytes of objects, so the marks that
    start a value are counted before parsing. The caller compares what it
    understood with `data` once more, as canonical JSON.

    Parameters
    ----------
    data
        The text.
    what
        The error to raise.
    max_bytes, max_values
        The most bytes, and the most values, that are looked at.

    Returns
    -------
    dict
        The members of the outermost object.

    Raises
    ------
    KeyRefusedError
        Of the class `what`: too large, not JSON, a duplicate member name, a
        floating point number, or not an object.
    """
    if len(data) > max_bytes:
        raise what(f"file has {len(data)} bytes, more than the {max_bytes} allowed")
    values = sum(data.count(mark) for mark in (b",", b"[", b"{"))
    if values > max_values:
        raise what(f"file has {values} values, more than the {max_values} allowed")
    try:
        record = json.loads(
            data.decode("ascii"),
            object_pairs_hook=_members,
            parse_float=_refuse_number,
            parse_constant=_refuse_number,
        )
    except _RefusedError as refused:
        raise what(str(refused)) from None
    except (ValueError, RecursionError):
        raise what("file is not JSON", "it may be cut short; ask for it again") from None
    if not isinstance(record, dict):
        raise what("file is JSON, but not an object")
    return record


def text_of(data: bytes) -> str:
    """Give bytes as base64 text with padding (RFC 4648 section 4)."""
    return base64.b64encode(data).decode("ascii")


class Fields:
    """Typed access to the members of a record, all of which are required.

    Parameters
    ----------
    record
        A parsed JSON value.
    names
        The names that it must have, and no others.
    what
        The error to raise.
    where
        What the record is, for messages.

    Raises
    ------
    KeyRefusedError
        Of the class `what`: not an object, a member is missing or unknown.
    """

    def __init__(
        self, record: object, names: frozenset[str], what: type[KeyRefusedError], where: str
    ) -> None:
        if not isinstance(record, dict):
            raise what(f"{where} is not an object")
        for name in sorted(names - record.keys()):
            raise what(f"{where} has no {name}")
        if len(record) > len(names):
            raise what(f"{where} has an unknown member")
        self._record = record
        self._what = what
        self._where = where

    def fail(self, name: str, reason: str) -> NoReturn:
        """Raise the error of this record about one member."""
        raise self._what(f"{name} of {self._where} {reason}")

    def text(self, name: str, max_chars: int) -> str:
        """Give a text of at most `max_chars` characters."""
        value = self._record[name]
        if not isinstance(value, str):
            self.fail(name, "is not text")
        if len(value) > max_chars:
            self.fail(name, f"has {len(value)} characters, more than the {max_chars} allowed")
        return value

    def constant(self, name: str, expected: str | int) -> None:
        """Check that a member is exactly `expected`, in type and value."""
        value = self._record[name]
        if type(value) is not type(expected) or value != expected:
            self.fail(name, f"is not {expected!r}")

    def integer(self, name: str, low: int, high: int) -> int:
        """Give an integer in [low, high]."""
        value = self._record[name]
        if not isinstance(value, int) or isinstance(value, bool):
            self.fail(name, "is not an integer")
        if not low <= value <= high:
            self.fail(name, f"is not in {low} to {high}")
        return value

    def data(self, name: str, *sizes: int) -> bytes:
        """Give bytes whose length is one of `sizes`."""
        value = self.text(name, 4 * (max(sizes) // 3 + 1))
        decoded = _bytes_of(value, sizes)
        if decoded is None:
            allowed = " or ".join(str(size) for size in sizes)
            self.fail(name, f"is not {allowed} bytes in canonical base64")
        return decoded

    def list(self, name: str, max_length: int) -> list[object]:
        """Give a list of at most `max_length` values."""
        value = self._record[name]
        if not isinstance(value, list):
            self.fail(name, "is not a list")
        if len(value) > max_length:
            self.fail(name, f"has {len(value)} entries, more than the {max_length} allowed")
        return value

    def data_list(self, name: str, max_length: int, size: int) -> tuple[bytes, ...]:
        """Give a list of at most `max_length` bytes of length `size`."""
        found = [_bytes_of(one, (size,)) for one in self.list(name, max_length)]
        known = tuple(one for one in found if one is not None)
        if len(known) < len(found):
            self.fail(name, f"has an entry that is not {size} bytes in canonical base64")
        return known

    def moment(self, name: str) -> datetime:
        """Give a moment in whole seconds of UTC, not before 1970."""
        found = moments.parse(self.text(name, len(moments.EXAMPLE)))
        if found is None or not moments.is_whole(found):
            self.fail(name, f"is not like {moments.EXAMPLE}")
        return found

    def raw(self, name: str) -> object:
        """Give a member as it was parsed."""
        value: object = self._record[name]
        return value


class _RefusedError(ValueError):
    """JSON that is well formed and still refused."""


def _bytes_of(value: object, sizes: tuple[int, ...]) -> bytes | None:
    """Decode canonical base64 of one of `sizes` bytes; None for anything else."""
    if not isinstance(value, str) or len(value) > 4 * (max(sizes) // 3 + 1):
        return None
    try:
        decoded = base64.b64decode(value, validate=True)
    except (binascii.Error, ValueError):
        return None
    return decoded if len(decoded) in sizes and text_of(decoded) == value else None


def _members(pairs: list[tuple[str, object]]) -> Record:
    record = dict(pairs)
    if len(record) < len(pairs):
        raise _RefusedError("file names a member twice")
    return record


def _refuse_number(_: str) -> NoReturn:
    raise _RefusedError("file has a number that is not an integer")
