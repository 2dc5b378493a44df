"""Verification of Ed25519 signatures: it raises, it never answers."""

from typing import Final

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from medlocker_dicom.errors import SignatureError

SIGNATURE_BYTES: Final = 64


def check_signature(
    issuer_public_key: bytes, message: bytes, signature: bytes, what: object
) -> None:
    """Verify an Ed25519 signature.

    Raises
    ------
    SignatureError
        It does not verify, or the key is none.
    """
    try:
        Ed25519PublicKey.from_public_bytes(issuer_public_key).verify(signature, message)
    except (InvalidSignature, ValueError):
        raise SignatureError(
            f"{what!r} is not signed by the issuer",
            "it was changed, or comes from someone else; ask the issuer for it again",
        ) from None
