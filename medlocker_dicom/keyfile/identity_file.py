"""The shell around identities: reads and writes the file, nothing else."""

import errno
import os
from contextlib import suppress
from pathlib import Path
from tempfile import mkstemp

from medlocker_dicom.errors import DestinationError, DiskFullError, IdentityError, OutputError
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
    try:
        temporary = _write_beside(path, data)
        try:
            os.link(temporary, path)  # unlike a rename, refuses to replace
        finally:
            temporary.unlink()
        _sync_folder(path.parent)
    except FileExistsError:
        raise DestinationError(f"{path} exists", "choose another name") from None
    except OSError as error:
        raise _cannot_write(path, error) from None


def _cannot_write(path: Path, error: OSError) -> OutputError:
    if error.errno in {errno.ENOSPC, errno.EDQUOT}:
        return DiskFullError(f"cannot write {path}: {error.strerror}", "make room and try again")
    return DestinationError(f"cannot write {path}: {error.strerror}")


def _write_beside(path: Path, data: bytes) -> Path:
    descriptor, name = mkstemp(dir=path.parent, prefix=f".{path.name}.")  # opens with 0600
    temporary = Path(name)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
    except OSError:
        temporary.unlink(missing_ok=True)
        raise
    return temporary


def _sync_folder(folder: Path) -> None:
    with suppress(OSError):  # some file systems cannot sync a folder; the file itself is synced
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
