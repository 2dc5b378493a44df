"""Identity files: passphrases, costs, damage; and the file on disk."""

import errno
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from keyfile_factories import RECIPIENT, STRANGER, make_identity

from medlocker_dicom.errors import DestinationError, DiskFullError, IdentityError
from medlocker_dicom.keyfile import (
    Identity,
    Kem,
    caps,
    dump_identity,
    identity_text,
    load_identity,
)
from medlocker_dicom.keyfile.canonical import dumps, text_of
from medlocker_dicom.keyfile.identity_file import (
    create_identity,
    read_identity,
)

OPEN = dump_identity(RECIPIENT, None)
SEALED = dump_identity(RECIPIENT, b"correct horse")


def never() -> bytes:
    """A passphrase callback that must not be called."""
    raise AssertionError("asked for a passphrase")


def secrets_of(identity: Identity) -> tuple[object, ...]:
    """All that an identity file must keep."""
    kept = (identity.kem, identity.hpke_seed, identity.signing_seed, identity.site_secret)
    return (*kept, identity.name)


def edited(data: bytes, **members: object) -> bytes:
    """The file with other members, canonical."""
    return dumps({**json.loads(data), **members})


def with_kdf(**members: object) -> bytes:
    """The sealed file with other parameters of Argon2id."""
    return edited(SEALED, kdf={**json.loads(SEALED)["kdf"], **members})


@pytest.mark.parametrize("kind", list(Kem))
def test_round_trip_with_passphrase(kind: Kem) -> None:
    """The right passphrase gives all secrets back."""
    identity = make_identity("Smith, John {a} [b]", kind)
    data = dump_identity(identity, b"pass")
    assert secrets_of(load_identity(data, lambda: b"pass")) == secrets_of(identity)


def test_round_trip_without_passphrase() -> None:
    """An open file loads without asking, and is the same text each time."""
    assert secrets_of(load_identity(OPEN, never)) == secrets_of(RECIPIENT)
    assert dump_identity(RECIPIENT, None) == OPEN


def test_sealed_file_hides_every_secret() -> None:
    """No secret is in the sealed file in base64; the cost is the documented one."""
    record = json.loads(SEALED)
    assert json.loads(OPEN)["secret"][:120] not in SEALED.decode()
    cost = {name: record["kdf"][name] for name in ("memory_kib", "passes", "lanes")}
    assert cost == {"memory_kib": 65536, "passes": 3, "lanes": 4}


def test_same_passphrase_seals_differently() -> None:
    """Salt and sealing are fresh each time."""
    assert dump_identity(RECIPIENT, b"correct horse") != SEALED


def test_wrong_passphrase_is_refused() -> None:
    """A wrong passphrase raises, and the hint tells what to try."""
    with pytest.raises(IdentityError, match="passphrase does not open") as caught:
        load_identity(SEALED, lambda: b"wrong")
    assert "try it again" in caught.value.hint


def test_empty_passphrase_is_refused() -> None:
    """An empty passphrase is an error, not an open file."""
    with pytest.raises(IdentityError, match="passphrase is empty"):
        dump_identity(RECIPIENT, b"")


@pytest.mark.parametrize(
    "members",
    [
        {"memory_kib": caps.MAX_ARGON2_KIB + 1},
        {"memory_kib": 2**40},
        {"memory_kib": 31},
        {"memory_kib": -1},
        {"memory_kib": True},
        {"memory_kib": "65536"},
        {"passes": caps.MAX_ARGON2_PASSES + 1},
        {"passes": 0},
        {"lanes": caps.MAX_ARGON2_LANES + 1},
        {"lanes": 0},
        {"lanes": True},
        {"passes": True},
        {"salt": ""},
        {"salt": "AAAA"},
        {"name": "argon2i"},
        {"extra": 1},
    ],
)
def test_hostile_cost_is_refused_before_any_work(members: dict[str, object]) -> None:
    """A cost above the caps is refused before the passphrase is even asked."""
    with pytest.raises(IdentityError):
        load_identity(with_kdf(**members), never)


@pytest.mark.parametrize("members", [{"passes": 1, "memory_kib": 64}, {"lanes": 2}])
def test_changed_cost_is_detected(members: dict[str, object]) -> None:
    """Parameters within the caps that are not those it was sealed with do not open."""
    with pytest.raises(IdentityError, match="passphrase does not open"):
        load_identity(with_kdf(**members), lambda: b"correct horse")


def test_swapped_public_key_is_detected() -> None:
    """The public key of someone else in a sealed file does not open."""
    data = edited(SEALED, public=STRANGER.public.line)
    with pytest.raises(IdentityError, match="passphrase does not open"):
        load_identity(data, lambda: b"correct horse")


def test_open_file_with_other_keys_is_detected() -> None:
    """The check value covers the public key, so that a swap in an open file shows."""
    with pytest.raises(IdentityError, match="damaged"):
        load_identity(edited(OPEN, public=STRANGER.public.line), never)


def test_consistent_file_with_other_keys_is_detected() -> None:
    """A file whose check value fits, but whose keys are not its public ones, is refused."""
    header = {**json.loads(OPEN), "public": STRANGER.public.line}
    del header["secret"]
    secret = RECIPIENT.hpke_seed + RECIPIENT.signing_seed + RECIPIENT.site_secret
    protected = secret + identity_text._check(header, secret)
    data = edited(OPEN, public=STRANGER.public.line, secret=text_of(protected))
    with pytest.raises(IdentityError, match="holds other keys"):
        load_identity(data, never)


@pytest.mark.parametrize("at", range(0, 128, 9))
def test_damage_in_open_file_is_detected(at: int) -> None:
    """Each changed byte of an open file's secret is noticed, site secret included."""
    record = json.loads(OPEN)
    text = record["secret"]
    other = "B" if text[at] == "A" else "A"
    with pytest.raises(IdentityError):
        load_identity(edited(OPEN, secret=text[:at] + other + text[at + 1 :]), never)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"[]\n",
        b"null\n",
        OPEN[:-1],
        OPEN[:-30],
        OPEN + b"\n",
        OPEN.replace(b":", b": ", 1),
        OPEN.replace(b'"version":1', b'"version":1.0'),
        OPEN.replace(b'"version":1', b'"version":2'),
        OPEN.replace(b'"version":1', b'"version":true'),
        OPEN.replace(b'"version":1', b'"version":1,"version":1'),
        OPEN.replace(b'"version":1', b'"versiom":1'),
        OPEN.replace(b'"version":1', b'"more":1,"version":1'),
        OPEN.replace(b"identity", b"identita"),
        OPEN.replace(b'"kdf":null', b'"kdf":{}'),
        OPEN.replace(b'"kdf":null', b'"kdf":[]'),
        b" " * (caps.MAX_IDENTITY_BYTES + 1),
        b"[" * 4000,
        b'{"a":' + b"1" * 6000 + b"}\n",
    ],
)
def test_malformed_is_refused(data: bytes) -> None:
    """Anything but the canonical file raises IdentityError."""
    with pytest.raises(IdentityError):
        load_identity(data, never)


def test_version_is_a_number() -> None:
    """True equals 1 in Python and is no version."""
    with pytest.raises(IdentityError, match="version of identity file is not 1"):
        load_identity(OPEN.replace(b'"version":1', b'"version":true'), never)


def test_derive_separates_purposes_parts_and_types() -> None:
    """No two different calls share their bytes, and the secret matters."""
    calls: list[tuple[str, tuple[bytes | str, ...]]] = [
        ("uid", ()),
        ("uid", ("",)),
        ("uid", (b"",)),
        ("uid", ("ab",)),
        ("uid", ("a", "b")),
        ("uid", (b"ab",)),
        ("uida", ("b",)),
        ("seed", ("ab",)),
    ]
    derived = [
        identity.derive(p, *parts) for identity in (RECIPIENT, STRANGER) for p, parts in calls
    ]
    assert len(set(derived)) == 2 * len(calls)
    assert {len(value) for value in derived} == {32}


def test_derive_is_pinned() -> None:
    """Derived bytes never change between releases, or a replay would make new UIDs."""
    value = RECIPIENT.derive("sop instance uid", "1.2.3", b"\x00\x01")
    assert value.hex() == ("a770f43ac2b2f80567a959d11bbf1d4d53496edd3c32515202be512d18034b1c")


def test_short_secret_is_refused() -> None:
    """An identity needs 32 bytes of each secret."""
    with pytest.raises(IdentityError, match="32 bytes"):
        Identity(Kem.X25519, bytes(32), bytes(31), bytes(32))


def test_file_is_private_and_read_back(tmp_path: Path) -> None:
    """The file has mode 0600, the given content, and nothing is left beside it."""
    path = tmp_path / "me.key"
    create_identity(path, OPEN)
    assert path.stat().st_mode & 0o777 == 0o600
    assert read_identity(path) == OPEN
    assert list(tmp_path.iterdir()) == [path]


def test_existing_file_is_kept(tmp_path: Path) -> None:
    """Creating over an existing identity is refused and changes nothing."""
    path = tmp_path / "me.key"
    path.write_bytes(b"precious")
    with pytest.raises(DestinationError, match="exists"):
        create_identity(path, OPEN)
    assert path.read_bytes() == b"precious"
    assert list(tmp_path.iterdir()) == [path]


def test_missing_folder_and_file_are_named(tmp_path: Path) -> None:
    """Errors of the file system become errors of ours that name the path."""
    path = tmp_path / "nowhere" / "me.key"
    with pytest.raises(DestinationError, match=r"me\.key"):
        create_identity(path, OPEN)
    with pytest.raises(IdentityError, match=r"me\.key"):
        read_identity(path)


def test_large_file_is_refused_on_reading(tmp_path: Path) -> None:
    """No more than the cap is read."""
    path = tmp_path / "me.key"
    path.write_bytes(bytes(caps.MAX_IDENTITY_BYTES + 1))
    with pytest.raises(IdentityError, match="too large"):
        read_identity(path)


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT, errno.EFBIG])
def test_full_disk_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    """Where the disk is full, no file is left, whole or in part, and another one stays."""

    def full(_: int) -> None:
        raise OSError(code, os.strerror(code))

    old = tmp_path / "old.key"
    create_identity(old, OPEN)
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(DiskFullError, match=r"me\.key"):
        create_identity(tmp_path / "me.key", OPEN)
    assert list(tmp_path.iterdir()) == [old]
    assert old.read_bytes() == OPEN


def test_a_folder_that_does_not_keep_the_name_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A private key whose name may be gone after a crash is not said to be there."""
    codes = iter([0, errno.EIO])

    def failing(_: int) -> None:
        if code := next(codes):
            raise OSError(code, os.strerror(code))

    monkeypatch.setattr(os, "fsync", failing)
    with pytest.raises(DestinationError, match=r"me\.key"):
        create_identity(tmp_path / "me.key", OPEN)


def test_two_at_once_do_not_wait_for_each_other() -> None:
    """Two threads that open identities under passphrases both end: OpenSSL alone would not."""
    program = (
        "from threading import Thread\n"
        "from medlocker_dicom.keyfile import Identity, dump_identity, load_identity\n"
        "one = Identity.generate()\n"
        "data = dump_identity(one, b'words')\n"
        "def work():\n"
        "    for _ in range(4):\n"
        "        assert load_identity(data, lambda: b'words').public == one.public\n"
        "threads = [Thread(target=work) for _ in range(4)]\n"
        "[thread.start() for thread in threads]\n"
        "[thread.join() for thread in threads]\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True, timeout=120)
