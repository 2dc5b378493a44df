"""The public half of an identity: what a recipient sends to a dataset owner."""

import base64
import hashlib
from dataclasses import dataclass, field
from functools import cached_property

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from medlocker_dicom.errors import IdentityError
from medlocker_dicom.keyfile import caps, kem
from medlocker_dicom.keyfile.canonical import text_of
from medlocker_dicom.keyfile.encoding import encode
from medlocker_dicom.keyfile.kem import Kem
from medlocker_dicom.keyfile.words import words_of

VERIFY_KEY_BYTES = 32
FINGERPRINT_BYTES = 20
_MAGIC = "medlocker-public-1"


@dataclass(frozen=True, repr=False)
class PublicIdentity:
    """Who can be sealed to, and whose signature can be verified.

    Parameters
    ----------
    kem
        Key encapsulation of `hpke_key`.
    hpke_key
        Public key that DEKs are sealed to, `kem.public_bytes` bytes.
    verify_key
        Ed25519 public key, 32 bytes (RFC 8032).
    name
        At most 64 printable characters, for people. It is no part of the id:
        compare fingerprints, not names.

    Raises
    ------
    IdentityError
        A key or the name is malformed.
    """

    kem: Kem
    hpke_key: bytes = field(hash=False)
    verify_key: bytes
    name: str = ""

    def __post_init__(self) -> None:
        """Check what the class promises."""
        check_name(self.name)
        try:
            kem.check_public(self.kem, self.hpke_key)
            Ed25519PublicKey.from_public_bytes(self.verify_key)
        except ValueError:
            raise IdentityError(
                f"public key of {self.name or 'an unnamed identity'} is malformed",
                "ask its owner for the public key file again",
            ) from None

    @cached_property
    def id(self) -> bytes:
        """SHA-256 over the kind and both keys, 32 bytes; the name is left out."""
        parts = (self.kem.value, self.hpke_key, self.verify_key)
        return hashlib.sha256(encode("medlocker/identity-id/v1", *parts)).digest()

    @property
    def fingerprint(self) -> str:
        """The id as people compare it, see `fingerprint_of`."""
        return fingerprint_of(self.id)

    @property
    def words(self) -> str:
        """The fingerprint as 15 words, see `words_of`."""
        return words_of(self.id[:FINGERPRINT_BYTES])

    @property
    def line(self) -> str:
        """The identity as one line of text, without a newline."""
        keys = text_of(self.hpke_key + self.verify_key)
        return " ".join(filter(None, (_MAGIC, self.kem.value, keys, self.name)))

    def __repr__(self) -> str:
        """Show name and fingerprint."""
        return f"<PublicIdentity {self.name!r} {self.fingerprint}>"


def fingerprint_of(identity_id: bytes) -> str:
    """Write an identity's id for reading aloud.

    Parameters
    ----------
    identity_id
        32 bytes.

    Returns
    -------
    str
        The first 160 bits in lower-case base32 (RFC 4648 section 6), in eight
        groups of four: ``abcd-efgh-...``.
    """
    text = base64.b32encode(identity_id[:FINGERPRINT_BYTES]).decode("ascii").lower()
    return "-".join(text[at : at + 4] for at in range(0, len(text), 4))


def check_name(name: str) -> None:
    """Check the name of an identity.

    Raises
    ------
    IdentityError
        Longer than 64 characters, unprintable, or spaces at its ends.
    """
    if len(name) > caps.MAX_NAME_CHARS:
        raise IdentityError(f"name has {len(name)} characters, more than {caps.MAX_NAME_CHARS}")
    if not name.isprintable() or name != name.strip():
        raise IdentityError("name has unprintable characters, or spaces at its ends")


def parse_line(line: str) -> PublicIdentity:
    """Parse the line that `PublicIdentity.line` gives.

    Raises
    ------
    IdentityError
        Anything but such a line.
    """
    words = line.split(" ", 3)
    hint = "a public key file is one line as `medlocker` wrote it; ask its owner for it again"
    if len(line) > caps.MAX_PUBLIC_BYTES or words[0] != _MAGIC or len(words) < 3:
        raise IdentityError("not a public key of MedLocker", hint)
    try:
        kind = Kem(words[1])
        keys = base64.b64decode(words[2], validate=True)
    except ValueError:
        raise IdentityError("public key is of an unknown kind, or is damaged", hint) from None
    name = words[3] if len(words) > 3 else ""
    public = PublicIdentity(kind, keys[:-VERIFY_KEY_BYTES], keys[-VERIFY_KEY_BYTES:], name)
    if public.line != line:
        raise IdentityError("public key is not written the canonical way", hint)
    return public


def dump_public(public: PublicIdentity) -> bytes:
    """Give the content of a public key file: one line of UTF-8."""
    return public.line.encode() + b"\n"


def load_public(data: bytes) -> PublicIdentity:
    """Parse the content of a public key file.

    Raises
    ------
    IdentityError
        Too large, or anything but one canonical line.
    """
    if len(data) > caps.MAX_PUBLIC_BYTES:
        raise IdentityError(f"public key has {len(data)} bytes, more than {caps.MAX_PUBLIC_BYTES}")
    try:
        text = data.decode()
    except UnicodeDecodeError:
        raise IdentityError("public key is not text") from None
    if not text.endswith("\n"):
        raise IdentityError("public key does not end in a newline", "it may be cut short")
    return parse_line(text[:-1])
