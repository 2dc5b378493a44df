"""Property: what parses re-serialises to exactly the bytes that were parsed."""

from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime
from typing import TypeVar

from hypothesis import example, given, settings
from hypothesis import strategies as st
from keyfile_factories import (
    BINDING,
    ISSUER,
    LINEAGE,
    NEXT,
    NOW,
    RECIPIENT,
    make_grant,
    make_keyfile,
    make_packet,
)

from medlocker_dicom.errors import MedLockerError
from medlocker_dicom.keyfile import (
    DetachedPacket,
    FrameMark,
    Grant,
    KeyFile,
    Lineage,
    Packet,
    PacketLogo,
    ReceiptEntry,
    dump_detached,
    dump_grant,
    dump_identity,
    dump_keyfile,
    dump_public,
    dump_receipt,
    dump_status,
    load_detached,
    load_grant,
    load_identity,
    load_public,
    sign_keyfile,
    sign_receipt,
    sign_status,
)
from medlocker_dicom.keyfile.keyfile import parse_keyfile
from medlocker_dicom.keyfile.packet_codec import decode_packet, encode_packet
from medlocker_dicom.keyfile.receipt import UNLOCKED, parse_receipt
from medlocker_dicom.keyfile.status import parse_status

MANY = settings.get_current_profile_name() == "many"
seeded = settings() if MANY else settings(derandomize=True, deadline=None, max_examples=300)

T = TypeVar("T")
Edit = tuple[int, int, bytes]
edits = st.lists(
    st.tuples(
        st.integers(0, 10**6),
        st.integers(0, 3),
        st.one_of(st.binary(max_size=3), st.sampled_from([b" ", b"\n", b"=", b"A", b",", b"0"])),
    ),
    max_size=3,
)


def edit(data: bytes, changes: list[Edit]) -> bytes:
    """Replace up to three short runs of bytes."""
    for at, length, inserted in changes:
        start = at % (len(data) + 1)
        data = data[:start] + inserted + data[start + length :]
    return data


def check(data: bytes, load: Callable[[bytes], T], dump: Callable[[T], bytes]) -> None:
    """Refused with an error of ours, or the same bytes again."""
    with suppress(MedLockerError):
        assert dump(load(data)) == data


KEYFILE = dump_keyfile(make_keyfile(make_grant()))
SUCCEEDED = dump_keyfile(
    sign_keyfile(NEXT, RECIPIENT.public, [make_grant(issuer=NEXT)], NOW, LINEAGE)
)
STATUS = dump_status(sign_status(NEXT, LINEAGE, 7, [bytes(16), bytes([1]) * 16], NOW))
ENTRIES = (
    ReceiptEntry(BINDING.locked_uid, bytes(16), NOW, UNLOCKED),
    ReceiptEntry("1.2.3", None, NOW, "NoGrantError"),
)
RECEIPT = dump_receipt(sign_receipt(RECIPIENT, ENTRIES))
DETACHED = dump_detached(
    DetachedPacket("1.2.3", "1.2.4", "1.2.5", 8, ISSUER.public.verify_key, b"packet")
)
GRANT = dump_grant(make_grant())
PACKET = encode_packet(make_packet())
PUBLIC = dump_public(RECIPIENT.public)
IDENTITY = dump_identity(RECIPIENT, None)


@seeded
@example(changes=[])
@given(edits)
def test_key_file(changes: list[Edit]) -> None:
    """A key file has one text, even before its signature is verified."""
    check(edit(KEYFILE, changes), parse_keyfile, dump_keyfile)


@seeded
@given(edits)
def test_key_file_of_a_successor(changes: list[Edit]) -> None:
    """One with a succession has one text too."""
    check(edit(SUCCEEDED, changes), parse_keyfile, dump_keyfile)


@seeded
@given(edits)
def test_status_list(changes: list[Edit]) -> None:
    """A status list has one text."""
    check(edit(STATUS, changes), parse_status, dump_status)


@seeded
@given(edits)
def test_receipt(changes: list[Edit]) -> None:
    """A receipt has one text."""
    check(edit(RECEIPT, changes), parse_receipt, dump_receipt)


@seeded
@given(edits)
def test_detached_packet(changes: list[Edit]) -> None:
    """A detached packet has one encoding."""
    check(edit(DETACHED, changes), load_detached, dump_detached)


@seeded
@given(edits)
def test_grant(changes: list[Edit]) -> None:
    """A stored grant has one text."""
    check(edit(GRANT, changes), load_grant, dump_grant)


@seeded
@given(edits)
def test_packet(changes: list[Edit]) -> None:
    """A packet has one encoding."""
    check(edit(PACKET, changes), decode_packet, encode_packet)


@seeded
@given(edits)
def test_public(changes: list[Edit]) -> None:
    """A public key file has one text."""
    check(edit(PUBLIC, changes), load_public, dump_public)


@seeded
@given(edits)
def test_open_identity(changes: list[Edit]) -> None:
    """An identity file without a passphrase has one text."""
    check(
        edit(IDENTITY, changes),
        lambda data: load_identity(data, lambda: b""),
        lambda identity: dump_identity(identity, None),
    )


@seeded
@given(st.binary(max_size=400))
def test_arbitrary_bytes(data: bytes) -> None:
    """Arbitrary bytes are refused by every reader with an error of ours."""
    check(data, parse_keyfile, dump_keyfile)
    check(data, load_grant, dump_grant)
    check(data, decode_packet, encode_packet)
    check(data, load_public, dump_public)
    check(data, parse_status, dump_status)
    check(data, parse_receipt, dump_receipt)
    check(data, load_detached, dump_detached)


uids = st.from_regex(r"[1-9][0-9]{0,5}(\.(0|[1-9][0-9]{0,5})){0,7}", fullmatch=True)
times = st.datetimes(
    datetime(1970, 1, 2),  # noqa: DTZ001 - hypothesis wants its bounds naive
    datetime(9999, 12, 30),  # noqa: DTZ001 - the same
    timezones=st.just(UTC),
).map(lambda moment: moment.replace(microsecond=0))
recipient = st.just(RECIPIENT.public.id)


def exactly(size: int) -> st.SearchStrategy[bytes]:
    """Bytes of one length."""
    return st.binary(min_size=size, max_size=size)


grants = st.builds(
    Grant,
    uids,
    exactly(32),
    recipient,
    exactly(16),
    st.none() | times,
    exactly(80) | st.just(bytes(1168)),
    exactly(64),
)


@seeded
@given(
    st.lists(grants, max_size=4, unique_by=lambda grant: grant.locked_uid),
    st.sampled_from([Lineage(ISSUER.public), LINEAGE]),
    times,
    exactly(64),
)
def test_any_key_file_round_trips(
    some: list[Grant], lineage: Lineage, moment: datetime, signature: bytes
) -> None:
    """Every key file that can be made is read back as it was."""
    ordered = tuple(sorted(some, key=lambda grant: grant.locked_uid))
    keyfile = KeyFile(lineage, RECIPIENT.public.id, moment, ordered, signature)
    assert parse_keyfile(dump_keyfile(keyfile)) == keyfile


marks = st.builds(
    FrameMark,
    st.integers(0, 65535),
    st.integers(0, 65535),
    st.integers(0, 255),
    st.from_regex(r"[a-z0-9][a-z0-9.-]{0,31}", fullmatch=True),
    exactly(32),
    exactly(32),
    st.just(0),
    st.binary(max_size=50),
    st.binary(max_size=20),
)
logos = st.builds(PacketLogo, st.integers(1, 65535), st.integers(1, 65535), st.binary(max_size=50))


@seeded
@given(st.lists(marks, min_size=1, max_size=3), logos, exactly(32), st.binary(max_size=50))
def test_any_packet_round_trips(
    frames: list[FrameMark], logo: PacketLogo, digest: bytes, attributes: bytes
) -> None:
    """Every packet that can be made is read back as it was."""
    packet = Packet(tuple(frames), (logo,), digest, attributes)
    assert decode_packet(encode_packet(packet)) == packet
