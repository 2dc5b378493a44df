"""A locked object that was changed, or a key that is not for it, unlocks nothing."""

import tracemalloc
from collections.abc import Callable
from copy import deepcopy
from dataclasses import replace
from datetime import timedelta
from typing import Any

import numpy as np
import pytest
from pipeline_factories import (
    ALICE,
    BOB,
    ISSUER,
    MALLORY,
    NOW,
    make_locked,
    make_source,
    opened,
    reread,
)
from pydicom.dataelem import RawDataElement
from pydicom.tag import Tag

from medlocker_dicom.dicom.attributes import pack_attributes, unpack_attributes
from medlocker_dicom.dicom.locked import Locked, decode_locked
from medlocker_dicom.errors import (
    AttributesChangedError,
    GrantExpiredError,
    KeyRefusedError,
    LockedObjectError,
    MedLockerError,
    NoGrantError,
    PacketError,
    PacketMissingError,
    PixelsChangedError,
    SignatureError,
)
from medlocker_dicom.keyfile import (
    Grant,
    Identity,
    Packet,
    PacketLogo,
    issue_grant,
    open_grant,
    open_packet,
    seal_packet,
)
from medlocker_dicom.pipeline.binding import binding_of
from medlocker_dicom.pipeline.lock import LockedInstance
from medlocker_dicom.pipeline.unlock import unlock, verify
from medlocker_dicom.watermark.logo import Logo, pack_logo

Change = Callable[[Locked], Locked]
OTHER = "1.2.826.0.1.3680043.10.7.7"


@pytest.fixture(scope="module")
def result() -> LockedInstance:
    """Return a locked colour eye."""
    return make_locked()


@pytest.fixture(scope="module")
def twin() -> LockedInstance:
    """Return another instance of the same eye, locked by the same issuer."""
    return make_locked(make_source(instance_uid=OTHER))


@pytest.fixture
def locked(result: LockedInstance) -> Locked:
    """Return it as a recipient reads it."""
    return opened(result)


def header(**attributes: str) -> Change:
    """Change attributes."""

    def change(locked: Locked) -> Locked:
        ds = deepcopy(locked.ds)
        for keyword, value in attributes.items():
            setattr(ds, keyword, value)
        return replace(locked, ds=ds)

    return change


def picture(change: Callable[[Any], Any]) -> Change:
    """Change the pixels."""
    return lambda locked: replace(locked, pixels=change(locked.pixels.copy()))


def flipped(pixels: Any) -> Any:
    """Flip the last bit of one sample in the corner, far from the logo."""
    pixels[0, 0, 0, 0] ^= 1
    return pixels


CHANGES: dict[str, Change] = {
    "study_uid": header(StudyInstanceUID=OTHER),
    "series_uid": header(SeriesInstanceUID=OTHER),
    "sop_class_uid": header(SOPClassUID="1.2.840.10008.5.1.4.1.1.7.4"),
    "locked_uid": header(SOPInstanceUID=OTHER),
    "source_uid": lambda locked: replace(locked, source_uid=OTHER),
    "rows": picture(lambda pixels: pixels[:, :-1]),
    "columns": picture(lambda pixels: pixels[:, :, :-1]),
    "rows and columns": picture(lambda pixels: pixels.reshape(1, 80, 320, 3)),
    "frames": picture(lambda pixels: np.concatenate([pixels, pixels])),
    "photometric": picture(lambda pixels: pixels[..., :1]),
    "dtype": picture(lambda pixels: pixels.astype(np.uint16)),
    "pixel_sha256": picture(flipped),
    "issuer": lambda locked: replace(locked, issuer=MALLORY.public.verify_key),
}


@pytest.mark.parametrize("field", CHANGES)
def test_each_bound_field_is_bound(result: LockedInstance, locked: Locked, field: str) -> None:
    """A change of any field that the key is bound to is refused by verify and unlock."""
    verify(locked, result.grants[0], ALICE, NOW)
    for act in (verify, unlock):
        with pytest.raises((KeyRefusedError, LockedObjectError)) as caught:
            act(CHANGES[field](locked), result.grants[0], ALICE, NOW)
        if field == "issuer":
            assert caught.type is SignatureError
        elif field == "locked_uid":
            assert caught.type is NoGrantError
        else:
            assert caught.type is PixelsChangedError
            assert str(locked.ds.SOPInstanceUID) in str(caught.value)


@pytest.mark.parametrize(
    ("keyword", "value"),
    [
        ("PatientName", "Somebody^Else"),
        ("PatientID", "P-2"),
        ("PatientID", ""),
        ("PatientComments", "not the source's"),
        ("StudyDate", "20000101"),
        ("ImageLaterality", "L"),
        ("Laterality", "L"),
        ("AcquisitionDateTime", "20000101000000"),
        ("AnatomicRegionSequence", []),
        ("ICCProfile", b"another"),
    ],
)
def test_a_changed_attribute_is_told_but_not_restored(
    result: LockedInstance, locked: Locked, keyword: str, value: object
) -> None:
    """Verify names a changed attribute, not its values; unlock restores the sealed one."""
    original = unlock(locked, result.grants[0], ALICE, NOW)
    setattr(locked.ds, keyword, value)
    with pytest.raises(AttributesChangedError) as caught:
        verify(locked, result.grants[0], ALICE, NOW)
    assert str(caught.value) == f"{locked.ds.SOPInstanceUID}: changed after locking: {keyword}"
    assert unlock(locked, result.grants[0], ALICE, NOW) == original


def test_another_encoding_is_no_change() -> None:
    """Values in another character set, padding, or given where there were none: verified."""
    source = make_source()
    source.ds.SpecificCharacterSet = "ISO_IR 100"
    source.ds.PatientName = "M\u00fcller^J\u00f6rg"
    source.ds.PatientSize = "1.70"
    source.ds.OtherPatientIDsSequence = [deepcopy(source.ds.AnatomicRegionSequence[0])]
    del source.ds.PatientBirthDate
    result = make_locked(source)
    ds = reread(result.ds)
    assert ds.PatientBirthDate == ""
    name = str(ds.PatientName)
    ds.SpecificCharacterSet = "ISO_IR 192"
    ds.PatientName = name + " "
    ds.PatientSize = "1.7"
    ds.PatientWeight = None
    ds.OtherPatientIDsSequence[0].is_undefined_length_sequence_item = True
    verify(decode_locked(reread(ds)), result.grants[0], ALICE, NOW)


def test_values_that_break_their_rules_are_compared_by_their_bytes() -> None:
    """What no reader can parse is verified when it is as it was, and told when it is not."""
    source = make_source()
    source.ds[Tag("PatientSize")] = raw("PatientSize", "DS", b"tall")
    result = make_locked(source)
    ds = reread(result.ds)
    verify(decode_locked(deepcopy(ds)), result.grants[0], ALICE, NOW)
    ds[Tag("PatientSize")] = raw("PatientSize", "DS", b"tiny")
    with pytest.raises(AttributesChangedError, match="PatientSize"):
        verify(decode_locked(ds), result.grants[0], ALICE, NOW)


def raw(keyword: str, vr: str, value: bytes) -> RawDataElement:
    """Return an element that pydicom has not parsed."""
    return RawDataElement(
        Tag(keyword), vr, len(value), value, 0, is_implicit_VR=False, is_little_endian=True
    )


def resealed(locked: Locked, result: LockedInstance, change: Callable[[Packet], Packet]) -> Locked:
    """Return the object with a packet that a hostile owner sealed for the same grants."""
    binding = binding_of(locked.ds, locked.pixels, locked.source_uid, locked.issuer)
    dek = open_grant(result.grants[0], binding, ALICE, ISSUER.public.verify_key, NOW)
    assert locked.packet is not None
    packet = change(open_packet(locked.packet, dek, binding))
    return replace(locked, packet=seal_packet(packet, dek, binding))


def with_attribute(keyword: str, value: str | None) -> Callable[[Packet], Packet]:
    """Change one of the sealed attributes, or leave it out."""

    def change(packet: Packet) -> Packet:
        ds = unpack_attributes(packet.attributes)
        if value is None:
            delattr(ds, keyword)
        else:
            ds[Tag(keyword)] = raw(keyword, "UI", value.encode())
        return replace(packet, attributes=pack_attributes(ds))

    return change


@pytest.mark.parametrize("value", [None, "", "../../x", "1.2.3.4", "1.2\\1.3"])
@pytest.mark.parametrize(
    "keyword", ["SOPClassUID", "SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID"]
)
def test_a_packet_restores_no_other_instance(
    result: LockedInstance, locked: Locked, keyword: str, value: str | None
) -> None:
    """Sealed attributes that name another instance, or none, are refused by verify and unlock."""
    if (keyword, value) == ("SeriesInstanceUID", "1.2.3.4"):
        return  # the locked object does not tell its source's series
    forged = resealed(locked, result, with_attribute(keyword, value))
    for act in (verify, unlock):
        with pytest.raises(PacketError, match=keyword):
            act(forged, result.grants[0], ALICE, NOW)


def big_logos(packet: Packet) -> Packet:
    """Give every frame a logo of its own that is far larger than the image."""
    rgba = np.zeros((2048, 2048, 4), np.uint8)
    logos, marks = [], []
    for number, frame in enumerate(packet.frames):
        rgba[0, 0] = (number, 1, 1, 255)
        logo = Logo(rgba)
        logos.append(PacketLogo(logo.width, logo.height, pack_logo(logo)))
        marks.append(replace(frame, logo=number, logo_sha256=logo.sha256))
    return replace(packet, logos=tuple(logos), frames=tuple(marks))


def test_logos_larger_than_the_image_are_not_unpacked() -> None:
    """Their declared size is enough to refuse them, before any memory is taken."""
    result = make_locked(make_source((0, 1)))
    forged = resealed(opened(result), result, big_logos)
    tracemalloc.start()
    with pytest.raises(PacketError, match="outside the image"):
        unlock(forged, result.grants[0], ALICE, NOW)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 2048 * 2048 * 4


def test_a_logo_larger_than_declared_is_not_unpacked(
    result: LockedInstance, locked: Locked
) -> None:
    """The size in the packet and that in the packed logo must agree."""

    def understated(packet: Packet) -> Packet:
        large = big_logos(packet)
        return replace(large, logos=(replace(large.logos[0], width=8, height=8),))

    with pytest.raises(PacketError, match="claims 2048 x 2048 pixels, the packet 8 x 8"):
        unlock(resealed(locked, result, understated), result.grants[0], ALICE, NOW)


def test_bits_are_not_taken_on_trust() -> None:
    """Another number of bits in the private block leads to an error, not to other pixels."""
    for source_bits, claimed in ((8, 7), (12, 16), (12, 8), (16, 12)):
        result = make_locked(make_source((0,), 3 if source_bits == 8 else 1, source_bits))
        locked = replace(opened(result), bits=claimed)
        with pytest.raises(MedLockerError):
            unlock(locked, result.grants[0], ALICE, NOW)


@pytest.mark.parametrize(
    "keyword", ["SOPClassUID", "SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID"]
)
@pytest.mark.parametrize("value", [None, "", "1.02", "../../x"])
def test_identity_that_is_gone_or_no_uid(
    result: LockedInstance, keyword: str, value: str | None
) -> None:
    """A locked object without a usable UID is a typed error, wherever it is noticed."""
    ds = reread(result.ds)
    if value is None:
        delattr(ds, keyword)
    else:
        ds[keyword].value = value
    with pytest.raises(MedLockerError):
        unlock(decode_locked(ds), result.grants[0], ALICE, NOW)


def test_a_stripped_packet(result: LockedInstance, locked: Locked) -> None:
    """An object without its packet is named, and the hint says whom to ask."""
    with pytest.raises(PacketMissingError, match=str(locked.ds.SOPInstanceUID)) as caught:
        unlock(replace(locked, packet=None), result.grants[0], ALICE, NOW)
    assert "ask the owner" in caught.value.hint


def test_a_changed_packet(result: LockedInstance, locked: Locked) -> None:
    """Any flipped, missing or added byte of the packet is refused."""
    packet = locked.packet
    assert packet is not None
    rng = np.random.default_rng(0)
    spoilt = [packet[:-1], packet + b"\0", packet[1:], b"", bytes(len(packet))]
    for at in [0, 1, len(packet) - 1, *rng.integers(len(packet), size=40)]:
        one = bytearray(packet)
        one[at] ^= 1 << int(rng.integers(8))
        spoilt.append(bytes(one))
    for data in spoilt:
        with pytest.raises(PacketError):
            unlock(replace(locked, packet=data), result.grants[0], ALICE, NOW)


def test_nothing_moves_between_objects(
    result: LockedInstance, twin: LockedInstance, locked: Locked
) -> None:
    """Packet, grant and pixels of another lock of the same issuer do not fit."""
    other = opened(twin)
    with pytest.raises(PacketError):
        unlock(replace(locked, packet=other.packet), result.grants[0], ALICE, NOW)
    with pytest.raises(NoGrantError, match=str(other.ds.SOPInstanceUID)):
        unlock(locked, twin.grants[0], ALICE, NOW)
    with pytest.raises(PixelsChangedError):
        unlock(replace(locked, pixels=other.pixels), result.grants[0], ALICE, NOW)


@pytest.mark.parametrize("identity", [BOB, MALLORY, ISSUER])
def test_a_key_opens_for_its_recipient_alone(
    result: LockedInstance, locked: Locked, identity: Identity
) -> None:
    """Alice's grant opens nothing for bob, a stranger or the issuer."""
    with pytest.raises(NoGrantError):
        unlock(locked, result.grants[0], identity, NOW)


def reissued(locked: Locked, result: LockedInstance, issuer: Identity, **fields: Any) -> Grant:
    """Return a new grant for the same object."""
    binding = binding_of(locked.ds, locked.pixels, locked.source_uid, locked.issuer)
    dek = open_grant(result.grants[0], binding, ALICE, ISSUER.public.verify_key, NOW)
    chosen = {"expires": None, "grant_id": bytes(16)} | fields
    return issue_grant(dek, binding, ALICE.public, issuer, **chosen)


def test_an_expired_grant(result: LockedInstance, locked: Locked) -> None:
    """A grant opens until its time, and not from then on."""
    grant = reissued(locked, result, ISSUER, expires=NOW)
    unlock(locked, grant, ALICE, NOW - timedelta(seconds=1))
    with pytest.raises(GrantExpiredError):
        unlock(locked, grant, ALICE, NOW)


def test_a_grant_that_the_issuer_did_not_sign(result: LockedInstance, locked: Locked) -> None:
    """Signed by another, or changed after signing, a grant is refused for its signature."""
    with pytest.raises(SignatureError):
        unlock(locked, reissued(locked, result, MALLORY), ALICE, NOW)
    longer = replace(result.grants[0], grant_id=bytes(16))
    with pytest.raises(SignatureError):
        unlock(locked, longer, ALICE, NOW)


def test_an_unsigned_grant_does_not_accuse_the_pixels(
    result: LockedInstance, locked: Locked
) -> None:
    """A grant with another binding and a broken signature is a signature error."""
    forged = replace(result.grants[0], binding=bytes(32))
    with pytest.raises(SignatureError):
        unlock(locked, forged, ALICE, NOW)
