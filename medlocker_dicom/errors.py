"""Every error that MedLocker raises for a reason a user can act on.

::

    MedLockerError
    ├── UsageError                  an option or an argument is unusable       exit 2
    ├── SourceError                 an instance that cannot be locked          exit 4
    │   ├── NotDicomError               not a DICOM file                           C000
    │   ├── TruncatedError              ends before its data does                  C000
    │   ├── NoPixelDataError            holds no pixel data                        C000
    │   ├── PixelLayoutError            rows, columns, bits or photometric         C000
    │   ├── TransferSyntaxError         no decoder for its transfer syntax         C000
    │   ├── NotFundusError              not a fundus photograph                    A900
    │   ├── PictureError                not an image file that can be read         C000
    │   ├── UIDError                    a UID that is no UID                       C000
    │   ├── SopClassError               not of the SOP class that was announced    A900
    │   └── DuplicateInstanceError      one SOP Instance UID, two contents         C000
    ├── PlacementError              the logo cannot be placed                  exit 5
    │   ├── LogoError                   the logo itself is unusable                0110
    │   └── NoFeasiblePositionError     no position that the policy allows         0110
    ├── BundleError                 a model that cannot be trusted or run      exit 6
    │   ├── BundleMissingError          no such bundle                             0110
    │   ├── BundleFormatError           not a bundle, or a damaged one             0110
    │   ├── BundleDigestError           weights are not those that were named      0110
    │   ├── NoGradientError             networks that tell no gradient             0110
    │   └── DeviceError                 a GPU that does not do what it should      0110
    ├── KeyRefusedError             an identity, key file or grant is refused  exit 7
    │   ├── IdentityError               identity file unreadable or wrong secret   0124
    │   ├── KeyFileError                key file malformed                         0124
    │   ├── SignatureError              not signed by the issuer                   0124
    │   ├── NoGrantError                no grant for this instance and identity    0124
    │   ├── GrantExpiredError           the grant's time is over                   0124
    │   ├── GrantRevokedError           the issuer has revoked the grant           0124
    │   └── ClockError                  the clock is behind what it must know      0124
    ├── LockedObjectError           a locked object that cannot be unlocked    exit 8
    │   ├── NotLockedError              carries no lock of ours                    C000
    │   ├── PacketMissingError          the recovery packet was stripped           C000
    │   ├── PacketError                 the recovery packet is damaged or foreign  C000
    │   ├── PixelsChangedError          pixels or identity changed after locking   C000
    │   └── AttributesChangedError      other attributes changed after locking     C000
    ├── OutputError                 results cannot be written                  exit 9
    │   ├── DestinationError            the destination is unusable                A700
    │   │   └── DestinationBusyError    another process is writing to it           A700
    │   └── DiskFullError               no space left                              A700
    └── VaultError                  the vault cannot be used                   exit 10
        ├── VaultMissingError           there is no vault                          0110
        ├── VaultVersionError           of another version of the program          0110
        ├── VaultBusyError              another process holds it                   A700
        ├── VaultChangedError           issuer or recipients changed meanwhile     0110
        └── VaultDamagedError           what is in it contradicts itself           0110

A message is lower case without a full stop and names the file, UID or value;
a hint says what to do. The command line prints both and exits with the code
of the class; the node answers with its DIMSE status (PS3.4 B.2.3, PS3.7 C).
"""

from typing import ClassVar


class MedLockerError(Exception):
    """Base of all errors above.

    Parameters
    ----------
    message
        What is wrong, with the file, UID or value at fault.
    hint
        What the user can do about it; empty when there is nothing to add.
    """

    exit_code: ClassVar[int] = 4
    status: ClassVar[int] = 0x0110

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.hint = hint


def first_line(error: Exception) -> str:
    """Quote an error of a library, which may go on for pages or say nothing."""
    return (str(error).strip() or type(error).__name__).splitlines()[0]


class UsageError(MedLockerError):
    """An option or an argument of a command is unusable."""

    exit_code = 2


class SourceError(MedLockerError):
    """An instance that cannot be locked."""

    status = 0xC000


class NotDicomError(SourceError):
    """The file is not DICOM (PS3.10)."""


class TruncatedError(SourceError):
    """The file ends before its data does."""


class NoPixelDataError(SourceError):
    """The instance holds no pixel data."""


class PixelLayoutError(SourceError):
    """Rows, columns, frames, bits or photometric interpretation are unusable."""


class TransferSyntaxError(SourceError):
    """No decoder for the instance's transfer syntax."""


class NotFundusError(SourceError):
    """The instance is not a fundus photograph."""

    status = 0xA900


class PictureError(SourceError):
    """An image file that is none, is damaged, or has too many px."""


class UIDError(SourceError):
    """A UID that does not follow PS3.5 section 9."""


class SopClassError(SourceError):
    """The data set is of another SOP class than its sender announced (PS3.4 B.2.3)."""

    status = 0xA900


class DuplicateInstanceError(SourceError):
    """One SOP Instance UID with two different contents."""


class PlacementError(MedLockerError):
    """The logo cannot be placed."""

    exit_code = 5


class LogoError(PlacementError):
    """The logo is unusable: no alpha channel, unreadable, or out of range."""


class NoFeasiblePositionError(PlacementError):
    """No position that the policy allows, down to the smallest logo."""


class BundleError(MedLockerError):
    """A model bundle that cannot be trusted or run."""

    exit_code = 6


class BundleMissingError(BundleError):
    """There is no bundle of that name."""


class BundleFormatError(BundleError):
    """The folder is not a bundle, or a file in it is damaged."""


class BundleDigestError(BundleError):
    """The weights are not those whose SHA-256 the bundle names."""


class NoGradientError(BundleError):
    """No network of an ensemble tells a gradient; a search does without."""


class DeviceError(BundleError):
    """A GPU fails, has no room, or answers otherwise than the CPU does."""


class KeyRefusedError(MedLockerError):
    """An identity, key file or grant is refused."""

    exit_code = 7
    status = 0x0124


class IdentityError(KeyRefusedError):
    """An identity or public key file is unreadable, or its passphrase is wrong."""


class KeyFileError(KeyRefusedError):
    """A key file is malformed, not canonical or too large."""


class SignatureError(KeyRefusedError):
    """A grant is not signed by the issuer it names."""


class NoGrantError(KeyRefusedError):
    """No grant for this instance and this identity."""


class GrantExpiredError(KeyRefusedError):
    """The grant's time is over."""


class GrantRevokedError(KeyRefusedError):
    """The issuer has revoked the grant."""


class ClockError(KeyRefusedError):
    """The clock is behind a moment that has passed for certain."""


class LockedObjectError(MedLockerError):
    """A locked object that cannot be unlocked."""

    exit_code = 8
    status = 0xC000


class NotLockedError(LockedObjectError):
    """The instance carries no lock of ours."""


class PacketMissingError(LockedObjectError):
    """The instance was locked, but its recovery packet was stripped."""


class PacketError(LockedObjectError):
    """The recovery packet is damaged, truncated or belongs to another object."""


class PixelsChangedError(LockedObjectError):
    """Pixels or identity of the instance changed after it was locked."""


class AttributesChangedError(LockedObjectError):
    """Attributes that the instance took over from its source changed after it was locked."""


class OutputError(MedLockerError):
    """Results cannot be written."""

    exit_code = 9
    status = 0xA700


class DestinationError(OutputError):
    """The destination is inside the source, not empty, or not writable."""


class DestinationBusyError(DestinationError):
    """Another process is writing to the destination."""


class DiskFullError(OutputError):
    """No space left on the destination."""


class VaultError(MedLockerError):
    """The vault cannot be opened, read or written."""

    exit_code = 10


class VaultMissingError(VaultError):
    """There is no vault at that place."""


class VaultVersionError(VaultError):
    """The vault was made by a newer program, or by an older one and not brought up to date."""


class VaultBusyError(VaultError):
    """Another process has held the vault for too long."""

    status = 0xA700


class VaultChangedError(VaultError):
    """Issuer or recipients of the vault are others than when the work on it began."""


class VaultDamagedError(VaultError):
    """An entry, a grant or a signature in the vault was altered, removed or moved."""
