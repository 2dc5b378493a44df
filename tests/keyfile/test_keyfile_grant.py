"""Grants: sealed to one recipient, bound to one object, signed by one issuer."""

from dataclasses import fields, replace
from datetime import UTC, datetime, timedelta, timezone

import pytest
from keyfile_factories import (
    BINDING,
    DEK,
    GRANT_ID,
    ISSUER,
    LATER,
    NOW,
    OTHER_VALUES,
    RECIPIENT,
    STRANGER,
    bytes_for,
    make_grant,
    make_identity,
    swap,
)

from medlocker_dicom.errors import (
    GrantExpiredError,
    IdentityError,
    KeyFileError,
    NoGrantError,
    PixelLayoutError,
    SignatureError,
    UIDError,
)
from medlocker_dicom.keyfile import (
    Binding,
    Grant,
    Identity,
    Kem,
    dump_grant,
    issue_grant,
    load_grant,
    open_grant,
)

KEY = ISSUER.public.verify_key


def signed_by(issuer: Identity, grant: Grant) -> Grant:
    """The grant with a fresh signature, as a careless or hostile issuer makes it."""
    return replace(grant, signature=issuer.sign(grant.message(issuer.public.verify_key)))


@pytest.mark.parametrize("kind", list(Kem))
@pytest.mark.parametrize("expires", [None, LATER])
def test_recipient_opens_grant(kind: Kem, expires: datetime | None) -> None:
    """The recipient gets the DEK back, from the stored form too."""
    recipient = make_identity("recipient", kind)
    grant = load_grant(dump_grant(make_grant(recipient, expires=expires)))
    assert open_grant(grant, BINDING, recipient, KEY, NOW) == DEK


@pytest.mark.parametrize(("kind", "size"), [(Kem.X25519, 80), (Kem.MLKEM768_X25519, 1168)])
def test_sealed_size(kind: Kem, size: int) -> None:
    """A sealed DEK has the size that the documentation names."""
    assert len(make_grant(make_identity("recipient", kind)).sealed) == size == kind.sealed_bytes


def test_one_dek_for_several_recipients_and_custodian() -> None:
    """Each opens its own grant of the same DEK, and no other's."""
    holders = [make_identity(name) for name in ("alice", "bob", "custodian")]
    grants = [make_grant(holder) for holder in holders]
    for holder in holders:
        for grant in grants:
            if grant.recipient == holder.public.id:
                assert open_grant(grant, BINDING, holder, KEY, NOW) == DEK
            else:
                with pytest.raises(NoGrantError, match="is for"):
                    open_grant(grant, BINDING, holder, KEY, NOW)


def test_custodian_issues_again() -> None:
    """A custodian unwraps, seals to someone new and signs; only its own key verifies that."""
    custodian = make_identity("custodian")
    dek = open_grant(make_grant(custodian), BINDING, custodian, KEY, NOW)
    again = issue_grant(dek, BINDING, RECIPIENT.public, custodian, expires=None, grant_id=GRANT_ID)
    assert open_grant(again, BINDING, RECIPIENT, custodian.public.verify_key, NOW) == DEK
    with pytest.raises(SignatureError):
        open_grant(again, BINDING, RECIPIENT, KEY, NOW)


def test_every_field_of_the_binding_has_another_value() -> None:
    """The parametrised tests below cover the binding whole; the version has one value only."""
    assert set(OTHER_VALUES) | {"version"} == {field.name for field in fields(Binding)}


@pytest.mark.parametrize("field", OTHER_VALUES)
def test_swapped_binding_field_is_refused(field: str) -> None:
    """A grant does not open for an object that differs in any bound field."""
    with pytest.raises(NoGrantError):
        open_grant(make_grant(), swap(field), RECIPIENT, KEY, NOW)


def test_grant_of_another_object_names_both() -> None:
    """Grant and object with different UIDs are both named."""
    other = swap("locked_uid")
    with pytest.raises(NoGrantError, match=f"{BINDING.locked_uid}, not for {other.locked_uid}"):
        open_grant(make_grant(), other, RECIPIENT, KEY, NOW)


@pytest.mark.parametrize("field", OTHER_VALUES)
def test_swapped_binding_is_refused_by_the_sealing_too(field: str) -> None:
    """Even where the issuer signs the swap, the sealed DEK does not open."""
    other = swap(field)
    moved = replace(make_grant(), locked_uid=other.locked_uid, binding=other.digest)
    with pytest.raises(NoGrantError, match="does not open"):
        open_grant(signed_by(ISSUER, moved), other, RECIPIENT, KEY, NOW)


TAMPERED = {
    "locked_uid": "1.2.3",
    "binding": bytes_for("binding"),
    "recipient": bytes_for("recipient"),
    "grant_id": bytes(16),
    "expires": None,
    "sealed": bytes(80),
    "signature": bytes(64),
}


def test_tampered_fields_are_all_fields() -> None:
    """The table above is complete."""
    assert set(TAMPERED) == {field.name for field in fields(Grant)}


@pytest.mark.parametrize("field", TAMPERED)
def test_tampered_field_breaks_the_signature(field: str) -> None:
    """Changing any field is a SignatureError, before anything else is looked at."""
    grant = replace(make_grant(), **{field: TAMPERED[field]})  # type: ignore[arg-type]  # one of many
    with pytest.raises(SignatureError):
        open_grant(grant, swap("rows"), STRANGER, KEY, LATER)


@pytest.mark.parametrize("field", ["recipient", "grant_id", "expires", "sealed"])
def test_resigned_field_does_not_open(field: str) -> None:
    """Recipient, id and expiry are bound into the sealing as well as the signature."""
    grant = replace(make_grant(), **{field: TAMPERED[field]})  # type: ignore[arg-type]  # one of many
    with pytest.raises(NoGrantError):
        open_grant(signed_by(ISSUER, grant), BINDING, RECIPIENT, KEY, NOW)


@pytest.mark.parametrize("key", [STRANGER.public.verify_key, bytes(32), b"", b"\xff" * 32])
def test_other_issuer_key_is_refused(key: bytes) -> None:
    """Only the issuer's own key verifies; a key that is none is the same error."""
    with pytest.raises(SignatureError):
        open_grant(make_grant(), BINDING, RECIPIENT, key, NOW)


def test_grant_of_a_stranger_is_refused() -> None:
    """A well-formed grant that someone else signed is refused before it is opened."""
    with pytest.raises(SignatureError):
        open_grant(make_grant(issuer=STRANGER), BINDING, RECIPIENT, KEY, NOW)


def test_third_party_identity_is_refused() -> None:
    """Another identity learns whom the grant is for, and nothing else."""
    with pytest.raises(NoGrantError, match=STRANGER.public.fingerprint):
        open_grant(make_grant(), BINDING, STRANGER, KEY, NOW)


@pytest.mark.parametrize(
    ("now", "open_still"),
    [(LATER - timedelta(seconds=1), True), (LATER, False), (LATER + timedelta(days=9), False)],
)
def test_expiry(now: datetime, open_still: bool) -> None:  # noqa: FBT001 - a parametrised outcome
    """A grant opens until the second before its expiry."""
    if open_still:
        assert open_grant(make_grant(), BINDING, RECIPIENT, KEY, now) == DEK
    else:
        with pytest.raises(GrantExpiredError, match="2027-01-01T00:00:00Z"):
            open_grant(make_grant(), BINDING, RECIPIENT, KEY, now)


def test_expiry_is_kept_in_utc_seconds() -> None:
    """Another zone and fractions of a second end as whole seconds of UTC."""
    local = datetime(2027, 1, 1, 2, 0, 0, 999, tzinfo=timezone(timedelta(hours=2)))
    assert make_grant(expires=local).expires == LATER
    assert make_grant(expires=local).expires.tzinfo is UTC  # type: ignore[union-attr]  # was set


@pytest.mark.parametrize(
    ("change", "error"),
    [
        ({"dek": bytes(31)}, ValueError),
        ({"expires": datetime(2027, 1, 1)}, ValueError),  # noqa: DTZ001 - the fault under test
        ({"expires": datetime(1969, 1, 1, tzinfo=UTC)}, KeyFileError),
        ({"grant_id": bytes(15)}, KeyFileError),
    ],
)
def test_unusable_arguments_are_refused(change: dict[str, object], error: type[Exception]) -> None:
    """Issuing refuses short keys, and times without a zone."""
    arguments: dict[str, object] = {
        "dek": DEK,
        "binding": BINDING,
        "recipient": RECIPIENT.public,
        "issuer": ISSUER,
        "expires": None,
        "grant_id": GRANT_ID,
    }
    with pytest.raises(error):
        issue_grant(**(arguments | change))  # type: ignore[arg-type]  # one is wrong on purpose


@pytest.mark.parametrize(
    ("field", "value", "error"),
    [
        ("version", 2, PixelLayoutError),
        ("study_uid", "", UIDError),
        ("series_uid", "1.02.3", UIDError),
        ("sop_class_uid", "1..2", UIDError),
        ("locked_uid", "1." * 32 + "1", UIDError),
        ("source_uid", "1.2.3\n", UIDError),
        ("source_uid", "1.2.\u0663", UIDError),
        ("rows", 0, PixelLayoutError),
        ("columns", 65536, PixelLayoutError),
        ("frames", 0, PixelLayoutError),
        ("photometric", "rgb", PixelLayoutError),
        ("photometric", "", PixelLayoutError),
        ("pixel_sha256", bytes(31), PixelLayoutError),
        ("issuer", bytes(33), IdentityError),
    ],
)
def test_unusable_binding_is_refused(field: str, value: object, error: type[Exception]) -> None:
    """A binding that no DICOM object can have is never made."""
    with pytest.raises(error):
        replace(BINDING, **{field: value})  # type: ignore[arg-type]  # wrong on purpose


def test_binding_context_is_pinned() -> None:
    """The context of a fixed binding never changes, or old packets would not open."""
    assert BINDING.digest.hex() == (
        "f349bac33027920b343c1e8cb5c3dae70c8d6cfcb9cfbfa60871918846d2ac47"
    )
    assert BINDING.context.endswith(BINDING.digest)
