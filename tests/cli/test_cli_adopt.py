"""Transcripts of vault adopt: what a run locked before the vault changed is entered."""

import base64
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from desk import QUICK, Desk, granted, lock_for_alice, refused, same_pixels
from medlocker_dicom.folder import lock as folder_lock
from medlocker_dicom.vault.instances import keep

JOURNAL = ".medlocker-journal"


def interrupted(owner: Desk, monkeypatch: pytest.MonkeyPatch, *more: str) -> Path:
    """Lock three eyes for alice, cut between the second one's journal and the vault."""
    source, out = owner.eyes("src", 3), owner / "locked"
    kept: list[bool] = []

    def cut(*arguments: Any, **options: Any) -> bool:
        if kept:
            raise KeyboardInterrupt
        kept.append(keep(*arguments, **options))
        return True

    with monkeypatch.context() as patch:
        patch.setattr(folder_lock, "keep", cut)
        assert owner.run("lock", source, out, "--to", "alice", *QUICK, *more).code == 130
    assert "1 instances, 2 grants" in owner.good("vault", "check").out
    return out


def unlocks(owner: Desk, out: Path, person: str, *signer: str | Path) -> None:
    """Export somebody's keys, and unlock both files."""
    owner.good("grant", "export", owner / "keys", "--to", person, *signer)
    key = owner / "keys" / f"{person}.mlkey"
    assert owner.unlock(out, owner / f"back-{person}", person, "--key", key).code == 0
    for name in ("eye0.dcm", "eye1.dcm"):
        assert same_pixels(owner / "src" / name, owner / f"back-{person}" / name)


@pytest.mark.parametrize("more", [(), ("--detached",)])
def test_a_run_cut_before_a_rotation(
    owner: Desk, monkeypatch: pytest.MonkeyPatch, more: tuple[str, ...]
) -> None:
    """The same command fails under either issuer and says how; adopted, it opens by new keys."""
    out = interrupted(owner, monkeypatch, *more)
    owner.good("vault", "rotate-issuer", "--new", owner.person("next"))
    signer = ("--issuer", owner.person("next"))
    again: tuple[str | Path, ...] = ("lock", owner / "src", out, "--to", "alice", *more, *QUICK)
    refused(owner, 10, "is not the vault's issuer", *again)
    refused(owner, 9, "medlocker vault adopt", *again, *signer)
    refused(owner, 10, "is not the vault's issuer", "vault", "adopt", out)
    assert owner.good("vault", "adopt", out, *signer).out.startswith("1 entered, 1 there already")
    assert "2 instances, 4 grants, 4 of them live" in owner.good("vault", "check").out
    unlocks(owner, out, "alice", *signer)
    before = owner.good("vault", "audit").out
    assert "0 entered, 2 there already" in owner.good("vault", "adopt", out, *signer).out
    assert owner.good("vault", "audit").out == before
    rest = owner / "rest"
    outcome = owner.run("lock", owner / "src", rest, "--to", "alice", *more, *signer, *QUICK)
    assert (outcome.code, len(outcome.errors)) == (3, 2)
    assert "all in order" in owner.good("vault", "check").out


def test_a_run_cut_before_a_retirement(owner: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    """What alice was issued is entered, so that it can be revoked; the custodian issues on."""
    out = interrupted(owner, monkeypatch)
    owner.good("recipient", "retire", "alice")
    again = ("lock", owner / "src", out, *QUICK)
    refused(owner, 2, "alice is retired", *again, "--to", "alice")
    owner.good("recipient", "add", owner.public("bob"))
    refused(owner, 9, "medlocker vault adopt", *again, "--to", "bob")
    owner.good("vault", "adopt", out)
    status = ("--status", owner / "revoked.mlstatus")
    assert (
        "2 grants of alice revoked" in owner.good("grant", "revoke", "--to", "alice", *status).out
    )
    owner.good("grant", "reissue", "--to", "bob", "--custodian", owner.person("custodian"))
    unlocks(owner, out, "bob")
    assert "all in order" in owner.good("vault", "check").out


def test_a_run_cut_before_a_new_custodian(owner: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is entered without a grant for them; the old custodian issues it."""
    out = interrupted(owner, monkeypatch)
    owner.good("recipient", "add", "--custodian", owner.public("second"))
    refused(owner, 9, "vault adopt", "lock", owner / "src", out, "--to", "alice", *QUICK)
    owner.good("vault", "adopt", out)
    keeper = ("--custodian", owner.person("custodian"))
    assert "2 grants issued" in owner.good("grant", "reissue", "--to", "second", *keeper).out
    owner.good("recipient", "retire", "custodian")
    assert "all in order" in owner.good("vault", "check").out


def test_a_restored_vault_knows_again_what_was_locked_since(owner: Desk) -> None:
    """Neither is a source locked twice, nor are its grants out of reach of a revocation."""
    owner.good("vault", "backup", owner / "backup.db")
    owner.good("recipient", "add", owner.public("bob"))
    out = lock_for_alice(owner, 2, "locked", "--to", "bob")
    (out / "eye0.dcm").unlink()  # it is in the archive by now
    owner.good("vault", "restore", owner / "backup.db", "--replace")
    outcome = owner.run("vault", "adopt", out)
    assert (outcome.code, len(outcome.errors)) == (3, 2)
    assert "who is not in the vault" in outcome.err
    owner.good("recipient", "add", owner.public("bob"))
    assert "2 entered" in owner.good("vault", "adopt", out).out
    outcome = owner.run("lock", owner / "src", owner / "second", "--to", "alice", *QUICK)
    assert (outcome.code, outcome.err.count("was locked at")) == (3, 2)
    status = owner / "revoked.mlstatus"
    owner.good("grant", "revoke", "--to", "alice", "--status", status)
    outcome = owner.unlock(out, owner / "back", "alice", "--status", status)
    assert (outcome.code, outcome.err.count("was revoked")) == (3, 1)
    assert "all in order" in owner.good("vault", "check").out


def edited(journal: Path, change: Callable[[dict[str, Any]], None]) -> None:
    """Change the last entry of a journal."""
    lines = [json.loads(line) for line in journal.read_bytes().splitlines()]
    change(lines[-1])
    journal.write_text("".join(json.dumps(line) + "\n" for line in lines))


def other_signature(entry: dict[str, Any]) -> None:
    """Spoil the signature of an entry's second grant."""
    record = json.loads(base64.b64decode(entry["grants"][1]))
    record["signature"] = base64.b64encode(bytes(64)).decode()
    text = json.dumps(record, sort_keys=True, separators=(",", ":")) + "\n"
    entry["grants"][1] = base64.b64encode(text.encode()).decode()


FAULTS: dict[str, Callable[[dict[str, Any]], None]] = {
    "no grants": lambda entry: entry["grants"].clear(),
    "grants of no text": lambda entry: entry.update(grants=[7]),
    "grants that are none": lambda entry: entry.update(grants=["e30="]),
    "no record": lambda entry: entry.pop("record"),
    "another record": lambda entry: entry["record"].update(locked_sop_instance_uid="1.2.3"),
    "a number for a UID": lambda entry: entry["record"].update(study_instance_uid=7),
    "a packet that is not there": lambda entry: entry.update(packet_sha256="00" * 32),
    "a forged grant": other_signature,
    "another path": lambda entry: entry.update(path="/somewhere/else", record=None),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_tampered_journal_enters_nothing(
    owner: Desk, monkeypatch: pytest.MonkeyPatch, fault: str
) -> None:
    """Each fault of an entry is one error that names the file; the others are entered."""
    out = interrupted(owner, monkeypatch)
    edited(out / JOURNAL, FAULTS[fault])
    before = owner.good("vault", "audit").out
    outcome = owner.run("vault", "adopt", out)
    assert (outcome.code, len(outcome.errors)) == (3, 1), outcome.err
    assert owner.good("vault", "audit").out == before


def test_folders_that_no_lock_wrote(owner: Desk) -> None:
    """Nothing, no journal, another run's, another issuer's, a link: one error, nothing entered."""
    before = owner.good("vault", "audit").out
    out = owner / "strange"
    owner.good(
        "lock", owner.eyes("src", 1), out, "--to", owner.public("alice"), "--no-vault",
        "--issuer", owner.person("mallory"), *QUICK,
    )  # fmt: skip
    assert owner.unlock(out, owner / "back", "alice").code == 0
    outcome = owner.run("vault", "adopt", out)
    assert (outcome.code, outcome.err.count("another issuer than the vault's")) == (3, 1)
    refused(owner, 2, "holds no run of lock", "vault", "adopt", owner / "back")
    for name in ("none", "src", "src/eye0.dcm"):
        refused(owner, 2, "holds no journal", "vault", "adopt", owner / name)
    shutil.copy(out / JOURNAL, owner / "journal")
    (owner / "linked").mkdir()
    (owner / "linked" / JOURNAL).symlink_to(owner / "journal")
    refused(owner, 2, "holds no journal", "vault", "adopt", owner / "linked")
    (out / JOURNAL).write_bytes(b"[]\n")
    refused(owner, 9, "damaged", "vault", "adopt", out)
    (out / JOURNAL).write_bytes(b"")
    refused(owner, 2, "is empty", "vault", "adopt", out)
    assert owner.good("vault", "audit").out == before


def test_a_run_without_a_vault_is_entered_later(owner: Desk) -> None:
    """Who makes a vault late, or said --no-vault, can have it know what is out."""
    out = owner / "locked"
    alice = owner.public("alice")
    custodian = ("--custodian", owner.public("custodian"))
    owner.good("lock", owner.eyes("src", 2), out, "--to", alice, *custodian, "--no-vault", *QUICK)
    assert "2 entered" in owner.good("vault", "adopt", out).out
    listed = [json.loads(line) for line in owner.good("grant", "list", "--json").out.splitlines()]
    assert {one["locked_uid"] for one in listed if one["recipient"] == "alice"} == granted(out)
