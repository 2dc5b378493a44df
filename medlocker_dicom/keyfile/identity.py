"""An identity: the private keys of a recipient, an issuer, or both."""

import hmac
from dataclasses import dataclass
from functools import cached_property
from secrets import token_bytes

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from medlocker_dicom.errors import IdentityError
from medlocker_dicom.keyfile import kem
from medlocker_dicom.keyfile.encoding import encode
from medlocker_dicom.keyfile.kem import SEED_BYTES, Kem
from medlocker_dicom.keyfile.public import PublicIdentity, check_name


@dataclass(frozen=True, repr=False, eq=False)
class Identity:
    """Private keys; compare identities by `public`.

    Parameters
    ----------
    kem
        Key encapsulation of `hpke_seed`.
    hpke_seed
        Seed of the key that opens DEKs, 32 bytes.
    signing_seed
        Ed25519 private key (RFC 8032), 32 bytes.
    site_secret
        What UIDs and dither seeds are derived from, 32 bytes.
    name
        At most 64 printable characters, for people.

    Raises
    ------
    IdentityError
        A secret has the wrong length, or the name is unusable.
    """

    kem: Kem
    hpke_seed: bytes
    signing_seed: bytes
    site_secret: bytes
    name: str = ""

    def __post_init__(self) -> None:
        """Check what the class promises."""
        secrets = (self.hpke_seed, self.signing_seed, self.site_secret)
        if any(len(secret) != SEED_BYTES for secret in secrets):
            raise IdentityError("a secret of the identity does not have 32 bytes")
        check_name(self.name)

    @classmethod
    def generate(cls, kem: Kem = Kem.MLKEM768_X25519, name: str = "") -> "Identity":
        """Make an identity from the system's randomness."""
        hpke_seed, signing_seed, site_secret = (token_bytes(SEED_BYTES) for _ in range(3))
        return cls(kem, hpke_seed, signing_seed, site_secret, name)

    @cached_property
    def public(self) -> PublicIdentity:
        """What others may know."""
        verify_key = self._signing_key.public_key().public_bytes_raw()
        return PublicIdentity(
            self.kem, kem.public_of(self.kem, self.hpke_seed), verify_key, self.name
        )

    def derive(self, purpose: str, *parts: bytes | str) -> bytes:
        """Derive 32 bytes from the site secret.

        Parameters
        ----------
        purpose
            What the bytes are for, such as ``"sop instance uid"``.
        *parts
            What they depend on; text and bytes of the same content differ.

        Returns
        -------
        bytes
            HMAC-SHA256 (RFC 2104) of the injective encoding of purpose and
            parts, 32 bytes.
        """
        message = encode("medlocker/derive/v1", purpose, *parts)
        return hmac.digest(self.site_secret, message, "sha256")

    def sign(self, message: bytes) -> bytes:
        """Sign a message that begins with its domain: Ed25519, 64 bytes."""
        return self._signing_key.sign(message)

    def unseal(self, sealed: bytes, info: bytes) -> bytes | None:
        """Open a sealed 32-byte key, see `kem.unseal`."""
        return kem.unseal(self.kem, self.hpke_seed, sealed, info)

    @property
    def _signing_key(self) -> Ed25519PrivateKey:
        return Ed25519PrivateKey.from_private_bytes(self.signing_seed)

    def __repr__(self) -> str:
        """Show name and fingerprint; no secret."""
        return f"<Identity {self.name!r} {self.public.fingerprint}>"
