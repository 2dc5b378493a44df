"""What was altered, removed or moved in the database is found, and named."""

from collections.abc import Callable
from contextlib import suppress
from datetime import timedelta

import pytest
from sqlalchemy import Connection, delete, insert, select, update

from medlocker_dicom.errors import (
    ClockError,
    MedLockerError,
    UsageError,
    VaultDamagedError,
    VaultError,
)
from medlocker_dicom.keyfile.canonical import dumps
from medlocker_dicom.keyfile.succession import hand_over, succession_record
from medlocker_dicom.vault import chain, people
from medlocker_dicom.vault.check import audit, check, history
from medlocker_dicom.vault.export import export
from medlocker_dicom.vault.grants import listed
from medlocker_dicom.vault.revocation import revoke
from medlocker_dicom.vault.rotation import rotate
from medlocker_dicom.vault.rows import grant_row
from medlocker_dicom.vault.schema import (
    checkpoints,
    entries,
    grants,
    head,
    instances,
    issuers,
    recipients,
    statuses,
)
from vault_factories import ALICE, ALL, BOB, ISSUER, NOW, House, granted, instance, made


def lived(home: House) -> House:
    """Let a vault have a past: five instances, a re-issue, a revocation."""
    for number in range(5):
        home.lock(number, ALICE)
    home.reissue()
    revoke(home.vault, ISSUER, "alice", ALL)
    return home


def tampered(home: House, change: Callable[[Connection], object]) -> None:
    """Change the database behind the vault's back."""
    with home.vault.engine.connect() as connection, connection.begin():
        change(connection)


def last_at(home: House) -> int:
    """When the last entry was made."""
    with home.vault.reading() as connection:
        at: int = connection.scalars(select(head.c.at)).one()
    return at


def test_an_untouched_chain_is_in_order(home: House) -> None:
    """Length, head and signatures are as they were written; a noted head still holds later."""
    lived(home)
    found = audit(home.vault)
    assert found.length == found.signed > 20
    assert audit(home.vault, (found.length, found.head)) == found
    home.lock(9)
    assert audit(home.vault, (found.length, found.head)).length > found.length


@pytest.mark.parametrize("number", [1, 7, 20])
@pytest.mark.parametrize("column", ["event", "detail", "at", "digest"])
def test_an_altered_entry_is_named(quick: House, number: int, column: str) -> None:
    """Whatever of an entry is altered: its number is told."""
    lived(quick)
    other = {"event": "unlocked", "detail": "{}", "at": 5, "digest": bytes(32)}[column]
    tampered(
        quick,
        lambda c: c.execute(
            update(entries).where(entries.c.number == number).values({column: other})
        ),
    )
    with pytest.raises(VaultDamagedError, match=rf"^entry {number} .* was altered"):
        audit(quick.vault)


@pytest.mark.parametrize("number", [1, 7])
def test_a_removed_entry_is_named(home: House, number: int) -> None:
    """A gap is told by the number that is missing."""
    lived(home)
    tampered(home, lambda c: c.execute(delete(entries).where(entries.c.number == number)))
    with pytest.raises(VaultDamagedError, match=f"^entry {number} of the audit chain is missing"):
        audit(home.vault)


def test_swapped_entries_are_named(home: House) -> None:
    """Two entries that changed places: the first of them is not in its place."""
    lived(home)

    def swap(connection: Connection) -> None:
        for old, new in ((6, 1000), (9, 6), (1000, 9)):
            connection.execute(update(entries).where(entries.c.number == old).values(number=new))

    tampered(home, swap)
    with pytest.raises(VaultDamagedError, match=r"^entry 6 .* is not in its place"):
        audit(home.vault)


def remade(connection: Connection, drop: int) -> None:
    """Drop an entry and make all hashes anew, as an attacker with the database can."""
    rows = connection.execute(select(entries).order_by(entries.c.number)).all()
    connection.execute(delete(entries))
    last, number = chain.START, 0
    for row in rows:
        if row.number != drop:
            number += 1
            last = chain.hash_of(last, number, row.digest)
            values = row._asdict() | {"number": number, "hash": last}
            connection.execute(insert(entries), values)
    connection.execute(update(head).values(length=number, hash=last))


def test_a_chain_made_anew_fails_at_its_signatures(home: House) -> None:
    """Hashes can be computed by anybody, the issuer's signatures cannot."""
    lived(home)
    tampered(home, lambda c: remade(c, 12))
    with pytest.raises(VaultDamagedError, match="checkpoint at entry"):
        audit(home.vault)


def test_a_chain_made_anew_under_another_key_fails_at_its_signatures(quick: House) -> None:
    """A checkpoint of somebody else is none."""
    lived(quick)
    mallory = made("mallory")

    def forge(connection: Connection) -> None:
        remade(connection, 12)
        connection.execute(delete(checkpoints))
        row = connection.execute(select(head)).one()
        values = {
            "length": row.length,
            "hash": row.hash,
            "issuer": mallory.public.verify_key,
            "signature": chain.sign_checkpoint(mallory, row.length, row.hash),
        }
        connection.execute(insert(checkpoints), values)

    tampered(quick, forge)
    with pytest.raises(VaultDamagedError, match="checkpoint at entry"):
        audit(quick.vault)


def test_an_end_that_was_cut_off_fails_against_what_was_noted(quick: House) -> None:
    """Rolled back to an earlier signed state: only a head noted elsewhere tells."""
    lived(quick)
    noted = audit(quick.vault)

    def cut(connection: Connection) -> None:
        length = connection.scalars(
            select(checkpoints.c.length).order_by(checkpoints.c.length)
        ).all()[2]
        for table, column in ((entries, entries.c.number), (checkpoints, checkpoints.c.length)):
            connection.execute(delete(table).where(column > length))
        last = connection.scalar(select(entries.c.hash).where(entries.c.number == length))
        connection.execute(update(head).values(length=length, hash=last))

    tampered(quick, cut)
    assert audit(quick.vault).length < noted.length
    with pytest.raises(VaultDamagedError, match=f"{noted.length} entries were noted"):
        audit(quick.vault, (noted.length, noted.head))


def test_another_chain_of_the_same_length_is_not_what_was_noted(quick: House) -> None:
    """The head's hash is compared too."""
    lived(quick)
    found = audit(quick.vault)
    with pytest.raises(VaultDamagedError, match="not the one that was noted"):
        audit(quick.vault, (found.length, bytes(32)))


@pytest.mark.parametrize("cut", [entries, head])
def test_an_end_that_does_not_fit_the_head_is_found(quick: House, cut: object) -> None:
    """Entries and head are one."""
    lived(quick)
    last = audit(quick.vault).length
    change = (
        delete(entries).where(entries.c.number == last)
        if cut is entries
        else update(head).values(length=last + 1)
    )
    tampered(quick, lambda c: c.execute(change))
    with pytest.raises(VaultDamagedError, match="audit chain"):
        audit(quick.vault)


def test_an_altered_checkpoint_is_found(quick: House) -> None:
    """Its signature is over length and head."""
    lived(quick)
    tampered(quick, lambda c: c.execute(update(checkpoints).values(signature=bytes(64))))
    with pytest.raises(VaultDamagedError, match="checkpoint at entry"):
        audit(quick.vault)


def damages() -> dict[str, Callable[[Connection], object]]:
    """What an attacker might do to the grants, each told by the check."""
    theirs, own = grants.c.recipient == BOB.public.id, grants.c.locked_uid == "1.2.1.3"
    forged = granted(instance(0), (ALICE,))[0]
    return {
        "a grant removed": lambda c: c.execute(delete(grants).where(theirs, own)),
        "a grant put in": lambda c: c.execute(insert(grants), grant_row(forged, 0)),
        "what is sealed changed": lambda c: c.execute(
            update(grants).where(theirs, own).values(sealed=bytes(80))
        ),
        "an expiry moved": lambda c: c.execute(
            update(grants).where(theirs, own).values(expires=2**40)
        ),
        "a binding changed": lambda c: c.execute(
            update(instances).where(instances.c.locked_uid == "1.2.1.3").values(binding=bytes(32))
        ),
        "a signature changed": lambda c: c.execute(
            update(grants).where(theirs, own).values(signature=bytes(64))
        ),
        "a revoked grant made live": lambda c: c.execute(
            update(grants).where(grants.c.recipient == ALICE.public.id, own).values(live=True)
        ),
        "a row of nonsense": lambda c: c.execute(
            update(grants).where(theirs, own).values(sealed=b"")
        ),
        "a revocation undone": lambda c: c.execute(
            update(grants)
            .where(grants.c.recipient == ALICE.public.id, own)
            .values(live=True, revoked=None)
        ),
        "a live grant ended": lambda c: c.execute(
            update(grants).where(theirs, own).values(live=False)
        ),
        "a recipient put in": lambda c: c.execute(
            insert(recipients),
            {
                "id": made("mallory").public.id,
                "name": "eve",
                "line": made("mallory").public.line,
                "custodian": True,
                "added": 0,
                "signature": bytes(64),
            },
        ),
        "a time pushed ahead": lambda c: c.execute(update(head).values(at=head.c.at + 1)),
        "a recipient retired": lambda c: c.execute(update(recipients).values(retired=5)),
        "a recipient made custodian": lambda c: c.execute(
            update(recipients).where(recipients.c.name == "bob").values(custodian=True)
        ),
        "a source swapped": lambda c: c.execute(
            update(instances).where(instances.c.locked_uid == "1.2.1.3").values(source_uid="1.9")
        ),
        "a packet swapped": lambda c: c.execute(
            update(instances).where(instances.c.locked_uid == "1.2.1.3").values(packet=b"x")
        ),
        "a record altered": lambda c: c.execute(update(instances).values(record="{}")),
        "a study swapped": lambda c: c.execute(update(instances).values(study_uid="1.2.3")),
        "another's lock": lambda c: c.execute(update(instances).values(issuer=bytes(32))),
        "an instance put in": lambda c: c.execute(
            insert(instances), vars(instance(99)) | {"locked": 0}
        ),
        "status lists forgotten": lambda c: c.execute(delete(statuses)),
        "checkpoints removed": lambda c: c.execute(delete(checkpoints)),
        "an issuer swapped": lambda c: c.execute(
            update(issuers).values(
                line=made("mallory").public.line, verify_key=made("mallory").public.verify_key
            )
        ),
    }


@pytest.mark.parametrize("name", damages())
def test_damaged_grants_are_found(home: House, name: str) -> None:
    """Each way to change a grant is found by the check, though the chain itself is whole."""
    lived(home)
    assert list(check(home.vault))
    tampered(home, damages()[name])
    with pytest.raises(VaultDamagedError):
        list(check(home.vault))


def test_an_issuer_that_nobody_made_successor_is_found(quick: House) -> None:
    """A succession without the old issuer's signature stops everything that asks for it."""
    lived(quick)
    mallory = made("mallory")
    forged = hand_over(mallory, mallory_two := made("mallory 2"), NOW)
    step = succession_record(forged) | {"old": ISSUER.public.line}
    values = {
        "number": 2,
        "verify_key": mallory_two.public.verify_key,
        "line": mallory_two.public.line,
        "succession": dumps(step).decode(),
    }
    tampered(quick, lambda c: c.execute(insert(issuers), values))
    with pytest.raises(VaultDamagedError, match="issuers"):
        audit(quick.vault)


def test_an_entry_that_cannot_have_happened_is_named(quick: House) -> None:
    """Whoever has the issuer's key may sign nonsense; the check says which entry it is."""
    with quick.vault.writing() as writing:
        writing.note("revoked", grant_id="00")
        writing.checkpoint(ISSUER)
    with pytest.raises(VaultDamagedError, match="cannot have happened"):
        list(check(quick.vault))


def test_issuers_that_do_not_follow_each_other_are_found(quick: House) -> None:
    """A succession that is gone or changed stops everything that asks for the issuer."""
    lived(quick)
    rotate(quick.vault, ISSUER, made("second issuer"))
    for values in ({"succession": "{}"}, {"succession": None}, {"line": "x"}):
        tampered(
            quick,
            lambda c, v=values: c.execute(  # type: ignore[misc]  # bound now
                update(issuers).where(issuers.c.number == 2).values(v)
            ),
        )
        with pytest.raises(VaultDamagedError, match="issuers"):
            audit(quick.vault)


def test_a_damaged_recipient_is_named(quick: House) -> None:
    """A public key in the vault that is none is told by its owner's name."""
    tampered(
        quick,
        lambda c: c.execute(update(recipients).where(recipients.c.name == "bob").values(line="x")),
    )
    with pytest.raises(VaultDamagedError, match="bob"):
        quick.reissue()


def test_a_clock_in_the_past_writes_nothing(home: House) -> None:
    """An hour behind the last entry is no clock; minutes are, and entries never go backwards."""
    lived(home)
    before, was = audit(home.vault), last_at(home)
    home.clock.now -= timedelta(hours=2)
    with pytest.raises(ClockError, match=r"before the vault's last entry of 2026-11-23T12:00:00Z"):
        home.lock(8)
    assert audit(home.vault) == before
    home.clock.now += timedelta(hours=2) - timedelta(minutes=5)
    home.lock(8)
    assert last_at(home) == was


def test_a_clock_that_was_wrong_is_reset(home: House) -> None:
    """After entries of a far future nothing is written until the issuer resets the clock."""
    home.lock(0)
    home.clock.now += timedelta(days=20000)
    home.lock(1)
    home.clock.now = NOW
    with pytest.raises(ClockError) as caught:
        home.lock(2)
    assert "reset-clock" in caught.value.hint
    with pytest.raises(VaultError, match="not the vault's issuer"):
        home.vault.reset_clock(made("mallory"))
    before, now = home.vault.reset_clock(ISSUER)
    assert (before, now) == (NOW + timedelta(days=20000), NOW)
    home.lock(2)
    assert last_at(home) == int(NOW.timestamp())
    assert list(check(home.vault))
    assert any("clock-reset before=2081-" in line for line in history(home.vault))
    with pytest.raises(UsageError, match="not in the future"):
        home.vault.reset_clock(ISSUER)


@pytest.mark.parametrize("before", [True, False])
def test_a_noted_beginning(quick: House, *, before: bool) -> None:
    """Of an empty chain only its own head can have been noted."""
    lived(quick)
    noted = (0, bytes(32) if before else b"\xff" * 32)
    if before:
        assert audit(quick.vault, noted).length > 0
    else:
        with pytest.raises(VaultDamagedError, match="0 entries were noted"):
            audit(quick.vault, noted)


@pytest.mark.parametrize(
    ("column", "value"),
    [
        ("at", "'noon'"),
        ("at", "9999999999999"),
        ("at", "x'00'"),
        ("detail", "'[1, 2'"),
        ("detail", "'[1, 2]'"),
        ("detail", "7"),
        ("event", "x'ff'"),
        ("number", "'one'"),
        ("digest", "'text'"),
        ("hash", "5"),
    ],
)
def test_values_without_sense_are_damage(quick: House, column: str, value: str) -> None:
    """SQLite lets anything stand in any column: whatever reads it says so, in our words."""
    lived(quick)
    statement = f"UPDATE audit_entry SET {column} = {value} WHERE number = 3"
    tampered(quick, lambda c: c.exec_driver_sql(statement))
    with pytest.raises(VaultDamagedError):
        audit(quick.vault)
    with pytest.raises(VaultDamagedError):
        list(check(quick.vault))
    with suppress(VaultDamagedError):
        assert list(history(quick.vault))


def test_who_writes_the_database_adds_nobody(quick: House) -> None:
    """A custodian with a sound entry in the chain, unsigned: nothing is sealed to them."""
    quick.lock(0)
    mallory = made("mallory").public
    row = {
        "id": mallory.id,
        "name": "../../escaped",
        "line": mallory.line,
        "custodian": True,
        "added": 0,
        "signature": bytes(64),
    }
    with quick.vault.writing() as writing:
        writing.connection.execute(insert(recipients), row)
        fingerprint = mallory.fingerprint
        writing.note("custodian-added", name="../../escaped", recipient=fingerprint)
    for name in ("../../escaped", "eve"):
        tampered(
            quick,
            lambda c, n=name: c.execute(  # type: ignore[misc]  # bound now
                update(recipients).where(recipients.c.id == mallory.id).values(name=n)
            ),
        )
        for attempt in (
            lambda: list(check(quick.vault)),
            lambda: quick.lock(1),
        ):
            with pytest.raises(VaultDamagedError):
                attempt()


def test_a_recipient_who_comes_back_is_found(quick: House) -> None:
    """A row as it was signed before its retirement contradicts the chain."""
    with quick.vault.reading() as connection:
        query = select(recipients).where(recipients.c.name == "bob")
        before = connection.execute(query).one()._asdict()
    with quick.vault.writing() as writing:
        people.retire(writing, ISSUER, "bob")
        writing.checkpoint(ISSUER)
    assert list(check(quick.vault))
    tampered(
        quick,
        lambda c: c.execute(update(recipients).where(recipients.c.name == "bob").values(**before)),
    )
    with pytest.raises(VaultDamagedError, match="bob"):
        list(check(quick.vault))


@pytest.mark.parametrize(
    ("table", "column", "value"),
    [
        ("audit_head", "at", "'noon'"),
        ("audit_head", "length", "x'00'"),
        ("audit_head", "hash", "5"),
        ("recipient", "line", "x'ff'"),
        ("recipient", "added", "'long ago'"),
        ("recipient", "retired", "1e300"),
        ("recipient", "name", "name || 7"),
        ("recipient", "signature", "'text'"),
        ("key_grant", "issued", "'then'"),
        ("key_grant", "expires", "1e300"),
        ("key_grant", "sealed", "'text'"),
        ("instance", "packet", "'text'"),
        ("instance", "record", "x'ff'"),
        ("instance", "locked", "'never'"),
        ("issuer", "line", "5"),
        ("audit_checkpoint", "signature", "7"),
    ],
)
def test_rows_without_sense_give_one_error(
    quick: House, table: str, column: str, value: str
) -> None:
    """Whoever reads them: an error of ours, never a traceback, or the value does not matter."""
    lived(quick)
    tampered(quick, lambda c: c.exec_driver_sql(f"UPDATE {table} SET {column} = {value}"))
    for attempt in (
        lambda: audit(quick.vault),
        lambda: list(check(quick.vault)),
        lambda: list(listed(quick.vault, "", ALL)),
        lambda: list(history(quick.vault)),
        lambda: quick.lock(7, ALICE),
        lambda: quick.reissue("alice"),
        lambda: export(quick.vault, ISSUER, "bob", ALL),
        lambda: rotate(quick.vault, ISSUER, made("next")),
    ):
        with suppress(MedLockerError):
            attempt()
