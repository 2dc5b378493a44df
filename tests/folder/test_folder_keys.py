"""Which grants count for an object: lineages, pinned issuers, status lists, the clock."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from medlocker_dicom.errors import (
    ClockError,
    GrantRevokedError,
    KeyFileError,
    NoGrantError,
    SignatureError,
)
from medlocker_dicom.folder.keys import Keys, _check_issuer
from medlocker_dicom.keyfile import (
    Identity,
    KeyFile,
    Lineage,
    issue_grant,
    sign_keyfile,
    sign_status,
)
from medlocker_dicom.keyfile.succession import Succession
from vault_factories import ALICE, ISSUER, NOW, Bound, made

UID = "1.2.3"
OBJECT = Bound(UID, bytes(32))
SECOND, MALLORY = made("second issuer"), made("mallory")
LINE = Lineage(ISSUER.public).followed_by(SECOND, ISSUER, NOW)
OWN = ISSUER.public.verify_key


def keyfile(
    issuer: Identity = ISSUER,
    lineage: Lineage | None = None,
    *,
    grant_id: bytes = bytes(16),
    days: int | None = None,
    issued: datetime = NOW,
) -> KeyFile:
    """A key file for alice with one grant."""
    end = None if days is None else NOW + timedelta(days=days)
    grant = issue_grant(bytes(32), OBJECT, ALICE.public, issuer, expires=end, grant_id=grant_id)
    return sign_keyfile(issuer, ALICE.public, [grant], issued, lineage)


def issuers(keys: Keys, locked_by: bytes = OWN) -> list[str]:
    """Who signed the grants that count for the object."""
    return [key.issuer.name for key in keys.for_object(UID, locked_by)]


def test_the_objects_issuer_and_its_successors_count() -> None:
    """Their grants do, a stranger's for the same object does not."""
    files = (keyfile(), keyfile(SECOND, LINE), keyfile(MALLORY))
    assert issuers(Keys(ALICE, files)) == ["issuer", "second issuer"]
    with pytest.raises(NoGrantError, match="issuer that it names"):
        issuers(Keys(ALICE, files[2:]))


def test_a_successor_that_nobody_named_does_not_count() -> None:
    """A stranger cannot put itself into the line: the old issuer's signature is missing."""
    stolen = Succession(ISSUER.public, MALLORY.public, NOW)
    forged = Succession(
        ISSUER.public,
        MALLORY.public,
        NOW,
        old_signature=MALLORY.sign(stolen.message),
        new_signature=MALLORY.sign(stolen.message),
    )
    file = keyfile(MALLORY, Lineage(MALLORY.public, (forged,)))
    with pytest.raises(SignatureError):
        file.lineage.verify()  # as `load_keyfile` does before anything else
    with pytest.raises(KeyFileError, match="present issuer"):
        Lineage(ISSUER.public).followed_by(MALLORY, MALLORY, NOW)


@pytest.mark.parametrize("pinned", [ISSUER, SECOND])
@pytest.mark.parametrize("locked_by", [ISSUER, SECOND])
def test_a_pinned_issuer_is_trusted_with_its_line(pinned: Identity, locked_by: Identity) -> None:
    """Whichever of the two is pinned, objects of both open by the key file that joins them."""
    keys = Keys(ALICE, (keyfile(SECOND, LINE),), pinned.public)
    assert issuers(keys, locked_by.public.verify_key) == ["second issuer"]


def test_a_pinned_issuer_excludes_all_others() -> None:
    """An object of another issuer, or a key file of another line, is refused."""
    for files in ((keyfile(),), (keyfile(SECOND, LINE),), ()):
        with pytest.raises(SignatureError, match="another issuer"):
            issuers(Keys(ALICE, files, MALLORY.public))
    victim = Keys(ALICE, (keyfile(MALLORY),), ISSUER.public)
    with pytest.raises(SignatureError, match="another issuer"):
        issuers(victim, MALLORY.public.verify_key)


THEFT = Lineage(ISSUER.public).followed_by(MALLORY, ISSUER, NOW)


@pytest.mark.parametrize("thief", [(ISSUER, None), (MALLORY, THEFT)])
def test_a_stolen_key_is_of_no_use_against_a_pin_of_the_next(
    thief: tuple[Identity, Lineage | None],
) -> None:
    """Who has the former issuer's key signs in its name, or names a successor of their own.

    Whoever trusts the newest issuer alone takes none of it: neither keys nor lists.
    """
    signer, lineage = thief
    files = (keyfile(signer, lineage), keyfile(SECOND, LINE))
    assert signer.public.name in issuers(Keys(ALICE, files))  # without a pin it passes
    pinned = Keys(ALICE, files, SECOND.public)
    assert issuers(pinned) == ["second issuer"]
    with pytest.raises(SignatureError, match="another issuer"):
        issuers(Keys(ALICE, files[:1], SECOND.public))
    with pytest.raises(SignatureError, match="not by"):
        _check_issuer(Path("a.mlkey"), files[0].lineage, SECOND.public)
    line = lineage or Lineage(signer.public)
    forged = sign_status(signer, line, 99, [bytes(16)], NOW + timedelta(days=9999))
    key = pinned.for_object(UID, OWN)[0]
    with pytest.raises(GrantRevokedError):
        Keys(ALICE, files, statuses=(forged,)).check(key, OWN, NOW)
    Keys(ALICE, files, SECOND.public, statuses=(forged,)).check(key, OWN, NOW)
    own = sign_status(SECOND, LINE, 2, [bytes(16)], NOW)
    with pytest.raises(GrantRevokedError):
        Keys(ALICE, files, SECOND.public, statuses=(forged, own)).check(key, OWN, NOW)


def test_a_strangers_status_list_revokes_nothing() -> None:
    """Only lists whose line has the object's issuer in it count; a successor's does."""
    key = Keys(ALICE, (keyfile(),)).for_object(UID, OWN)[0]
    stranger = sign_status(MALLORY, Lineage(MALLORY.public), 9, [bytes(16)], NOW)
    Keys(ALICE, (), statuses=(stranger,)).check(key, OWN, NOW)
    for issuer, lineage in ((ISSUER, Lineage(ISSUER.public)), (SECOND, LINE)):
        own = sign_status(issuer, lineage, 1, [bytes(16)], NOW)
        with pytest.raises(GrantRevokedError):
            Keys(ALICE, (), statuses=(stranger, own)).check(key, OWN, NOW)


def test_revocations_add_up() -> None:
    """An older list beside a newer one takes nothing back."""
    key = Keys(ALICE, (keyfile(),)).for_object(UID, OWN)[0]
    line = Lineage(ISSUER.public)
    lists = (
        sign_status(ISSUER, line, 1, [bytes(16)], NOW),
        sign_status(ISSUER, line, 2, [], NOW + timedelta(days=1)),
    )
    with pytest.raises(GrantRevokedError, match="status list 1"):
        Keys(ALICE, (), statuses=lists).check(key, OWN, NOW + timedelta(days=2))


@pytest.mark.parametrize("hours", [-23, 0, 1000])
def test_a_clock_that_is_right_enough(hours: int) -> None:
    """Up to a day behind is no reason to refuse."""
    keys = Keys(ALICE, (keyfile(days=100),))
    keys.check(keys.for_object(UID, OWN)[0], OWN, NOW + timedelta(hours=hours))


def test_a_clock_in_the_past_opens_nothing_that_expires() -> None:
    """Set back before a key file or a status list was signed: an expiry means nothing then."""
    past = NOW - timedelta(days=2)
    keys = Keys(ALICE, (keyfile(days=100),))
    with pytest.raises(ClockError, match="before the key file or status list of 2026-11-23"):
        keys.check(keys.for_object(UID, OWN)[0], OWN, past)
    lasting = Keys(ALICE, (keyfile(),))
    lasting.check(lasting.for_object(UID, OWN)[0], OWN, past)
    later = sign_status(ISSUER, Lineage(ISSUER.public), 1, [], NOW + timedelta(days=90))
    warned = Keys(ALICE, (keyfile(days=30),), statuses=(later,))
    key = warned.for_object(UID, OWN)[0]
    with pytest.raises(ClockError):
        warned.check(key, OWN, NOW + timedelta(days=10))


def test_the_grant_that_lasts_longest_comes_first() -> None:
    """Without end before late before early."""
    files = (keyfile(days=1), keyfile(grant_id=bytes([1]) * 16), keyfile(days=9))
    found = Keys(ALICE, files).for_object(UID, OWN)
    ends = [key.grant.expires for key in found]
    assert ends == [None, NOW + timedelta(days=9), NOW + timedelta(days=1)]
    assert ends[1] is not None
    assert ends[1].tzinfo is UTC
