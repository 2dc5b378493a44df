"""The shell around identities: reads and writes the file, nothing else."""

from pathlib import Path

from medlocker_dicom.errors import IdentityError
from medlocker_dicom.files import create_private
from medlocker_dicom.keyfile import caps


def read_identity(path: Path) -> bytes:
    """Read an identity file or a public key file, up to the cap.

    Raises
    ------
    IdentityError
        The file cannot be read, or is larger than an identity file can be.
    """
    try:
        with path.open("rb") as file:
            data = file.read(caps.MAX_IDENTITY_BYTES + 1)
    except OSError as error:
        raise IdentityError(f"cannot read {path}: {error.strerror}") from None
    if len(data) > caps.MAX_IDENTITY_BYTES:
        raise IdentityError(f"{path} is too large for an identity file")
    return data


def create_identity(path: Path, data: bytes) -> None:
    """Write a new identity file, readable by its owner alone (mode 0600).

    A crash leaves either no file or the whole one. An existing file stays as
    it is: losing a private key loses what was sealed to it.

    Raises
    ------
    DestinationError
        The file exists, or cannot be written.
    DiskFullError
        There is no space for it.
    """
    create_private(path, data)
