"""Handing over to another issuer."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sqlalchemy import bindparam, select, update

from medlocker_dicom.keyfile import sign_grant
from medlocker_dicom.vault import people
from medlocker_dicom.vault.grants import verify
from medlocker_dicom.vault.rows import grant_of
from medlocker_dicom.vault.schema import grants

if TYPE_CHECKING:
    from medlocker_dicom.keyfile import Identity
    from medlocker_dicom.vault.vault import Vault


def rotate(vault: Vault, old: Identity, new: Identity) -> int:
    """Hand over to a new issuer, who signs every live grant anew; all of it or nothing.

    Returns
    -------
    int
        How many grants were signed.

    Raises
    ------
    VaultError
        `old` is not the present issuer, or the database fails.
    VaultDamagedError
        A grant in the vault is not signed by it.
    """
    with vault.writing() as writing:
        connection = writing.connection
        people.succeed(writing, old, new)
        people.sign_all(connection, new, old.public.verify_key)
        rows = connection.execute(select(grants).where(grants.c.live)).all()
        changed = []
        for row in rows:
            grant = grant_of(row)
            verify(grant, old.public.verify_key)
            signed = sign_grant(grant, new)
            changed.append({"id": grant.grant_id, "now": signed.signature})
        if changed:
            statement = update(grants).where(grants.c.grant_id == bindparam("id"))
            connection.execute(statement.values(signature=bindparam("now")), changed)
        writing.checkpoint(new)
    return len(changed)
