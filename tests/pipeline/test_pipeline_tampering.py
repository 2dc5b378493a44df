"""A locked object that was changed, or a key that is not for it, unlocks nothing."""

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

from medlocker_dicom.dicom.locked import Locked, decode_locked
from medlocker_dicom.errors import (
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
from medlocker_dicom.keyfile import Grant, Identity, issue_grant, open_grant
from medlocker_dicom.pipeline.binding import binding_of
from medlocker_dicom.pipeline.lock import LockedInstance
from medlocker_dicom.pipeline.unlock import unlock, verify

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
