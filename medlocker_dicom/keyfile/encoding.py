"""One injective encoding for everything that is hashed, signed or derived from.

Two different calls never give the same bytes: each part carries its type and
its length, and the first part is a domain that names the purpose.
"""

from struct import pack

Part = bytes | str | int | None


def encode(domain: str, *parts: Part) -> bytes:
    """Encode a domain and its parts.

    Parameters
    ----------
    domain
        What the bytes are for, such as ``"medlocker/grant/v1"``.
    *parts
        Bytes, text (UTF-8), integers (64 bit, signed) or None.

    Returns
    -------
    bytes
        For each of domain and parts: a type letter (``s``, ``b``, ``i``,
        ``n``), the length as 64 bit big-endian, the content.

    Raises
    ------
    struct.error
        An integer does not fit 64 bits.
    """
    return b"".join(_encode_part(part) for part in (domain, *parts))


def _encode_part(part: Part) -> bytes:
    match part:
        case None:
            letter, content = b"n", b""
        case str():
            letter, content = b"s", part.encode()
        case int():
            letter, content = b"i", pack(">q", part)
        case _:
            letter, content = b"b", bytes(part)
    return letter + pack(">Q", len(content)) + content
