"""What a recipient is sent: key files, packets, the status list."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

from sqlalchemy import select

from medlocker_dicom.errors import NoGrantError, VaultDamagedError
from medlocker_dicom.keyfile import caps, dump_keyfile, dump_status, sign_keyfile
from medlocker_dicom.keyfile.moments import moment_of
from medlocker_dicom.parts import batched
from medlocker_dicom.vault import people
from medlocker_dicom.vault.grants import check_selected, live_count, open_grants, selected
from medlocker_dicom.vault.revocation import present_status
from medlocker_dicom.vault.schema import instances

if TYPE_CHECKING:
    from medlocker_dicom.keyfile import Identity
    from medlocker_dicom.vault.instances import Selection
    from medlocker_dicom.vault.vault import Vault


@dataclass(frozen=True)
class Exported:
    """What a recipient is sent.

    Attributes
    ----------
    keyfiles
        Contents of key files; more than one where they would be too large.
    packets
        Locked UIDs whose detached packets the vault holds.
    grants
        How many.
    expired
        How many were left out because their time is over.
    status
        Content of the status list; None where nothing was ever revoked.
    """

    keyfiles: tuple[bytes, ...]
    packets: tuple[str, ...]
    grants: int
    expired: int
    status: bytes | None


def export(vault: Vault, issuer: Identity, to: str, selection: Selection) -> Exported:
    """Put a recipient's live grants into key files; those that have expired are left out.

    Raises
    ------
    UsageError
        The recipient is unknown or retired, or a UID selects nothing.
    NoGrantError
        They have no live grant for what is selected, or all have expired.
    VaultError
        The issuer is not the vault's, or the database fails.
    """
    with vault.writing() as writing:
        connection = writing.connection
        lineage = people.check_issuer(connection, issuer)
        recipient = people.find_active(connection, to, "exported to")
        check_selected(connection, selection)
        own, chosen = recipient.public.id, selected(selection)
        held = open_grants(connection, own, vault.clock(), chosen)
        expired = live_count(connection, own, chosen) - len(held)
        if not held:
            every = f"all {expired} grants of {to} for what is selected have expired"
            raise NoGrantError(
                every if expired else f"{to} has no grant for what is selected",
                f"issue them: medlocker grant reissue --to {to}",
            )
        now = moment_of(writing.now)
        keyfiles = []
        for part in batched(held, caps.MAX_GRANTS):
            keyfile = dump_keyfile(sign_keyfile(issuer, recipient.public, part, now, lineage))
            keyfiles.append(keyfile)
            digest = hashlib.sha256(keyfile).hexdigest()
            writing.note("exported", name=to, key_file_sha256=digest, grants=len(part))
        status = present_status(connection, issuer, lineage, now)
        with_packet = select(instances.c.locked_uid).where(instances.c.packet.is_not(None))
        detached = set(connection.scalars(with_packet))
        packets = tuple(one.locked_uid for one in held if one.locked_uid in detached)
        writing.checkpoint(issuer)
    listed = None if status is None else dump_status(status)
    return Exported(tuple(keyfiles), packets, len(held), expired, listed)


def packet(vault: Vault, locked_uid: str) -> bytes:
    """Give the content of a detached packet file.

    Raises
    ------
    VaultDamagedError
        The vault does not hold it.
    """
    with vault.reading() as connection:
        query = select(instances.c.packet).where(instances.c.locked_uid == locked_uid)
        found: bytes | None = connection.scalar(query)
    if found is None:
        raise VaultDamagedError(f"the vault holds no packet of {locked_uid}")
    return found
