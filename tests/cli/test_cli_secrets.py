"""No secret in what commands print, write, or show of themselves to other users."""

import base64
import os
import signal
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from desk import QUICK, Desk
from medlocker_dicom.dicom.locked import read_locked
from medlocker_dicom.keyfile import dump_identity, load_keyfile, open_grant
from medlocker_dicom.pipeline.binding import binding_of

PASSPHRASE = b"correct horse battery staple"


@pytest.fixture
def owner(office: Desk) -> Desk:
    """An owner who has locked for alice, with a custodian under a passphrase."""
    office.good("vault", "init", "--custodian", office.public("custodian"))
    office.good("recipient", "add", office.public("alice"), office.public("bob"))
    office.good("lock", office.eyes("src", 2), office / "out", "--to", "alice", *QUICK)
    custodian = office / "custodian.key"
    custodian.write_bytes(dump_identity(office.identity("custodian"), PASSPHRASE))
    return office


def forms(secret: bytes) -> Iterator[bytes]:
    """A secret as it might be written."""
    yield secret
    yield secret.hex().encode()
    yield base64.b64encode(secret).rstrip(b"=")
    yield base64.urlsafe_b64encode(secret).rstrip(b"=")
    yield repr(secret).encode()


def test_no_secret_is_written_anywhere(owner: Desk) -> None:
    """Vault, key files, journals, records, receipts and output hold no key and no passphrase."""
    passphrase = owner.secret("passphrase", PASSPHRASE + b"\n")
    secured = ("--custodian", owner / "custodian.key", "--custodian-passphrase-file", passphrase)
    said = [
        owner.good("grant", "reissue", "--to", "bob", *secured),
        owner.good("grant", "export", owner / "sent", "--to", "bob"),
        owner.unlock(owner / "out", owner / "back", "alice", "--receipt", owner / "a.mlreceipt"),
        owner.good("vault", "receive", owner / "a.mlreceipt"),
        owner.good("vault", "rotate-issuer", "--new", owner.person("next")),
        owner.good("vault", "audit", "--history"),
        owner.good("recipient", "list", "--json"),
    ]
    people = [owner.identity(name) for name in ("alice", "bob", "next")]
    secrets = [PASSPHRASE]
    for one in people:
        secrets += [one.hpke_seed, one.signing_seed, one.site_secret]
    alice = owner.identity("alice")
    keyfile = load_keyfile((owner / "out" / "keys" / "alice.mlkey").read_bytes())
    for path in (owner / "out").glob("*.dcm"):
        locked = read_locked(path)
        binding = binding_of(locked.ds, locked.pixels, locked.source_uid, locked.issuer)
        grant = keyfile.grant_for(binding.locked_uid)
        now = datetime.now(UTC)
        secrets.append(open_grant(grant, binding, alice, keyfile.issuer.verify_key, now))
    assert len(secrets) == 12
    own = {".key", ""}  # identity files and the passphrase file
    places = [path for path in owner.root.rglob("*") if path.is_file() and path.suffix not in own]
    assert {"vault.db", "lock.json", "a.mlreceipt", "bob.mlkey"} <= {path.name for path in places}
    written = [path.read_bytes() for path in places]
    written += [(one.out + one.err).encode() for one in said]
    for secret in secrets:
        for form in forms(secret):
            assert not any(form in data for data in written)


def test_a_running_command_shows_no_secret(owner: Desk) -> None:
    """Its command line and environment name files alone, and no core of it would be dumped."""
    fifo = owner / "passphrase.fifo"
    os.mkfifo(fifo)
    command = ("grant", "reissue", "--to", "bob", "--custodian", owner / "custodian.key")
    with owner.spawn(*command, "--custodian-passphrase-file", fifo) as process:
        with fifo.open("wb") as stream:  # opens when the command reads: it waits for the words
            told = Path("/proc") / str(process.pid)
            seen = (told / "cmdline").read_bytes() + (told / "environ").read_bytes()
            limits = (told / "limits").read_text()
            stream.write(PASSPHRASE + b"\n")
        _, err = process.communicate()
    assert process.returncode == 0, err
    assert PASSPHRASE not in seen
    core = next(line for line in limits.splitlines() if line.startswith("Max core file size"))
    assert core.split()[4:6] == ["0", "0"]


def test_an_interrupted_command_shows_no_secret(owner: Desk) -> None:
    """Ctrl-C while the passphrase is stretched: two words, no traceback with locals."""
    fifo = owner / "passphrase.fifo"
    os.mkfifo(fifo)
    command = ("grant", "reissue", "--to", "bob", "--custodian", owner / "custodian.key")
    with owner.spawn(*command, "--custodian-passphrase-file", fifo) as process:
        with fifo.open("wb") as stream:  # opens when the command reads: it waits for the words
            stream.write(PASSPHRASE + b"\n")
        process.send_signal(signal.SIGINT)
        out, err = process.communicate()
    assert process.returncode == 130
    assert PASSPHRASE.decode() not in out + err
    assert "Traceback" not in err
