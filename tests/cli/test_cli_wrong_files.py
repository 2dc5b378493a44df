"""Each option of the keys' commands, given files of every other kind: one error, no change."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from desk import QUICK, Desk, furnish, lock_for_alice, owned, settle

VAULT, IDENTITY, PUBLIC, KEYS, STATUS, RECEIPT, JOURNAL, PASSPHRASE = (
    "vault.db", "me.key", "me.pub", "me.mlkey", "me.mlstatus", "me.mlreceipt", "run", "words",
)  # fmt: skip
#: Commands with the thing that their last word may be; any other in its place is refused.
COMMANDS: dict[tuple[str, ...], str] = {
    ("vault", "check", "--vault"): VAULT,
    ("vault", "audit", "--history", "--vault"): VAULT,
    ("grant", "list", "--vault"): VAULT,
    ("recipient", "add", "guest.key.pub", "--vault"): VAULT,
    ("lock", "src", "out", "--to", "alice", *QUICK, "--vault"): VAULT,
    ("vault", "restore", "--vault", "restored.db"): VAULT,
    ("vault", "rotate-issuer", "--new"): IDENTITY,
    ("vault", "reset-clock", "--issuer"): IDENTITY,
    ("vault", "adopt", "locked", "--issuer"): IDENTITY,
    ("recipient", "retire", "alice", "--issuer"): IDENTITY,
    ("grant", "status", "list.mlstatus", "--issuer"): IDENTITY,
    ("grant", "reissue", "--to", "alice", "--custodian"): IDENTITY,
    ("unlock", "locked", "out", "--identity"): IDENTITY,
    ("recipient", "add"): PUBLIC,
    ("vault", "check", "--issuer"): PUBLIC,
    ("unlock", "locked", "out", "--identity", "alice.key", "--issuer"): PUBLIC,
    ("lock", "src", "out", "--to"): PUBLIC,
    ("unlock", "locked", "out", "--identity", "alice.key", "--key"): KEYS,
    ("unlock", "locked", "out", "--identity", "alice.key", "--status"): STATUS,
    ("vault", "receive"): RECEIPT,
    ("vault", "adopt"): JOURNAL,
}


@pytest.fixture(scope="module")
def shelf(
    tmp_path_factory: pytest.TempPathFactory, export_cache: Path, tiny_bundles: Path
) -> Iterator[tuple[Desk, dict[str, Path]]]:
    """Return an owner's desk, which is the working folder, and `things` on it, for every test."""
    with pytest.MonkeyPatch.context() as patch:
        root = tmp_path_factory.mktemp("shelf")
        owner = owned(furnish(settle(root, export_cache, patch), tiny_bundles, patch))
        patch.chdir(root)
        owner.public("guest")
        yield owner, things(owner)


def things(owner: Desk) -> dict[str, Path]:
    """One of each kind, and what is of none."""
    out = lock_for_alice(owner, 1)
    owner.good("vault", "backup", owner / VAULT)
    owner.good("grant", "status", owner / STATUS)
    owner.unlock(out, owner / "back", "alice", "--receipt", owner / RECEIPT)
    whole = (owner / VAULT).read_bytes()
    made = {
        "a cut vault": whole[: len(whole) // 2],
        "a vault's beginning": whole[:100],
        "a public key with more behind it": owner.public("dave").read_bytes() + b"x",
        "no text": os.urandom(3000),
        "nested": b"[" * 9000,
        "braces": b"{}\n",
        "empty": b"",
    }
    paths = {
        name: owner.secret(f"things/{number}", data)
        for number, (name, data) in enumerate(made.items())
    }
    (owner / "loop").symlink_to(owner / "loop")
    return paths | {
        VAULT: owner / VAULT,
        IDENTITY: owner.person("mallory"),
        PUBLIC: owner.public("mallory"),
        KEYS: out / "keys" / "alice.mlkey",
        STATUS: owner / STATUS,
        RECEIPT: owner / RECEIPT,
        JOURNAL: out,
        "a locked object": out / "eye0.dcm",
        "a loop of links": owner / "loop",
        "nothing": owner / "none",
        "below a file": owner / VAULT / "x",
        "a name that is too long": owner / ("n" * 300),
        "a device": Path(os.devnull),
        "a name of control characters": owner / "a\nmedlocker: error: b\x1b[2J",
    }


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_another_kind_of_file_is_refused(
    shelf: tuple[Desk, dict[str, Path]], command: tuple[str, ...]
) -> None:
    """One error that names it, an exit code of ours, and the vault is as before."""
    owner, given = shelf
    before = owner.good("vault", "audit").out
    for name, path in given.items():
        if name == COMMANDS[command]:
            continue
        outcome = owner.run(*command, path)
        assert outcome.code in (2, 7, 9, 10), (name, outcome.code, outcome.err)
        assert len(outcome.errors) == 1, (name, outcome.err)
        assert "\x1b" not in outcome.err, name
    assert owner.good("vault", "audit").out == before
    assert not (owner / "out").exists()
