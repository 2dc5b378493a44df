"""Transcripts of medlocker unlock and medlocker verify."""

import json
import shutil

import pytest

from desk import Desk, results, same_pixels, tree


@pytest.mark.parametrize("name", ["alice", "bob", "custodian"])
def test_each_recipient_gets_the_exact_pixels(archive: Desk, desk: Desk, name: str) -> None:
    """Every recipient, and the custodian, gets all originals bit by bit, and nothing else."""
    back = desk / "back"
    outcome = archive.unlock(archive / "locked", back, name)
    assert (outcome.code, outcome.out) == (0, "2 good, 0 failed\n")
    assert results(back) == {"eye0.dcm", "eye1.dcm"}
    for file in results(back):
        assert same_pixels(archive / "src" / file, back / file)


def test_a_stranger_gets_nothing(archive: Desk, desk: Desk) -> None:
    """A third identity is refused by one line, and no destination is made."""
    outcome = archive.unlock(archive / "locked", desk / "back", "mallory")
    assert (outcome.code, len(outcome.errors)) == (7, 1)
    assert "no key file is for this identity" in outcome.errors[0]
    assert not (desk / "back").exists()


def test_a_stranger_with_anothers_key_file_gets_nothing(archive: Desk, desk: Desk) -> None:
    """Naming another's key file does not help."""
    key = archive / "locked" / "keys" / "alice.mlkey"
    outcome = archive.unlock(archive / "locked", desk / "back", "mallory", "--key", key)
    assert outcome.code == 7
    assert not (desk / "back").exists()


def test_anothers_damaged_key_file_stops_nobody(archive: Desk, desk: Desk) -> None:
    """A damaged key file beside the data is named and left out; one's own sound one is used."""
    shutil.copytree(archive / "locked", desk / "in")
    desk.put("in/keys/bob.mlkey", b"{")
    outcome = archive.unlock(desk / "in", desk / "back", "alice")
    assert (outcome.code, outcome.out) == (0, "2 good, 0 failed\n")
    assert "left out: " in outcome.err
    assert "bob.mlkey" in outcome.err
    outcome = archive.unlock(desk / "in", desk / "none", "bob")
    assert (outcome.code, len(outcome.errors)) == (7, 1)
    assert "bob.mlkey" in outcome.errors[0]


def test_verify_writes_nothing(archive: Desk) -> None:
    """Untouched objects are verified; no file changes."""
    before = tree(archive.root)
    key = archive / "locked" / "keys" / "bob.mlkey"
    outcome = archive.verify(archive / "locked", "bob", "--key", key)
    assert (outcome.code, outcome.out) == (0, "2 good, 0 failed\n")
    assert "1/2 verified eye0.dcm" in outcome.err
    assert tree(archive.root) == before


def test_json_prints_a_line_a_file(archive: Desk, desk: Desk) -> None:
    """--json tells of each file, also of the ones that fail and why."""
    shutil.copytree(archive / "locked", desk / "in")
    desk.put("in/zz.txt", b"a letter")
    outcome = archive.unlock(desk / "in", desk / "back", "alice", "--json")
    rows = [json.loads(line) for line in outcome.out.splitlines()]
    assert [(row["path"], row["state"]) for row in rows] == [
        ("eye0.dcm", "unlocked"),
        ("eye1.dcm", "unlocked"),
        ("zz.txt", "failed"),
    ]
    assert "is not a DICOM file" in rows[2]["error"]
    assert outcome.code == 3
    assert results(desk / "back") == {"eye0.dcm", "eye1.dcm"}


def test_one_file_is_unlocked_alone(archive: Desk, desk: Desk) -> None:
    """A single file finds the keys beside it; a second one joins it in the same folder."""
    for number in (0, 1):
        outcome = archive.unlock(archive / "locked" / f"eye{number}.dcm", desk / "back", "alice")
        assert outcome.code == 0, outcome.err
    assert results(desk / "back") == {"eye0.dcm", "eye1.dcm"}


def test_unlocking_goes_on(archive: Desk, desk: Desk) -> None:
    """What is unlocked already is left as it is; what was lost is unlocked again."""
    arguments = (archive / "locked", desk / "back", "alice")
    assert archive.unlock(*arguments).code == 0
    kept = (desk / "back" / "eye0.dcm").stat().st_mtime_ns
    (desk / "back" / "eye1.dcm").unlink()
    outcome = archive.unlock(*arguments)
    assert "1/2 already eye0.dcm" in outcome.err
    assert "2/2 unlocked eye1.dcm" in outcome.err
    assert (desk / "back" / "eye0.dcm").stat().st_mtime_ns == kept
    assert same_pixels(archive / "src" / "eye1.dcm", desk / "back" / "eye1.dcm")


def test_a_folder_of_another_source_is_refused(archive: Desk, desk: Desk) -> None:
    """Equal names from elsewhere are not taken as done."""
    shutil.copytree(archive / "locked", desk / "other")
    assert archive.unlock(archive / "locked", desk / "back", "alice").code == 0
    outcome = archive.unlock(desk / "other", desk / "back", "alice")
    assert (outcome.code, len(outcome.errors)) == (9, 1)
    assert "another source" in outcome.errors[0]


def test_a_trusted_issuer_can_be_named(archive: Desk, desk: Desk) -> None:
    """--issuer lets the right issuer's objects pass and refuses another's."""
    arguments = (archive / "locked", desk / "back", "alice", "--issuer")
    refused = archive.unlock(*arguments, archive.public("mallory"))
    assert (refused.code, len(refused.errors)) == (7, 1)
    assert "issued by" in refused.errors[0]
    assert not (desk / "back").exists()
    assert archive.unlock(*arguments, archive.public("issuer")).code == 0


def test_the_issuers_are_named(archive: Desk, office: Desk) -> None:
    """verify and unlock end with the fingerprint of who locked, and say when there are several."""
    first = archive.identity("issuer").public.fingerprint
    sent = office / "sent"
    shutil.copytree(archive / "locked", sent)
    for _ in ("new", "already"):
        outcome = archive.unlock(sent, office / "back", "alice")
        assert outcome.err.endswith(f"locked by {first}: compare with the owner's fingerprint\n")
    more = ("--issuer", office.person("other"))
    office.put("alice.key", archive.person("alice").read_bytes()).chmod(0o600)
    office.put("alice.key.pub", archive.public("alice").read_bytes())
    office.eye("src/more.dcm", 5)
    assert office.lock(office / "src", office / "out", *more).code == 0
    shutil.copy(office / "out" / "more.dcm", sent)
    shutil.copy(office / "out" / "keys" / "alice.mlkey", sent / "keys" / "other.mlkey")
    second = office.identity("other").public.fingerprint
    outcome = archive.verify(sent, "alice", "--json")
    assert "locked by 2 issuers, " in outcome.err
    assert first in outcome.err
    assert second in outcome.err
    rows = [json.loads(line) for line in outcome.out.splitlines()]
    assert [row["issuer"] for row in rows] == [first, first, second]


def test_a_terminal_has_a_bar(archive: Desk, desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a terminal: how far, how fast, how long yet; errors above it, markup as text."""
    shutil.copytree(archive / "locked", desk / "in")
    desk.put("in/[red]zz", b"a letter")
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "150")
    outcome = archive.verify(desk / "in", "alice")
    assert outcome.code == 3
    assert "verifying" in outcome.err
    assert "3/3" in outcome.err
    assert "left" in outcome.err
    assert "[red]zz" in outcome.err
    assert "is not a DICOM file" in outcome.err


def test_names_cannot_write_to_the_terminal(archive: Desk, desk: Desk) -> None:
    """Escape sequences in a file's name come out as text."""
    desk.put("in/\x1b[2Jzz", b"a letter")
    key = archive / "locked" / "keys" / "alice.mlkey"
    outcome = archive.verify(desk / "in", "alice", "--key", key)
    assert outcome.code == 3
    assert "\x1b" not in outcome.err
    assert "\\x1b[2Jzz" in outcome.err
