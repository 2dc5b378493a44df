"""The binding: which locked object a packet and its grants belong to."""

import hashlib
import re
from dataclasses import astuple, dataclass

from medlocker_dicom.errors import IdentityError, PixelLayoutError, UIDError
from medlocker_dicom.keyfile.caps import MAX_UID_CHARS
from medlocker_dicom.keyfile.encoding import encode
from medlocker_dicom.keyfile.public import VERIFY_KEY_BYTES

VERSION = 1
_DOMAIN = "medlocker/binding/v1"
_UID = re.compile(r"(0|[1-9][0-9]*)(\.(0|[1-9][0-9]*))*")
_CODE = re.compile(r"[A-Z0-9_]{1,16}")  # Code String, PS3.5 table 6.2-1, without spaces
_MAX_SIDE = 65535  # Rows and Columns are US, PS3.3 table C.7-11c
_MAX_FRAMES = 2**31 - 1  # Number of Frames is IS, PS3.3 table C.7-14


@dataclass(frozen=True)
class Binding:
    """What the recovery packet is sealed with, beside the DEK.

    A packet or grant moved to an object that differs in any of these does
    not open.

    Parameters
    ----------
    version
        Of this list of fields; 1.
    study_uid, series_uid
        Study and Series Instance UID of the locked object.
    sop_class_uid
        SOP Class UID of the locked object.
    locked_uid, source_uid
        SOP Instance UID of the locked object and of its source.
    rows, columns, frames
        Size of the locked pixels.
    photometric
        Photometric Interpretation of the locked pixels.
    pixel_sha256
        SHA-256 of the locked decoded pixels, 32 bytes.
    issuer
        Ed25519 public key of the issuer that locked it, 32 bytes.

    Raises
    ------
    UIDError
        A UID that does not follow PS3.5 section 9.1.
    PixelLayoutError
        Version, rows, columns, frames, photometric interpretation or the
        digest's length are unusable.
    IdentityError
        The issuer's key does not have 32 bytes.
    """

    version: int
    study_uid: str
    series_uid: str
    sop_class_uid: str
    locked_uid: str
    source_uid: str
    rows: int
    columns: int
    frames: int
    photometric: str
    pixel_sha256: bytes
    issuer: bytes

    def __post_init__(self) -> None:
        """Check what the class promises."""
        if self.version != VERSION:
            raise PixelLayoutError(f"binding version {self.version} is not {VERSION}")
        for name in ("study_uid", "series_uid", "sop_class_uid", "locked_uid", "source_uid"):
            check_uid(getattr(self, name), name.replace("_uid", "").replace("_", " "))
        if not (1 <= self.rows <= _MAX_SIDE and 1 <= self.columns <= _MAX_SIDE):
            raise PixelLayoutError(f"{self.rows} rows and {self.columns} columns cannot be bound")
        if not 1 <= self.frames <= _MAX_FRAMES:
            raise PixelLayoutError(f"{self.frames} frames cannot be bound")
        if not _CODE.fullmatch(self.photometric):
            raise PixelLayoutError(f"photometric {self.photometric[:16]!r} is no code string")
        if len(self.pixel_sha256) != hashlib.sha256().digest_size:
            raise PixelLayoutError(f"digest of the pixels has {len(self.pixel_sha256)} bytes")
        if len(self.issuer) != VERIFY_KEY_BYTES:
            raise IdentityError(f"key of the issuer has {len(self.issuer)} bytes")

    @property
    def digest(self) -> bytes:
        """SHA-256 of the injective encoding of all fields in order, 32 bytes."""
        return hashlib.sha256(encode(_DOMAIN, *astuple(self))).digest()

    @property
    def context(self) -> bytes:
        """The domain and the digest: what the packet is sealed with."""
        return encode(_DOMAIN, self.digest)


def check_uid(uid: str, what: str) -> None:
    """Check a UID against PS3.5 section 9.1.

    Raises
    ------
    UIDError
        Longer than 64 characters, or not numbers without leading zeros,
        separated by dots.
    """
    if len(uid) > MAX_UID_CHARS or not _UID.fullmatch(uid):
        raise UIDError(f"{what} UID {uid[:MAX_UID_CHARS]!r} does not follow PS3.5 section 9.1")
