"""Issuers that follow each other: both say so, and whoever trusts one trusts its line."""

from dataclasses import replace
from datetime import timedelta

import pytest
from keyfile_factories import (
    BINDING,
    ISSUER,
    LATER,
    LINEAGE,
    NEXT,
    NOW,
    RECIPIENT,
    STRANGER,
    make_grant,
    make_identity,
)

from medlocker_dicom.errors import KeyFileError, SignatureError
from medlocker_dicom.keyfile import (
    Lineage,
    caps,
    dump_keyfile,
    load_keyfile,
    open_grant,
    sign_grant,
    sign_keyfile,
)
from medlocker_dicom.keyfile.succession import hand_over

STEP = LINEAGE.successions[0]


def test_a_resigned_grant_opens_under_the_successor() -> None:
    """The next issuer signs an old grant again without its DEK, and it opens by the new key."""
    grant = sign_grant(make_grant(), NEXT)
    signed = sign_keyfile(NEXT, RECIPIENT.public, [grant], NOW, LINEAGE)
    keyfile = load_keyfile(dump_keyfile(signed))
    keyfile.lineage.check_includes(BINDING.issuer)
    assert open_grant(grant, BINDING, RECIPIENT, keyfile.issuer.verify_key, NOW)
    with pytest.raises(SignatureError):
        open_grant(grant, BINDING, RECIPIENT, ISSUER.public.verify_key, NOW)


def test_several_successions_are_one_line() -> None:
    """Everyone in the line is included, a stranger is not."""
    third = make_identity("third issuer")
    line = LINEAGE.followed_by(third, NEXT, LATER)
    for issuer in (ISSUER, NEXT, third):
        line.check_includes(issuer.public.verify_key)
    line.verify()
    with pytest.raises(SignatureError, match=third.public.fingerprint):
        line.check_includes(STRANGER.public.verify_key)


def test_only_the_present_issuer_hands_over() -> None:
    """A former one cannot, and nobody returns."""
    with pytest.raises(KeyFileError, match="present issuer"):
        LINEAGE.followed_by(STRANGER, ISSUER, LATER)
    with pytest.raises(KeyFileError, match="returns"):
        LINEAGE.followed_by(ISSUER, NEXT, LATER)
    with pytest.raises(KeyFileError, match="itself"):
        hand_over(ISSUER, ISSUER, NOW)


@pytest.mark.parametrize(
    "changed",
    [
        replace(STEP, old_signature=bytes(64)),
        replace(STEP, new_signature=bytes(64)),
        replace(STEP, old_signature=STEP.new_signature, new_signature=STEP.old_signature),
        replace(STEP, since=NOW + timedelta(seconds=1)),
        replace(STEP, old=STRANGER.public),
        replace(STEP, new=STRANGER.public),
        replace(STEP, new=replace(NEXT.public, name="another name")),
    ],
)
def test_a_changed_succession_does_not_verify(changed: object) -> None:
    """Each field is under both signatures."""
    with pytest.raises(SignatureError):
        changed.verify()  # type: ignore[attr-defined]


def test_a_line_has_no_gap_and_an_end() -> None:
    """Successions that do not join, or lead elsewhere, make no lineage."""
    third = make_identity("third issuer")
    apart = hand_over(STRANGER, third, NOW)
    for issuer, steps in ((third, (STEP, apart)), (STRANGER, (STEP,)), (ISSUER, (STEP,))):
        with pytest.raises(KeyFileError, match="lead"):
            Lineage(issuer.public, steps)


def test_too_many_successions_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """The cap holds for making and for reading."""
    data = dump_keyfile(sign_keyfile(NEXT, RECIPIENT.public, [], NOW, LINEAGE))
    monkeypatch.setattr(caps, "MAX_SUCCESSIONS", 0)
    with pytest.raises(KeyFileError, match="successions, more than"):
        Lineage(NEXT.public, LINEAGE.successions)
    with pytest.raises(KeyFileError, match="more than"):
        load_keyfile(data)


def test_signing_for_another_lineage_is_a_mistake() -> None:
    """An issuer cannot sign a file that names another."""
    with pytest.raises(ValueError, match="lineage"):
        sign_keyfile(ISSUER, RECIPIENT.public, [], NOW, LINEAGE)
