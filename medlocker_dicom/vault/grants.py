"""The grants that a vault holds: read, selected, listed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from sqlalchemy import func, or_, select

from medlocker_dicom.errors import SignatureError, UsageError, VaultDamagedError
from medlocker_dicom.keyfile.moments import moment_of, text_of
from medlocker_dicom.vault import people
from medlocker_dicom.vault.chain import RESTORE
from medlocker_dicom.vault.instances import Selection
from medlocker_dicom.vault.rows import grant_of
from medlocker_dicom.vault.schema import grants, instances, recipients

if TYPE_CHECKING:
    from collections.abc import Iterator
    from datetime import datetime

    from sqlalchemy import ColumnElement, Connection, Row

    from medlocker_dicom.keyfile import Grant
    from medlocker_dicom.vault.vault import Vault


class Listed(NamedTuple):
    """A grant as it is listed.

    `state` is ``live``, ``expired``, ``revoked`` or ``replaced``; moments are text.
    """

    locked_uid: str
    recipient: str
    grant_id: str
    state: str
    issued: str
    expires: str | None


def listed(vault: Vault, to: str, selection: Selection) -> Iterator[Listed]:
    """List grants by locked UID and recipient, whatever became of them.

    Parameters
    ----------
    vault
        Which.
    to
        Name of one recipient; empty for all.
    selection
        Of which instances.

    Raises
    ------
    UsageError
        There is no such recipient, or a UID selects nothing.
    VaultError
        The database fails.
    """
    now = int(vault.clock().timestamp())
    with vault.reading() as connection:
        check_selected(connection, selection)
        if to:
            people.find(connection, to)
        query = (
            select(grants, recipients.c.name)
            .join(recipients)
            .where(selected(selection), *([recipients.c.name == to] if to else []))
            .order_by(grants.c.locked_uid, recipients.c.name, grants.c.issued)
        )
        for row in connection.execution_options(yield_per=1000).execute(query):
            grant = grant_of(row)
            yield Listed(
                row.locked_uid,
                row.name,
                row.grant_id.hex(),
                _state(row, now),
                text_of(moment_of(row.issued)),
                None if grant.expires is None else text_of(grant.expires),
            )


def _state(row: Row[Any], now: int) -> str:
    if row.revoked is not None:
        return "revoked"
    if not row.live:
        return "replaced"
    return "live" if row.expires is None or now < row.expires else "expired"


def verify(grant: Grant, verify_key: bytes) -> None:
    """Check a stored grant's signature.

    Raises
    ------
    VaultDamagedError
        It is not the issuer's.
    """
    try:
        grant.verify(verify_key)
    except SignatureError as error:
        raise VaultDamagedError(f"{error} of the vault", RESTORE) from error


def check_selected(connection: Connection, selection: Selection) -> None:
    """Check that each UID selects something: one with a slip of the pen would go unseen.

    Raises
    ------
    UsageError
        One does not; it is named.
    """
    single = [
        *((uid, "Study", Selection(studies=[uid])) for uid in selection.studies),
        *((uid, "Series", Selection(series=[uid])) for uid in selection.series),
        *((uid, "SOP", Selection(instances=[uid])) for uid in selection.instances),
    ]
    for uid, level, one in single:
        query = select(instances.c.locked_uid).where(one.condition).limit(1)
        if connection.scalar(query) is None:
            raise UsageError(f"{uid}: nothing that was locked has this {level} Instance UID")


def selected(selection: Selection) -> ColumnElement[bool]:
    """Condition on grants: those for selected instances."""
    return grants.c.locked_uid.in_(select(instances.c.locked_uid).where(selection.condition))


def selected_uids(connection: Connection, selection: Selection) -> list[str]:
    """Read the locked UIDs of selected instances, sorted; those that were locked again are not."""
    live, other = select(grants.c.locked_uid).where(grants.c.live), instances.alias()
    again = select(other.c.locked_uid).where(
        other.c.source_uid == instances.c.source_uid, other.c.locked_uid.in_(live)
    )
    present = instances.c.locked_uid.in_(live) | ~again.exists()
    query = select(instances.c.locked_uid).where(selection.condition, present)
    return list(connection.scalars(query.order_by(instances.c.locked_uid)))


def opens_at(now: datetime) -> ColumnElement[bool]:
    """Condition on grants: those that are live, and whose time is not over."""
    unexpired = or_(grants.c.expires.is_(None), grants.c.expires > int(now.timestamp()))
    return grants.c.live & unexpired


def open_uids(
    connection: Connection, recipient: bytes, now: datetime, *conditions: ColumnElement[bool]
) -> set[str]:
    """Read the locked UIDs for which a recipient has a live grant that has not expired."""
    query = select(grants.c.locked_uid).where(
        grants.c.recipient == recipient, opens_at(now), *conditions
    )
    return set(connection.scalars(query))


def live_count(connection: Connection, recipient: bytes, *conditions: ColumnElement[bool]) -> int:
    """Count a recipient's live grants, those that have expired among them."""
    query = select(func.count()).select_from(grants)
    found = query.where(grants.c.recipient == recipient, grants.c.live, *conditions)
    return connection.scalar(found) or 0


def open_grants(
    connection: Connection, recipient: bytes, now: datetime, *conditions: ColumnElement[bool]
) -> list[Grant]:
    """Read a recipient's live grants that have not expired, in the order of their locked UIDs."""
    query = select(grants).where(grants.c.recipient == recipient, opens_at(now), *conditions)
    return [grant_of(row) for row in connection.execute(query.order_by(grants.c.locked_uid))]
