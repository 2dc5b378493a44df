"""Transcripts of medlocker identity."""

import json
import os
from pathlib import Path

import pytest

from desk import Desk, tree
from medlocker_dicom.keyfile import load_identity, load_public


def test_new_writes_a_private_and_a_public_key(desk: Desk) -> None:
    """The private key is its owner's alone; the public one holds its public half."""
    outcome = desk.good("identity", "new", desk / "alice.key", "--no-passphrase")
    private, public = desk / "alice.key", desk / "alice.key.pub"
    assert private.stat().st_mode & 0o777 == 0o600
    assert tree(desk.root) == {"alice.key", "alice.key.pub"}
    identity = load_identity(private.read_bytes(), bytes)
    assert load_public(public.read_bytes()) == identity.public
    assert identity.name == "alice"
    assert outcome.out.splitlines() == [
        str(private),
        str(public),
        f"fingerprint {identity.public.fingerprint}",
        f"in words    {identity.public.words}",
    ]
    assert "has no passphrase" in outcome.err


def test_the_umask_does_not_open_a_private_key(desk: Desk) -> None:
    """Even where new files are open to all, a private key is not."""
    before = os.umask(0)
    try:
        desk.good("identity", "new", desk / "alice.key", "--no-passphrase")
    finally:
        os.umask(before)
    assert (desk / "alice.key").stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("there", ["alice.key", "alice.key.pub"])
def test_new_replaces_nothing(desk: Desk, there: str) -> None:
    """Neither an existing private key nor an existing public one is touched."""
    desk.put(there, b"precious")
    outcome = desk.run("identity", "new", desk / "alice.key", "--no-passphrase")
    assert outcome.code == 9
    assert outcome.errors == [f"medlocker: error: {desk / there} exists"]
    assert (desk / there).read_bytes() == b"precious"
    assert tree(desk.root) == {there}


def test_a_passphrase_protects_the_key(desk: Desk) -> None:
    """A key made with a passphrase works with it, and with no other."""
    right, wrong = (desk.secret(one, one.encode()) for one in ("corn flower", "poppy"))
    desk.good("identity", "new", desk / "alice.key", "--passphrase-file", right)
    assert b"corn" not in (desk / "alice.key").read_bytes()
    facts = json.loads(desk.good("inspect", desk / "alice.key", "--json").out)
    assert facts["passphrase"] == "Argon2id"
    desk.put("src/x", b"x")
    arguments = ("verify", desk / "src", "--identity", desk / "alice.key")
    refused = desk.run(*arguments, "--passphrase-file", wrong)
    assert (refused.code, len(refused.errors)) == (7, 1)
    assert "passphrase" in refused.errors[0]
    assert "poppy" not in refused.err
    opened = desk.run(*arguments, "--passphrase-file", right)
    assert "no key file is for this identity" in opened.errors[0]


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o622])
def test_a_passphrase_that_others_can_read_is_refused(desk: Desk, mode: int) -> None:
    """As an identity is: for a new key and for an old one, with what to do."""
    secret = desk.secret("words", b"corn flower\n")
    desk.good("identity", "new", desk / "alice.key", "--passphrase-file", secret)
    secret.chmod(mode)
    for command in (
        ("identity", "new", desk / "bob.key"),
        ("verify", desk.root, "--identity", desk / "alice.key"),
    ):
        refused = desk.run(*command, "--passphrase-file", secret)
        assert (refused.code, len(refused.errors)) == (7, 1)
        assert f"{secret}: other users can read or write this passphrase" in refused.err
        assert f"chmod 600 {secret}" in refused.err
    assert not (desk / "bob.key").exists()


def test_the_passphrase_of_ones_own_issuer(desk: Desk) -> None:
    """--passphrase-file is for the issuer that nobody names, too."""
    own = desk / "config" / "medlocker" / "issuer.key"
    own.parent.mkdir(parents=True)
    secret = desk.secret("words", b"corn flower\n")
    desk.good("identity", "new", own, "--passphrase-file", secret)
    vault = ("vault", "init", "--no-custodian")
    assert "no terminal to ask" in desk.run(*vault).err
    desk.good(*vault, "--passphrase-file", secret)


def test_a_passphrase_is_asked_for_on_a_terminal_alone(desk: Desk) -> None:
    """Without a terminal and without a passphrase file nothing is asked, and nothing made."""
    outcome = desk.run("identity", "new", desk / "alice.key")
    assert outcome.code == 2
    assert "--passphrase-file or --no-passphrase" in outcome.err
    secret = desk.secret("secret", b"corn flower\n")
    desk.good("identity", "new", desk / "bob.key", "--passphrase-file", secret)
    asked = desk.run("verify", desk.root, "--identity", desk / "bob.key")
    assert asked.code == 7
    assert "no terminal to ask" in asked.errors[0]
    assert not (desk / "alice.key").exists()


def test_an_empty_passphrase_is_refused(desk: Desk) -> None:
    """An empty first line is no passphrase."""
    outcome = desk.run(
        "identity", "new", desk / "alice.key", "--passphrase-file", desk.put("empty", b"\n")
    )
    assert (outcome.code, len(outcome.errors)) == (7, 1)
    assert tree(desk.root) == {"empty"}


def test_a_missing_passphrase_file_is_named(desk: Desk) -> None:
    """The error names the file that cannot be read."""
    outcome = desk.run("identity", "new", desk / "a.key", "--passphrase-file", desk / "absent")
    assert outcome.code == 2
    assert outcome.errors == [
        f"medlocker: error: {desk / 'absent'}: cannot be read: No such file or directory"
    ]


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o622, 0o666])
def test_a_private_key_that_others_can_open_is_refused(desk: Desk, mode: int) -> None:
    """Readable or writable by others: nothing is done with it until it is closed."""
    desk.person("alice").chmod(mode)
    outcome = desk.verify(desk.root, "alice")
    assert outcome.code == 7
    assert "other users can read or write" in outcome.errors[0]
    assert f"chmod 600 {desk / 'alice.key'}" in outcome.err


def test_compact_keys_are_smaller(desk: Desk) -> None:
    """--compact takes X25519 alone; --name is what others see."""
    desk.good("identity", "new", desk / "a.key", "--no-passphrase", "--compact", "--name", "Eye 7")
    desk.good("identity", "new", desk / "b.key", "--no-passphrase")
    compact = load_public((desk / "a.key.pub").read_bytes())
    assert (compact.kem.name, compact.name) == ("X25519", "Eye 7")
    assert (desk / "a.key.pub").stat().st_size < (desk / "b.key.pub").stat().st_size / 5


@pytest.mark.parametrize("name", ["x" * 65, "two\nlines"])
def test_a_name_that_cannot_be_shown_is_refused(desk: Desk, name: str) -> None:
    """Long names and control characters make no identity."""
    outcome = desk.run("identity", "new", desk / "a.key", "--no-passphrase", "--name", name)
    assert (outcome.code, len(outcome.errors)) == (7, 1)
    assert tree(desk.root) == set()


def test_a_public_key_that_cannot_be_written_takes_the_private_one_along(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No half of an identity is left, so that the same command may be given again."""
    from medlocker_dicom.cli import identity  # noqa: PLC0415  to break it
    from medlocker_dicom.errors import DiskFullError  # noqa: PLC0415  the same

    def full(path: Path, _: bytes) -> None:
        raise DiskFullError(f"{path}: no space left")

    with monkeypatch.context() as patch:
        patch.setattr(identity, "write_file", full)
        assert desk.run("identity", "new", desk / "a.key", "--no-passphrase").code == 9
    assert tree(desk.root) == set()
    desk.good("identity", "new", desk / "a.key", "--no-passphrase")


@pytest.mark.parametrize("place", ["absent/a.key", "file/a.key"])
def test_a_place_that_cannot_be_written_is_named(desk: Desk, place: str) -> None:
    """No folder of that name: one error, exit code 9."""
    desk.put("file", b"")
    outcome = desk.run("identity", "new", desk / place, "--no-passphrase")
    assert (outcome.code, len(outcome.errors)) == (9, 1)
    assert place in outcome.errors[0]
    assert tree(desk.root) == {"file"}


@pytest.mark.parametrize("place", ["/", ""])
def test_a_file_without_a_name_is_refused(desk: Desk, place: str) -> None:
    """The root, and nothing at all: one error."""
    outcome = desk.run("identity", "new", place, "--no-passphrase")
    assert (outcome.code, len(outcome.errors)) == (9, 1)


def test_a_file_name_cannot_write_to_the_terminal(desk: Desk) -> None:
    """Control characters in the name are shown, not sent."""
    path = desk / "a\x1b[2J\nb.key"
    outcome = desk.good("identity", "new", path, "--no-passphrase", "--name", "a")
    assert "a\\x1b[2J\\x0ab.key.pub\n" in outcome.out
    assert "\x1b" not in outcome.out + outcome.err
