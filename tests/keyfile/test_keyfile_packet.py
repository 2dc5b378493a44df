"""Recovery packets: strict encoding, sealed to a DEK and an object."""

from dataclasses import replace
from struct import pack

import pytest
from keyfile_factories import BINDING, DEK, OTHER_VALUES, bytes_for, make_packet, swap

from medlocker_dicom.errors import PacketError
from medlocker_dicom.keyfile import (
    FrameMark,
    Packet,
    PacketLogo,
    caps,
    generate_dek,
    open_packet,
    packet_seal,
    seal_packet,
)
from medlocker_dicom.keyfile.packet_codec import decode_packet, encode_packet

PACKET = make_packet()
PLAIN = encode_packet(PACKET)
SEALED = seal_packet(PACKET, DEK, BINDING)
LOGOS_AT = 32  # the count of logos stands behind the digest of the original


def frames_at() -> int:
    """Where the count of frames stands."""
    return LOGOS_AT + 4 + sum(8 + len(logo.planes) for logo in PACKET.logos)


@pytest.mark.parametrize("frames", [1, 2, 5])
def test_round_trip(frames: int) -> None:
    """What is sealed opens as the same packet."""
    packet = make_packet(frames)
    assert open_packet(seal_packet(packet, DEK, BINDING), DEK, BINDING) == packet


def test_many_chunks_round_trip() -> None:
    """A packet of several Cobblestone chunks opens whole."""
    packet = replace(PACKET, attributes=bytes_for("large", 200_001))
    assert open_packet(seal_packet(packet, DEK, BINDING), DEK, BINDING) == packet


@pytest.mark.parametrize("field", OTHER_VALUES)
def test_swapped_binding_field_is_refused(field: str) -> None:
    """A packet moved to an object that differs in any bound field does not open."""
    with pytest.raises(PacketError, match="does not belong"):
        open_packet(SEALED, DEK, swap(field))


def test_other_dek_is_refused() -> None:
    """Another DEK does not open the packet."""
    with pytest.raises(PacketError, match="does not belong"):
        open_packet(SEALED, generate_dek(), BINDING)


@pytest.mark.parametrize("dek", [b"", bytes(31), bytes(33)])
def test_dek_of_wrong_length_is_a_mistake_of_the_caller(dek: bytes) -> None:
    """A DEK has 32 bytes; anything else is a ValueError, not a verdict on the packet."""
    with pytest.raises(ValueError, match="32 bytes"):
        open_packet(SEALED, dek, BINDING)
    with pytest.raises(ValueError, match="32 bytes"):
        seal_packet(PACKET, dek, BINDING)


@pytest.mark.parametrize("at", [8, 9, 40, 100, len(SEALED) // 2, len(SEALED) - 1])
def test_flipped_bit_is_refused(at: int) -> None:
    """Damage anywhere behind the magic is noticed."""
    damaged = bytearray(SEALED)
    damaged[at] ^= 1
    with pytest.raises(PacketError, match="damaged"):
        open_packet(bytes(damaged), DEK, BINDING)


@pytest.mark.parametrize("length", [0, 7, 8, 9, 80, len(SEALED) - 1])
def test_truncation_is_refused(length: int) -> None:
    """A packet cut short is noticed, at the magic or by the sealing."""
    with pytest.raises(PacketError):
        open_packet(SEALED[:length], DEK, BINDING)


def test_truncation_at_a_chunk_is_refused() -> None:
    """Cutting whole chunks off the end is noticed."""
    large = replace(PACKET, attributes=bytes_for("large", 100_000))
    sealed = seal_packet(large, DEK, BINDING)
    for chunk in (2**14, 2**15, 2**16):
        for overhead in (40, 48, 56, 64, 72):
            with pytest.raises(PacketError):
                open_packet(sealed[: 8 + overhead + chunk], DEK, BINDING)


@pytest.mark.parametrize("data", [SEALED + b"\0", SEALED + SEALED, b"\0" + SEALED, PLAIN, b"junk"])
def test_extended_or_foreign_is_refused(data: bytes) -> None:
    """Bytes before, behind or instead of the packet are noticed."""
    with pytest.raises(PacketError):
        open_packet(data, DEK, BINDING)


def test_sealing_overhead_stays_below_the_cap_for_it() -> None:
    """The largest packet, sealed, is still within what opening accepts."""
    size = 3_000_000
    sealed = seal_packet(replace(PACKET, attributes=bytes(size)), DEK, BINDING)
    overhead = (len(sealed) - size) / size
    assert overhead < packet_seal.MAX_SEALED_BYTES / caps.MAX_PACKET_BYTES - 1


@pytest.mark.parametrize("length", range(0, len(PLAIN), 37))
def test_plain_truncation_is_refused(length: int) -> None:
    """The encoding itself is strict: no prefix of a packet is a packet."""
    with pytest.raises(PacketError):
        decode_packet(PLAIN[:length])


def test_plain_extension_is_refused() -> None:
    """Nothing may follow the last field."""
    with pytest.raises(PacketError, match="1 bytes too many"):
        decode_packet(PLAIN + b"\0")


@pytest.mark.parametrize("count", [0, 1, 3, caps.MAX_LOGOS + 1, 2**32 - 1])
@pytest.mark.parametrize("what", ["logos", "frames"])
def test_false_count_is_refused(what: str, count: int) -> None:
    """A count that is not that of the records is refused, large ones at once."""
    at = LOGOS_AT if what == "logos" else frames_at()
    with pytest.raises(PacketError):
        decode_packet(PLAIN[:at] + pack(">I", count) + PLAIN[at + 4 :])


@pytest.mark.parametrize("length", [caps.MAX_LOGO_BYTES + 1, 2**32 - 1])
def test_oversized_field_is_refused_before_copying(length: int) -> None:
    """A length above its cap is refused although the data is short."""
    at = LOGOS_AT + 4 + 4
    with pytest.raises(PacketError, match="more than"):
        decode_packet(PLAIN[:at] + pack(">I", length) + PLAIN[at + 4 :])


@pytest.mark.parametrize("count", [4000, 2**32 - 1])
def test_count_beyond_the_data_is_refused_before_reading(count: int) -> None:
    """A count that the rest of the data cannot hold is refused at once."""
    with pytest.raises(PacketError, match="counts more"):
        decode_packet(PLAIN[:LOGOS_AT] + pack(">I", count) + PLAIN[LOGOS_AT + 4 :])


def test_count_above_the_cap_is_refused_before_reading() -> None:
    """A count above its cap is refused although the data holds as many records."""
    count = caps.MAX_LOGOS + 1
    logos = pack(">HHI", 1, 1, 0) * count
    with pytest.raises(PacketError, match="counts more"):
        decode_packet(bytes(32) + pack(">I", count) + logos)


def test_other_magic_is_refused() -> None:
    """The magic is checked, although what follows would open."""
    with pytest.raises(PacketError, match="not a recovery packet"):
        open_packet(b"MLPACK\x00\x02" + SEALED[8:], DEK, BINDING)


def test_rule_that_is_no_text_is_refused() -> None:
    """A rule of other bytes than the allowed ones is refused."""
    for rule in (b"\xff\xfe", b"Dither 1"):
        with pytest.raises(PacketError, match="rule"):
            decode_packet(PLAIN.replace(b"\0\0\0\x08dither-1", pack(">I", len(rule)) + rule, 1))


def test_oversized_packet_is_refused_both_ways(monkeypatch: pytest.MonkeyPatch) -> None:
    """Sealing and opening refuse what is above the cap of the whole."""
    monkeypatch.setattr(caps, "MAX_PACKET_BYTES", len(PLAIN) - 1)
    with pytest.raises(PacketError, match="more than"):
        encode_packet(PACKET)
    with pytest.raises(PacketError, match="more than"):
        decode_packet(PLAIN)


def test_oversized_sealed_packet_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is too large is refused before it is decrypted."""
    monkeypatch.setattr(packet_seal, "MAX_SEALED_BYTES", len(SEALED) - 1)
    with pytest.raises(PacketError, match="more than"):
        open_packet(SEALED, DEK, BINDING)


MARK = PACKET.frames[0]
LOGO = PACKET.logos[0]


@pytest.mark.parametrize(
    "change",
    [
        {"x": -1},
        {"x": 65536},
        {"y": -1},
        {"alpha": 256},
        {"alpha": -1},
        {"rule": ""},
        {"rule": "Rule"},
        {"rule": "r" * (caps.MAX_RULE_CHARS + 1)},
        {"seed": bytes(31)},
        {"logo_sha256": bytes(33)},
        {"logo": -1},
        {"logo": caps.MAX_LOGOS},
        {"grid": bytes(caps.MAX_GRID_BYTES + 1)},
    ],
)
def test_unusable_mark_is_refused(change: dict[str, object]) -> None:
    """A frame mark out of range is never made."""
    with pytest.raises(PacketError):
        replace(MARK, **change)  # type: ignore[arg-type]  # wrong on purpose


@pytest.mark.parametrize("size", [(0, 1), (1, 0), (65536, 1), (1, 65536)])
def test_unusable_logo_is_refused(size: tuple[int, int]) -> None:
    """A logo without pixels, or with more than DICOM can have, is never made."""
    with pytest.raises(PacketError):
        PacketLogo(*size, b"")


@pytest.mark.parametrize(
    ("frames", "logos"),
    [
        ((), (LOGO,)),
        ((MARK,), ()),
        ((replace(MARK, logo=1),), (LOGO,)),
        ((MARK,), PACKET.logos),
        ((MARK, replace(MARK, logo=1)), (LOGO, LOGO)),
    ],
)
def test_inconsistent_packet_is_refused(
    frames: tuple[FrameMark, ...], logos: tuple[PacketLogo, ...]
) -> None:
    """No frame, or a logo that is missing, unused or doubled, is never packed."""
    with pytest.raises(PacketError):
        Packet(frames, logos, bytes(32), b"")
    with pytest.raises(PacketError):
        Packet(PACKET.frames, PACKET.logos, bytes(31), b"")
