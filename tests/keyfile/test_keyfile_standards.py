"""The library and our use of it, against published vectors and a second reading."""

import hashlib
import hmac
import json
from pathlib import Path

from cryptography.hazmat.bindings._rust import openssl
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from cryptography.hazmat.primitives.hpke import AEAD, KDF, KEM, Suite
from hpke_reference import decapsulate_xwing, open_x25519, open_xwing, seal_x25519
from keyfile_factories import BINDING, DEK, ISSUER, LATER, NOW, make_grant, make_identity

from medlocker_dicom.keyfile import Kem, kem, open_grant

# RFC 9180 appendix A.2.1, sequence number 0.
RFC_PRIVATE = bytes.fromhex("8057991eef8f1f1af18f4a9491d16a1ce333f695d4db8e38da75975c4478e0fb")
RFC_PUBLIC = bytes.fromhex("4310ee97d88cc1f088a5576c77ab0cf5c3ac797f3d95139c6c84b5429c59662a")
RFC_ENC = bytes.fromhex("1afa08d3dec047a643885163f1180476fa7ddb54c6a8029ea33f95796bf2ac4a")
RFC_CIPHERTEXT = bytes.fromhex(
    "1c5250d8034ec2b784ba2cfd69dbdb8af406cfe3ff938e131f0def8c8b60b4db21993c62ce81883d2dd1b51a28"
)
RFC_INFO = b"Ode on a Grecian Urn"
RFC_AAD = b"Count-0"
RFC_PLAIN = b"Beauty is truth, truth beauty"

# draft-connolly-cfrg-xwing-kem-08 appendix C, first vector.
XWING = {
    name: bytes.fromhex(value)
    for name, value in json.loads(
        Path(__file__).with_name("xwing_draft_08_vector_1.json").read_text()
    ).items()
}


def test_reference_opens_rfc_9180_vector() -> None:
    """Our second reading of RFC 9180 opens the vector of appendix A.2.1."""
    assert open_x25519(RFC_PRIVATE, RFC_ENC + RFC_CIPHERTEXT, RFC_INFO, RFC_AAD) == RFC_PLAIN


def test_library_opens_rfc_9180_vector() -> None:
    """The library opens it too; only its private entry takes associated data."""
    suite = Suite(KEM.X25519, KDF.HKDF_SHA256, AEAD.CHACHA20_POLY1305)
    private = X25519PrivateKey.from_private_bytes(RFC_PRIVATE)
    sealed = RFC_ENC + RFC_CIPHERTEXT
    opened = openssl.hpke._decrypt_with_aad(suite, sealed, private, RFC_INFO, RFC_AAD)
    assert opened == RFC_PLAIN


def test_x25519_seed_is_rfc_9180_private_key() -> None:
    """The public key of an X25519 seed is that of RFC 9180's private key."""
    assert kem.public_of(Kem.X25519, RFC_PRIVATE) == RFC_PUBLIC


def test_hybrid_seed_is_xwing_private_key() -> None:
    """The public key of a hybrid seed is that of the X-Wing draft's vector."""
    public = kem.public_of(Kem.MLKEM768_X25519, XWING["sk"])
    assert public.startswith(XWING["pk_start"])
    assert public.endswith(XWING["pk_end"])


def test_reference_decapsulates_xwing_vector() -> None:
    """Our second reading of X-Wing gives the vector's shared secret."""
    assert decapsulate_xwing(XWING["sk"], XWING["ct"]) == XWING["ss"]


def test_reference_opens_x25519_grant() -> None:
    """A compact grant is plain HPKE: the second reading opens it."""
    recipient = make_identity("recipient")
    grant = make_grant(recipient)
    assert open_x25519(recipient.hpke_seed, grant.sealed, grant.info) == DEK


def test_reference_opens_hybrid_grant() -> None:
    """A default grant is HPKE with X-Wing: the second reading opens it."""
    recipient = make_identity("recipient", Kem.MLKEM768_X25519)
    grant = make_grant(recipient)
    assert open_xwing(recipient.hpke_seed, grant.sealed, grant.info) == DEK


def test_key_sealed_by_reference_opens() -> None:
    """What another HPKE implementation sealed, `unseal` opens."""
    recipient = make_identity("recipient")
    ephemeral = hashlib.sha256(b"ephemeral").digest()
    sealed = seal_x25519(ephemeral, recipient.public.hpke_key, DEK, b"info")
    assert recipient.unseal(sealed, b"info") == DEK


def test_default_grant_opens_through_public_api() -> None:
    """The same grants open with `open_grant`."""
    for kind in Kem:
        recipient = make_identity("recipient", kind)
        grant = make_grant(recipient)
        key = ISSUER.public.verify_key
        assert open_grant(grant, BINDING, recipient, key, NOW) == DEK


def part(letter: bytes, content: bytes) -> bytes:
    """One part of the injective encoding, as keys/keyfile.md describes it."""
    return letter + len(content).to_bytes(8, "big") + content


def test_binding_digest_is_what_the_specification_says() -> None:
    """The digest of a binding, put together by hand."""
    numbers = {name: getattr(BINDING, name).to_bytes(8, "big") for name in ("rows", "columns")}
    encoded = (
        part(b"s", b"medlocker/binding/v1"),
        part(b"i", bytes(7) + b"\1"),
        part(b"s", BINDING.study_uid.encode()),
        part(b"s", BINDING.series_uid.encode()),
        part(b"s", BINDING.sop_class_uid.encode()),
        part(b"s", BINDING.locked_uid.encode()),
        part(b"s", BINDING.source_uid.encode()),
        part(b"i", numbers["rows"]),
        part(b"i", numbers["columns"]),
        part(b"i", bytes(7) + b"\1"),
        part(b"s", b"RGB"),
        part(b"b", BINDING.pixel_sha256),
        part(b"b", BINDING.issuer),
    )
    assert BINDING.digest == hashlib.sha256(b"".join(encoded)).digest()


def test_derived_bytes_are_what_the_specification_says() -> None:
    """Derived bytes, put together by hand: HMAC-SHA256 under the site secret."""
    identity = make_identity("recipient")
    encoded = (
        part(b"s", b"medlocker/derive/v1"),
        part(b"s", b"uid"),
        part(b"s", b"1.2.3"),
        part(b"b", b"\0"),
    )
    expected = hmac.digest(identity.site_secret, b"".join(encoded), "sha256")
    assert identity.derive("uid", "1.2.3", b"\0") == expected


def test_expiry_is_signed_as_seconds_or_nothing() -> None:
    """No expiry and an expiry at any time are told apart in what is signed."""
    key = ISSUER.public.verify_key
    assert part(b"n", b"") in make_grant(expires=None).message(key)
    seconds = int(LATER.timestamp()).to_bytes(8, "big")
    assert part(b"i", seconds) in make_grant(expires=LATER).message(key)
