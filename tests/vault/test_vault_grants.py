"""Grants in the vault: issued again, exported, renewed, revoked, signed by the next issuer."""

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import select, update

from medlocker_dicom.errors import (
    DuplicateInstanceError,
    GrantExpiredError,
    GrantRevokedError,
    KeyFileError,
    NoGrantError,
    SignatureError,
    UsageError,
    VaultChangedError,
    VaultDamagedError,
    VaultError,
)
from medlocker_dicom.keyfile import (
    Identity,
    KeyFile,
    ReceiptEntry,
    caps,
    load_keyfile,
    load_status,
    open_grant,
    sign_grant,
    sign_receipt,
)
from medlocker_dicom.keyfile.receipt import UNLOCKED
from medlocker_dicom.vault import people, reissue, schema
from medlocker_dicom.vault.check import Counts, audit, check, history
from medlocker_dicom.vault.export import export, packet
from medlocker_dicom.vault.grants import listed
from medlocker_dicom.vault.instances import Selection, check_new, keep
from medlocker_dicom.vault.receipts import receive
from medlocker_dicom.vault.revocation import revoke, status_list
from medlocker_dicom.vault.rotation import rotate
from medlocker_dicom.vault.vault import Vault
from vault_factories import (
    ALICE,
    ALL,
    BOB,
    CUSTODIAN,
    ISSUER,
    NOW,
    Bound,
    House,
    dek,
    granted,
    instance,
    made,
)


def counts(vault: Vault) -> Counts:
    """Check a vault, and give what was found."""
    found = list(check(vault))[-1]
    assert isinstance(found, Counts)
    return found


def opens(keyfile: KeyFile, number: int, person: Identity, days: int = 0) -> bool:
    """Open a key file's grant for an instance; refused is an error."""
    one = instance(number)
    keyfile.lineage.check_includes(one.issuer)
    found = keyfile.grant_for(one.locked_uid)
    bound = Bound(one.locked_uid, one.binding)
    moment = NOW + timedelta(days=days)
    return open_grant(found, bound, person, keyfile.issuer.verify_key, moment) == dek(number)


def exported(house: House, to: str = "bob", issuer: Identity = ISSUER) -> KeyFile:
    """Export a recipient's only key file."""
    (data,) = export(house.vault, issuer, to, ALL).keyfiles
    return load_keyfile(data)


def test_a_new_recipient_through_the_custodian(home: House) -> None:
    """Grants are issued again without a pixel, exported, and open; a second run adds nothing."""
    for number in range(3):
        home.lock(number, ALICE)
    assert home.reissue() == (3, 3)
    assert home.reissue() == (0, 0)
    keyfile = exported(home)
    assert all(opens(keyfile, number, BOB) for number in range(3))
    assert counts(home.vault) == Counts(
        instances=3, grants=9, live=9, uncared=0, issuer=ISSUER.public.fingerprint
    )


def test_batches_are_durable_one_by_one(quick: House, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a stopped run has told of is there; the next run does the rest and no more."""
    monkeypatch.setattr(reissue, "BATCH", 2)
    for number in range(5):
        quick.lock(number)
    run = reissue.Reissue(quick.vault, ISSUER, CUSTODIAN, "bob", ALL).run()
    assert [next(run), next(run)] == [(0, 5), (2, 5)]
    run.close()  # type: ignore[attr-defined]  # a generator
    assert len(exported(quick).grants) == 2
    assert quick.reissue() == (3, 3)
    assert counts(quick.vault).grants == 10


@pytest.mark.parametrize(
    ("selection", "numbers"),
    [
        (Selection(studies=["1.2.3.1"]), {2, 3}),
        (Selection(series=["1.2.4.0"]), {0}),
        (Selection(series=["1.2.5.3"]), {3}),
        (Selection(instances=["1.2.1.1", "1.2.2.2"]), {1, 2}),
        (Selection(studies=["1.2.3.0"], instances=["1.2.1.4"]), {0, 1, 4}),
        (ALL, {0, 1, 2, 3, 4}),
    ],
)
def test_any_level_is_one_command(quick: House, selection: Selection, numbers: set[int]) -> None:
    """Study, series (of source or lock), instance (of source or lock), or all."""
    for number in range(5):
        quick.lock(number)
    assert quick.reissue(selection=selection).total == len(numbers)
    uids = {grant.locked_uid for grant in exported(quick).grants}
    assert uids == {f"1.2.1.{number}" for number in numbers}
    with pytest.raises(UsageError, match="nothing"):
        quick.reissue(selection=Selection(studies=["9.9"]))


def test_expiry_and_renewal(home: House) -> None:
    """A renewed grant takes the place of the one before; the custodian's has no end."""
    home.lock(0)
    home.reissue(expires=NOW + timedelta(days=10))
    early = exported(home)
    assert opens(early, 0, BOB, days=9)
    with pytest.raises(GrantExpiredError):
        opens(early, 0, BOB, days=10)
    home.reissue(expires=NOW + timedelta(days=100), renew=True)
    assert opens(exported(home), 0, BOB, days=50)
    assert opens(exported(home, "custodian"), 0, CUSTODIAN, days=10_000)
    assert [one.state for one in listed(home.vault, "bob", ALL)] == ["replaced", "live"]
    home.clock.now += timedelta(days=200)
    assert [one.state for one in listed(home.vault, "bob", ALL)] == ["replaced", "expired"]


def test_revocation(home: House) -> None:
    """All a recipient ever got for an instance is listed, their other grants are not."""
    for number in range(2):
        home.lock(number, ALICE)
    home.reissue(expires=NOW + timedelta(days=10))
    home.reissue(renew=True)
    old = exported(home)
    count, status = revoke(home.vault, ISSUER, "bob", Selection(instances=["1.2.1.0"]))
    assert (count, status.number, len(status.revoked)) == (2, 1, 2)
    with pytest.raises(GrantRevokedError):
        status.check(old.grant_for("1.2.1.0").grant_id)
    status.check(old.grant_for("1.2.1.1").grant_id)
    sent = export(home.vault, ISSUER, "bob", ALL)
    assert [one.locked_uid for one in load_keyfile(sent.keyfiles[0]).grants] == ["1.2.1.1"]
    assert sent.status is not None
    assert load_status(sent.status).revoked == status.revoked
    with pytest.raises(NoGrantError, match="not revoked"):
        revoke(home.vault, ISSUER, "bob", Selection(instances=["1.2.1.0"]))
    assert status_list(home.vault, ISSUER).number == 2
    assert counts(home.vault).live == 5
    home.reissue()
    assert opens(exported(home), 0, BOB)  # the owner may change their mind: a new grant


def test_the_custodian_cannot_be_revoked_by_mistake(quick: House) -> None:
    """Without the custodian's grants nothing could be issued again."""
    quick.lock(0)
    with pytest.raises(UsageError, match="custodian"):
        revoke(quick.vault, ISSUER, "custodian", ALL)
    with quick.vault.writing() as writing, pytest.raises(UsageError, match="only custodian"):
        people.retire(writing, ISSUER, "custodian")


def test_a_new_custodian_takes_over(quick: House) -> None:
    """Issued to by the old one, the new one issues; the old one retires and can be revoked."""
    for number in range(2):
        quick.lock(number)
    second = made("second custodian")
    with quick.vault.writing() as writing:
        people.add(writing, ISSUER, "second", second.public, custodian=True)
    assert quick.reissue("second").done == 2
    with quick.vault.writing() as writing:
        people.retire(writing, ISSUER, "custodian")
    run = reissue.Reissue(quick.vault, ISSUER, second, "bob", ALL)
    assert list(run.run())[-1].done == 2
    assert opens(exported(quick), 1, BOB)


def test_the_next_issuer_signs_everything(home: House) -> None:
    """After a rotation every live grant opens under the new issuer for objects of the old one."""
    for number in range(3):
        home.lock(number, ALICE)
    revoke(home.vault, ISSUER, "alice", Selection(instances=["1.2.1.2"]))
    before = exported(home, "alice")
    second = made("second issuer")
    assert rotate(home.vault, ISSUER, second) == 5
    with pytest.raises(VaultError, match="not the vault's issuer"):
        export(home.vault, ISSUER, "alice", ALL)
    after = exported(home, "alice", second)
    assert (after.issuer, len(after.lineage.successions)) == (second.public, 1)
    assert opens(after, 0, ALICE)
    assert opens(before, 0, ALICE)
    status = status_list(home.vault, second)
    assert ISSUER.public.verify_key in status.lineage.verify_keys
    assert len(status.revoked) == 1
    assert counts(home.vault).live == 5
    with pytest.raises(KeyFileError, match="returns"):
        rotate(home.vault, second, ISSUER)


def test_a_lock_that_a_rotation_overtook_stores_nothing(quick: House) -> None:
    """Grants of the former issuer are refused: the vault stays in order, and says who signs now."""
    one = instance(0)
    late = granted(one, (ALICE, CUSTODIAN))
    second = made("second issuer")
    rotate(quick.vault, ISSUER, second)
    with quick.vault.writing() as writing, pytest.raises(VaultError, match="issuer is") as caught:
        keep(writing, one, late)
    assert second.public.fingerprint in str(caught.value)
    assert counts(quick.vault).instances == 0


def test_a_lock_in_the_middle_of_a_reissue(quick: House, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was locked again between reading and writing is left for the next run."""
    one = quick.lock(0)
    changed = replace(one, binding=bytes(32))
    sealed = reissue.Reissue._seal

    def overtaken(self: reissue.Reissue, *arguments: Any) -> Any:
        with quick.vault.writing() as writing:
            keep(writing, changed, granted(changed, [CUSTODIAN]), again=True)
        return sealed(self, *arguments)

    monkeypatch.setattr(reissue.Reissue, "_seal", overtaken)
    quick.reissue()
    monkeypatch.setattr(reissue.Reissue, "_seal", sealed)
    assert counts(quick.vault).live == 1
    quick.reissue()
    assert counts(quick.vault).live == 2


def test_who_is_not_the_issuer_signs_nothing(quick: House) -> None:
    """Each command that signs refuses another identity, and nothing changes."""
    quick.lock(0, ALICE)
    mallory, before = made("mallory"), audit(quick.vault)
    for attempt in (
        lambda: export(quick.vault, mallory, "alice", ALL),
        lambda: revoke(quick.vault, mallory, "alice", ALL),
        lambda: status_list(quick.vault, mallory),
        lambda: rotate(quick.vault, mallory, made("second issuer")),
        lambda: list(reissue.Reissue(quick.vault, mallory, CUSTODIAN, "bob", ALL).run()),
    ):
        with pytest.raises(VaultError, match="not the vault's issuer"):
            attempt()
    assert audit(quick.vault) == before


def test_who_is_not_the_custodian_issues_nothing(quick: House) -> None:
    """An identity without grants is refused by name; a swapped grant does not open."""
    quick.lock(0, ALICE)
    quick.lock(1)
    with pytest.raises(NoGrantError, match="1 of 2 selected"):
        list(reissue.Reissue(quick.vault, ISSUER, ALICE, "bob", ALL).run())
    with pytest.raises(UsageError, match="no recipient called carol"):
        quick.reissue("carol")


def test_nothing_goes_to_the_retired(quick: House) -> None:
    """No lock, no grant, no export; what they had stays until it is revoked."""
    quick.lock(0, ALICE)
    with quick.vault.writing() as writing:
        assert people.retire(writing, ISSUER, "alice").grants == 1
    for attempt in (
        lambda: quick.reissue("alice"),
        lambda: export(quick.vault, ISSUER, "alice", ALL),
    ):
        with pytest.raises(UsageError, match="retired"):
            attempt()
    with quick.vault.writing() as writing:
        with pytest.raises(UsageError, match="retired already"):
            people.retire(writing, ISSUER, "alice")
        with pytest.raises(UsageError, match="is retired"):
            people.add(writing, ISSUER, "alice", ALICE.public)
    with pytest.raises(VaultChangedError, match="retired"):
        quick.lock(1, ALICE)
    assert counts(quick.vault).instances == 1
    assert revoke(quick.vault, ISSUER, "alice", ALL)[0] == 1


def test_a_lock_is_for_every_custodian(quick: House) -> None:
    """A lock that began before somebody became custodian is refused, who could not issue for it."""
    with quick.vault.writing() as writing:
        people.add(writing, ISSUER, "second", made("second").public, custodian=True)
    with pytest.raises(VaultChangedError, match="second became a custodian"):
        quick.lock(0, ALICE)
    assert counts(quick.vault).instances == 0


def test_names_and_keys_are_unique(quick: House) -> None:
    """Neither a name with another key nor a key with another name; the same again is nothing."""
    before = audit(quick.vault)
    with quick.vault.writing() as writing:
        people.add(writing, ISSUER, "alice", ALICE.public)
        with pytest.raises(UsageError, match="another key"):
            people.add(writing, ISSUER, "alice", made("mallory").public)
        with pytest.raises(UsageError, match="that of alice"):
            people.add(writing, ISSUER, "alicia", ALICE.public)
    assert audit(quick.vault) == before


@pytest.mark.parametrize(
    "name",
    ["", ".", "..", "../x", "a/b", "a\\b", ".hidden", "a\nb", "a\x1b[2J", "x" * 65, " a", "a."],
)
def test_a_name_is_that_of_a_file(quick: House, name: str) -> None:
    """What could lead elsewhere, or move a terminal's cursor, is no name."""
    with quick.vault.writing() as writing:
        with pytest.raises(UsageError, match="cannot be a recipient's name"):
            people.add(writing, ISSUER, name, made("carol").public)
        for good in ("Bob of Elsewhere", "bob@clinic.example", "Zoë", "x", "y" * 64):
            people.add(writing, ISSUER, good, made(good).public)


def test_a_source_is_locked_once(home: House) -> None:
    """The same lock again is nothing; another one is refused, or takes the old one's place."""
    one = instance(0)
    first = granted(one, (ALICE, CUSTODIAN))
    with home.vault.writing() as writing:
        assert keep(writing, one, first)
    with home.vault.writing() as writing:
        assert not keep(writing, one, first)
    with home.vault.reading() as connection:
        check_new(connection, "1.2.2.1")
        with pytest.raises(DuplicateInstanceError, match="was locked at 2026-11-23T12:00:00Z"):
            check_new(connection, one.source_uid)
    with home.vault.writing() as writing:
        other = granted(one, (BOB, CUSTODIAN))
        with pytest.raises(DuplicateInstanceError, match="was locked at"):
            keep(writing, one, other)
        assert keep(writing, one, other, again=True)
    states = {one.recipient: one.state for one in listed(home.vault, "alice", ALL)}
    assert states == {"alice": "replaced"}
    assert counts(home.vault) == Counts(
        instances=1, grants=4, live=2, uncared=0, issuer=ISSUER.public.fingerprint
    )


def test_detached_packets_come_with_the_export(home: House) -> None:
    """Packets that the vault holds are told of, and given back as they were."""
    home.lock(0, ALICE, packet=b"packet zero")
    home.lock(1, ALICE)
    assert export(home.vault, ISSUER, "alice", ALL).packets == ("1.2.1.0",)
    assert packet(home.vault, "1.2.1.0") == b"packet zero"
    with pytest.raises(VaultDamagedError, match="no packet"):
        packet(home.vault, "1.2.1.1")


def test_many_grants_become_several_key_files(
    quick: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A recipient with more grants than a key file may hold gets several."""
    for number in range(5):
        quick.lock(number, ALICE)
    monkeypatch.setattr(caps, "MAX_GRANTS", 2)
    parts = export(quick.vault, ISSUER, "alice", ALL).keyfiles
    assert [len(load_keyfile(part).grants) for part in parts] == [2, 2, 1]


def test_receipts_enter_the_chain_once(home: House) -> None:
    """What a recipient says is told by the audit; a made-up grant is refused whole."""
    home.lock(0, ALICE)
    home.lock(7, BOB)
    grant_id = exported(home, "alice").grants[0].grant_id
    entries = [
        ReceiptEntry("1.2.1.0", grant_id, NOW, UNLOCKED),
        ReceiptEntry("1.2.1.7", None, NOW, "NoGrantError"),
        ReceiptEntry("1.2.1.8", None, NOW, "NoGrantError"),  # somebody else's object
    ]
    receipt = sign_receipt(ALICE, entries)
    assert receive(home.vault, receipt) == (2, 1)
    assert receive(home.vault, receipt) == (0, 0)
    told = " ".join(history(home.vault))
    assert "unlocked" in told
    assert "denied" in told
    assert told.count("outcome=NoGrantError") == 1
    assert "1.2.1.8" not in told
    before = audit(home.vault)
    for strange in (
        sign_receipt(BOB, entries),
        sign_receipt(made("mallory"), entries[1:]),
        sign_receipt(ALICE, [ReceiptEntry("1.2.1.7", grant_id, NOW, UNLOCKED)]),
    ):
        with pytest.raises(KeyFileError):
            receive(home.vault, strange)
    assert audit(home.vault) == before


def test_no_recipient_fills_the_chain(home: House) -> None:
    """However many receipts somebody writes: of an object and grant each outcome enters once."""
    home.lock(0, ALICE)
    grant_id = exported(home, "alice").grants[0].grant_id
    unlocked = ReceiptEntry("1.2.1.0", grant_id, NOW, UNLOCKED)
    assert receive(home.vault, sign_receipt(ALICE, [unlocked])) == (1, 0)
    length = audit(home.vault).length
    for day in range(3):
        moment = NOW + timedelta(days=day)
        flood = [
            replace(unlocked, at=moment),
            *(ReceiptEntry("1.2.1.0", None, moment, "NoGrantError") for _ in range(50)),
            *(ReceiptEntry("1.2.1.0", None, moment, f"Made{'x' * n}Error") for n in range(30)),
        ]
        assert receive(home.vault, sign_receipt(ALICE, flood)) == (day == 0, 30)
    assert audit(home.vault).length == length + 1
    assert receive(home.vault, sign_receipt(ALICE, [unlocked, *flood[1:3]])) == (0, 0)
    with home.vault.reading() as connection:
        assert len(connection.execute(select(schema.receipts)).all()) == 2


@pytest.mark.parametrize("outcome", ["GrantRevokedError", "PixelsChangedError", "ClockError"])
def test_what_unlock_calls_a_refusal_is_one(quick: House, outcome: str) -> None:
    """The errors that a recipient's program writes down are those that the vault takes."""
    quick.lock(0, ALICE)
    receipt = sign_receipt(ALICE, [ReceiptEntry("1.2.1.0", None, NOW, outcome)])
    assert receive(quick.vault, receipt) == (1, 0)


def test_the_history_of_one_instance(quick: House) -> None:
    """Lock, grants, re-issue and revocation of an instance are told in order."""
    for number in range(2):
        quick.lock(number)
    quick.reissue()
    revoke(quick.vault, ISSUER, "bob", ALL)
    lines = list(history(quick.vault, "1.2.1.1"))
    assert [line.split(" ")[2] for line in lines] == ["locked", "granted", "reissued", "revoked"]
    assert list(history(quick.vault, "1.2.2.1")) == lines[:1]


def test_a_replayed_key_file_is_stopped_by_the_status_list(quick: House) -> None:
    """An old file with a longer life opens by itself; the list names its grant."""
    quick.lock(0)
    quick.reissue()
    old = exported(quick)
    revoke(quick.vault, ISSUER, "bob", ALL)
    quick.reissue(expires=NOW + timedelta(days=1))
    status = status_list(quick.vault, ISSUER)
    assert opens(old, 0, BOB)
    with pytest.raises(GrantRevokedError):
        status.check(old.grants[0].grant_id)
    status.check(exported(quick).grants[0].grant_id)


def test_a_grant_of_a_stranger_does_not_pass(quick: House) -> None:
    """Exporting verifies every signature: a grant that was swapped in the database shows."""
    one = quick.lock(0, ALICE)
    forged = sign_grant(granted(one, (ALICE,))[0], made("mallory"))
    with quick.vault.writing() as writing:
        statement = update(schema.grants).where(schema.grants.c.recipient == ALICE.public.id)
        writing.connection.execute(statement.values(signature=forged.signature))
    with pytest.raises(SignatureError):
        exported(quick, "alice")
    with pytest.raises(VaultDamagedError, match="not signed by the issuer"):
        counts(quick.vault)
    with pytest.raises(VaultDamagedError, match="not signed by the issuer"):
        rotate(quick.vault, ISSUER, made("second issuer"))
