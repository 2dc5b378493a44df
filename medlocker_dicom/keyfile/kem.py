"""Hybrid public key encryption of 32-byte keys (RFC 9180, base mode).

Both suites use HKDF-SHA256 and ChaCha20-Poly1305. A private key is a 32-byte
seed: of X25519 the scalar itself (RFC 7748), of MLKEM768-X25519 the X-Wing
decapsulation key (draft-connolly-cfrg-xwing-kem section 5.2), which SHAKE-256
expands to the seeds of its two halves.
"""

import hashlib
from enum import StrEnum

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric.mlkem import MLKEM768PrivateKey, MLKEM768PublicKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.hpke import (
    AEAD,
    KDF,
    KEM,
    MLKEM768X25519PrivateKey,
    MLKEM768X25519PublicKey,
    Suite,
)

SEED_BYTES = 32
_MLKEM_PUBLIC_BYTES = 1184  # FIPS 203, table 3
_MLKEM_SEED_BYTES = 64  # d and z of FIPS 203, algorithm 16
_X25519_BYTES = 32
_ANY = X25519PrivateKey.from_private_bytes(bytes(32))  # clamping makes it 2^254


class Kem(StrEnum):
    """The key encapsulation of an identity; its value is its name in files."""

    MLKEM768_X25519 = "mlkem768-x25519"
    """X-Wing: holds while either ML-KEM-768 or X25519 does; 1168 bytes a grant."""

    X25519 = "x25519"
    """Compact, 80 bytes a grant; does not outlast a quantum computer."""

    @property
    def public_bytes(self) -> int:
        """Length of a public key in bytes."""
        return 1216 if self is Kem.MLKEM768_X25519 else 32

    @property
    def sealed_bytes(self) -> int:
        """Length of a sealed 32-byte key: encapsulation, key, tag."""
        return (1120 if self is Kem.MLKEM768_X25519 else 32) + 32 + 16


_PrivateKey = MLKEM768X25519PrivateKey | X25519PrivateKey
_PublicKey = MLKEM768X25519PublicKey | X25519PublicKey


def public_of(kem: Kem, seed: bytes) -> bytes:
    """Give the public key of a seed.

    Parameters
    ----------
    kem
        The key encapsulation.
    seed
        32 secret bytes.

    Returns
    -------
    bytes
        `kem.public_bytes` bytes; of MLKEM768-X25519 the ML-KEM half first.
    """
    if kem is Kem.X25519:
        return X25519PrivateKey.from_private_bytes(seed).public_key().public_bytes_raw()
    lattice, curve = _expand(seed)
    return lattice.public_key().public_bytes_raw() + curve.public_key().public_bytes_raw()


def check_public(kem: Kem, public: bytes) -> None:
    """Check that bytes are a public key.

    Raises
    ------
    ValueError
        Wrong length, an ML-KEM half that fails the modulus check of FIPS 203
        section 7.2, or an X25519 key or half of small order (RFC 7748 section 6.1).
    """
    if len(public) != kem.public_bytes:
        raise ValueError(f"a {kem} public key has {kem.public_bytes} bytes, not {len(public)}")
    _public_key(kem, public)
    curve = X25519PublicKey.from_public_bytes(public[-_X25519_BYTES:])
    _ANY.exchange(curve)  # what is of small order gives zero with every private key, and an error


def seal(kem: Kem, public: bytes, key: bytes, info: bytes) -> bytes:
    """Seal a 32-byte key to a public key.

    Parameters
    ----------
    kem, public
        The recipient.
    key
        32 bytes.
    info
        What the sealing is bound to (RFC 9180 section 8.1).

    Returns
    -------
    bytes
        Encapsulation and ciphertext, `kem.sealed_bytes` bytes.

    Raises
    ------
    ValueError
        The public key is malformed, or of small order.
    """
    return _suite(kem).encrypt(key, _public_key(kem, public), info)


def unseal(kem: Kem, seed: bytes, sealed: bytes, info: bytes) -> bytes | None:
    """Open a sealed key.

    Returns
    -------
    bytes or None
        The key; None where it was sealed to another identity or `info`, or
        was changed since.
    """
    try:
        return _suite(kem).decrypt(sealed, _private_key(kem, seed), info)
    except InvalidTag:
        return None


def _suite(kem: Kem) -> Suite:
    encapsulation = KEM.X25519 if kem is Kem.X25519 else KEM.MLKEM768_X25519
    return Suite(encapsulation, KDF.HKDF_SHA256, AEAD.CHACHA20_POLY1305)


def _expand(seed: bytes) -> tuple[MLKEM768PrivateKey, X25519PrivateKey]:
    expanded = hashlib.shake_256(seed).digest(_MLKEM_SEED_BYTES + 32)
    return (
        MLKEM768PrivateKey.from_seed_bytes(expanded[:_MLKEM_SEED_BYTES]),
        X25519PrivateKey.from_private_bytes(expanded[_MLKEM_SEED_BYTES:]),
    )


def _private_key(kem: Kem, seed: bytes) -> _PrivateKey:
    if kem is Kem.X25519:
        return X25519PrivateKey.from_private_bytes(seed)
    return MLKEM768X25519PrivateKey(*_expand(seed))


def _public_key(kem: Kem, public: bytes) -> _PublicKey:
    if kem is Kem.X25519:
        return X25519PublicKey.from_public_bytes(public)
    return MLKEM768X25519PublicKey(
        MLKEM768PublicKey.from_public_bytes(public[:_MLKEM_PUBLIC_BYTES]),
        X25519PublicKey.from_public_bytes(public[_MLKEM_PUBLIC_BYTES:]),
    )
