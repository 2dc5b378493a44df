"""What the page shows of the vault, which it only reads."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from sqlalchemy import select

from medlocker_dicom.errors import VaultDamagedError
from medlocker_dicom.vault import people
from medlocker_dicom.vault.schema import entries, head

if TYPE_CHECKING:
    from medlocker_dicom.vault.people import Recipient
    from medlocker_dicom.vault.vault import Vault

#: Entries of the audit chain that are shown.
NEWEST: Final = 200


@dataclass(frozen=True)
class Noted:
    """An entry of the audit chain.

    Attributes
    ----------
    number, event
        Of the entry.
    at
        Milliseconds since 1970.
    detail
        What it tells, by name.
    """

    number: int
    at: int
    event: str
    detail: dict[str, str]


def recipients(vault: Vault) -> list[Recipient]:
    """List everybody in the vault by name."""
    with vault.reading() as connection:
        return people.everyone(connection)


def newest(vault: Vault) -> tuple[list[Noted], str]:
    """Give the chain's newest entries, the last one first, and its head as it is noted elsewhere.

    The chain is not followed: ``medlocker vault audit`` does.

    Raises
    ------
    VaultDamagedError
        An entry is no JSON object.
    """
    query = select(entries).order_by(entries.c.number.desc()).limit(NEWEST)
    with vault.reading() as connection:
        last = connection.execute(select(head)).one()
        try:
            found = [
                Noted(row.number, row.at * 1000, row.event, _told(row.detail))
                for row in connection.execute(query)
            ]
        except (ValueError, AttributeError, RecursionError) as error:
            raise VaultDamagedError("the vault's audit chain holds no words") from error
    return found, f"{last.length}:{last.hash.hex()}"


def _told(detail: str) -> dict[str, str]:
    told = json.loads(detail)
    return {name: str(value) for name, value in told.items() if value is not None}
