"""Grants: issued again by the custodian, exported, revoked, signed anew by the next issuer."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from secrets import token_bytes
from typing import TYPE_CHECKING, Any, Final, NamedTuple, TypeVar

from sqlalchemy import bindparam, func, insert, select, update

from medlocker_dicom.errors import (
    NoGrantError,
    SignatureError,
    UsageError,
    VaultDamagedError,
)
from medlocker_dicom.keyfile import (
    StatusList,
    caps,
    dump_keyfile,
    dump_status,
    issue_grant,
    open_grant,
    sign_grant,
    sign_keyfile,
    sign_status,
)
from medlocker_dicom.keyfile.grant import GRANT_ID_BYTES
from medlocker_dicom.keyfile.moments import moment_of, text_of
from medlocker_dicom.vault import people
from medlocker_dicom.vault.chain import RESTORE
from medlocker_dicom.vault.instances import note_grant
from medlocker_dicom.vault.rows import grant_of, grant_row
from medlocker_dicom.vault.schema import grants, instances, recipients, statuses

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from datetime import datetime

    from sqlalchemy import ColumnElement, Connection, Row

    from medlocker_dicom.keyfile import Grant, Identity, Lineage
    from medlocker_dicom.vault.instances import Selection
    from medlocker_dicom.vault.vault import Vault, Writing

T = TypeVar("T")
#: Grants that become durable together: a killed run has lost no more work than these.
BATCH: Final = 500


class Progress(NamedTuple):
    """How far a batch is: `done` counts what is durable."""

    done: int
    total: int


class Held(NamedTuple):
    """A stored grant with what `Bound` asks for."""

    grant: Grant

    @property
    def locked_uid(self) -> str:
        """SOP Instance UID of the locked object."""
        return self.grant.locked_uid

    @property
    def digest(self) -> bytes:
        """Digest of the binding, 32 bytes."""
        return self.grant.binding


@dataclass(frozen=True)
class Reissue:
    """Issues grants again from those of a custodian; no pixel is touched.

    Attributes
    ----------
    vault
        Which.
    issuer
        The vault's present issuer, who signs.
    custodian
        Opens its own grants.
    to
        Name of the recipient.
    selection
        Of which instances.
    expires
        First moment at which the new grants no longer open; None for no end.
    renew
        Whether a recipient's live grants are replaced; else they are left alone.
    """

    vault: Vault
    issuer: Identity
    custodian: Identity
    to: str
    selection: Selection
    expires: datetime | None = None
    renew: bool = False

    def run(self) -> Iterator[Progress]:
        """Issue batch after batch; each is durable as a whole before the next one.

        A run that was killed goes on where it was when it is started again.

        Raises
        ------
        UsageError
            The recipient is unknown or retired, or nothing is selected.
        NoGrantError
            The custodian has no grant for a selected instance.
        KeyRefusedError
            A grant of the custodian's does not open.
        VaultError
            The issuer is not the vault's, or the database fails.
        """
        with self.vault.reading() as connection:
            lineage = people.check_issuer(connection, self.issuer)
            todo = self._todo(connection)
        yield Progress(0, len(todo))
        done = 0
        for batch in batched(todo, BATCH):
            self._issue(batch, lineage)
            done += len(batch)
            yield Progress(done, len(todo))

    def _todo(self, connection: Connection) -> list[str]:
        """List the locked UIDs for which a grant is to be issued."""
        to = people.find_active(connection, self.to, "issued to")
        selected = _uids(connection, self.selection)
        if not selected:
            raise UsageError("nothing that was locked is selected")
        kept = _live_uids(connection, self.custodian.public.id)
        if missing := [uid for uid in selected if uid not in kept]:
            raise NoGrantError(
                f"{self.custodian.public.fingerprint} has no grant for {len(missing)} of "
                f"{len(selected)} selected instances, {missing[0]} among them",
                "use the identity that was the custodian when they were locked",
            )
        if self.renew:
            return selected
        theirs = _live_uids(connection, to.public.id)
        return [uid for uid in selected if uid not in theirs]

    def _issue(self, uids: Sequence[str], lineage: Lineage) -> None:
        """Issue the grants of one batch in one transaction."""
        with self.vault.reading() as connection:
            to = people.find(connection, self.to)
            own = _live_grants(connection, self.custodian.public.id, grants.c.locked_uid.in_(uids))
        issued = [self._seal(grant, to, lineage) for grant in own]
        with self.vault.writing() as writing:
            # Somebody may have retired them, issued the same, or handed over meanwhile.
            people.check_issuer(writing.connection, self.issuer)
            people.find_active(writing.connection, self.to, "issued to")
            chosen = grants.c.locked_uid.in_(uids)
            live = _live_uids(writing.connection, to.public.id, chosen)
            kept = _live_grants(writing.connection, self.custodian.public.id, chosen)
            still = {one.locked_uid for one in kept if one in own}  # else it was locked again
            fresh = [
                one
                for one in issued
                if one.locked_uid in still and (self.renew or one.locked_uid not in live)
            ]
            _end(writing, to.public.id, [one.locked_uid for one in fresh])
            if fresh:
                rows = [grant_row(one, writing.now) for one in fresh]
                writing.connection.execute(insert(grants), rows)
            for one in fresh:
                note_grant(writing, "reissued", one)
            writing.checkpoint(self.issuer)

    def _seal(self, grant: Grant, to: people.Recipient, lineage: Lineage) -> Grant:
        key = lineage.issuer.verify_key
        dek = open_grant(grant, Held(grant), self.custodian, key, self.vault.clock())
        return issue_grant(
            dek,
            Held(grant),
            to.public,
            self.issuer,
            expires=self.expires,
            grant_id=token_bytes(GRANT_ID_BYTES),
        )


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
        There is no such recipient.
    VaultError
        The database fails.
    """
    now = int(vault.clock().timestamp())
    with vault.reading() as connection:
        if to:
            people.find(connection, to)
        query = (
            select(grants, recipients.c.name)
            .join(recipients)
            .where(_selected(selection), *([recipients.c.name == to] if to else []))
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
    status
        Content of the status list; None where nothing was ever revoked.
    """

    keyfiles: tuple[bytes, ...]
    packets: tuple[str, ...]
    grants: int
    status: bytes | None


def export(vault: Vault, issuer: Identity, to: str, selection: Selection) -> Exported:
    """Put a recipient's live grants into key files.

    Raises
    ------
    UsageError
        The recipient is unknown or retired.
    NoGrantError
        They have no live grant for what is selected.
    VaultError
        The issuer is not the vault's, or the database fails.
    """
    with vault.writing() as writing:
        connection = writing.connection
        lineage = people.check_issuer(connection, issuer)
        recipient = people.find_active(connection, to, "exported to")
        held = _live_grants(connection, recipient.public.id, _selected(selection))
        if not held:
            raise NoGrantError(
                f"{to} has no grant for what is selected",
                f"issue it: medlocker grant reissue --to {to}",
            )
        now = moment_of(writing.now)
        keyfiles = tuple(
            dump_keyfile(sign_keyfile(issuer, recipient.public, part, now, lineage))
            for part in batched(held, caps.MAX_GRANTS)
        )
        for data in keyfiles:
            digest = hashlib.sha256(data).hexdigest()
            writing.note("exported", name=to, key_file_sha256=digest, grants=len(held))
        last = last_status(connection)
        status = dump_status(_status(connection, issuer, lineage, last, now)) if last else None
        with_packet = select(instances.c.locked_uid).where(instances.c.packet.is_not(None))
        detached = set(connection.scalars(with_packet))
        packets = tuple(one.locked_uid for one in held if one.locked_uid in detached)
        writing.checkpoint(issuer)
    return Exported(keyfiles, packets, len(held), status)


def revoke(vault: Vault, issuer: Identity, to: str, selection: Selection) -> tuple[int, StatusList]:
    """Revoke all grants that a recipient was ever issued for some instances.

    Returns
    -------
    tuple
        How many, and the next status list, signed.

    Raises
    ------
    UsageError
        The recipient is unknown, or the custodian.
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
        chosen = (
            grants.c.recipient == recipient.public.id,
            grants.c.revoked.is_(None),
            _selected(selection),
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


def batched(items: Sequence[T], size: int) -> Iterator[Sequence[T]]:
    """Cut a sequence into parts of at most `size`."""
    return (items[at : at + size] for at in range(0, len(items), size))


def _selected(selection: Selection) -> ColumnElement[bool]:
    """Condition on grants: those for selected instances."""
    return grants.c.locked_uid.in_(select(instances.c.locked_uid).where(selection.condition))


def _uids(connection: Connection, selection: Selection) -> list[str]:
    query = select(instances.c.locked_uid).where(selection.condition)
    return list(connection.scalars(query.order_by(instances.c.locked_uid)))


def _live_uids(
    connection: Connection, recipient: bytes, *conditions: ColumnElement[bool]
) -> set[str]:
    """Read the locked UIDs for which a recipient has a live grant."""
    query = select(grants.c.locked_uid).where(
        grants.c.recipient == recipient, grants.c.live, *conditions
    )
    return set(connection.scalars(query))


def _live_grants(
    connection: Connection, recipient: bytes, *conditions: ColumnElement[bool]
) -> list[Grant]:
    """Read a recipient's live grants, in the order of their locked UIDs."""
    query = select(grants).where(grants.c.recipient == recipient, grants.c.live, *conditions)
    return [grant_of(row) for row in connection.execute(query.order_by(grants.c.locked_uid))]


def _end(writing: Writing, recipient: bytes, uids: Sequence[str]) -> None:
    """End a recipient's live grants for some instances: others take their place."""
    chosen = (grants.c.recipient == recipient, grants.c.live, grants.c.locked_uid.in_(uids))
    writing.connection.execute(update(grants).where(*chosen).values(live=False))


def last_status(connection: Connection) -> int:
    """Give the number of the last status list; 0 before the first."""
    return connection.scalar(select(func.max(statuses.c.number))) or 0


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
