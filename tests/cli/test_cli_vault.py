"""Transcripts of recipient, grant and vault, and of lock with a vault."""

import json
import os
import shutil
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import pytest
from pydicom import dcmread

from desk import (
    QUICK,
    Desk,
    edit_json,
    granted,
    lock_for_alice,
    refused,
    results,
    same_pixels,
    tree,
)
from medlocker_dicom.database import place_of
from medlocker_dicom.folder import lock as folder_lock
from medlocker_dicom.keyfile import (
    dump_detached,
    dump_identity,
    dump_public,
    load_detached,
    load_identity,
)
from medlocker_dicom.vault.vault import open_vault

if TYPE_CHECKING:
    from pathlib import Path

PASSPHRASE = "a passphrase that must never be seen"


def test_init_says_what_is_missing(office: Desk) -> None:
    """A custodian is named, or done without in words; a second init changes nothing."""
    refused(office, 2, "--no-custodian", "vault", "init")
    refused(
        office, 2, "--no-custodian",
        "vault", "init", "--no-custodian", "--custodian", office.public("custodian"),
    )  # fmt: skip
    assert "issuer" in office.good("vault", "init", "--no-custodian").out
    before = office.good("vault", "audit").out
    assert "up to date" in office.good("vault", "init").out
    refused(
        office, 2, "recipient add --custodian",
        "vault", "init", "--custodian", office.public("custodian"),
    )  # fmt: skip
    assert office.good("vault", "audit").out == before


def test_no_vault_at_all(office: Desk) -> None:
    """Each command that needs one says how to make it; lock does without."""
    for command in (
        ("vault", "check"),
        ("vault", "audit"),
        ("recipient", "list"),
        ("grant", "list"),
        ("grant", "export", office / "out", "--to", "alice"),
    ):
        refused(office, 10, "medlocker vault init", *command)
    assert office.lock(office.eyes("src", 1), office / "out").code == 0
    refused(
        office, 10, "medlocker vault init",
        "lock", office / "src", office / "other", "--to", office.public("alice"),
        "--vault", office / "none.db", *QUICK,
    )  # fmt: skip
    assert not (office / "none.db").exists()


def test_lock_by_names_files_and_folders(owner: Desk) -> None:
    """Names of the vault, public key files and folders of them; the custodian by itself."""
    folder = owner / "friends"
    folder.mkdir()
    for name in ("bob", "carol"):
        shutil.copy(owner.public(name), folder / f"{name}.pub")
    out = lock_for_alice(owner, 1, "locked", "--to", str(folder), "--to", str(owner.public("dave")))
    assert tree(out / "keys") == {
        f"{name}.mlkey" for name in ("alice", "bob", "carol", "dave", "custodian")
    }
    listed = json.loads(owner.good("recipient", "list", "--json").out)
    assert {one["name"]: one["live_grants"] for one in listed} == dict.fromkeys(
        ("alice", "bob", "carol", "dave", "custodian"), 1
    )
    assert owner.unlock(out, owner / "back", "carol").code == 0


def test_whom_a_lock_cannot_be_for(owner: Desk) -> None:
    """Unknown, retired, twice, another custodian, an empty folder: one error, nothing made."""
    owner.eyes("src", 1)
    (owner / "empty").mkdir()
    owner.good("recipient", "add", owner.public("bob"))
    owner.good("recipient", "retire", "bob")
    cases: dict[str, tuple[str | Path, ...]] = {
        "no recipient called zoe": ("--to", "zoe"),
        "bob is retired": ("--to", "bob"),
        "holds no .pub file": ("--to", owner / "empty"),
        "one public key is given twice": ("--to", "custodian"),
        "is not the vault's custodian": ("--to", "alice", "--custodian", owner.public("eve")),
        "is over already": ("--to", "alice", "--expires", "2001-01-01"),
        "not a day like": ("--to", "alice", "--expires", "soon"),
        "contradict": ("--to", "alice", "--no-vault", "--vault", owner / "x.db"),
    }
    for words, options in cases.items():
        outcome = owner.run("lock", owner / "src", owner / "out", *options, *QUICK)
        assert (outcome.code, len(outcome.errors)) == (2, 1), outcome.err
        assert words in outcome.err
        assert not (owner / "out").exists()


def test_another_issuer_cannot_lock_into_the_vault(owner: Desk) -> None:
    """The vault has one issuer; who is named otherwise is refused before anything is locked."""
    refused(
        owner, 10, "is not the vault's issuer",
        "lock", owner.eyes("src", 1), owner / "out", "--to", "alice",
        "--issuer", owner.person("mallory"), *QUICK,
    )  # fmt: skip
    assert not (owner / "out").exists()


def test_a_source_is_locked_once(owner: Desk) -> None:
    """A second lock elsewhere is refused for each file; --again replaces the keys of the first."""
    first = lock_for_alice(owner)
    outcome = owner.run("lock", owner / "src", owner / "second", "--to", "alice", *QUICK)
    assert (outcome.code, len(outcome.errors)) == (3, 2)
    assert "was locked at" in outcome.err
    assert "--again" in outcome.err
    assert results(owner / "second") == set()
    shutil.rmtree(owner / "second")
    owner.good("lock", owner / "src", owner / "second", "--to", "alice", "--again", *QUICK)
    owner.good("grant", "export", owner / "keys", "--to", "alice")
    key = owner / "keys" / "alice.mlkey"
    assert owner.unlock(owner / "second", owner / "back", "alice", "--key", key).code == 0
    assert owner.unlock(first, owner / "old", "alice", "--key", key).code == 3
    assert owner.unlock(first, owner / "older", "alice").code == 0
    assert "all in order" in owner.good("vault", "check").out
    alice = owner.public("alice")
    owner.good("lock", owner / "src", owner / "third", "--to", alice, "--no-vault", *QUICK)


def test_a_run_that_stopped_before_the_vault_is_completed(owner: Desk) -> None:
    """What lies in the folder and not in the vault is entered by the next run, once."""
    out = lock_for_alice(owner)
    other = owner / "other.db"
    owner.good("vault", "init", "--vault", other, "--no-custodian")
    journal = out / ".medlocker-journal"
    lines = journal.read_text().splitlines(keepends=True)
    before = owner.good("vault", "audit").out
    assert owner.good("lock", owner / "src", out, "--to", "alice", *QUICK).out[:8] == "2 locked"
    assert owner.good("vault", "audit").out.split(":")[0] == before.split(":")[0]
    # As if the first run had ended between journal and vault: an empty vault in its place.
    own = owner / "data" / "medlocker" / "vault.db"
    for file in own.parent.iterdir():
        file.unlink()
    owner.good("vault", "init", "--custodian", owner.public("custodian"))
    owner.good("recipient", "add", owner.public("alice"))
    owner.good("lock", owner / "src", out, "--to", "alice", *QUICK)
    assert journal.read_text().splitlines(keepends=True) == lines
    assert "2 instances, 4 grants, 4 of them live" in owner.good("vault", "check").out


def test_detached_packets(owner: Desk) -> None:
    """Files without packets unlock with the packets beside them, from a folder, or exported."""
    out = lock_for_alice(owner, 2, "locked", "--detached")
    packets = sorted((out / "packets").iterdir())
    assert [path.suffix for path in packets] == [".mlpacket"] * 2
    assert owner.unlock(out, owner / "back", "alice").code == 0
    for name in ("eye0.dcm", "eye1.dcm"):
        assert same_pixels(owner / "src" / name, owner / "back" / name)
    shutil.move(out / "packets", owner / "elsewhere")
    outcome = owner.unlock(out, owner / "none", "alice")
    assert (outcome.code, len(outcome.errors)) == (3, 2)
    assert "--packets" in outcome.err
    assert results(owner / "none") == set()
    key = ("--packets", owner / "elsewhere")
    assert owner.verify(out, "alice", *key).code == 0
    assert "2 packets" in owner.good("grant", "export", owner / "sent", "--to", "alice").out
    moved = ("--packets", owner / "sent" / "packets")
    assert owner.unlock(out, owner / "again", "alice", *moved).code == 0


def test_packets_of_other_objects_are_refused(owner: Desk) -> None:
    """Swapped, damaged and missing packets: each object's error names the file."""
    out = lock_for_alice(owner, 2, "locked", "--detached")
    one, two = sorted((out / "packets").iterdir())
    first, second = one.read_bytes(), two.read_bytes()
    one.write_bytes(second)
    two.write_bytes(second[: len(second) // 2])
    outcome = owner.unlock(out, owner / "back", "alice")
    assert (outcome.code, len(outcome.errors)) == (3, 2)
    assert "is the packet of" in outcome.err
    assert results(owner / "back") == set()
    one.write_bytes(first)
    two.write_bytes(second)
    assert owner.unlock(out, owner / "back", "alice").code == 0


def test_a_lost_packet_is_made_again(owner: Desk) -> None:
    """A run that is started again does not take a file for done whose packet is gone."""
    out, source = owner / "locked", owner.eyes("src", 2)
    command = ("lock", source, out, "--to", owner.public("alice"), "--no-vault", "--detached")
    owner.good(*command, *QUICK)
    min((out / "packets").iterdir()).unlink()
    again = owner.good(*command, *QUICK).err
    assert (again.count(" already "), again.count(" locked ")) == (1, 1)
    assert len(list((out / "packets").iterdir())) == 2
    assert owner.unlock(out, owner / "back", "alice").code == 0


def test_expiry_is_for_recipients_alone(owner: Desk) -> None:
    """Recipients' grants end, the custodian's do not."""
    out = lock_for_alice(owner, 1, "locked", "--expires", "2099-12-31")
    ends = {
        name: [grant["expires"] for grant in json.loads(path.read_bytes())["grants"]]
        for name in ("alice", "custodian")
        for path in [out / "keys" / f"{name}.mlkey"]
    }
    assert ends == {"alice": ["2100-01-01T00:00:00Z"], "custodian": [None]}


def test_an_identity_that_is_not_the_custodians(owner: Desk) -> None:
    """Wrong identity, wrong passphrase, unknown recipient: refused, and nothing is issued."""
    lock_for_alice(owner)
    owner.good("recipient", "add", owner.public("bob"))
    wrong = owner.secret("wrong.txt", b"not it\n")
    secured = owner / "secured.key"
    secured.touch(mode=0o600)
    secured.write_bytes(dump_identity(owner.identity("custodian"), PASSPHRASE.encode()))
    cases = {
        "has no grant for 2 of 2": ("--custodian", owner.person("mallory")),
        "does not open": (
            "--custodian", secured, "--custodian-passphrase-file", wrong,
        ),
    }  # fmt: skip
    for words, options in cases.items():
        refused(owner, 7, words, "grant", "reissue", "--to", "bob", *options)
    keys = ("--custodian", owner.person("custodian"))
    refused(owner, 2, "no recipient called zoe", "grant", "reissue", "--to", "zoe", *keys)
    refused(
        owner, 2, "nothing that was locked", "grant", "reissue", "--to", "bob", *keys,
        "--study", "9.9.9",
    )  # fmt: skip
    assert "bob" not in owner.good("grant", "list").out
    right = owner.secret("right.txt", PASSPHRASE.encode() + b"\n")
    secure = ("--custodian", secured, "--custodian-passphrase-file", right)
    outcome = owner.good("grant", "reissue", "--to", "bob", *secure)
    assert outcome.out.startswith("2 grants issued to bob")
    assert PASSPHRASE not in outcome.out + outcome.err


def test_revoked_by_a_list_given_or_beside(owner: Desk) -> None:
    """The list counts wherever it lies; a stranger's says nothing; a damaged one is told."""
    out = lock_for_alice(owner)
    status = owner / "revoked.mlstatus"
    owner.good("grant", "revoke", "--to", "alice", "--status", status)
    assert owner.unlock(out, owner / "a", "alice").code == 0
    for more in ((), ("--status", status)):
        if not more:
            shutil.copy(status, out / "keys")
        outcome = owner.unlock(out, owner / f"b{len(more)}", "alice", *more)
        assert (outcome.code, len(outcome.errors)) == (3, 2)
        assert "was revoked by status list 1" in outcome.err
    assert owner.unlock(out, owner / "c", "custodian").code == 0
    (out / "keys" / "revoked.mlstatus").write_bytes(status.read_bytes()[:-9])
    outcome = owner.unlock(out, owner / "d", "alice")
    assert outcome.code == 0
    assert "left out: " in outcome.err
    refused(
        owner, 7, "revoked.mlstatus",
        "unlock", out, owner / "e", "--identity", owner.person("alice"),
        "--status", out / "keys" / "revoked.mlstatus",
    )  # fmt: skip
    owner.good(
        "vault", "init", "--vault", owner / "s.db", "--no-custodian",
        "--issuer", owner.person("mallory"),
    )  # fmt: skip
    foreign = owner / "foreign.mlstatus"
    owner.good(
        "grant", "status", foreign, "--vault", owner / "s.db", "--issuer", owner.person("mallory")
    )
    assert owner.unlock(out, owner / "f", "alice", "--status", foreign).code == 0
    refused(
        owner, 9, ".mlstatus", "grant", "revoke", "--to", "alice", "--status", owner / "list.txt"
    )


def test_after_a_rotation_old_and_new_issuer_are_trusted(owner: Desk) -> None:
    """Who pins either issuer unlocks by the new key file; who pins a third does not."""
    out = lock_for_alice(owner)
    shutil.rmtree(out / "keys")
    old = owner / "config" / "medlocker" / "issuer.key"
    new = owner.person("issuer-2")
    moved = shutil.copy(new, owner / "a\x1b[2J.key")
    assert "\x1b" not in owner.good("vault", "rotate-issuer", "--new", moved).out
    refused(
        owner, 10, "is not the vault's issuer", "grant", "export", out / "keys", "--to", "alice"
    )
    owner.good("grant", "export", out / "keys", "--to", "alice", "--issuer", new)
    pins = {"old": owner / "old.pub", "new": owner.public("issuer-2")}
    pins["old"].write_bytes(dump_public(load_identity(old.read_bytes(), bytes).public))
    for name, pin in pins.items():
        assert owner.unlock(out, owner / name, "alice", "--issuer", pin).code == 0, name
    third = owner.public("mallory")
    outcome = owner.unlock(out, owner / "third", "alice", "--issuer", third)
    assert (outcome.code, len(outcome.errors)) == (7, 1)
    assert results(owner / "third") == set()


def test_a_stolen_issuer_is_not_trusted_by_a_pin_of_the_next(owner: Desk) -> None:
    """A thief hands a copy of the vault over to an own key: that passes without a pin alone."""
    out = lock_for_alice(owner)
    shutil.rmtree(out / "keys")
    owner.good("vault", "backup", owner / "stolen.db")
    theirs = ("--vault", owner / "stolen.db")
    for vault, name in ((theirs, "mallory"), ((), "issuer-2")):
        owner.good("vault", "rotate-issuer", "--new", owner.person(name), *vault)
        signer = ("--issuer", owner.person(name))
        owner.good("grant", "export", owner / name, "--to", "alice", *vault, *signer)
    sign = ("--issuer", owner.person("mallory"))
    revoked = owner / "mallory" / "revoked.mlstatus"
    owner.good("grant", "revoke", "--to", "alice", "--status", revoked, *theirs, *sign)
    shutil.copy(revoked, owner / "issuer-2")
    forged, sound = (owner / name / "alice.mlkey" for name in ("mallory", "issuer-2"))
    pin = ("--issuer", owner.public("issuer-2"))
    outcome = owner.unlock(out, owner / "forged", "alice", "--key", forged, *pin)
    assert (outcome.code, len(outcome.errors)) == (7, 1)
    assert owner.unlock(out, owner / "revoked", "alice", "--key", sound).code == 3
    assert owner.unlock(out, owner / "back", "alice", "--key", sound, *pin).code == 0
    (owner / "mallory" / "revoked.mlstatus").unlink()
    assert owner.unlock(out, owner / "fooled", "alice", "--key", forged).code == 0


def test_receipts_come_back(owner: Desk) -> None:
    """Opened and refused objects alike; a changed receipt and a foreign one are refused."""
    out = lock_for_alice(owner)
    receipt = owner / "alice.mlreceipt"
    (out / "eye1.dcm").write_bytes((out / "eye1.dcm").read_bytes()[:-300])
    outcome = owner.unlock(out, owner / "back", "alice", "--receipt", receipt)
    assert outcome.code == 3
    assert [entry["outcome"] for entry in json.loads(receipt.read_bytes())["entries"]] == [
        "unlocked"
    ]
    assert "1 new entries" in owner.good("vault", "receive", receipt).out
    assert "0 new entries" in owner.good("vault", "receive", receipt).out
    told = [owner.good("vault", "audit", "--of", uid).out for uid in granted(out)]
    assert sum("unlocked" in one for one in told) == 1
    edit_json(receipt, lambda record: record["entries"].clear())
    refused(owner, 7, "alice.mlreceipt", "vault", "receive", receipt)
    refused(owner, 7, "none.mlreceipt", "vault", "receive", owner / "none.mlreceipt")


def test_audit_by_what_was_noted(owner: Desk) -> None:
    """What an audit prints is taken by the next one; nonsense and another head are refused."""
    noted = owner.good("vault", "audit").out.strip()
    lock_for_alice(owner)
    owner.good("vault", "audit", "--noted", noted)
    refused(owner, 2, "--noted", "vault", "audit", "--noted", "x")
    length = noted.split(":")[0]
    refused(owner, 10, "was noted", "vault", "audit", "--noted", f"{length}:{'0' * 64}")
    assert owner.good("vault", "audit", "--history").out.count("\n") > 8


def test_a_password_is_not_for_the_command_line(
    owner: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Refused there; taken from the environment; shown nowhere."""
    url = f"postgresql://owner:{PASSPHRASE.replace(' ', '-')}@127.0.0.1:1/none"
    outcome = owner.run("vault", "check", "--vault", url)
    assert (outcome.code, len(outcome.errors)) == (2, 1)
    assert "password" in outcome.err
    monkeypatch.setenv("MEDLOCKER_VAULT", url)
    second = owner.run("vault", "check")
    assert (second.code, len(second.errors)) == (10, 1)
    assert "that-must-never" not in outcome.err + second.err + second.out


def test_show_and_names(owner: Desk) -> None:
    """A recipient's key in letters and in words; a name of one's own; control characters shown."""
    shown = owner.good("recipient", "show", "alice").out
    public = owner.identity("alice").public
    assert f"fingerprint: {public.fingerprint}" in shown
    assert f"words: {public.words}" in shown
    owner.good("recipient", "add", owner.public("bob"), "--name", "Bob of Elsewhere")
    assert "Bob of Elsewhere" in owner.good("recipient", "list").out
    refused(owner, 2, "one public key", "recipient", "add", "--name", "x",
            owner.public("carol"), owner.public("dave"))  # fmt: skip
    refused(owner, 2, "another key", "recipient", "add", "--name", "alice", owner.public("eve"))
    refused(owner, 2, "no recipient called", "recipient", "show", "nobody")
    refused(owner, 2, "only custodian", "recipient", "retire", "custodian")


def test_files_that_are_no_receipt_or_list_are_not_overwritten(owner: Desk) -> None:
    """A photograph or a private key given by mistake stays as it is."""
    out = lock_for_alice(owner, 1)
    for path in (out / "eye0.dcm", owner.person("alice")):
        before = path.read_bytes()
        outcome = owner.unlock(out, owner / "back", "alice", "--receipt", path)
        assert (outcome.code, len(outcome.errors)) == (9, 1)
        status = ("grant", "revoke", "--to", "alice", "--status", path)
        refused(owner, 9, ".mlstatus", *status)
        assert path.read_bytes() == before
    (owner / "folder.mlstatus").mkdir()
    refused(
        owner, 9, ".mlstatus",
        "grant", "revoke", "--to", "alice", "--status", owner / "folder.mlstatus",
    )  # fmt: skip
    assert "revoked" not in owner.good("grant", "list").out


def test_what_was_exported_together_counts_together(owner: Desk) -> None:
    """The status list and the packets beside a key file are found by --key alone."""
    out = lock_for_alice(owner, 2, "locked", "--detached")
    shutil.rmtree(out / "packets")
    owner.good("recipient", "add", owner.public("bob"))
    keys = ("--custodian", owner.person("custodian"))
    owner.good("grant", "reissue", "--to", "bob", *keys)
    owner.good("grant", "revoke", "--to", "alice", "--status", owner / "r.mlstatus")
    owner.good("grant", "export", owner / "sent", "--to", "bob")
    key = owner / "sent" / "bob.mlkey"
    assert owner.unlock(out, owner / "back", "bob", "--key", key).code == 0
    shutil.copy(out / "keys" / "alice.mlkey", owner / "sent")
    outcome = owner.unlock(out, owner / "none", "alice", "--key", owner / "sent" / "alice.mlkey")
    assert (outcome.code, len(outcome.errors)) == (3, 2)
    assert "was revoked" in outcome.err


def test_a_failed_init_leaves_nothing(office: Desk) -> None:
    """Without a custodian, or with a bad issuer: no half vault that stops every lock."""
    office.run("vault", "init")
    office.run("vault", "init", "--no-custodian", "--issuer", office / "none.key")
    assert not (office / "data").exists()
    assert office.lock(office.eyes("src", 1), office / "out").code == 0


def test_a_name_of_the_vault_comes_before_a_folder(
    owner: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A folder that happens to be called alice does not choose who alice is."""
    monkeypatch.chdir(owner.root)
    (owner / "alice").mkdir()
    shutil.copy(owner.public("mallory"), owner / "alice" / "m.pub")
    out = lock_for_alice(owner, 1)
    assert tree(out / "keys") == {"alice.mlkey", "custodian.mlkey"}


def test_options_of_a_url_that_could_be_secret_are_refused(owner: Desk) -> None:
    """Unknown ones are named, never shown with what they say."""
    for option in ("password", "sslpassword", "plugin"):
        url = f"postgresql://u@h/db?{option}=hunter2"
        outcome = owner.run("vault", "check", "--vault", url)
        assert (outcome.code, len(outcome.errors)) == (2, 1)
        assert "hunter2" not in outcome.err
    for url in ("postgresql://u@h:abc/db", "postgresql://[::1/db"):
        assert owner.run("vault", "check", "--vault", url).code in (2, 10)


def test_an_export_of_a_part_does_not_replace_the_whole(owner: Desk) -> None:
    """A key file that opens more stays; the same or more takes its place; nonsense is named."""
    keys = lock_for_alice(owner, 3) / "keys"
    uid = min(granted(owner / "locked"))
    before = (keys / "alice.mlkey").read_bytes()
    export = ("grant", "export", keys, "--to", "alice")
    refused(owner, 9, "opens 2 instances more", *export, "--instance", uid)
    assert (keys / "alice.mlkey").read_bytes() == before
    owner.good(*export)
    assert granted(owner / "locked") == {
        grant["locked_uid"] for grant in json.loads(before)["grants"]
    }
    owner.good("grant", "export", owner / "part", "--to", "alice", "--instance", uid)
    owner.good("grant", "export", owner / "part", "--to", "alice")
    (owner / "part" / "alice.mlkey").write_bytes(b"notes")
    refused(owner, 7, "alice.mlkey", "grant", "export", owner / "part", "--to", "alice")


def test_how_an_instance_was_locked(owner: Desk) -> None:
    """`vault show` prints the record of each lock, by the source's UID or the locked one's."""
    lock_for_alice(owner, 1)
    owner.good("lock", owner / "src", owner / "again", "--to", "alice", "--again", *QUICK)
    uid = "1.2.826.0.1.3680043.10.9.1"
    records = [json.loads(line) for line in owner.good("vault", "show", uid).out.splitlines()]
    assert [one["source_sop_instance_uid"] for one in records] == [uid]
    one = owner.good("vault", "show", records[0]["locked_sop_instance_uid"]).out
    assert json.loads(one) == records[0]
    refused(owner, 2, "is not in the vault", "vault", "show", "1.2.3")


def test_a_run_that_another_issuer_goes_on_with(owner: Desk) -> None:
    """After a rotation the rest is locked elsewhere; keys for what was locked are exported."""
    first = lock_for_alice(owner, 1)
    owner.good("vault", "rotate-issuer", "--new", owner.person("second"))
    source = owner.eyes("src", 2)
    signer = ("--issuer", owner.person("second"))
    command = ("lock", source, owner / "rest", "--to", "alice", *signer, *QUICK)
    outcome = owner.run(*command)
    assert (outcome.code, len(outcome.errors)) == (3, 1)
    assert results(owner / "rest") == {"eye1.dcm"}
    owner.good("grant", "export", owner / "keys", "--to", "alice", *signer)
    key = owner / "keys" / "alice.mlkey"
    for folder in (first, owner / "rest"):
        back = owner / f"back of {folder.name}"
        assert owner.unlock(folder, back, "alice", "--key", key).code == 0


def test_a_packet_that_leads_elsewhere_is_not_verified(owner: Desk) -> None:
    """Only what can be unlocked is good: the number of bits in a packet's header is no secret."""
    out = lock_for_alice(owner, 1, "locked", "--detached")
    ds = dcmread(out / "eye0.dcm")
    ds.remove_private_tags()
    ds.save_as(out / "eye0.dcm")
    assert owner.verify(out, "alice").code == 0
    (path,) = (out / "packets").iterdir()
    path.write_bytes(dump_detached(replace(load_detached(path.read_bytes()), bits=7)))
    for outcome in (owner.verify(out, "alice"), owner.unlock(out, owner / "back", "alice")):
        assert (outcome.code, len(outcome.errors)) == (3, 1), outcome.err


def test_a_file_called_as_the_packets_folder(owner: Desk) -> None:
    """It stops the run before it begins, and only one that writes packets."""
    source = owner.eyes("src", 2)
    (source / "eye1.dcm").rename(source / "packets")
    command = ("lock", source, owner / "out", "--to", "alice", *QUICK)
    refused(owner, 2, "packets: has the name", *command, "--detached")
    assert not (owner / "out").exists()
    owner.good(*command)


def test_a_clock_is_reset_by_the_issuer_alone(owner: Desk) -> None:
    """There is nothing to reset while the last entry is not in the future."""
    refused(owner, 2, "not in the future", "vault", "reset-clock")
    refused(
        owner, 10, "is not the vault's issuer",
        "vault", "reset-clock", "--issuer", owner.person("mallory"),
    )  # fmt: skip


def test_a_clock_of_a_far_future_is_put_right(owner: Desk) -> None:
    """A machine whose clock was wrong wrote: later commands say what to do, and then go on."""
    place = place_of(str(owner / "data/medlocker/vault.db"))
    ahead = open_vault(place, lambda: datetime.now(UTC) + timedelta(days=9000))
    issuer = load_identity((owner / "config/medlocker/issuer.key").read_bytes(), bytes)
    with ahead.writing() as writing:
        writing.note("exported", name="alice")
        writing.checkpoint(issuer)
    ahead.close()
    add = ("recipient", "add", owner.public("bob"))
    said = refused(owner, 7, "before the vault's last entry", *add)
    assert "medlocker vault reset-clock" in said
    assert "is set back from" in owner.good("vault", "reset-clock").out
    owner.good(*add)
    lock_for_alice(owner, 1)
    assert "all in order" in owner.good("vault", "check").out
    assert "clock-reset" in owner.good("vault", "audit", "--history").out


NO_UTF_8 = os.fsdecode(b"caf\xe9")


@pytest.mark.parametrize(
    "command",
    [
        ("vault", "init", "--vault", NO_UTF_8 + ".db", "--no-custodian"),
        ("vault", "check", "--vault", NO_UTF_8 + ".db"),
        ("vault", "check", "--vault", "postgresql://" + NO_UTF_8),
        ("vault", "backup", NO_UTF_8 + ".db"),
        ("vault", "show", NO_UTF_8),
        ("vault", "audit", "--of", NO_UTF_8),
        ("vault", "receive", NO_UTF_8),
        ("recipient", "show", NO_UTF_8),
        ("recipient", "retire", NO_UTF_8),
        ("recipient", "add", NO_UTF_8 + ".pub"),
        ("recipient", "add", "alice.key.pub", "--name", NO_UTF_8),
        ("grant", "list", "--to", NO_UTF_8),
        ("grant", "list", "--study", NO_UTF_8),
        ("grant", "export", NO_UTF_8, "--to", "alice"),
        ("grant", "export", "keys", "--to", NO_UTF_8),
        ("grant", "reissue", "--to", "alice", "--custodian", "custodian.key", "--series", NO_UTF_8),
        ("grant", "revoke", "--to", "alice", "--instance", NO_UTF_8),
        ("grant", "status", NO_UTF_8 + ".mlstatus"),
        ("lock", "src", "out", "--to", NO_UTF_8, *QUICK),
        ("lock", "src", NO_UTF_8, "--to", "alice", "--again", *QUICK),
        ("unlock", "locked", NO_UTF_8, "--identity", "alice.key", "--receipt", NO_UTF_8),
        ("inspect", NO_UTF_8),
    ],
)
def test_names_without_an_encoding(
    owner: Desk, monkeypatch: pytest.MonkeyPatch, command: tuple[str, ...]
) -> None:
    """Bytes that are no text, anywhere on the command line: it works, or one error is said."""
    monkeypatch.chdir(owner.root)
    lock_for_alice(owner, 1)
    outcome = owner.run(*command)
    assert len(outcome.errors) == bool(outcome.code), outcome.err
    assert "all in order" in owner.good("vault", "check").out


def test_what_the_vault_refuses_is_undone(owner: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    """A source that another run locked meanwhile: no file, no packet, no key of this one stays."""
    source = owner.eyes("src", 2)
    first = owner / "first"
    owner.good("lock", owner.eye("one/eye0.dcm", 0).parent, first, "--to", "alice", *QUICK)
    monkeypatch.setattr(folder_lock, "check_new", lambda *_: None)  # as if it came just after
    second = owner / "second"
    outcome = owner.run("lock", source, second, "--to", "alice", "--detached", *QUICK)
    assert (outcome.code, len(outcome.errors)) == (3, 1), outcome.err
    assert len(list((second / "packets").iterdir())) == len(granted(second)) == 1
    assert not (second / "eye0.dcm").exists()
    again = owner.run("lock", source, second, "--to", "alice", "--detached", *QUICK)
    assert (again.code, len(again.errors)) == (3, 1), again.err
    assert not (second / "eye0.dcm").exists()
    assert "2 instances, 4 grants, 4 of them live" in owner.good("vault", "check").out


def test_a_vault_in_anothers_place(owner: Desk) -> None:
    """A vault that a stranger made says who signs it, and is refused where that is compared."""
    identity = load_identity((owner / "config/medlocker/issuer.key").read_bytes(), bytes)
    own = owner.put("own.pub", dump_public(identity.public))
    owner.good("vault", "check", "--issuer", own)
    owner.good("vault", "audit", "--issuer", own)
    owner.good(
        "vault", "init", "--vault", owner / "other.db", "--no-custodian",
        "--issuer", owner.person("mallory"),
    )  # fmt: skip
    where = ("--vault", owner / "other.db")
    fingerprint = owner.identity("mallory").public.fingerprint
    assert fingerprint in owner.good("vault", "check", *where).out
    assert fingerprint in owner.good("vault", "audit", *where).err
    refused(owner, 10, "not by", "vault", "check", *where, "--issuer", own)
    refused(owner, 10, "not by", "vault", "audit", *where, "--issuer", own)
