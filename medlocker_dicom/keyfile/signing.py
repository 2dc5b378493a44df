"""Verification of Ed25519 signatures: it raises, it never answers."""

from typing import Final

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from medlocker_dicom.errors import SignatureError

SIGNATURE_BYTES: Final = 64


def check_signature(issuer_public_key: bytes, message: bytes, signature: bytes, what: str) -> None:
    """Verify an Ed25519 signature (RFC 8032).

    Parameters
    ----------
    issuer_public_key
        32 bytes.
    message, signature
        What was signed, and 64 bytes.
    what
        The signed thing, for the message of the error.

    Raises
    ------
    SignatureError
        It does not verify, or the key is none.
    """
    try:
        Ed25519PublicKey.from_public_bytes(issuer_public_key).verify(signature, message)
    except (InvalidSignature, ValueError):
        raise SignatureError(
            f"{what} is not signed by the issuer",
            "it was changed, or comes from someone else; ask the issuer for it again",
        ) from None
