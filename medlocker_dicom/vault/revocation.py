"""Grants that are revoked, and the signed lists of them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sqlalchemy import func, insert, select, update

from medlocker_dicom.errors import NoGrantError, UsageError
from medlocker_dicom.keyfile import StatusList, sign_status
from medlocker_dicom.keyfile.moments import moment_of
from medlocker_dicom.vault import people
from medlocker_dicom.vault.grants import check_selected, selected
from medlocker_dicom.vault.instances import note_grant
from medlocker_dicom.vault.rows import grant_of
from medlocker_dicom.vault.schema import grants, statuses

if TYPE_CHECKING:
    from datetime import datetime

    from sqlalchemy import Connection

    from medlocker_dicom.keyfile import Identity, Lineage
    from medlocker_dicom.vault.instances import Selection
    from medlocker_dicom.vault.vault import Vault, Writing


def revoke(vault: Vault, issuer: Identity, to: str, selection: Selection) -> tuple[int, StatusList]:
    """Revoke all grants that a recipient was ever issued for some instances.

    Returns
    -------
    tuple
        How many, and the next status list, signed.

    Raises
    ------
    UsageError
        The recipient is unknown, or the custodian, or a UID selects nothing.
    NoGrantError
        They have none that is not revoked.
    VaultError
        The issuer is not the vault's, or the database fails.
    """
    with vault.writing() as writing:
        connection = writing.connection
        lineage = people.check_issuer(connection, issuer)
        recipient = people.find(connection, to)
        if recipient.custodian and recipient.retired is None:
            raise UsageError(
                f"{to} is the custodian: without their grants nothing can be issued again",
                "issue to a new custodian first, then retire this one",
            )
        check_selected(connection, selection)
        chosen = (
            grants.c.recipient == recipient.public.id,
            grants.c.revoked.is_(None),
            selected(selection),
        )
        query = select(grants).where(*chosen).order_by(grants.c.locked_uid, grants.c.issued)
        found = [grant_of(row) for row in connection.execute(query)]
        if not found:
            raise NoGrantError(f"{to} has no grant that is not revoked for what is selected")
        connection.execute(update(grants).where(*chosen).values(live=False, revoked=writing.now))
        for grant in found:
            note_grant(writing, "revoked", grant)
        status = _next_status(writing, issuer, lineage)
        writing.checkpoint(issuer)
    return len(found), status


def status_list(vault: Vault, issuer: Identity) -> StatusList:
    """Sign the next status list, whether or not anything was revoked since the last one.

    Raises
    ------
    VaultError
        The issuer is not the vault's, or the database fails.
    """
    with vault.writing() as writing:
        lineage = people.check_issuer(writing.connection, issuer)
        status = _next_status(writing, issuer, lineage)
        writing.checkpoint(issuer)
    return status


def last_status(connection: Connection) -> int:
    """Give the number of the last status list; 0 before the first."""
    return connection.scalar(select(func.max(statuses.c.number))) or 0


def present_status(
    connection: Connection, issuer: Identity, lineage: Lineage, now: datetime
) -> StatusList | None:
    """Sign the last status list again, as of now; None where nothing was ever revoked."""
    last = last_status(connection)
    return _status(connection, issuer, lineage, last, now) if last else None


def _next_status(writing: Writing, issuer: Identity, lineage: Lineage) -> StatusList:
    """Sign a status list under the next number."""
    number = last_status(writing.connection) + 1
    status = _status(writing.connection, issuer, lineage, number, moment_of(writing.now))
    values = {"number": number, "issued": writing.now, "revoked": len(status.revoked)}
    writing.connection.execute(insert(statuses), values)
    writing.note("status-signed", number=number, revoked=len(status.revoked))
    return status


def _status(
    connection: Connection, issuer: Identity, lineage: Lineage, number: int, now: datetime
) -> StatusList:
    revoked = connection.scalars(select(grants.c.grant_id).where(grants.c.revoked.is_not(None)))
    return sign_status(issuer, lineage, number, revoked, now)
