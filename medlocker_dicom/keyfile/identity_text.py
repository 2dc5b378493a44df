"""Identity files: the private keys as canonical JSON, under a passphrase.

The passphrase goes through Argon2id (RFC 9106 section 4, second recommended
option: 64 MiB, 3 passes, 4 lanes); its cost is capped on reading, before any
work. The keys are sealed with Cobblestone-256, which commits to the key and
binds every other member of the file.
"""

import hashlib
import hmac
from collections.abc import Callable
from dataclasses import dataclass
from secrets import token_bytes
from threading import Lock

from cryptography.cobblestone import Cobblestone256Decryptor, Cobblestone256Encryptor
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.kdf.argon2 import Argon2id

from medlocker_dicom.errors import IdentityError
from medlocker_dicom.keyfile import canonical, caps
from medlocker_dicom.keyfile.canonical import Fields, Record
from medlocker_dicom.keyfile.encoding import encode
from medlocker_dicom.keyfile.identity import Identity
from medlocker_dicom.keyfile.kem import SEED_BYTES
from medlocker_dicom.keyfile.public import PublicIdentity, parse_line

FORMAT = "medlocker identity"
VERSION = 1
_DOMAIN = "medlocker/identity/v1"
_SALT_BYTES = 16
_SECRET_BYTES = 3 * SEED_BYTES
_CHECK_BYTES = 32
_SEALED_BYTES = _SECRET_BYTES + 72  # Cobblestone adds 72 bytes to a single chunk
_MEMBERS = frozenset({"format", "version", "public", "kdf", "secret"})
_KDF_MEMBERS = frozenset({"name", "memory_kib", "passes", "lanes", "salt"})

# OpenSSL shares the machine's threads among all lanes: two at once wait for each other for ever.
_ONE_AT_A_TIME = Lock()


@dataclass(frozen=True)
class _Argon2:
    memory_kib: int
    passes: int
    lanes: int
    salt: bytes

    def key(self, passphrase: bytes) -> bytes:
        """Stretch a passphrase to 32 bytes."""
        stretcher = Argon2id(
            salt=self.salt,
            length=32,
            iterations=self.passes,
            lanes=self.lanes,
            memory_cost=self.memory_kib,
        )
        with _ONE_AT_A_TIME:
            return stretcher.derive(passphrase)

    def record(self) -> Record:
        """Give the members of ``kdf``."""
        return {
            "name": "argon2id",
            "memory_kib": self.memory_kib,
            "passes": self.passes,
            "lanes": self.lanes,
            "salt": canonical.text_of(self.salt),
        }


def dump_identity(identity: Identity, passphrase: bytes | None) -> bytes:
    """Give the content of an identity file.

    Parameters
    ----------
    identity
        The private keys.
    passphrase
        At least one byte; None leaves the keys readable to whoever can read
        the file.

    Returns
    -------
    bytes
        Canonical JSON; secret unless there is a passphrase.

    Raises
    ------
    IdentityError
        The passphrase is empty.
    """
    kdf = None if passphrase is None else _Argon2(64 * caps.KIB, 3, 4, token_bytes(_SALT_BYTES))
    header: Record = {
        "format": FORMAT,
        "version": VERSION,
        "public": identity.public.line,
        "kdf": kdf and kdf.record(),
    }
    secret = identity.hpke_seed + identity.signing_seed + identity.site_secret
    if kdf is None or passphrase is None:
        protected = secret + _check(header, secret)
    elif passphrase:
        sealer = Cobblestone256Encryptor(kdf.key(passphrase), _context(header))
        protected = sealer.update(secret) + sealer.finalize()
    else:
        raise IdentityError("passphrase is empty", "choose one, or say that there is none")
    return canonical.dumps(header | {"secret": canonical.text_of(protected)})


def load_identity(data: bytes, passphrase: Callable[[], bytes]) -> Identity:
    """Parse the content of an identity file.

    Parameters
    ----------
    data
        The file.
    passphrase
        Asked once, and only if the file has a passphrase.

    Returns
    -------
    Identity
        The private keys.

    Raises
    ------
    IdentityError
        Malformed, not canonical, a cost above the caps, a wrong passphrase,
        or keys other than the public ones that the file names.
    """
    record = canonical.loads(
        data,
        IdentityError,
        max_bytes=caps.MAX_IDENTITY_BYTES,
        max_values=len(_MEMBERS) + len(_KDF_MEMBERS) + caps.MAX_NAME_CHARS,
    )
    fields = Fields(record, _MEMBERS, IdentityError, "identity file")
    fields.constant("format", FORMAT)
    fields.constant("version", VERSION)
    public = parse_line(fields.text("public", caps.MAX_PUBLIC_BYTES))
    kdf = _read_kdf(fields.raw("kdf"))
    sizes = (_SECRET_BYTES + _CHECK_BYTES) if kdf is None else _SEALED_BYTES
    protected = fields.data("secret", sizes)
    if canonical.dumps(record) != data:
        raise IdentityError("identity file is not canonical JSON")
    header = {name: record[name] for name in _MEMBERS - {"secret"}}
    if kdf is None:
        secret = _checked(header, protected)
    else:
        secret = _unsealed(header, kdf.key(passphrase()), protected)
    return _identity(public, secret)


def _read_kdf(record: object) -> _Argon2 | None:
    if record is None:
        return None
    fields = Fields(record, _KDF_MEMBERS, IdentityError, "kdf")
    fields.constant("name", "argon2id")
    lanes = fields.integer("lanes", 1, caps.MAX_ARGON2_LANES)
    return _Argon2(
        fields.integer("memory_kib", 8 * lanes, caps.MAX_ARGON2_KIB),
        fields.integer("passes", 1, caps.MAX_ARGON2_PASSES),
        lanes,
        fields.data("salt", _SALT_BYTES),
    )


def _identity(public: PublicIdentity, secret: bytes) -> Identity:
    hpke_seed, signing_seed, site_secret = (
        secret[at : at + SEED_BYTES] for at in range(0, _SECRET_BYTES, SEED_BYTES)
    )
    identity = Identity(public.kem, hpke_seed, signing_seed, site_secret, public.name)
    if identity.public != public:
        raise IdentityError(f"identity file names {public.fingerprint} and holds other keys")
    return identity


def _context(header: Record) -> bytes:
    return encode(_DOMAIN, canonical.dumps(header))


def _check(header: Record, secret: bytes) -> bytes:
    return hashlib.sha256(encode(_DOMAIN, canonical.dumps(header), secret)).digest()


def _checked(header: Record, protected: bytes) -> bytes:
    secret, check = protected[:_SECRET_BYTES], protected[_SECRET_BYTES:]
    if not hmac.compare_digest(_check(header, secret), check):
        raise IdentityError("identity file is damaged", "restore it from a copy")
    return secret


def _unsealed(header: Record, key: bytes, protected: bytes) -> bytes:
    opener = Cobblestone256Decryptor(key, _context(header))
    try:
        return opener.update(protected) + opener.finalize()
    except InvalidTag:
        raise IdentityError(
            "passphrase does not open the identity file",
            "try it again; if it is right, the file is damaged: restore it from a copy",
        ) from None
