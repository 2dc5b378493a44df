"""Transcripts of what happens to receipts, key files and status lists over several runs."""

import json
import os
import shutil
from typing import Any

import pytest
from sqlalchemy import Engine, event

from desk import QUICK, Desk, granted, lock_for_alice, refused, tree
from medlocker_dicom.cli import progress
from medlocker_dicom.keyfile import caps, load_receipt
from medlocker_dicom.vault import reissue


def test_a_receipt_tells_of_earlier_runs_too(archive: Desk, desk: Desk) -> None:
    """Interrupted, repeated, repeated again: times and grants are those of the unlocking."""
    source, receipt = desk / "locked", desk / "bob.mlreceipt"
    shutil.copytree(archive / "locked", source)
    shutil.move(source / "eye1.dcm", desk / "later.dcm")
    unlock = ("unlock", source, desk / "back", "--identity", archive.person("bob"))
    desk.good(*unlock, "--receipt", receipt)
    (first,) = load_receipt(receipt.read_bytes()).entries
    shutil.move(desk / "later.dcm", source / "eye1.dcm")
    desk.good(*unlock, "--receipt", receipt)
    both = load_receipt(receipt.read_bytes())
    assert (both.entries[0], len(both.entries)) == (first, 2)
    desk.good(*unlock, "--receipt", receipt)
    assert load_receipt(receipt.read_bytes()).entries == both.entries
    refused(desk, 9, "inside each other", *unlock[:2], source / "back", *unlock[3:], "--receipt",
            receipt)  # fmt: skip
    assert load_receipt(receipt.read_bytes()).entries == both.entries


def test_much_to_tell_becomes_several_receipts(
    archive: Desk, desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    """More entries than one may hold are not an error after all the work."""
    monkeypatch.setattr(caps, "MAX_RECEIPT_ENTRIES", 1)
    unlock = ("unlock", archive / "locked", desk / "back", "--identity", archive.person("bob"))
    desk.good(*unlock, "--receipt", desk / "bob.mlreceipt")
    files = {name for name in tree(desk.root) if name.endswith(".mlreceipt")}
    assert files == {"bob-1.mlreceipt", "bob-2.mlreceipt"}
    for name in files:
        assert len(load_receipt((desk / name).read_bytes()).entries) == 1


def test_many_instances_become_several_key_files(
    office: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A lock of more than a key file may hold ends well; unlock finds all the parts."""
    monkeypatch.setattr(caps, "MAX_GRANTS", 1)
    out = office / "locked"
    assert office.lock(office.eyes("src", 2), out).code == 0
    assert tree(out / "keys") == {"alice-1.mlkey", "alice-2.mlkey"}
    assert office.unlock(out, office / "back", "alice").code == 0


def test_pipes_called_as_keys_do_not_hang(archive: Desk, desk: Desk) -> None:
    """Beside the data they are left out, by name they are an error."""
    out = desk / "locked"
    shutil.copytree(archive / "locked", out)
    for name in ("x.mlkey", "x.mlstatus"):
        os.mkfifo(out / "keys" / name)
    identity = ("--identity", archive.person("bob"))
    outcome = desk.good("unlock", out, desk / "back", *identity)
    assert outcome.err.count("is no plain file") == 2
    assert outcome.err.count("left out: ") == 2
    for option, name in (("--key", "x.mlkey"), ("--status", "x.mlstatus")):
        command = ("verify", out, *identity, option, out / "keys" / name)
        refused(desk, 7, f"{name}: is no plain file", *command)


def test_recipients_are_added_from_a_folder(owner: Desk) -> None:
    """All of its public keys by the names of their files, with words; all or none."""
    folder = owner / "friends"
    folder.mkdir()
    for name in ("bob", "carol"):
        shutil.copy(owner.public(name), folder / f"{name}.pub")
    (folder / "notes.txt").write_text("not a key")
    (folder / "eve.pub").write_bytes(owner.person("eve").read_bytes())
    before = owner.good("recipient", "list").out
    refused(owner, 7, "eve.pub", "recipient", "add", folder)
    assert owner.good("recipient", "list").out == before
    (folder / "eve.pub").unlink()
    said = owner.good("recipient", "add", folder).out
    for name in ("bob", "carol"):
        public = owner.identity(name).public
        assert f"{name} {public.fingerprint}\n  {public.words}\n" in said
        assert len(public.words.split()) == 15
    listed = {one["name"] for one in json.loads(owner.good("recipient", "list", "--json").out)}
    assert listed == {"alice", "bob", "carol", "custodian"}


def test_grants_by_each_level(owner: Desk) -> None:
    """One command for an instance, a series, a study, or all; revoked by the same words."""
    for number, (study, series) in enumerate([("1", "1"), ("1", "2"), ("2", "3"), ("2", "3")]):
        uids = {"study_uid": f"1.2.3.{study}", "series_uid": f"1.2.4.{series}"}
        owner.eye(f"src/eye{number}.dcm", number, **uids)
    owner.good("lock", owner / "src", owner / "locked", "--to", "alice", *QUICK)
    levels: list[tuple[int, tuple[str, ...]]] = [
        (1, ("--instance", "1.2.826.0.1.3680043.10.9.2")),
        (2, ("--series", "1.2.4.3")),
        (2, ("--study", "1.2.3.1")),
        (3, ("--study", "1.2.3.2", "--series", "1.2.4.1")),
        (4, ()),
    ]
    keeper = ("--custodian", owner.person("custodian"))
    for number, (count, chosen) in enumerate(levels):
        name = f"guest-{number}"
        owner.good("recipient", "add", owner.public(name), "--name", name)
        said = owner.good("grant", "reissue", "--to", name, *keeper, *chosen).out
        assert said.startswith(f"{count} grants issued")
        assert owner.good("grant", "list", "--to", name).out.count(" live") == count
        sent = owner.good("grant", "export", owner / name, "--to", name, *chosen).out
        assert f"{count} grants" in sent
        key = owner / name / f"{name}.mlkey"
        outcome = owner.unlock(owner / "locked", owner / f"back-{number}", name, "--key", key)
        assert f"{count} good, {4 - count} failed" in outcome.out
        revoke = ("grant", "revoke", "--to", name, "--status", owner / f"{number}.mlstatus")
        assert f"{count} grants of {name} revoked" in owner.good(*revoke, *chosen).out


@pytest.mark.parametrize("terminal", [True, False])
def test_batches_show_how_far_they_are(
    owner: Desk, monkeypatch: pytest.MonkeyPatch, *, terminal: bool
) -> None:
    """On a terminal a bar; elsewhere a line every few seconds, here at each batch."""
    lock_for_alice(owner, 3)
    owner.good("recipient", "add", owner.public("bob"))
    monkeypatch.setattr(reissue, "BATCH", 1)
    monkeypatch.setattr(progress, "_EVERY", -1)
    if terminal:
        monkeypatch.setenv("FORCE_COLOR", "1")
    keeper = ("--custodian", owner.person("custodian"))
    said = owner.good("grant", "reissue", "--to", "bob", *keeper).err
    if terminal:
        assert "issuing" in said
        assert "100%" in said
    else:
        assert [line for line in said.splitlines() if line.startswith("issuing")] == [
            f"issuing {done}/3" for done in range(4)
        ]


def test_pipes_among_public_keys_do_not_hang(owner: Desk) -> None:
    """In a folder of public keys, and inspected: one error that names the pipe, nobody is added."""
    folder = owner / "friends"
    folder.mkdir()
    shutil.copy(owner.public("bob"), folder / "bob.pub")
    os.mkfifo(folder / "carol.pub")
    before = owner.good("recipient", "list").out
    refused(owner, 7, "carol.pub: is no plain file", "recipient", "add", folder)
    refused(owner, 2, "carol.pub: is no plain file", "inspect", folder / "carol.pub")
    assert owner.good("recipient", "list").out == before


@pytest.mark.parametrize(
    ("command", "queries"),
    [(("recipient", "list"), 2), (("grant", "list"), 1), (("grant", "list", "--to", "alice"), 3)],
)
def test_lists_ask_as_often_for_many_as_for_few(
    owner: Desk, command: tuple[str, ...], queries: int
) -> None:
    """No query a name, and none a grant: the database counts."""
    lock_for_alice(owner, 1)
    asked: list[str] = []

    def note(_: Any, __: Any, statement: str, *___: Any) -> None:
        if statement.startswith("SELECT") and " FROM (" not in statement:
            asked.append(statement)

    def ours() -> int:
        asked.clear()
        event.listen(Engine, "before_cursor_execute", note)
        try:
            owner.good(*command)
        finally:
            event.remove(Engine, "before_cursor_execute", note)
        return sum(
            any(name in one for name in ("recipient", "key_grant", "issuer")) for one in asked
        )

    few = ours()
    assert few == queries
    for number in range(12):
        owner.good("recipient", "add", owner.public(f"guest-{number}"))
    for name in ("guest-1", "guest-2"):
        owner.good("grant", "reissue", "--to", name, "--custodian", owner.person("custodian"))
    assert ours() == few


def test_a_list_is_not_replaced_by_one_that_revokes_less(owner: Desk) -> None:
    """By a restored vault, or another owner's: neither by grant status nor by an export."""
    keys = lock_for_alice(owner) / "keys"
    owner.good("recipient", "add", owner.public("bob"))
    backup, status = owner / "backup.db", keys / "revoked.mlstatus"
    owner.good("grant", "revoke", "--to", "alice", "--status", status, "--instance",
               min(granted(owner / "locked")))  # fmt: skip
    owner.good("vault", "backup", backup)
    owner.good("grant", "revoke", "--to", "alice", "--status", status)
    before = status.read_bytes()
    refused(owner, 9, "a vault is there", "vault", "restore", backup)
    assert "vault.db: " in owner.good("vault", "restore", backup, "--replace").out
    refused(owner, 9, "1 revoked grants that list 2 lacks", "grant", "status", status)
    owner.good("grant", "reissue", "--to", "bob", "--custodian", owner.person("custodian"))
    refused(owner, 9, "revoked.mlstatus", "grant", "export", keys, "--to", "bob")
    assert not (keys / "bob.mlkey").exists()
    assert status.read_bytes() == before
    owner.good("grant", "revoke", "--to", "alice", "--status", status)
    mallory = ("--issuer", owner.person("mallory"), "--vault", owner / "m.db")
    owner.good("vault", "init", "--no-custodian", *mallory)
    refused(owner, 9, "is a list of", "grant", "status", status, *mallory)


def test_what_cannot_be_written_is_known_before_anything_is_revoked(owner: Desk) -> None:
    """A folder that is none, a file that is no list; afterwards, the hint says how to go on."""
    lock_for_alice(owner, 1)
    (owner / "notes").write_text("notes")
    (owner / "notes.mlstatus").write_text("notes")
    revoke = ("grant", "revoke", "--to", "alice", "--status")
    refused(owner, 9, "notes", *revoke, owner / "notes" / "x.mlstatus")
    refused(owner, 7, "notes.mlstatus", *revoke, owner / "notes.mlstatus")
    assert "revoked" not in owner.good("grant", "list").out
    mallory = ("--issuer", owner.person("mallory"), "--vault", owner / "m.db")
    owner.good("vault", "init", "--no-custodian", *mallory)
    owner.good("grant", "status", owner / "m.mlstatus", *mallory)
    said = refused(owner, 9, "is a list of", *revoke, owner / "m.mlstatus")
    assert "revoked all the same; medlocker grant status" in said
    assert " revoked" in owner.good("grant", "list").out


def test_a_uid_that_selects_nothing_is_named(owner: Desk) -> None:
    """Among others that do: nothing is issued, exported, revoked or listed."""
    uid = min(granted(lock_for_alice(owner)))
    custodian = ("--custodian", owner.person("custodian"))
    wrong = ("--instance", uid, "--study", "1.2.3.404")
    for command in (
        ("grant", "list"),
        ("grant", "reissue", "--to", "alice", *custodian, "--renew"),
        ("grant", "export", owner / "out", "--to", "alice"),
        ("grant", "revoke", "--to", "alice"),
    ):
        refused(owner, 2, "1.2.3.404: nothing", *command, *wrong)
    assert owner.good("grant", "list").out.count(" live") == 4
    refused(owner, 2, "1.2.3.404", "vault", "audit", "--of", "1.2.3.404")
    assert "--series or --instance" in " ".join(owner.good("grant", "revoke", "--help").out.split())


def test_what_was_locked_again_is_issued_once(owner: Desk) -> None:
    """The earlier lock is passed over; the hint says how its keys end, and so they do."""
    first = lock_for_alice(owner)
    owner.good("recipient", "add", owner.public("bob"))
    source, second = owner / "src", owner / "second"
    again = owner.good("lock", source, second, "--to", "alice", "--again", *QUICK, "--sl", "5")
    assert "still open what was locked before" in again.err
    custodian = ("--custodian", owner.person("custodian"))
    said = owner.good("grant", "reissue", "--to", "bob", *custodian).out
    assert said.startswith("2 grants issued")
    status = second / "keys" / "revoked.mlstatus"
    uids = [word for uid in granted(first) for word in ("--instance", uid)]
    assert not granted(first) & granted(second)
    owner.good("grant", "revoke", "--to", "alice", "--status", status, *uids)
    shutil.copy(status, first / "keys")
    assert owner.unlock(first, owner / "old", "alice").code == 3
    assert owner.unlock(second, owner / "new", "alice").code == 0


def test_custodians_grants_never_end(owner: Desk) -> None:
    """Neither by a lock nor by issuing to a second custodian."""
    lock_for_alice(owner, 1)
    owner.good("recipient", "add", "--custodian", owner.public("second"))
    issue = ("grant", "reissue", "--to", "second", "--custodian", owner.person("custodian"))
    refused(owner, 2, "never expire", *issue, "--expires", "2099-12-31")
    owner.good(*issue)
    told = [json.loads(line) for line in owner.good("grant", "list", "--json").out.splitlines()]
    assert {one["recipient"]: one["expires"] for one in told}["second"] is None
