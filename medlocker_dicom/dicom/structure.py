"""Is a data set whole? A walk over its elements that reads headers only (PS3.5 section 7).

pydicom reads a file that ends early as if the rest had never been there. The
walk tells a whole data set from a cut one without looking at any value.
"""

import mmap
import re
import struct
from typing import NamedTuple

from medlocker_dicom.errors import NotDicomError, TruncatedError

Buffer = bytes | bytearray | mmap.mmap

UNDEFINED = 0xFFFFFFFF
MAX_DEPTH = 64
_NO_DATA = {0x0000: "command element", 0x0002: "meta element", 0xFFFE: "delimiter"}
_NOT_ZERO = re.compile(rb"[^\0]")
_ITEM, _ITEM_END, _SEQUENCE_END = 0xFFFEE000, 0xFFFEE00D, 0xFFFEE0DD
_LONG_VRS = frozenset(
    {b"OB", b"OD", b"OF", b"OL", b"OV", b"OW", b"SQ", b"SV", b"UC", b"UN", b"UR", b"UT", b"UV"}
)


class Encoding(NamedTuple):
    """How elements are encoded: PS3.5 section 7.1 and 7.3."""

    implicit: bool
    little: bool


EXPLICIT_LITTLE = Encoding(implicit=False, little=True)
IMPLICIT_LITTLE = Encoding(implicit=True, little=True)
EXPLICIT_BIG = Encoding(implicit=False, little=False)


class Header(NamedTuple):
    """Tag, VR (empty when implicit), length and offset of the value in bytes."""

    tag: int
    vr: bytes
    length: int
    value: int


def looks_explicit(data: Buffer, start: int) -> bool:
    """Tell whether the element at `start` names a VR.

    Some writers declare Implicit VR and write Explicit; pydicom reads what is
    there, and so does the walk.
    """
    vr = data[start + 4 : start + 6]
    return len(vr) == 2 and b"AA" <= vr <= b"ZZ" and vr.isalpha() and vr.isupper()


def read_header(data: Buffer, offset: int, encoding: Encoding) -> Header:
    """Read the header of the element at `offset`.

    Raises
    ------
    TruncatedError
        If the data ends within the header.
    """
    order = "<" if encoding.little else ">"
    try:
        group, element = struct.unpack_from(order + "HH", data, offset)
        tag = group << 16 | element
        # items and delimiters never have a VR (PS3.5 section 7.5); where the
        # VR is no VR, pydicom takes the element as implicit
        if group == 0xFFFE or encoding.implicit or not looks_explicit(data, offset):
            (length,) = struct.unpack_from(order + "L", data, offset + 4)
            return Header(tag, b"", length, offset + 8)
        vr = bytes(data[offset + 4 : offset + 6])
        if vr in _LONG_VRS:
            (length,) = struct.unpack_from(order + "L", data, offset + 8)
            return Header(tag, vr, length, offset + 12)
        (length,) = struct.unpack_from(order + "H", data, offset + 6)
        return Header(tag, vr, length, offset + 8)
    except struct.error:
        raise TruncatedError(f"ends within the header of an element, at byte {len(data)}") from None


def check_whole(data: Buffer, start: int, encoding: Encoding) -> None:
    """Walk the data set from `start` to the end of `data`.

    Parameters
    ----------
    data
        The file, or the inflated data set.
    start
        Offset of the first element in bytes.
    encoding
        As the transfer syntax says.

    Raises
    ------
    TruncatedError
        If the data ends before an element does.
    NotDicomError
        If what is there cannot be a data set.
    """
    offset = start
    while offset < len(data):
        header = read_header(data, offset, encoding)
        if header.tag == 0 and not _NOT_ZERO.search(data, offset):
            return  # zeros after the last element: harmless padding
        if (kind := _NO_DATA.get(header.tag >> 16)) is not None:
            raise NotDicomError(f"has a {kind} where an element belongs, at byte {offset}")
        offset = _end(data, header, encoding, depth=0)


def _end(data: Buffer, header: Header, encoding: Encoding, depth: int) -> int:
    """Return the offset after the element, whose bytes must all be there."""
    if header.length == UNDEFINED:
        return _end_of_items(data, header.value, encoding, depth)
    end = header.value + header.length
    if end > len(data):
        raise TruncatedError(
            f"ends within ({header.tag >> 16:04X},{header.tag & 0xFFFF:04X}): "
            f"{len(data) - header.value} of {header.length} bytes are there"
        )
    return end


def _end_of_items(data: Buffer, offset: int, encoding: Encoding, depth: int) -> int:
    """Return the offset after the sequence delimitation item."""
    if depth >= MAX_DEPTH:
        raise NotDicomError(f"nests sequences deeper than {MAX_DEPTH}")
    while True:
        item = read_header(data, offset, encoding)
        if item.tag == _SEQUENCE_END:
            return item.value
        if item.tag != _ITEM:
            raise NotDicomError(f"has no item where a sequence needs one, at byte {offset}")
        if item.length == UNDEFINED:
            offset = _end_of_elements(data, item.value, encoding, depth + 1)
        else:
            offset = _end(data, item, encoding, depth)


def _end_of_elements(data: Buffer, offset: int, encoding: Encoding, depth: int) -> int:
    """Return the offset after the item delimitation item."""
    while True:
        header = read_header(data, offset, encoding)
        if header.tag == _ITEM_END:
            return header.value
        if header.tag >> 16 == 0xFFFE:
            raise NotDicomError(f"has a delimiter where an element belongs, at byte {offset}")
        offset = _end(data, header, encoding, depth)
