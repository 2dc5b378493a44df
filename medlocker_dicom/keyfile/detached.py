"""The detached packet (.mlpacket): what a locked object carries privately, beside it instead.

Archives may strip private elements. The header tells whose it is and where the
object came from; none of it is believed before the packet opens, whose binding
covers issuer, object and source.
"""

from dataclasses import dataclass, field
from struct import calcsize, pack, unpack_from
from typing import Final

from medlocker_dicom.errors import KeyFileError, PacketError, UIDError
from medlocker_dicom.keyfile import canonical, caps
from medlocker_dicom.keyfile.binding import check_uid
from medlocker_dicom.keyfile.canonical import Fields, text_of
from medlocker_dicom.keyfile.packet_seal import MAX_SEALED_BYTES
from medlocker_dicom.keyfile.public import VERIFY_KEY_BYTES

SUFFIX: Final = ".mlpacket"
MAGIC: Final = b"MLSIDE\x00\x01"
DETACHED_MEMBERS: Final = frozenset(
    {"locked_uid", "source_uid", "source_class_uid", "bits", "issuer"}
)
_LENGTH: Final = ">I"
MAX_DETACHED_BYTES: Final = (
    len(MAGIC) + calcsize(_LENGTH) + caps.MAX_DETACHED_HEADER_BYTES + MAX_SEALED_BYTES
)
_MAX_BITS: Final = 16


@dataclass(frozen=True)
class DetachedPacket:
    """A sealed recovery packet with what else unlocking needs of the private block.

    Parameters
    ----------
    locked_uid, source_uid
        SOP Instance UID of the locked object and of its source.
    source_class_uid
        SOP Class UID of the source.
    bits
        Samples of the source are 0 to 2**bits - 1.
    issuer
        Ed25519 public key of who locked it, 32 bytes.
    packet
        Sealed.

    Raises
    ------
    PacketError
        A field is unusable.
    """

    locked_uid: str
    source_uid: str
    source_class_uid: str
    bits: int
    issuer: bytes
    packet: bytes = field(repr=False)

    def __post_init__(self) -> None:
        """Check what the class promises."""
        try:
            for uid in (self.locked_uid, self.source_uid, self.source_class_uid):
                check_uid(uid, "detached packet's")
        except UIDError as error:
            raise PacketError(str(error)) from None
        if not 1 <= self.bits <= _MAX_BITS or len(self.issuer) != VERIFY_KEY_BYTES:
            raise PacketError("bits or issuer of the detached packet are unusable")
        if not 0 < len(self.packet) <= MAX_SEALED_BYTES:
            raise PacketError(f"the detached packet has {len(self.packet)} bytes")


def dump_detached(detached: DetachedPacket) -> bytes:
    """Give the content of a detached packet file."""
    header = canonical.dumps(
        {
            "locked_uid": detached.locked_uid,
            "source_uid": detached.source_uid,
            "source_class_uid": detached.source_class_uid,
            "bits": detached.bits,
            "issuer": text_of(detached.issuer),
        }
    )
    return b"".join((MAGIC, pack(_LENGTH, len(header)), header, detached.packet))


def load_detached(data: bytes) -> DetachedPacket:
    """Parse the content of a detached packet file; nothing of it is verified yet.

    Raises
    ------
    PacketError
        Too large, malformed, or not canonical.
    """
    start = len(MAGIC) + calcsize(_LENGTH)
    if len(data) < start or not data.startswith(MAGIC):
        raise PacketError("not a detached packet", "it was changed, or needs a newer version")
    (size,) = unpack_from(_LENGTH, data, len(MAGIC))
    if size > caps.MAX_DETACHED_HEADER_BYTES or start + size > len(data):
        raise PacketError("the detached packet's header is cut short or too large")
    try:
        record = canonical.loads(
            data[start : start + size],
            KeyFileError,
            max_bytes=caps.MAX_DETACHED_HEADER_BYTES,
            max_values=len(DETACHED_MEMBERS) + 1,
        )
        fields = Fields(record, DETACHED_MEMBERS, KeyFileError, "detached packet")
        detached = DetachedPacket(
            fields.text("locked_uid", caps.MAX_UID_CHARS),
            fields.text("source_uid", caps.MAX_UID_CHARS),
            fields.text("source_class_uid", caps.MAX_UID_CHARS),
            fields.integer("bits", 1, _MAX_BITS),
            fields.data("issuer", VERIFY_KEY_BYTES),
            data[start + size :],
        )
    except KeyFileError as error:
        raise PacketError(str(error), error.hint) from None
    if dump_detached(detached) != data:
        raise PacketError("the detached packet is not written the canonical way")
    return detached
