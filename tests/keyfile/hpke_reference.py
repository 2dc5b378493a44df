"""HPKE in base mode a second time, from RFC 9180 and the X-Wing draft alone.

Only to hold the library, and what `medlocker_dicom.keyfile` makes of it,
against an independent reading. HKDF-SHA256 and ChaCha20-Poly1305, one message.
"""

import hashlib
import hmac

from cryptography.hazmat.primitives.asymmetric.mlkem import MLKEM768PrivateKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305

_X25519 = 0x0020  # RFC 9180 table 2
_XWING = 0x647A  # draft-connolly-cfrg-xwing-kem section 7
_HKDF_SHA256 = 0x0001
_CHACHA20_POLY1305 = 0x0003
_XWING_LABEL = rb"\.//^" + b"\\"


def seal_x25519(ephemeral: bytes, public: bytes, message: bytes, info: bytes) -> bytes:
    """Seal with a given ephemeral private key, so that test vectors repeat."""
    key = X25519PrivateKey.from_private_bytes(ephemeral)
    enc = key.public_key().public_bytes_raw()
    shared = _dhkem(key.exchange(X25519PublicKey.from_public_bytes(public)), enc + public)
    aead, nonce = _schedule(_X25519, shared, info)
    return enc + aead.encrypt(nonce, message, b"")


def open_x25519(private: bytes, sealed: bytes, info: bytes, aad: bytes = b"") -> bytes:
    """Open encapsulation and ciphertext."""
    key = X25519PrivateKey.from_private_bytes(private)
    enc, ciphertext = sealed[:32], sealed[32:]
    context = enc + key.public_key().public_bytes_raw()
    shared = _dhkem(key.exchange(X25519PublicKey.from_public_bytes(enc)), context)
    aead, nonce = _schedule(_X25519, shared, info)
    return aead.decrypt(nonce, ciphertext, aad)


def open_xwing(seed: bytes, sealed: bytes, info: bytes) -> bytes:
    """Open encapsulation and ciphertext."""
    aead, nonce = _schedule(_XWING, decapsulate_xwing(seed, sealed[:1120]), info)
    return aead.decrypt(nonce, sealed[1120:], b"")


def decapsulate_xwing(seed: bytes, enc: bytes) -> bytes:
    """The shared secret of X-Wing (section 5.4 of the draft)."""
    expanded = hashlib.shake_256(seed).digest(96)
    lattice = MLKEM768PrivateKey.from_seed_bytes(expanded[:64])
    curve = X25519PrivateKey.from_private_bytes(expanded[64:])
    parts = (
        lattice.decapsulate(enc[:1088]),
        curve.exchange(X25519PublicKey.from_public_bytes(enc[1088:])),
        enc[1088:],
        curve.public_key().public_bytes_raw(),
        _XWING_LABEL,
    )
    return hashlib.sha3_256(b"".join(parts)).digest()


def _dhkem(dh: bytes, context: bytes) -> bytes:
    suite = b"KEM" + _X25519.to_bytes(2, "big")
    return _expand(suite, _extract(suite, b"", b"eae_prk", dh), b"shared_secret", context, 32)


def _schedule(kem: int, shared: bytes, info: bytes) -> tuple[ChaCha20Poly1305, bytes]:
    ids = (kem, _HKDF_SHA256, _CHACHA20_POLY1305)
    suite = b"HPKE" + b"".join(number.to_bytes(2, "big") for number in ids)
    context = (
        b"\0" + _extract(suite, b"", b"psk_id_hash", b"") + _extract(suite, b"", b"info_hash", info)
    )
    secret = _extract(suite, shared, b"secret", b"")
    key = _expand(suite, secret, b"key", context, 32)
    return ChaCha20Poly1305(key), _expand(suite, secret, b"base_nonce", context, 12)


def _extract(suite: bytes, salt: bytes, label: bytes, ikm: bytes) -> bytes:
    return hmac.digest(salt, b"HPKE-v1" + suite + label + ikm, "sha256")


def _expand(suite: bytes, key: bytes, label: bytes, info: bytes, length: int) -> bytes:
    labelled = length.to_bytes(2, "big") + b"HPKE-v1" + suite + label + info
    return hmac.digest(key, labelled + b"\1", "sha256")[:length]  # one block is enough here
