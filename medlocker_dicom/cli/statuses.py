"""Where a status list may be written."""

from __future__ import annotations

import tempfile
from pathlib import Path

from medlocker_dicom.errors import DestinationError
from medlocker_dicom.files import output_error
from medlocker_dicom.folder.keys import read_status
from medlocker_dicom.keyfile import StatusList


def check_place(path: Path) -> None:
    """Check, before anything is revoked, that a list can be written.

    Raises
    ------
    DestinationError, DiskFullError
        The name is not that of a list, or its folder cannot be written.
    KeyRefusedError
        What is there is no list.
    """
    if path.suffix != ".mlstatus" or path.is_dir():
        raise DestinationError(f"{path}: is not called .mlstatus", "unlock looks for that name")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=path.parent):
            pass
    except OSError as error:
        raise output_error(path, error) from error
    if path.exists():
        read_status(path)


def check_listed(path: Path, new: StatusList) -> None:
    """Refuse to put a list in the place of one that revokes more, is later, or is another's.

    Raises
    ------
    DestinationError
        It is.
    KeyRefusedError
        What is there is no list.
    """
    if not path.exists():
        return
    there = read_status(path)
    if there.lineage.issuer.verify_key not in new.lineage.verify_keys:
        raise DestinationError(
            f"{path}: is a list of {there.lineage.issuer.fingerprint}", "choose another name"
        )
    lost = len(set(there.revoked) - set(new.revoked))
    if lost or new.number < there.number:
        raise DestinationError(
            f"{path}: is list {there.number}, with {lost} revoked grants that list {new.number} "
            "lacks",
            "choose another name; where the vault is a restored one, revoke them again first",
        )
