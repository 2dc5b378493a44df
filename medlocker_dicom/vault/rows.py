"""A grant as a row, and back."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from medlocker_dicom.errors import KeyFileError, VaultDamagedError
from medlocker_dicom.keyfile import Grant
from medlocker_dicom.keyfile.moments import moment_of, seconds
from medlocker_dicom.vault.chain import RESTORE

if TYPE_CHECKING:
    from sqlalchemy import Row


def grant_row(grant: Grant, issued: int) -> dict[str, Any]:
    """Give the columns of a new, live grant."""
    return {
        "grant_id": grant.grant_id,
        "locked_uid": grant.locked_uid,
        "recipient": grant.recipient,
        "binding": grant.binding,
        "expires": None if grant.expires is None else seconds(grant.expires),
        "sealed": grant.sealed,
        "signature": grant.signature,
        "issued": issued,
        "live": True,
    }


def grant_of(row: Row[Any]) -> Grant:
    """Give the grant of a row.

    Raises
    ------
    VaultDamagedError
        It holds none.
    """
    try:
        return Grant(
            row.locked_uid,
            row.binding,
            row.recipient,
            row.grant_id,
            None if row.expires is None else moment_of(row.expires),
            row.sealed,
            row.signature,
        )
    except (KeyFileError, TypeError, ValueError, OverflowError) as error:
        raise VaultDamagedError(
            f"a grant for {row.locked_uid} in the vault is damaged",
            RESTORE,
        ) from error
