"""What was locked: one row an instance, with its grants and, if detached, its packet."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sqlalchemy import insert, or_, select, update

from medlocker_dicom.errors import (
    DuplicateInstanceError,
    SignatureError,
    UsageError,
    VaultChangedError,
)
from medlocker_dicom.keyfile import fingerprint_of, sign_grant
from medlocker_dicom.keyfile.moments import moment_of, text_of
from medlocker_dicom.vault import people
from medlocker_dicom.vault.rows import grant_row
from medlocker_dicom.vault.schema import grants, instances

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from sqlalchemy import ColumnElement, Connection

    from medlocker_dicom.keyfile import Grant, Identity, Lineage
    from medlocker_dicom.vault.vault import Vault, Writing


_ANEW = (
    "lock the rest into a new folder, as the vault is now; for what is in the vault already, "
    "medlocker grant export writes the keys"
)


@dataclass(frozen=True)
class Instance:
    """A locked instance.

    Attributes
    ----------
    locked_uid, source_uid
        SOP Instance UIDs.
    study_uid
        Study Instance UID of both.
    source_series_uid, locked_series_uid
        Series Instance UIDs.
    binding
        Digest of its `Binding`, 32 bytes.
    issuer
        Ed25519 public key of who locked it, 32 bytes.
    record
        JSON: how it was locked.
    packet
        Content of its detached packet file; None where it carries the packet itself.
    """

    locked_uid: str
    source_uid: str
    study_uid: str
    source_series_uid: str
    locked_series_uid: str
    binding: bytes
    issuer: bytes
    record: str
    packet: bytes | None = None


def instance_of(
    record: Mapping[str, Any], issued: Sequence[Grant], issuer: bytes, packet: bytes | None
) -> Instance:
    """Tell what is to be stored of a lock.

    Parameters
    ----------
    record
        `InstanceRecord.as_json`.
    issued
        Its grants, at least one.
    issuer
        Ed25519 public key of who locked it, 32 bytes.
    packet
        Content of its detached packet file; None where it carries the packet itself.
    """
    return Instance(
        locked_uid=record["locked_sop_instance_uid"],
        source_uid=record["source_sop_instance_uid"],
        study_uid=record["study_instance_uid"],
        source_series_uid=record["source_series_instance_uid"],
        locked_series_uid=record["locked_series_instance_uid"],
        binding=issued[0].binding,
        issuer=issuer,
        record=json.dumps(record),
        packet=packet,
    )


@dataclass(frozen=True)
class Selection:
    """Some of the instances, by UIDs of any level; all where none is named.

    Attributes
    ----------
    studies, series, instances
        UIDs; those of series and instances may be of the source or of the locked one.
    """

    studies: Sequence[str] = ()
    series: Sequence[str] = ()
    instances: Sequence[str] = ()

    @property
    def condition(self) -> ColumnElement[bool]:
        """For a query that has the table of instances in it."""
        table = instances.c
        named = [
            column.in_(uids)
            for uids, columns in (
                (self.studies, [table.study_uid]),
                (self.series, [table.source_series_uid, table.locked_series_uid]),
                (self.instances, [table.source_uid, table.locked_uid]),
            )
            for column in columns
            if uids
        ]
        return or_(*named) if named else table.locked_uid.is_not(None)


def check_new(connection: Connection, source_uid: str) -> None:
    """Check that a source was not locked before; two renditions give the original away.

    Raises
    ------
    DuplicateInstanceError
        The vault knows a lock of it.
    """
    query = select(instances.c.locked_uid, instances.c.locked).where(
        instances.c.source_uid == source_uid
    )
    for row in connection.execute(query):
        raise DuplicateInstanceError(
            f"SOP Instance UID {source_uid} was locked at {text_of(moment_of(row.locked))} "
            f"as {row.locked_uid}",
            "use what was locked then; --again locks it anew, and key files that are out still "
            "open the old one",
        )


def keep(
    writing: Writing, instance: Instance, issued: Sequence[Grant], *, again: bool = False
) -> bool:
    """Store a locked instance with its grants.

    Parameters
    ----------
    writing
        All of it is stored, or nothing.
    instance
        What was locked.
    issued
        Its grants, signed by the vault's issuer; their recipients are in the vault.
    again
        Whether it takes the place of an earlier lock of its source.

    Returns
    -------
    bool
        False where the vault held exactly this lock already.

    Raises
    ------
    DuplicateInstanceError
        The vault knows an earlier lock.
    VaultChangedError
        A grant is not signed by the vault's present issuer, or is for somebody who is retired, or
        none is for a custodian.
    """
    connection = writing.connection
    if _holds(connection, instance.locked_uid, [grant.grant_id for grant in issued]):
        return False
    if not again:
        check_new(connection, instance.source_uid)
    _check_signed(people.lineage(connection), issued)
    _check_whom(connection, issued)
    _put(writing, instance, issued)
    return True


def adopt(writing: Writing, issuer: Identity, instance: Instance, issued: Sequence[Grant]) -> bool:
    """Store a lock that is older than what the vault has become: completed, or entered again.

    Who was the issuer then may have handed over: the grants are signed anew. Who was to receive
    may be retired now: what they were issued is stored, so that it can be revoked.

    Parameters
    ----------
    writing
        All of it is stored, or nothing.
    issuer
        The vault's present issuer, who signs.
    instance
        What was locked, by it or by one before it.
    issued
        Its grants, signed by who locked it.

    Returns
    -------
    bool
        False where the vault held exactly this lock already.

    Raises
    ------
    DuplicateInstanceError
        The vault knows another lock of the source.
    SignatureError
        Who locked it is not of the vault's issuers, or did not sign a grant.
    UsageError
        One of those whom it is for was never in the vault.
    VaultError
        The issuer is not the vault's.
    """
    connection = writing.connection
    if _holds(connection, instance.locked_uid, [grant.grant_id for grant in issued]):
        return False
    people.check_issuer(connection, issuer).check_includes(instance.issuer)
    for grant in issued:
        grant.verify(instance.issuer)
    check_new(connection, instance.source_uid)
    known = people.ids(connection)
    for grant in issued:
        if grant.recipient not in known:
            raise UsageError(
                f"it is for {fingerprint_of(grant.recipient)}, who is not in the vault",
                "add them first: medlocker recipient add",
            )
    _put(writing, instance, [sign_grant(grant, issuer) for grant in issued])
    return True


def _put(writing: Writing, instance: Instance, issued: Sequence[Grant]) -> None:
    """Store a lock; grants of earlier ones of its source end."""
    connection = writing.connection
    earlier = select(instances.c.locked_uid).where(instances.c.source_uid == instance.source_uid)
    replaced = list(connection.scalars(earlier))
    connection.execute(
        update(grants).where(grants.c.locked_uid.in_(replaced), grants.c.live).values(live=False)
    )
    values = {**vars(instance), "locked": writing.now}
    if instance.locked_uid in replaced:
        row = update(instances).where(instances.c.locked_uid == instance.locked_uid)
        connection.execute(row.values(**values))
    else:
        connection.execute(insert(instances), values)
    writing.note(
        "locked",
        locked_uid=instance.locked_uid,
        source_uid=instance.source_uid,
        binding=instance.binding.hex(),
        record_sha256=digest_of(instance.record.encode()),
        packet_sha256=digest_of(instance.packet),
        replaces=" ".join(replaced) or None,
    )
    for grant in issued:
        connection.execute(insert(grants), grant_row(grant, writing.now))
        note_grant(writing, "granted", grant)


def _check_signed(lineage: Lineage, issued: Sequence[Grant]) -> None:
    """Check that grants are the present issuer's: somebody may have handed over meanwhile."""
    try:
        for grant in issued:
            grant.verify(lineage.issuer.verify_key)
    except SignatureError as error:
        raise VaultChangedError(
            f"{error}: the vault's issuer is {lineage.issuer.fingerprint} now", _ANEW
        ) from error


def _check_whom(connection: Connection, issued: Sequence[Grant]) -> None:
    """Check that grants are for those whom the vault issues to now, all custodians among them."""
    active = people.active(connection)
    to = {grant.recipient for grant in issued}
    if to - {one.public.id for one in active}:
        raise VaultChangedError("somebody whom this is locked for was retired meanwhile", _ANEW)
    if missing := [one.name for one in active if one.custodian and one.public.id not in to]:
        raise VaultChangedError(f"{missing[0]} became a custodian meanwhile", _ANEW)


def digest_of(content: bytes | None) -> str | None:
    """SHA-256 of a record or a detached packet, hexadecimal; None where there is none."""
    return None if content is None else hashlib.sha256(content).hexdigest()


def locks_of(connection: Connection, source_uid: str) -> list[tuple[str, bytes]]:
    """List the locks of a source: locked UID, and the id of each of their grants."""
    query = (
        select(grants.c.locked_uid, grants.c.grant_id)
        .join(instances)
        .where(instances.c.source_uid == source_uid)
    )
    return [(row.locked_uid, row.grant_id) for row in connection.execute(query)]


def recorded(vault: Vault, uid: str) -> Iterator[str]:
    """Tell how an instance was locked: the records, JSON, of every lock of it.

    Parameters
    ----------
    vault
        Which.
    uid
        SOP Instance UID of the source or of the locked object.

    Raises
    ------
    UsageError
        The vault does not know it.
    """
    query = select(instances.c.record).where(Selection(instances=[uid]).condition)
    with vault.reading() as connection:
        found = list(connection.scalars(query.order_by(instances.c.locked)))
    if not found:
        raise UsageError(f"{uid} is not in the vault")
    yield from found


def note_grant(writing: Writing, event: str, grant: Grant) -> None:
    """Add a grant to the audit chain: what is sealed is told by its digest."""
    writing.note(
        event,
        grant_id=grant.grant_id.hex(),
        locked_uid=grant.locked_uid,
        recipient=fingerprint_of(grant.recipient),
        expires=None if grant.expires is None else text_of(grant.expires),
        sealed_sha256=grant.sealed_digest.hex(),
    )


def _holds(connection: Connection, locked_uid: str, grant_ids: Sequence[bytes]) -> bool:
    """Tell whether all of these are grants of an instance."""
    query = select(grants.c.grant_id).where(
        grants.c.locked_uid == locked_uid, grants.c.grant_id.in_(grant_ids)
    )
    return bool(grant_ids) and len(connection.scalars(query).all()) == len(grant_ids)
