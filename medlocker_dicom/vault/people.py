"""Who signs, who receives, who keeps the keys offline."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from sqlalchemy import func, insert, literal, select, update

from medlocker_dicom.errors import (
    IdentityError,
    KeyRefusedError,
    SignatureError,
    UsageError,
    VaultDamagedError,
    VaultError,
)
from medlocker_dicom.files import check_called
from medlocker_dicom.keyfile import Lineage, fingerprint_of
from medlocker_dicom.keyfile.canonical import dumps
from medlocker_dicom.keyfile.encoding import encode
from medlocker_dicom.keyfile.moments import moment_of
from medlocker_dicom.keyfile.public import PublicIdentity, parse_line
from medlocker_dicom.keyfile.signing import check_signature
from medlocker_dicom.keyfile.succession import read_succession, succession_record
from medlocker_dicom.vault.chain import RESTORE
from medlocker_dicom.vault.schema import grants, issuers, recipients

if TYPE_CHECKING:
    from sqlalchemy import ColumnElement, Connection, Row, Select

    from medlocker_dicom.keyfile import Identity
    from medlocker_dicom.vault.vault import Writing


@dataclass(frozen=True)
class Recipient:
    """Somebody whom grants are issued to.

    Attributes
    ----------
    name
        By which the owner calls them; key files are named so.
    public
        Their public key.
    custodian
        Whether grants are issued again from theirs.
    added, retired
        Seconds since 1970; None while they are not retired.
    grants
        How many live grants they have.
    """

    name: str
    public: PublicIdentity
    custodian: bool
    added: int
    retired: int | None
    grants: int


def begin(writing: Writing, issuer: PublicIdentity) -> None:
    """Set the first issuer of a new vault.

    Raises
    ------
    VaultError
        It has one already.
    """
    if has_begun(writing.connection):
        raise VaultError("the vault has an issuer already")
    _add_issuer(writing, 1, issuer, None)
    writing.note("begun", issuer=issuer.fingerprint)


def has_begun(connection: Connection) -> bool:
    """Tell whether the vault has an issuer."""
    return connection.scalar(select(func.count()).select_from(issuers)) != 0


def lineage(connection: Connection) -> Lineage:
    """Give the present issuer with those whom it succeeded.

    Raises
    ------
    VaultError
        It has none yet.
    VaultDamagedError
        What the vault holds of them is no lineage, or not signed by them.
    """
    rows = connection.execute(select(issuers).order_by(issuers.c.number)).all()
    if not rows:
        raise VaultError("the vault has no issuer", "begin it: medlocker vault init")
    try:
        steps = tuple(read_succession(json.loads(row.succession), "the vault") for row in rows[1:])
        found = Lineage(parse_line(rows[-1].line), steps)
        found.verify()
    except (KeyRefusedError, ValueError, TypeError) as error:
        raise VaultDamagedError("the vault's issuers do not follow each other") from error
    if [row.verify_key for row in rows] != list(found.verify_keys):
        raise VaultDamagedError("the vault's issuers do not follow each other")
    return found


def check_issuer(connection: Connection, issuer: Identity) -> Lineage:
    """Check that an identity is the vault's present issuer.

    Raises
    ------
    VaultError
        It is not.
    """
    found = lineage(connection)
    if found.issuer.verify_key != issuer.public.verify_key:
        raise VaultError(
            f"{issuer.public.fingerprint} is not the vault's issuer, "
            f"which is {found.issuer.fingerprint}",
            "name the issuer's identity by --issuer, or hand over: medlocker vault rotate-issuer",
        )
    return found


def succeed(writing: Writing, old: Identity, new: Identity) -> Lineage:
    """Let a new issuer succeed the present one.

    Raises
    ------
    KeyFileError
        The new one was an issuer before.
    VaultError
        `old` is not the present issuer.
    """
    before = check_issuer(writing.connection, old)
    after = before.followed_by(new, old, moment_of(writing.now))
    step = dumps(succession_record(after.successions[-1])).decode()
    _add_issuer(writing, len(after.verify_keys), new.public, step)
    writing.note("issuer-rotated", old=old.public.fingerprint, new=new.public.fingerprint)
    return after


def _add_issuer(writing: Writing, number: int, public: PublicIdentity, step: str | None) -> None:
    values = {
        "number": number,
        "verify_key": public.verify_key,
        "line": public.line,
        "succession": step,
    }
    writing.connection.execute(insert(issuers), values)


def add(
    writing: Writing,
    issuer: Identity,
    name: str,
    public: PublicIdentity,
    *,
    custodian: bool = False,
) -> None:
    """Add a recipient; one who is there by that name and key already is left as they are.

    Raises
    ------
    UsageError
        The name cannot be that of a file, the name or the key is taken, or they are retired.
    VaultError
        The issuer is not the vault's.
    """
    check_called(name)
    connection = writing.connection
    check_issuer(connection, issuer)
    query = select(recipients).where((recipients.c.name == name) | (recipients.c.id == public.id))
    for row in connection.execute(query):
        if row.name != name:
            raise UsageError(f"this public key is that of {row.name} in the vault already")
        if row.id != public.id:
            raise UsageError(
                f"a recipient called {name} is in the vault already, with another key: "
                f"{fingerprint_of(row.id)}",
                "compare fingerprints; choose another name for the new key",
            )
        if row.retired is not None:
            raise UsageError(f"{name} is retired", "a new key under a new name can be added")
        if row.custodian is not custodian:
            role = "a custodian" if row.custodian else "a recipient, not a custodian,"
            raise UsageError(f"{name} is {role} in the vault already")
        return
    one = Recipient(name, public, custodian, writing.now, None, 0)
    values = {
        "id": public.id,
        "name": name,
        "line": public.line,
        "custodian": custodian,
        "added": writing.now,
        "signature": issuer.sign(_message(one)),
    }
    connection.execute(insert(recipients), values)
    event = "custodian-added" if custodian else "recipient-added"
    writing.note(event, name=name, recipient=public.fingerprint)


def retire(writing: Writing, issuer: Identity, name: str) -> Recipient:
    """Let nobody issue to a recipient any more; what was issued stays until it is revoked.

    Raises
    ------
    UsageError
        There is none, they are retired already, or no other custodian can do all that they can.
    VaultError
        The issuer is not the vault's.
    """
    check_issuer(writing.connection, issuer)
    found = find(writing.connection, name)
    if found.retired is not None:
        raise UsageError(f"{name} is retired already")
    if found.custodian and not _replaceable(writing.connection, found):
        raise UsageError(
            f"{name} is the only custodian who can issue for everything",
            "add another one, medlocker recipient add --custodian, and issue to them first",
        )
    _sign(writing.connection, issuer, replace(found, retired=writing.now))
    writing.note("recipient-retired", name=name, recipient=found.public.fingerprint)
    return found


def _replaceable(connection: Connection, custodian: Recipient) -> bool:
    """Tell whether some other custodian can issue again whatever this one can."""
    theirs = _cared(connection, custodian)
    others = [one for one in custodians(connection) if one.name != custodian.name]
    return any(theirs <= _cared(connection, one) for one in others)


def _cared(connection: Connection, custodian: Recipient) -> set[str]:
    """Read the locked UIDs for which a custodian has a live grant without an end."""
    query = select(grants.c.locked_uid).where(
        grants.c.recipient == custodian.public.id, grants.c.live, grants.c.expires.is_(None)
    )
    return set(connection.scalars(query))


def sign_all(connection: Connection, issuer: Identity, old: bytes) -> None:
    """Sign every recipient anew, for the next issuer.

    Parameters
    ----------
    connection
        Of a writer.
    issuer
        Who signs from now on.
    old
        Ed25519 public key of who signed until now, 32 bytes.

    Raises
    ------
    VaultDamagedError
        A row is not signed by the old one.
    """
    query = select(recipients, literal(0).label("live_grants"))
    for row in connection.execute(query).all():
        _sign(connection, issuer, _recipient(row, old))


def _sign(connection: Connection, issuer: Identity, one: Recipient) -> None:
    """Let the issuer sign a row, with when they were retired."""
    statement = update(recipients).where(recipients.c.id == one.public.id)
    values = {"retired": one.retired, "signature": issuer.sign(_message(one))}
    connection.execute(statement.values(**values))


def _message(one: Recipient) -> bytes:
    """Give the bytes that the issuer signs of a recipient."""
    role = int(one.custodian)
    parts = (one.public.id, one.name, one.public.line, role, one.added, one.retired)
    return encode("medlocker/recipient/v1", *parts)


def everyone(connection: Connection, *conditions: ColumnElement[bool]) -> list[Recipient]:
    """List the recipients by name, or those whose rows meet the conditions, with their grants.

    Raises
    ------
    VaultError
        There is no issuer yet.
    VaultDamagedError
        A row is not signed by the present issuer.
    """
    count = (
        select(func.count())
        .where(grants.c.recipient == recipients.c.id, grants.c.live)
        .scalar_subquery()
    )
    return _signed(connection, select(recipients, count.label("live_grants")).where(*conditions))


def active(connection: Connection, *conditions: ColumnElement[bool]) -> list[Recipient]:
    """List those who are not retired, their grants not counted; else as `everyone`.

    What is asked for each lock takes as long in a large vault as in a small one.
    """
    query = select(recipients, literal(0).label("live_grants"))
    return _signed(connection, query.where(recipients.c.retired.is_(None), *conditions))


def ids(connection: Connection) -> set[bytes]:
    """Read the id of each recipient, retired or not; raises as `everyone`."""
    query = select(recipients, literal(0).label("live_grants"))
    return {one.public.id for one in _signed(connection, query)}


def _signed(connection: Connection, query: Select[Any]) -> list[Recipient]:
    rows = connection.execute(query.order_by(recipients.c.name)).all()
    if not rows:
        return []
    key = lineage(connection).issuer.verify_key
    return [_recipient(row, key) for row in rows]


def find(connection: Connection, name: str) -> Recipient:
    """Give a recipient by name.

    Raises
    ------
    UsageError
        There is none.
    """
    found = everyone(connection, recipients.c.name == name)
    if not found:
        raise UsageError(
            f"no recipient called {name} is in the vault", "medlocker recipient list shows them"
        )
    return found[0]


def find_active(connection: Connection, name: str, what: str) -> Recipient:
    """Give a recipient who is not retired.

    Parameters
    ----------
    connection, name
        As for `find`.
    what
        What would be done, for the error: ``issued to``.

    Raises
    ------
    UsageError
        There is none, or they are retired.
    """
    found = active(connection, recipients.c.name == name)
    if not found:
        find(connection, name)  # says so where there is none
        raise UsageError(f"{name} is retired: nothing is {what} them")
    return found[0]


def custodians(connection: Connection) -> list[Recipient]:
    """List the custodians who are not retired: one, or two while one takes over."""
    return active(connection, recipients.c.custodian)


def _recipient(row: Row[Any], key: bytes) -> Recipient:
    """Read a row that the issuer with this Ed25519 public key has signed."""
    try:
        check_called(row.name)
        public = parse_line(row.line)
        numbers = (row.added, row.retired, row.live_grants)
        found = Recipient(row.name, public, bool(row.custodian), *numbers)
        check_signature(key, _message(found), row.signature, "recipient")
    except (IdentityError, SignatureError, UsageError) as error:
        raise VaultDamagedError(
            f"recipient {row.name} in the vault is not as the issuer signed them", RESTORE
        ) from error
    if public.id != row.id:
        raise VaultDamagedError(f"the public key of {row.name} in the vault is another's", RESTORE)
    return found
