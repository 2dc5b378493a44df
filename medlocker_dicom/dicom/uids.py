"""UIDs: what counts as one (PS3.5 section 9.1), and how new ones are derived."""

import hashlib
import hmac
import re

from medlocker_dicom.errors import UIDError

MAX_UID_LENGTH = 64
_MIN_KEY_LENGTH = 16
_COMPONENT = r"(?:0|[1-9][0-9]*)"
_UID = re.compile(rf"{_COMPONENT}(?:\.{_COMPONENT})+", re.ASCII)


def check_uid(uid: object, what: str) -> str:
    """Return `uid` as a plain string if it follows PS3.5 section 9.1.

    Call it before a UID from a file or the network becomes a file name.

    Parameters
    ----------
    uid
        The value of a UI element; None when the element is absent.
    what
        The element's name, for the message.

    Returns
    -------
    str
        At most 64 characters: digits and dots, no component with a leading zero.

    Raises
    ------
    UIDError
        If it is missing, has several values, is too long or breaks the grammar.
    """
    if uid is None or uid == "":
        raise UIDError(f"{what} is missing", "ask the sender for a complete instance")
    if not isinstance(uid, str):
        raise UIDError(f"{what} is not a single UID")
    if len(uid) > MAX_UID_LENGTH:
        raise UIDError(f"{what} has {len(uid)} characters, more than {MAX_UID_LENGTH}")
    if not _UID.fullmatch(uid):
        raise UIDError(f"{what} {str(uid)!r} is no UID", "UIDs are digits and dots (PS3.5 9.1)")
    return str(uid)


def derive_uid(key: bytes, purpose: str, uid: str) -> str:
    """Derive a new UID from another one, the same each time.

    A replay after a crash so gives the same instance. Without the key nobody
    can tell which source a derived UID came from.

    Parameters
    ----------
    key
        The site's secret, at least 16 bytes.
    purpose
        What the new UID names, such as ``"locked series"``.
    uid
        The UID it is derived from.

    Returns
    -------
    str
        ``2.25.`` and a UUID as a decimal number (PS3.5 B.2). The UUID is
        version 8 (RFC 9562): 122 bits of HMAC-SHA256.

    Raises
    ------
    UIDError
        If `uid` is no UID.
    ValueError
        If the key is too short or the purpose holds a NUL.
    """
    if len(key) < _MIN_KEY_LENGTH:
        raise ValueError(f"the key must have at least {_MIN_KEY_LENGTH} bytes")
    if "\0" in purpose:
        raise ValueError("the purpose must not hold a NUL")
    message = purpose.encode() + b"\0" + check_uid(uid, "UID").encode("ascii")
    number = int.from_bytes(hmac.digest(key, message, hashlib.sha256)[:16], "big")
    number = number & ~(0xF << 76) | (8 << 76)  # version, RFC 9562 section 5.8
    number = number & ~(0x3 << 62) | (2 << 62)  # variant, RFC 9562 section 4.1
    return f"2.25.{number}"
