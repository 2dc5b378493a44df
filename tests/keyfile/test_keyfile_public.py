"""Public key files: one canonical line."""

import base64
from dataclasses import replace

import pytest
from keyfile_factories import RECIPIENT, bytes_for, make_identity

from medlocker_dicom.errors import IdentityError
from medlocker_dicom.keyfile import Identity, Kem, PublicIdentity, dump_public, load_public

LINE = dump_public(RECIPIENT.public)
NAMELESS = dump_public(replace(RECIPIENT.public, name=""))
LAST = LINE[LINE.index(b"==") - 1 :]  # its low bits are padding, and zero


@pytest.mark.parametrize("kind", list(Kem))
@pytest.mark.parametrize("name", ["", "Dr. Ada O'Neil, Clinic {1}", "眼科"])
def test_round_trip(kind: Kem, name: str) -> None:
    """What is dumped loads as the same identity, name included."""
    public = PublicIdentity(
        kind,
        make_identity("recipient", kind).public.hpke_key,
        RECIPIENT.public.verify_key,
        name,
    )
    data = dump_public(public)
    assert load_public(data) == public
    assert data.count(b"\n") == 1


def test_fingerprint_is_grouped_and_covers_both_keys() -> None:
    """Eight groups of four; another key of either kind gives another one."""
    public = RECIPIENT.public
    other_verify = PublicIdentity(Kem.X25519, public.hpke_key, bytes_for("seed"), "recipient")
    other_hpke = PublicIdentity(Kem.X25519, bytes_for("hpke"), public.verify_key, "recipient")
    prints = {public.fingerprint, other_verify.fingerprint, other_hpke.fingerprint}
    assert len(prints) == 3
    assert [len(group) for group in public.fingerprint.split("-")] == [4] * 8


def test_name_is_no_part_of_the_id() -> None:
    """A renamed identity is the same identity."""
    public = RECIPIENT.public
    renamed = PublicIdentity(public.kem, public.hpke_key, public.verify_key, "someone else")
    assert renamed.id == public.id


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\n",
        LINE[:-1],
        LINE[:40],
        LINE + b"\n",
        LINE + LINE,
        LINE.replace(b"\n", b"\r\n"),
        LINE.replace(b"\n", b" \n"),
        LINE.replace(b" x25519", b"  x25519"),
        LINE.replace(b" x25519", b" p256"),
        LINE.replace(b" x25519", b" mlkem768-x25519"),
        LINE.replace(b"public-1", b"public-2"),
        LINE.replace(b"=", b""),
        LINE.replace(b"== ", b"=== "),
        LINE.replace(b"recipient", b"reci\x00pient"),
        LINE.replace(b"recipient", b"\xff"),
        LINE.replace(b"recipient", "\u202etnecer".encode()),
        LINE.replace(b"recipient", b"n" * 65),
        NAMELESS.replace(b"\n", b" \n"),
        NAMELESS.replace(b"==", b"==\t"),
        LINE.replace(LAST, bytes([LAST[0] + 1]) + LAST[1:]),
        b"x" * 5000,
    ],
)
def test_malformed_is_refused(data: bytes) -> None:
    """Anything but the canonical line raises IdentityError."""
    with pytest.raises(IdentityError):
        load_public(data)


def test_bad_lattice_key_is_refused() -> None:
    """An ML-KEM key that fails the modulus check of FIPS 203 is refused."""
    with pytest.raises(IdentityError, match="malformed"):
        PublicIdentity(Kem.MLKEM768_X25519, b"\xff" * 1216, RECIPIENT.public.verify_key)


# RFC 7748's curve and its twist: orders 1, 2, 4 and 8, and two that are not written canonically.
SMALL_ORDER = [
    bytes(32),
    bytes([1, *bytes(31)]),
    bytes.fromhex("e0eb7a7c3b41b8ae1656e3faf19fc46ada098deb9c32b1fd866205165f49b800"),
    bytes.fromhex("5f9c95bca3508c24b1d0b1559c83ef5b04445cc4581c8e86d8224eddd09f1157"),
    (2**255 - 20).to_bytes(32, "little"),
    (2**255 - 19).to_bytes(32, "little"),
    (2**255 - 18).to_bytes(32, "little"),
]


@pytest.mark.parametrize("kind", list(Kem))
@pytest.mark.parametrize("curve", SMALL_ORDER)
def test_a_key_of_small_order_is_refused(kind: Kem, curve: bytes) -> None:
    """Nothing could be sealed to it: it is told when it is read, not after the first lock."""
    lattice = make_identity("recipient", kind).public.hpke_key[:-32]
    keys = base64.b64encode(lattice + curve + RECIPIENT.public.verify_key).decode()
    with pytest.raises(IdentityError, match="malformed"):
        load_public(f"medlocker-public-1 {kind} {keys} eve\n".encode())


def test_generated_identities_differ() -> None:
    """Two identities share no key and no site secret."""
    one, other = Identity.generate(), Identity.generate(Kem.MLKEM768_X25519, "other")
    assert one.kem is Kem.MLKEM768_X25519
    assert other.public.name == "other"
    secrets = {one.hpke_seed, one.signing_seed, one.site_secret}
    assert len(secrets | {other.hpke_seed, other.signing_seed, other.site_secret}) == 6
