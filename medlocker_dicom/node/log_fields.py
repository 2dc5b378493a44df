"""What a line of the log may say, and in which form: whatever is not here is not said."""

from __future__ import annotations

import errno
import hashlib
import hmac
import re
from dataclasses import dataclass
from enum import Enum
from ipaddress import ip_address
from typing import TYPE_CHECKING, Final

from medlocker_dicom.dicom.uids import check_uid
from medlocker_dicom.errors import UIDError
from medlocker_dicom.node.own_words import own_words

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

Said = str | int | float | bool | list[str] | None

WITHHELD: Final = "(withheld)"
_ID = re.compile(r"[0-9a-f]{64}")
_AE = re.compile(r"[ !-\[\]-~]{1,16}")  # PS3.5 section 6.2, AE: printable ASCII, no backslash
_STATUS = re.compile(r"[0-9A-F]{4}")
_STANDARD = re.compile(r"1\.2\.840\.10008(?:\.[0-9]{1,9}){1,9}")
_HASH_DIGITS = 16


class UndeclaredError(TypeError):
    """The node's own code logs what is not declared: raised in tests, in production told."""


class Form(Enum):
    """How a field's value is let through; a value of another kind becomes ``(withheld)``."""

    NUMBER = "an int, float, bool or None"
    STATUS = "an int, or 4 hexadecimal digits, written as DICOM statuses are: 0xA700"
    WORD = "a member of an enumeration, or a text of our own source with its values left open"
    NAME = "a name out of node.yaml"
    AE_TITLE = "an AE title: up to 16 characters; the one text that a peer chooses"
    ADDRESS = "an IP address"
    OBJECT = "an object's id in the queue: 64 hexadecimal digits"
    STANDARD_UID = "a UID of the standard's; others are private"
    UID = "a UID: hashed, or plain by choice"
    ERROR = "an exception, its class or that one's name: the name, never what it says"


FIELDS: Final[Mapping[str, Form]] = {
    "address": Form.ADDRESS,
    "ae_title": Form.AE_TITLE,
    "called_ae_title": Form.AE_TITLE,
    "calling_ae_title": Form.AE_TITLE,
    "destination": Form.NAME,
    "error": Form.ERROR,
    "free_bytes": Form.NUMBER,
    "instance": Form.UID,
    "bytes": Form.NUMBER,
    "kind": Form.ERROR,
    "next_try_s": Form.NUMBER,
    "number": Form.NUMBER,
    "object": Form.OBJECT,
    "outcome": Form.WORD,
    "port": Form.NUMBER,
    "reason": Form.WORD,
    "route": Form.NAME,
    "seconds": Form.NUMBER,
    "series": Form.UID,
    "size": Form.NUMBER,
    "sop_class": Form.STANDARD_UID,
    "state": Form.WORD,
    "status": Form.STATUS,
    "study": Form.UID,
    "transfer_syntax": Form.STANDARD_UID,
    "tries": Form.NUMBER,
    "user": Form.NAME,
}
"""The fields there are. A new one is declared here, with the narrowest form."""


@dataclass(frozen=True)
class Forms:
    """Brings fields into their forms.

    Attributes
    ----------
    secret
        Key of the hashes.
    names
        Those out of node.yaml.
    plain_uids
        Whether UIDs are said as they are.
    strict
        Whether what is not declared raises, or is dropped and named.
    """

    secret: bytes
    names: frozenset[str]
    plain_uids: bool = False
    strict: bool = False

    def said(self, fields: Mapping[str, object]) -> dict[str, Said]:
        """Give what is said of some fields.

        Raises
        ------
        UndeclaredError
            One is not declared, or its value is of another kind, and `strict` holds.
        """
        said: dict[str, Said] = {}
        dropped: list[str] = []
        for key, value in fields.items():
            if key not in FIELDS:
                # What is no identifier of Python's was not written by a programmer.
                dropped.append(key if key.isidentifier() else WITHHELD)
                continue
            try:
                said[key] = self._form(FIELDS[key], value)
            except ValueError:
                if self.strict:
                    raise UndeclaredError(f"{key} has to be {FIELDS[key].value}") from None
                said[key] = WITHHELD
        if dropped and self.strict:
            raise UndeclaredError(f"a log's field has to be declared: {', '.join(dropped)}")
        return said | ({"dropped": sorted(dropped)} if dropped else {})

    def hashed(self, uid: str) -> str:
        """Give what stands for a UID: 16 hexadecimal digits of HMAC-SHA256."""
        return hmac.digest(self.secret, uid.encode(), hashlib.sha256).hex()[:_HASH_DIGITS]

    def _form(self, form: Form, value: object) -> Said:
        """Bring a value into its form, or raise `ValueError`."""
        match form:
            case Form.NAME:
                return _checked(value, str(value) in self.names)
            case Form.UID:
                return self._uid(value)
            case _:
                return _FORMS[form](value)

    def _uid(self, value: object) -> Said:
        if value == "":  # an object may have no study
            return None
        text = _text(value)
        if not self.plain_uids:
            return self.hashed(text)
        try:
            return check_uid(text, "UID")
        except UIDError:
            raise ValueError from None


def error_name(error: object) -> str:
    """Give the name of an error, and the system's name of its reason; never what it says.

    Raises
    ------
    ValueError
        It is no exception, and no class of one.
    """
    if isinstance(error, str):
        return _checked(error, error in _error_names(BaseException))
    kind = error if isinstance(error, type) else type(error)
    if not issubclass(kind, BaseException):
        raise ValueError  # noqa: TRY004  as in `_text`
    number = error.errno if isinstance(error, OSError) else None
    reason = errno.errorcode.get(number, "") if isinstance(number, int) else ""
    return f"{kind.__name__} {reason}".strip()


def _error_names(kind: type[BaseException]) -> set[str]:
    """Give the names of all classes of errors that there are now."""
    return {kind.__name__}.union(*(_error_names(one) for one in type.__subclasses__(kind)))


def _text(value: object) -> str:
    """Give a text as a plain str; pydicom's UIDs are of a class of their own."""
    if not isinstance(value, str):
        raise ValueError  # noqa: TRY004  one error for all that does not fit
    return str.__str__(value)


def _checked(value: object, good: object) -> str:
    if not good:
        raise ValueError
    return _text(value)


def _number(value: object) -> Said:
    if value is None or isinstance(value, int | float):
        return value.value if isinstance(value, Enum) else value
    raise ValueError


def _status(value: object) -> Said:
    if isinstance(value, str) and _STATUS.fullmatch(value):
        return f"0x{value}"
    if isinstance(value, int) and 0 <= value <= 0xFFFF:
        return f"0x{value:04X}"
    raise ValueError


def _word(value: object) -> Said:
    if isinstance(value, Enum):
        return str(value.value)
    words = own_words(_text(value))
    if words is None:
        raise ValueError
    return words


def _standard(value: object) -> Said:
    text = _text(value)
    return text if _STANDARD.fullmatch(text) else "private"


_FORMS: Final[Mapping[Form, Callable[[object], Said]]] = {
    Form.NUMBER: _number,
    Form.STATUS: _status,
    Form.WORD: _word,
    Form.AE_TITLE: lambda value: _checked(value, _AE.fullmatch(_text(value))),
    Form.ADDRESS: lambda value: str(ip_address(_text(value).partition("%")[0])),
    Form.OBJECT: lambda value: _checked(value, _ID.fullmatch(_text(value))),
    Form.STANDARD_UID: _standard,
    Form.ERROR: error_name,
}
