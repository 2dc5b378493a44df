"""Bad input to medlocker unlock and verify: one error each, and nothing on the disk for it."""

import shutil
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pydicom
import pytest
from pydicom.dataset import FileDataset

from desk import Desk, edit_json, results, tree
from medlocker_dicom.dicom.locked import read_locked
from medlocker_dicom.dicom.private import GROUP
from medlocker_dicom.keyfile import (
    Identity,
    dump_keyfile,
    issue_grant,
    load_keyfile,
    open_grant,
    sign_keyfile,
)
from medlocker_dicom.pipeline.binding import binding_of


@pytest.fixture
def sent(archive: Desk, desk: Desk) -> Path:
    """Give a copy of the archive's locked folder, to be spoilt."""
    shutil.copytree(archive / "locked", desk / "sent")
    return desk / "sent"


def _rewrite(path: Path, change: Callable[[FileDataset], object]) -> None:
    ds = pydicom.dcmread(path)
    change(ds)
    ds.save_as(path)


def _flip(ds: FileDataset, offset: int = 0) -> None:
    data = bytearray(ds.PixelData)
    data[offset] ^= 1
    ds.PixelData = bytes(data)


def _strip(ds: FileDataset) -> None:
    for tag in [one.tag for one in ds if one.tag.group == GROUP]:
        del ds[tag]


def _spoil_packet(ds: FileDataset) -> None:
    (element,) = (one for one in ds if one.tag.group == GROUP and one.tag.element & 0xFF == 1)
    data = bytearray(element.value)
    data[len(data) // 2] ^= 1
    element.value = bytes(data)


def _replaced(keyword: str, value: object) -> Callable[[FileDataset], None]:
    return lambda ds: setattr(ds, keyword, value)


SPOILT: dict[str, tuple[Callable[[FileDataset], None], str, int]] = {
    "first sample": (_flip, "pixels or identity changed after locking", 8),
    "last sample": (lambda ds: _flip(ds, -1), "pixels or identity changed after locking", 8),
    "rows": (_replaced("Rows", 80), "", 8),
    "study": (_replaced("StudyInstanceUID", "1.2.3"), "identity changed after locking", 8),
    "series": (_replaced("SeriesInstanceUID", "1.2.3"), "identity changed after locking", 8),
    "instance": (_replaced("SOPInstanceUID", "1.2.3"), "no key for 1.2.3", 7),
    "packet stripped": (_strip, "packet was stripped", 8),
    "packet damaged": (_spoil_packet, "packet", 8),
}


@pytest.mark.parametrize("name", SPOILT)
def test_a_changed_object_is_refused(archive: Desk, sent: Path, desk: Desk, name: str) -> None:
    """Whatever was changed: named, its class's exit code, nothing written; the other is done."""
    change, words, code = SPOILT[name]
    _rewrite(sent / "eye1.dcm", change)
    if name == "rows":
        code = 4  # what cannot be decoded is not looked at further
    for outcome in (
        archive.verify(sent / "eye1.dcm", "alice", "--key", sent / "keys" / "alice.mlkey"),
        archive.unlock(sent / "eye1.dcm", desk / "alone", "alice"),
    ):
        assert (outcome.code, len(outcome.errors)) == (code, 1)
        assert str(sent / "eye1.dcm") in outcome.errors[0]
        assert words in outcome.errors[0]
    assert results(desk / "alone") == set()
    outcome = archive.unlock(sent, desk / "back", "alice")
    assert outcome.code == 3
    assert "1 good, 1 failed" in outcome.out
    assert results(desk / "back") == {"eye0.dcm"}


@pytest.mark.parametrize("share", [0.01, 0.3, 0.5, 0.7, 0.9, 0.99])
def test_one_flipped_bit_gives_nothing_back_or_the_original(
    archive: Desk, sent: Path, desk: Desk, share: float
) -> None:
    """A bit flipped anywhere in the file: no exit code 0 with other pixels."""
    data = bytearray((sent / "eye0.dcm").read_bytes())
    data[int(len(data) * share)] ^= 0x10
    (sent / "eye0.dcm").write_bytes(data)
    outcome = archive.unlock(sent / "eye0.dcm", desk / "back", "alice")
    if outcome.code == 0:
        one, other = (
            pydicom.dcmread(folder / "eye0.dcm").pixel_array
            for folder in (desk / "back", archive / "src")
        )
        assert (one == other).all()
    else:
        assert outcome.code in {4, 7, 8}
        assert results(desk / "back") == set()


def _reissue(archive: Desk, path: Path, days: float, issuer: str = "issuer") -> None:
    """Replace alice's key file by one whose grants end `days` from now."""
    keyfile = load_keyfile((archive / "locked" / "keys" / "alice.mlkey").read_bytes())
    alice, signer = archive.identity("alice"), archive.identity(issuer)
    now = datetime.now(UTC)
    grants = []
    for number in (0, 1):
        locked = read_locked(archive / "locked" / f"eye{number}.dcm")
        binding = binding_of(locked.ds, locked.pixels, locked.source_uid, locked.issuer)
        grant = keyfile.grant_for(binding.locked_uid)
        dek = open_grant(grant, binding, alice, locked.issuer, now)
        expires = now + timedelta(days=days)
        grants.append(
            issue_grant(dek, binding, alice.public, signer, expires=expires, grant_id=bytes(16))
        )
    path.write_bytes(dump_keyfile(sign_keyfile(signer, alice.public, grants, now)))


def test_an_expired_key_is_refused(archive: Desk, sent: Path, desk: Desk) -> None:
    """A grant whose time is over opens nothing; one whose time is not over does."""
    key = sent / "keys" / "alice.mlkey"
    _reissue(archive, key, -1)
    outcome = archive.unlock(sent, desk / "back", "alice")
    assert outcome.code == 3
    assert len(outcome.errors) == 2
    assert all("expired at" in line for line in outcome.errors)
    assert results(desk / "back") == set()
    alone = archive.verify(sent / "eye0.dcm", "alice", "--key", key)
    assert (alone.code, len(alone.errors)) == (7, 1)
    _reissue(archive, key, +1)
    assert archive.unlock(sent, desk / "back", "alice").code == 0


@pytest.mark.parametrize("name", ["aaa", "zzz"])
def test_a_renewed_key_opens_beside_the_expired_one(
    archive: Desk, sent: Path, desk: Desk, name: str
) -> None:
    """Of two key files for one object the one that lasts longer counts, whatever it is called."""
    (sent / "keys" / "alice.mlkey").unlink()
    _reissue(archive, sent / "keys" / "mmm.mlkey", -1)
    _reissue(archive, sent / "keys" / f"{name}.mlkey", +1)
    outcome = archive.unlock(sent, desk / "back", "alice")
    assert outcome.code == 0, outcome.err
    assert archive.verify(sent, "alice").code == 0


def test_a_strangers_key_does_not_stand_in_the_way(archive: Desk, sent: Path, desk: Desk) -> None:
    """A key file of another issuer for the same object and recipient is passed over."""
    _reissue(archive, sent / "keys" / "aaa.mlkey", +1, issuer="mallory")
    outcome = archive.unlock(sent, desk / "back", "alice")
    assert outcome.code == 0, outcome.err
    assert f"locked by {archive.identity('issuer').public.fingerprint}:" in outcome.err
    assert archive.identity("mallory").public.fingerprint not in outcome.err


def test_an_older_lasting_key_does_not_stand_in_the_way(
    archive: Desk, sent: Path, desk: Desk
) -> None:
    """The key of an earlier lock of the same photograph lies beside its new one: one fits."""
    key = sent / "keys" / "alice.mlkey"
    issuer, keyfile = archive.identity("issuer"), load_keyfile(key.read_bytes())
    locked = read_locked(sent / "eye0.dcm")
    binding = binding_of(locked.ds, locked.pixels, locked.source_uid, locked.issuer)
    alice = archive.identity("alice").public
    old = issue_grant(bytes(32), binding, alice, issuer, expires=None, grant_id=bytes(16))
    second = keyfile.grant_for(str(read_locked(sent / "eye1.dcm").ds.SOPInstanceUID))
    (sent / "keys" / "aaa.mlkey").write_bytes(
        dump_keyfile(sign_keyfile(issuer, alice, [old, second], datetime.now(UTC)))
    )
    outcome = archive.unlock(sent, desk / "back", "alice")
    assert outcome.code == 0, outcome.err


def test_a_key_signed_by_another_is_refused(archive: Desk, sent: Path, desk: Desk) -> None:
    """Grants that mallory signed, though they hold the right key, open nothing."""
    _reissue(archive, sent / "keys" / "alice.mlkey", +1, issuer="mallory")
    outcome = archive.unlock(sent / "eye0.dcm", desk / "back", "alice")
    assert (outcome.code, len(outcome.errors)) == (7, 1)
    assert results(desk / "back") == set()


@pytest.mark.parametrize("member", ["grants", "issuer", "recipient", "signature"])
def test_a_tampered_key_file_is_refused(archive: Desk, sent: Path, desk: Desk, member: str) -> None:
    """Nothing in a key file can be changed: the file is named, no folder is made."""
    key, other = (sent / "keys" / f"{name}.mlkey" for name in ("alice", "bob"))
    stranger = archive.public("mallory").read_text().strip()

    def change(record: dict[str, object]) -> None:
        if member == "grants":
            grants = record["grants"]
            assert isinstance(grants, list)
            grants.pop()
        elif member == "issuer":
            record["issuer"] = stranger
        elif member == "signature":
            record["signature"] = load_signature(other)
        else:
            record["recipient"] = "A" * len(str(record["recipient"]))

    edit_json(key, change)
    outcome = archive.unlock(sent, desk / "back", "alice", "--key", key)
    assert (outcome.code, len(outcome.errors)) == (7, 1)
    assert str(key) in outcome.errors[0]
    assert not (desk / "back").exists()


def load_signature(path: Path) -> str:
    """Return the signature of a key file as it is written."""
    text = path.read_text()
    return text.split('"signature":"')[1].split('"')[0]


@pytest.mark.parametrize("data", [b"", b"{}", b"{" * 9000, b"\xff\xfe", b"not a key"], ids=range(5))
def test_what_is_no_key_file_is_refused(archive: Desk, desk: Desk, data: bytes) -> None:
    """Any other file given as a key: one error that names it."""
    key = desk.put("some.mlkey", data)
    outcome = archive.unlock(archive / "locked", desk / "back", "alice", "--key", key)
    assert (outcome.code, len(outcome.errors)) == (7, 1)
    assert str(key) in outcome.errors[0]
    assert not (desk / "back").exists()


def test_a_key_for_another_instance_is_refused(archive: Desk, sent: Path, desk: Desk) -> None:
    """A key file that lacks the instance's grant opens nothing of it."""
    key = sent / "keys" / "alice.mlkey"
    keyfile = load_keyfile(key.read_bytes())
    first = str(read_locked(sent / "eye0.dcm").ds.SOPInstanceUID)
    alice = archive.identity("alice").public
    grants, issuer = [keyfile.grant_for(first)], archive.identity("issuer")
    key.write_bytes(dump_keyfile(sign_keyfile(issuer, alice, grants, datetime.now(UTC))))
    outcome = archive.unlock(sent, desk / "back", "alice")
    assert outcome.code == 3
    assert len(outcome.errors) == 1
    assert "no key for" in outcome.errors[0]
    assert results(desk / "back") == {"eye0.dcm"}


def test_grants_are_not_exchangeable(archive: Desk, sent: Path, desk: Desk) -> None:
    """One object under the other's UID is refused: a grant fits its object alone."""
    second = str(read_locked(sent / "eye1.dcm").ds.SOPInstanceUID)
    _rewrite(sent / "eye0.dcm", _replaced("SOPInstanceUID", second))
    outcome = archive.unlock(sent / "eye0.dcm", desk / "back", "alice")
    assert (outcome.code, len(outcome.errors)) == (8, 1)
    assert results(desk / "back") == set()


def test_no_key_file_at_all_is_an_error(archive: Desk, desk: Desk) -> None:
    """Data without a key file beside it: the error says whom to ask, for which identity."""
    shutil.copyfile(archive / "locked" / "eye0.dcm", desk / "eye0.dcm")
    outcome = archive.unlock(desk / "eye0.dcm", desk / "back", "alice")
    assert (outcome.code, len(outcome.errors)) == (7, 1)
    assert "none found" in outcome.errors[0]
    assert archive.identity("alice").public.fingerprint in outcome.err
    assert not (desk / "back").exists()


@pytest.mark.parametrize("data", [b"", b"{}", b"key", b"\x00" * 9000], ids=range(4))
def test_what_is_no_identity_is_refused(archive: Desk, desk: Desk, data: bytes) -> None:
    """Any other file given as identity: one error that names it."""
    identity = desk.put("me.key", data)
    identity.chmod(0o600)
    outcome = desk.run("unlock", archive / "locked", desk / "back", "--identity", identity)
    assert (outcome.code, len(outcome.errors)) == (7, 1)
    assert "me.key" in outcome.errors[0]
    assert not (desk / "back").exists()


def test_originals_are_no_locked_objects(archive: Desk, desk: Desk) -> None:
    """Who unlocks the sources is told that they are not locked."""
    key = ("--key", archive / "locked" / "keys" / "alice.mlkey")
    outcome = archive.unlock(archive / "src" / "eye0.dcm", desk / "back", "alice", *key)
    assert (outcome.code, len(outcome.errors)) == (8, 1)
    assert "is not locked by us" in outcome.errors[0]
    assert results(desk / "back") == set()


@pytest.mark.parametrize("cut", [10, 200, 5000, -1])
def test_a_truncated_object_is_refused(archive: Desk, sent: Path, desk: Desk, cut: int) -> None:
    """Cut anywhere: refused, nothing written."""
    (sent / "eye0.dcm").write_bytes((sent / "eye0.dcm").read_bytes()[:cut])
    outcome = archive.unlock(sent / "eye0.dcm", desk / "back", "alice")
    assert (outcome.code, len(outcome.errors)) == (4, 1)
    assert results(desk / "back") == set()


@pytest.mark.parametrize("target", ["sent/back", "sent", "."])
def test_a_destination_in_its_source_is_refused(
    archive: Desk, sent: Path, desk: Desk, target: str
) -> None:
    """Originals do not come to lie among what was sent."""
    before = tree(sent)
    outcome = archive.unlock(sent, desk / target, "alice")
    assert (outcome.code, len(outcome.errors)) == (9, 1)
    assert tree(sent) == before


def test_a_destination_with_other_files_is_refused(archive: Desk, desk: Desk) -> None:
    """What lies there stays, and nothing joins it."""
    desk.put("back/thesis.doc", b"x")
    outcome = archive.unlock(archive / "locked", desk / "back", "alice")
    assert (outcome.code, len(outcome.errors)) == (9, 1)
    assert tree(desk / "back") == {"thesis.doc"}


def test_a_destination_of_another_identity_is_refused(archive: Desk, desk: Desk) -> None:
    """A folder that alice began is not bob's to go on with."""
    assert archive.unlock(archive / "locked", desk / "back", "alice").code == 0
    outcome = archive.unlock(archive / "locked", desk / "back", "bob")
    assert (outcome.code, len(outcome.errors)) == (9, 1)


def test_a_trusted_issuer_is_held_to_each_object(archive: Desk, sent: Path, desk: Desk) -> None:
    """--issuer refuses an object of another issuer even with a key file of the trusted one."""
    mallory: Identity = archive.identity("mallory")

    def claim(ds: FileDataset) -> None:
        (element,) = (o for o in ds if o.tag.group == GROUP and o.tag.element & 0xFF == 2)
        element.value = mallory.public.verify_key

    _rewrite(sent / "eye0.dcm", claim)
    trusted = ("--issuer", archive.public("issuer"))
    outcome = archive.unlock(sent / "eye0.dcm", desk / "back", "alice", *trusted)
    assert (outcome.code, len(outcome.errors)) == (7, 1)
    assert "another issuer" in outcome.errors[0]
    assert results(desk / "back") == set()
