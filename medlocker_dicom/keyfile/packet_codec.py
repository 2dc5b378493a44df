"""The recovery packet as bytes: big-endian, length-prefixed, one way only.

::

    original digest   32
    logos             u32 count, each: width u16, height u16, planes
    frames            u32 count, each: x u16, y u16, alpha u8, logo u16,
                      seed 32, logo digest 32, rule, grid, residual
    attributes

Planes, rule, grid, residual and attributes are a u32 length and the bytes.
"""

from collections.abc import Iterator
from struct import calcsize, pack, unpack
from typing import Any, Final

from medlocker_dicom.errors import PacketError
from medlocker_dicom.keyfile import caps
from medlocker_dicom.keyfile.packet import (
    DIGEST_BYTES,
    SEED_BYTES,
    FrameMark,
    Packet,
    PacketLogo,
)

_COUNT: Final = ">I"
_LOGO: Final = ">HH"
_FRAME: Final = f">HHBH{SEED_BYTES}s{DIGEST_BYTES}s"
_MIN_LOGO_BYTES = calcsize(_LOGO) + 4
_MIN_FRAME_BYTES = calcsize(_FRAME) + 3 * 4


def encode_packet(packet: Packet) -> bytes:
    """Serialise a packet.

    Returns
    -------
    bytes
        At most 512 MiB.

    Raises
    ------
    PacketError
        The packet is larger than that.
    """
    parts = list(_parts(packet))
    size = sum(map(len, parts))
    if size > caps.MAX_PACKET_BYTES:
        raise PacketError(f"recovery packet has {size} bytes, more than {caps.MAX_PACKET_BYTES}")
    return b"".join(parts)


def decode_packet(data: bytes) -> Packet:
    """Parse what `encode_packet` gives, and nothing else.

    Counts and lengths are compared with the caps and with what is left of
    the data before anything is copied.

    Raises
    ------
    PacketError
        Too large, truncated, out of range, or with bytes left over.
    """
    if len(data) > caps.MAX_PACKET_BYTES:
        raise PacketError(f"recovery packet has more than {caps.MAX_PACKET_BYTES} bytes")
    reader = _Reader(data)
    (original_sha256,) = reader.fields(f">{DIGEST_BYTES}s")
    logos = tuple(_read_logo(reader) for _ in range(reader.count(caps.MAX_LOGOS, _MIN_LOGO_BYTES)))
    frames = tuple(
        _read_frame(reader) for _ in range(reader.count(caps.MAX_FRAMES, _MIN_FRAME_BYTES))
    )
    attributes = reader.blob(caps.MAX_ATTRIBUTES_BYTES)
    reader.end()
    return Packet(frames, logos, original_sha256, attributes)


def _parts(packet: Packet) -> Iterator[bytes]:
    yield packet.original_sha256
    yield pack(_COUNT, len(packet.logos))
    for logo in packet.logos:
        yield pack(_LOGO, logo.width, logo.height)
        yield from _blob(logo.planes)
    yield pack(_COUNT, len(packet.frames))
    for mark in packet.frames:
        yield pack(_FRAME, mark.x, mark.y, mark.alpha, mark.logo, mark.seed, mark.logo_sha256)
        for blob in (mark.rule.encode("ascii"), mark.grid, mark.residual):
            yield from _blob(blob)
    yield from _blob(packet.attributes)


def _blob(data: bytes) -> tuple[bytes, bytes]:
    return pack(_COUNT, len(data)), data


def _read_logo(reader: "_Reader") -> PacketLogo:
    width, height = reader.fields(_LOGO)
    return PacketLogo(width, height, reader.blob(caps.MAX_LOGO_BYTES))


def _read_frame(reader: "_Reader") -> FrameMark:
    x, y, alpha, logo, seed, logo_sha256 = reader.fields(_FRAME)
    try:
        rule = reader.blob(caps.MAX_RULE_CHARS).decode("ascii")
    except UnicodeDecodeError:
        raise PacketError("rule in the recovery packet is no name") from None
    grid = reader.blob(caps.MAX_GRID_BYTES)
    residual = reader.blob(caps.MAX_RESIDUAL_BYTES)
    return FrameMark(x, y, alpha, rule, seed, logo_sha256, logo, residual, grid)


class _Reader:
    """Takes values off the front of bytes."""

    def __init__(self, data: bytes) -> None:
        self._data = memoryview(data)
        self._at = 0

    def fields(self, layout: str) -> tuple[Any, ...]:
        """Take a fixed layout of `struct`."""
        return unpack(layout, self._take(calcsize(layout)))

    def count(self, cap: int, smallest: int) -> int:
        """Take a number of records of at least `smallest` bytes each."""
        (number,) = unpack(_COUNT, self._take(4))
        if number > cap or number * smallest > self._left:
            raise PacketError("recovery packet counts more than it may or does hold")
        return int(number)

    def blob(self, cap: int) -> bytes:
        """Take bytes behind their length."""
        (length,) = unpack(_COUNT, self._take(4))
        if length > cap:
            raise PacketError(f"a field of the recovery packet has more than {cap} bytes")
        return bytes(self._take(length))

    def end(self) -> None:
        """Check that nothing is left."""
        if self._left:
            raise PacketError(f"recovery packet has {self._left} bytes too many")

    @property
    def _left(self) -> int:
        return len(self._data) - self._at

    def _take(self, length: int) -> memoryview:
        if length > self._left:
            raise PacketError("recovery packet ends too early")
        self._at += length
        return self._data[self._at - length : self._at]
