"""The private block that makes an instance a locked one (PS3.5 section 7.8).

========= == ==================================================================
element   VR value
========= == ==================================================================
(gg,xx01) OB recovery packet: its length as 4 bytes, big-endian, then itself
(gg,xx02) OB the issuer's Ed25519 public key, 32 bytes
(gg,xx03) UI SOP Class UID of the source
(gg,xx04) UI SOP Instance UID of the source
(gg,xx05) CS bits of the source's decoded samples, decimal
========= == ==================================================================

The packet has its own length because DICOM pads values to even lengths. Other
tools may turn every VR into UN and move the block to another slot xx; such
blocks are read as well.
"""

from dataclasses import dataclass, field

from pydicom.dataset import Dataset, PrivateBlock
from pydicom.tag import Tag

from medlocker_dicom.dicom.uids import check_uid
from medlocker_dicom.errors import PacketError, PacketMissingError

GROUP = 0x4D4D
CREATOR = "MEDLOCKER DICOM 1"
MAX_PACKET_BYTES = 256 << 20
ISSUER_BYTES = 32

STRIPPED_HINT = (
    "give the folder of detached packets by --packets, or ask the owner for the object as it was "
    "sent, with private elements kept"
)

_PACKET, _ISSUER, _SOURCE_CLASS, _SOURCE_INSTANCE, _BITS = 0x01, 0x02, 0x03, 0x04, 0x05
_LENGTH_BYTES = 4


@dataclass(frozen=True)
class LockBlock:
    """What the private block holds; `packet` is None if it is kept elsewhere."""

    packet: bytes | None = field(repr=False)
    issuer: bytes
    source_class_uid: str
    source_uid: str
    bits: int


def write_source(ds: Dataset, source_class_uid: str, source_uid: str, bits: int) -> None:
    """Begin the block in a data set that has none: where the instance came from."""
    block = ds.private_block(GROUP, CREATOR, create=True)
    block.add_new(_SOURCE_CLASS, "UI", source_class_uid)
    block.add_new(_SOURCE_INSTANCE, "UI", source_uid)
    block.add_new(_BITS, "CS", str(bits))


def write_packet(ds: Dataset, packet: bytes | None, issuer: bytes) -> None:
    """Complete the block: the packet, unless it is kept elsewhere, and its issuer.

    Raises
    ------
    ValueError
        If the issuer is not 32 bytes, the packet is empty or too large, or
        there is no block.
    """
    if len(issuer) != ISSUER_BYTES:
        raise ValueError(f"an issuer has {ISSUER_BYTES} bytes, not {len(issuer)}")
    block = _own_block(ds)
    for offset in (_PACKET, _ISSUER):
        if offset in block:
            del block[offset]
    if packet is not None:
        if not 0 < len(packet) <= MAX_PACKET_BYTES:
            raise ValueError(f"a packet has 1 to {MAX_PACKET_BYTES} bytes, not {len(packet)}")
        value = len(packet).to_bytes(_LENGTH_BYTES, "big") + packet
        block.add_new(_PACKET, "OB", value + b"\0" * (len(value) % 2))
    block.add_new(_ISSUER, "OB", issuer)


def _own_block(ds: Dataset) -> PrivateBlock:
    try:
        return ds.private_block(GROUP, CREATOR)
    except KeyError:
        raise ValueError("the data set is not from build_capture") from None


def has_block(ds: Dataset) -> bool:
    """Tell whether `ds` holds a private block of ours."""
    return _find(ds) is not None


def read_block(ds: Dataset) -> LockBlock:
    """Read the block, whatever VRs and slot other tools gave it.

    Raises
    ------
    PacketMissingError
        If there is none.
    PacketError
        If it is damaged.
    UIDError
        If the source's UIDs in it are none.
    """
    base = _find(ds)
    if base is None:
        raise PacketMissingError(
            "its recovery packet was stripped",
            STRIPPED_HINT,
        )
    issuer = _value(ds, base | _ISSUER)
    if issuer is None or len(issuer) != ISSUER_BYTES:
        raise PacketError("the issuer's key in the private block is missing or damaged")
    bits = (_value(ds, base | _BITS) or b"").rstrip(b" \0")
    if bits not in [str(possible).encode() for possible in range(1, 17)]:
        raise PacketError("the number of bits in the private block is missing or damaged")
    return LockBlock(
        packet=_unframe(_value(ds, base | _PACKET)),
        issuer=issuer,
        source_class_uid=_uid(ds, base | _SOURCE_CLASS, "the source's SOP Class UID"),
        source_uid=_uid(ds, base | _SOURCE_INSTANCE, "the source's SOP Instance UID"),
        bits=int(bits),
    )


def _find(ds: Dataset) -> int | None:
    """Return the first tag of the block's elements, xx00, if its creator is there."""
    for slot in range(0x10, 0x100):
        value = _value(ds, GROUP << 16 | slot)
        if value is not None and value.rstrip(b" \0") == CREATOR.encode("ascii"):
            return GROUP << 16 | slot << 8
    return None


def _value(ds: Dataset, tag: int) -> bytes | None:
    """Return the bytes of an element, be its VR what it may."""
    if Tag(tag) not in ds:
        return None
    value = ds[tag].value
    if isinstance(value, str):
        return value.encode("utf-8", "replace")
    return bytes(value) if isinstance(value, bytes | bytearray) else None


def _unframe(value: bytes | None) -> bytes | None:
    """Cut the packet out of its element's value."""
    if value is None:
        return None
    size = int.from_bytes(value[:_LENGTH_BYTES], "big")
    packet, padding = value[_LENGTH_BYTES:][:size], value[_LENGTH_BYTES + size :]
    if not 0 < size <= MAX_PACKET_BYTES or len(packet) != size or padding not in (b"", b"\0"):
        raise PacketError("the recovery packet in the private block is damaged")
    return packet


def _uid(ds: Dataset, tag: int, what: str) -> str:
    value = _value(ds, tag) or b""
    return check_uid(value.rstrip(b" \0").decode("ascii", "replace"), what)
