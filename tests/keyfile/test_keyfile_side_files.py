"""Status lists, receipts, detached packets: whole or refused."""

from dataclasses import replace
from datetime import timedelta

import pytest
from keyfile_factories import ISSUER, LATER, LINEAGE, NEXT, NOW, RECIPIENT, STRANGER

from medlocker_dicom.errors import (
    GrantRevokedError,
    KeyFileError,
    PacketError,
    SignatureError,
)
from medlocker_dicom.keyfile import (
    DetachedPacket,
    Lineage,
    Receipt,
    ReceiptEntry,
    StatusList,
    caps,
    dump_detached,
    dump_receipt,
    dump_status,
    load_detached,
    load_receipt,
    load_status,
    sign_receipt,
    sign_status,
)
from medlocker_dicom.keyfile.receipt import UNLOCKED

IDS = [bytes([n]) * 16 for n in (9, 3, 5)]
STATUS = sign_status(ISSUER, Lineage(ISSUER.public), 4, IDS, NOW)
OPENED = ReceiptEntry("1.2.3", bytes(16), NOW, UNLOCKED)
REFUSED = ReceiptEntry("1.2.4", None, NOW, "GrantExpiredError")
RECEIPT = sign_receipt(RECIPIENT, [OPENED, REFUSED])
DETACHED = DetachedPacket("1.2.3", "1.2.4", "1.2.5", 8, ISSUER.public.verify_key, b"sealed")


def test_round_trips() -> None:
    """Each is read back as it was; ids are sorted, entries keep their order."""
    assert load_status(dump_status(STATUS)) == STATUS
    assert list(STATUS.revoked) == sorted(IDS)
    assert load_receipt(dump_receipt(RECEIPT)) == RECEIPT
    assert RECEIPT.entries == (OPENED, REFUSED)
    assert load_detached(dump_detached(DETACHED)) == DETACHED


def test_what_is_revoked_is_refused_and_nothing_else() -> None:
    """Each listed id raises, its neighbours do not."""
    for one in IDS:
        with pytest.raises(GrantRevokedError, match="status list 4 of 2026-03-01T12:00:00Z"):
            STATUS.check(one)
    for other in (bytes(16), bytes([4]) * 16, bytes([255]) * 16):
        STATUS.check(other)


@pytest.mark.parametrize(
    "changed",
    [
        replace(STATUS, number=5),
        replace(STATUS, issued=LATER),
        replace(STATUS, revoked=STATUS.revoked[:2]),
        replace(STATUS, lineage=Lineage(STRANGER.public)),
        replace(STATUS, signature=bytes(64)),
    ],
)
def test_a_changed_status_list_does_not_verify(changed: StatusList) -> None:
    """Each field is signed."""
    with pytest.raises(SignatureError):
        load_status(dump_status(changed))


@pytest.mark.parametrize(
    "changed",
    [
        replace(RECEIPT, entries=(REFUSED, OPENED)),
        replace(RECEIPT, entries=(OPENED,)),
        replace(RECEIPT, entries=(replace(OPENED, at=NOW + timedelta(seconds=1)), REFUSED)),
        replace(RECEIPT, entries=(replace(OPENED, grant_id=bytes([1]) * 16), REFUSED)),
        replace(RECEIPT, recipient=STRANGER.public),
    ],
)
def test_a_changed_receipt_does_not_verify(changed: Receipt) -> None:
    """Each field is signed."""
    with pytest.raises(SignatureError):
        load_receipt(dump_receipt(changed))


def test_an_entry_that_says_nothing_is_never_made() -> None:
    """Unlocked names a grant, refused names none; outcomes are names of errors."""
    for change in (
        {"grant_id": None},
        {"outcome": "NoGrantError"},
        {"outcome": "all is well", "grant_id": None},
        {"locked_uid": "../x"},
        {"grant_id": bytes(15)},
        {"at": NOW.replace(microsecond=1)},
    ):
        with pytest.raises(KeyFileError):
            replace(OPENED, **change)


@pytest.mark.parametrize(
    "change",
    [
        {"number": -1},
        {"number": 2**53},
        {"revoked": (bytes(15),)},
        {"revoked": (bytes(16), bytes(16))},
        {"signature": b""},
        {"issued": NOW.replace(microsecond=1)},
    ],
)
def test_an_unusable_status_list_is_never_made(change: dict[str, object]) -> None:
    """Numbers, ids and lengths are checked where it is made."""
    with pytest.raises(KeyFileError):
        replace(STATUS, **change)  # type: ignore[arg-type]  # one is wrong on purpose


def test_caps_hold_before_anything_is_parsed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Counts and sizes above the caps are refused, in making and in reading."""
    status, receipt = dump_status(STATUS), dump_receipt(RECEIPT)
    monkeypatch.setattr(caps, "MAX_REVOKED", 2)
    monkeypatch.setattr(caps, "MAX_RECEIPT_ENTRIES", 1)
    for load, data in ((load_status, status), (load_receipt, receipt)):
        with pytest.raises(KeyFileError, match="more than"):
            load(data)
    with pytest.raises(KeyFileError, match="more than"):
        sign_status(ISSUER, Lineage(ISSUER.public), 4, IDS, NOW)
    with pytest.raises(KeyFileError, match="more than"):
        sign_receipt(RECIPIENT, [OPENED, REFUSED])
    monkeypatch.setattr(caps, "MAX_STATUS_BYTES", len(status) - 1)
    monkeypatch.setattr(caps, "MAX_RECEIPT_BYTES", len(receipt) - 1)
    for load, data in ((load_status, status), (load_receipt, receipt)):
        with pytest.raises(KeyFileError, match="bytes, more than"):
            load(data)


def test_the_fullest_status_list_fits_its_cap() -> None:
    """A million ids are less than the cap on bytes."""
    a_thousand = [n.to_bytes(16) for n in range(1000)]
    size = len(dump_status(sign_status(ISSUER, Lineage(ISSUER.public), 1, a_thousand, NOW)))
    assert size * (caps.MAX_REVOKED // 1000) < caps.MAX_STATUS_BYTES


def test_the_fullest_receipt_fits_its_cap() -> None:
    """As many of the largest entries as are allowed are less than the cap on bytes."""
    largest = replace(OPENED, locked_uid="1" * 64)
    size = len(dump_receipt(sign_receipt(RECIPIENT, [largest] * 100)))
    assert size * (caps.MAX_RECEIPT_ENTRIES // 100) < caps.MAX_RECEIPT_BYTES


@pytest.mark.parametrize(
    "change",
    [
        {"locked_uid": "../../x"},
        {"source_uid": "1..2"},
        {"bits": 0},
        {"bits": 17},
        {"issuer": bytes(31)},
        {"packet": b""},
    ],
)
def test_an_unusable_detached_packet_is_never_made(change: dict[str, object]) -> None:
    """UIDs become file names: they are checked where they enter."""
    with pytest.raises(PacketError):
        replace(DETACHED, **change)  # type: ignore[arg-type]  # one is wrong on purpose


def test_signing_for_another_lineage_is_a_mistake() -> None:
    """An issuer cannot sign a status list that names another."""
    with pytest.raises(ValueError, match="lineage"):
        sign_status(ISSUER, LINEAGE, 1, [], NOW)
    assert sign_status(NEXT, LINEAGE, 1, [], NOW).lineage.issuer == NEXT.public


def test_fingerprint_in_words() -> None:
    """Fifteen words of the list, other ones for another key, the same each time."""
    words = RECIPIENT.public.words.split(" ")
    assert len(words) == 15
    assert words == RECIPIENT.public.words.split(" ")
    assert words[:3] != STRANGER.public.words.split(" ")[:3]
