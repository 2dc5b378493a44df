"""The tables of a vault. Moments are whole seconds since 1970; keys and digests are bytes.

A change here is a new revision in ``vault/revisions``; a test holds the two together.
"""

from __future__ import annotations

from typing import Final

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    Text,
    text,
)

from medlocker_dicom.database import NAMES

metadata = MetaData(naming_convention=NAMES)
_UID: Final = String(64)

#: Issuers in the order in which they followed each other; `succession` leads to each but the first.
issuers = Table(
    "issuer",
    metadata,
    Column("number", Integer, primary_key=True, autoincrement=False),
    Column("verify_key", LargeBinary, nullable=False, unique=True),
    Column("line", Text, nullable=False),
    Column("succession", Text),
)

#: Each row is signed by the present issuer: who writes the database adds nobody.
recipients = Table(
    "recipient",
    metadata,
    Column("id", LargeBinary, primary_key=True),
    Column("name", String(64), nullable=False, unique=True),
    Column("line", Text, nullable=False),
    Column("custodian", Boolean, nullable=False),
    Column("added", BigInteger, nullable=False),
    Column("retired", BigInteger),
    Column("signature", LargeBinary, nullable=False),
)

instances = Table(
    "instance",
    metadata,
    Column("locked_uid", _UID, primary_key=True),
    Column("source_uid", _UID, nullable=False, index=True),
    Column("study_uid", _UID, nullable=False, index=True),
    Column("source_series_uid", _UID, nullable=False, index=True),
    Column("locked_series_uid", _UID, nullable=False, index=True),
    Column("binding", LargeBinary, nullable=False),
    Column("issuer", LargeBinary, nullable=False),
    Column("locked", BigInteger, nullable=False),
    Column("record", Text, nullable=False),
    Column("packet", LargeBinary),
)

#: Every grant that was ever issued; of one instance and recipient at most one is live.
grants = Table(
    "key_grant",  # GRANT is a word of SQL
    metadata,
    Column("grant_id", LargeBinary, primary_key=True),
    Column("locked_uid", _UID, ForeignKey(instances.c.locked_uid), nullable=False),
    Column("recipient", LargeBinary, ForeignKey(recipients.c.id), nullable=False),
    Column("binding", LargeBinary, nullable=False),
    Column("expires", BigInteger),
    Column("sealed", LargeBinary, nullable=False),
    Column("signature", LargeBinary, nullable=False),
    Column("issued", BigInteger, nullable=False),
    Column("live", Boolean, nullable=False),
    Column("revoked", BigInteger),
)
Index(
    "uq_key_grant_live",
    grants.c.recipient,
    grants.c.locked_uid,
    unique=True,
    sqlite_where=text("live"),
    postgresql_where=text("live"),
)
Index("ix_key_grant_locked_uid", grants.c.locked_uid)

receipts = Table(
    "receipt",
    metadata,
    Column("digest", LargeBinary, primary_key=True),
    Column("recipient", LargeBinary, ForeignKey(recipients.c.id), nullable=False),
    Column("received", BigInteger, nullable=False),
)

#: Status lists that were signed, so that their numbers never fall.
statuses = Table(
    "status_list",
    metadata,
    Column("number", BigInteger, primary_key=True, autoincrement=False),
    Column("issued", BigInteger, nullable=False),
    Column("revoked", Integer, nullable=False),
)

entries = Table(
    "audit_entry",
    metadata,
    Column("number", BigInteger, primary_key=True, autoincrement=False),
    Column("at", BigInteger, nullable=False),
    Column("event", String(24), nullable=False),
    Column("detail", Text, nullable=False),
    Column("digest", LargeBinary, nullable=False),
    Column("hash", LargeBinary, nullable=False),
)

#: One row: how long the chain is, and the hash at its end. Writers wait for each other here.
head = Table(
    "audit_head",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=False),
    Column("length", BigInteger, nullable=False),
    Column("hash", LargeBinary, nullable=False),
    Column("at", BigInteger, nullable=False),
)

#: An issuer's signatures over the chain as it was.
checkpoints = Table(
    "audit_checkpoint",
    metadata,
    Column("length", BigInteger, primary_key=True, autoincrement=False),
    Column("hash", LargeBinary, nullable=False),
    Column("issuer", LargeBinary, nullable=False),
    Column("signature", LargeBinary, nullable=False),
)
