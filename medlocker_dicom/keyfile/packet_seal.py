"""Seals a recovery packet to a DEK and to the object that it belongs to.

Cobblestone-256 encrypts in chunks, commits to the key, and detects
truncation, reordering and any other context than the one sealed with.
"""

from typing import Final

from cryptography.cobblestone import Cobblestone256Decryptor, Cobblestone256Encryptor
from cryptography.exceptions import InvalidTag

from medlocker_dicom.errors import PacketError
from medlocker_dicom.keyfile import caps
from medlocker_dicom.keyfile.binding import Binding
from medlocker_dicom.keyfile.packet import Packet
from medlocker_dicom.keyfile.packet_codec import decode_packet, encode_packet

MAGIC: Final = b"MLPACK\x00\x01"
"""What a sealed packet begins with: name and version of the format."""

MAX_SEALED_BYTES = caps.MAX_PACKET_BYTES + caps.MAX_PACKET_BYTES // 512 + caps.KIB


def generate_dek() -> bytes:
    """Make a data encryption key, 32 random bytes, for one locked object."""
    return Cobblestone256Encryptor.generate_key()


def seal_packet(packet: Packet, dek: bytes, binding: Binding) -> bytes:
    """Encrypt a packet.

    Parameters
    ----------
    packet
        The packet.
    dek
        32 bytes, used for this packet alone.
    binding
        Of the locked object.

    Returns
    -------
    bytes
        Magic, then Cobblestone-256: about 0.1 % and 80 bytes more than the
        packet itself.

    Raises
    ------
    PacketError
        The packet is too large.
    ValueError
        The DEK does not have 32 bytes.
    """
    sealer = Cobblestone256Encryptor(dek, binding.context)
    return b"".join((MAGIC, sealer.update(encode_packet(packet)), sealer.finalize()))


def open_packet(data: bytes, dek: bytes, binding: Binding) -> Packet:
    """Decrypt and parse a packet; nothing of it is used before all is verified.

    Parameters
    ----------
    data
        What `seal_packet` gave.
    dek
        From the grant.
    binding
        Of the locked object at hand, computed from that object.

    Returns
    -------
    Packet
        As it was sealed.

    Raises
    ------
    PacketError
        No packet, too large, damaged, truncated, or of another object.
    ValueError
        The DEK does not have 32 bytes.
    """
    if len(data) > MAX_SEALED_BYTES:
        raise PacketError(f"recovery packet has {len(data)} bytes, more than {MAX_SEALED_BYTES}")
    if not data.startswith(MAGIC):
        raise PacketError("not a recovery packet", "it was changed, or needs a newer version")
    opener = Cobblestone256Decryptor(dek, binding.context)
    try:
        plain = opener.update(memoryview(data)[len(MAGIC) :]) + opener.finalize()
    except InvalidTag:
        raise PacketError(
            f"recovery packet does not belong to {binding.locked_uid}, or is damaged",
            "pixels, header or packet were changed after locking; use the object as it was sent",
        ) from None
    return decode_packet(plain)
