"""Does the vault hold what it says? Every grant, every entry of the chain."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sqlalchemy import func, select

from medlocker_dicom.errors import SignatureError, VaultDamagedError
from medlocker_dicom.keyfile import fingerprint_of
from medlocker_dicom.keyfile.moments import moment_of, text_of
from medlocker_dicom.vault import people
from medlocker_dicom.vault.chain import RESTORE, START, Entry, check_checkpoint, follow
from medlocker_dicom.vault.grants import verify
from medlocker_dicom.vault.instances import digest_of
from medlocker_dicom.vault.replay import LIVE, REPLACED, REVOKED, Told
from medlocker_dicom.vault.revocation import last_status
from medlocker_dicom.vault.rows import grant_of
from medlocker_dicom.vault.schema import (
    checkpoints,
    entries,
    grants,
    head,
    instances,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator

    from sqlalchemy import Connection, Row

    from medlocker_dicom.keyfile import Grant
    from medlocker_dicom.vault.vault import Vault


@dataclass(frozen=True)
class Audited:
    """What an audit found in order.

    Attributes
    ----------
    length
        Entries.
    head
        Hash of the last one, 32 bytes.
    signed
        Up to which entry an issuer has signed the chain; 0 for nothing.
    issuer
        Fingerprint of the present one.
    """

    length: int
    head: bytes
    signed: int
    issuer: str

    @property
    def note(self) -> str:
        """Length and head as they can be noted elsewhere: ``12:ab34...``."""
        return f"{self.length}:{self.head.hex()}"


def audit(vault: Vault, noted: tuple[int, bytes] | None = None) -> Audited:
    """Follow the audit chain from its first entry to its head.

    Parameters
    ----------
    vault
        Which.
    noted
        Length and head that were noted at an earlier time, elsewhere.

    Raises
    ------
    VaultDamagedError
        An entry was altered, removed or moved; or a checkpoint or the noted head does not fit.
    """
    with vault.reading() as connection:
        return _audited(connection, noted)


def _audited(
    connection: Connection,
    noted: tuple[int, bytes] | None = None,
    each: Callable[[Entry], object] = lambda _: None,
) -> Audited:
    """Follow the chain; `each` sees every entry that is in its place."""
    lineage = people.lineage(connection)
    keys = set(lineage.verify_keys)
    marks = {row.length: row for row in connection.execute(select(checkpoints))}
    last = connection.execute(select(head)).one()
    length, signed, hash_, at = 0, 0, START, 0
    if noted == (0, hash_):
        noted = None
    for entry in follow(_entries(connection)):
        length, hash_, at = entry.number, entry.hash, entry.at
        if length in marks:
            _check_mark(marks.pop(length), entry, keys)
            signed = length
        if noted is not None and noted[0] == length and noted[1] != hash_:
            raise VaultDamagedError(f"the chain up to {entry} is not the one that was noted")
        each(entry)
    if (length, hash_, at) != (last.length, last.hash, last.at):
        raise VaultDamagedError(
            f"the audit chain ends at entry {length}, and not as its head says", RESTORE
        )
    if length and not signed:
        raise VaultDamagedError("no checkpoint of an issuer is left in the audit chain")
    if marks:
        raise VaultDamagedError(
            f"the issuer signed entry {max(marks)} of the audit chain, which is missing"
        )
    if noted is not None and not 0 < noted[0] <= length:
        raise VaultDamagedError(
            f"the audit chain ends at entry {length}, and {noted[0]} entries were noted"
        )
    return Audited(length, hash_, signed, lineage.issuer.fingerprint)


def _check_mark(mark: Any, entry: Entry, keys: set[bytes]) -> None:
    if mark.issuer not in keys or mark.hash != entry.hash:
        raise VaultDamagedError(f"the checkpoint at {entry} of the audit chain does not fit it")
    try:
        check_checkpoint(mark.issuer, mark.length, mark.hash, mark.signature)
    except SignatureError as error:
        raise VaultDamagedError(str(error)) from error


def _entries(connection: Connection) -> Iterator[Entry]:
    query = select(entries).order_by(entries.c.number)
    streamed = connection.execution_options(yield_per=1000).execute(query)
    return (Entry(*row) for row in streamed)


def history(vault: Vault, locked_uid: str = "") -> Iterator[str]:
    """Tell the chain's entries in words, or those that name one instance."""
    with vault.reading() as connection:
        for entry in _entries(connection):
            detail = json.loads(entry.detail)
            if locked_uid and locked_uid not in (
                detail.get("locked_uid"),
                detail.get("source_uid"),
            ):
                continue
            said = " ".join(f"{key}={value}" for key, value in detail.items() if value is not None)
            yield f"{entry.number} {text_of(moment_of(entry.at))} {entry.event} {said}"


@dataclass(frozen=True)
class Counts:
    """What a check found in order.

    Attributes
    ----------
    instances, grants, live
        How many.
    uncared
        Instances for which no custodian has a live grant without an end.
    issuer
        Fingerprint of who signs.
    """

    instances: int
    grants: int
    live: int
    uncared: int
    issuer: str


def check(vault: Vault) -> Iterator[tuple[int, int] | Counts]:
    """Check every row against the others, the signatures and the audit chain.

    Yields
    ------
    tuple or Counts
        How many of how many grants are checked; at last what was found.

    Raises
    ------
    VaultDamagedError
        The first that does not fit, named.
    """
    tale = Told()
    with vault.reading() as connection:
        found = _audited(connection, each=tale.play)
        _check_file(connection)
        keys = people.lineage(connection).verify_keys
        _check_people(connection, tale)
        _check_instances(connection, tale, keys)
        total = connection.scalar(select(func.count()).select_from(grants)) or 0
        lives, lasting = 0, dict[bytes, set[str]]()
        rows = connection.execution_options(yield_per=1000).execute(select(grants))
        for number, row in enumerate(rows, 1):
            grant = grant_of(row)
            _check_grant(grant, row, tale)
            if row.live:
                verify(grant, keys[-1])
                lives += 1
                if grant.expires is None:
                    lasting.setdefault(grant.recipient, set()).add(grant.locked_uid)
            if number % 1000 == 0:
                yield number, total
        if tale.grants:
            uid = next(iter(tale.grants.values()))[0]
            raise VaultDamagedError(f"a grant for {uid} was removed from the vault", RESTORE)
        keepers = [one.public.id for one in people.custodians(connection)]
        cared = set().union(*(lasting.get(one, set()) for one in keepers))
    uncared = len(set(tale.instances) - cared)
    yield Counts(len(tale.instances), total, lives, uncared, found.issuer)


def _check_people(connection: Connection, tale: Told) -> None:
    """Compare recipients and status lists with what the chain tells."""
    rows = {
        one.name: (one.public.fingerprint, one.custodian, one.retired is not None)
        for one in people.everyone(connection)
    }
    for name in sorted(rows.keys() | tale.recipients.keys()):
        if rows.get(name) != tale.recipients.get(name):
            raise VaultDamagedError(
                f"recipient {name} in the vault is not as the audit chain tells", RESTORE
            )
    last = last_status(connection)
    if last != tale.status:
        raise VaultDamagedError(
            f"the last status list is {tale.status} in the audit chain, {last} in the vault",
            RESTORE,
        )


def _check_instances(connection: Connection, tale: Told, keys: Collection[bytes]) -> None:
    """Compare instances, their records and packets, with what the chain tells."""
    seen = set()
    for row in connection.execution_options(yield_per=100).execute(select(instances)):
        seen.add(row.locked_uid)
        stored = (
            row.source_uid,
            row.binding.hex(),
            digest_of(row.record.encode()),
            digest_of(row.packet),
        )
        if tale.instances.get(row.locked_uid) != stored or not _fits(row, keys):
            raise VaultDamagedError(
                f"instance {row.locked_uid} in the vault is not as the audit chain tells", RESTORE
            )
    if missing := sorted(tale.instances.keys() - seen):
        raise VaultDamagedError(f"instance {missing[0]} was removed from the vault", RESTORE)


def _fits(row: Row[Any], keys: Collection[bytes]) -> bool:
    """Tell whether an instance's columns are those of its record, and an issuer of ours signed."""
    record = json.loads(row.record)
    uids = {
        "locked_sop_instance_uid": row.locked_uid,
        "source_sop_instance_uid": row.source_uid,
        "study_instance_uid": row.study_uid,
        "source_series_instance_uid": row.source_series_uid,
        "locked_series_instance_uid": row.locked_series_uid,
    }
    return row.issuer in keys and all(record.get(name) == uid for name, uid in uids.items())


def _check_grant(grant: Grant, row: Row[Any], tale: Told) -> None:
    """Compare a grant with what the chain tells, and take it off the tale."""
    state = LIVE if row.live else REPLACED if row.revoked is None else REVOKED
    stored = (
        grant.locked_uid,
        fingerprint_of(grant.recipient),
        grant.sealed_digest.hex(),
        state,
    )
    instance = tale.instances.get(grant.locked_uid, ("", "", "", None))
    unfit = row.live and (row.revoked is not None or instance[1] != grant.binding.hex())
    if tale.grants.pop(grant.grant_id.hex(), None) != stored or unfit:
        raise VaultDamagedError(
            f"a grant for {grant.locked_uid} is not as the audit chain tells", RESTORE
        )


def _check_file(connection: Connection) -> None:
    """Let SQLite check its file; PostgreSQL checks its pages itself."""
    if connection.dialect.name != "sqlite":
        return
    for pragma, good in (("integrity_check", [("ok",)]), ("foreign_key_check", [])):
        found = [tuple(row) for row in connection.exec_driver_sql(f"PRAGMA {pragma}")]
        if found != good:
            raise VaultDamagedError(f"SQLite's {pragma} finds: {found[0]}", RESTORE)
