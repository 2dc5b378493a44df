"""The tables of a node's queue. Moments are milliseconds since 1970.

A change here is a new revision in ``node/revisions``; a test holds the two together.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

from sqlalchemy import (
    BigInteger,
    Column,
    ForeignKey,
    Index,
    Integer,
    MetaData,
    String,
    Table,
    Text,
)

from medlocker_dicom.database import NAMES, Tables

metadata = MetaData(naming_convention=NAMES)
_UID: Final = String(64)
_AE: Final = String(16)

#: Objects that were answered Success, by `ledger.object_id`.
objects = Table(
    "node_object",
    metadata,
    Column("id", String(64), primary_key=True),
    Column("sop_instance_uid", _UID, nullable=False, index=True),
    Column("sop_class_uid", _UID, nullable=False),
    Column("transfer_syntax_uid", _UID, nullable=False),
    Column("study_instance_uid", _UID, nullable=False),
    Column("series_instance_uid", _UID, nullable=False),
    Column("sha256", String(64), nullable=False),
    Column("size", BigInteger, nullable=False),
    Column("calling_ae_title", _AE, nullable=False),
    Column("called_ae_title", _AE, nullable=False),
    Column("address", String(64), nullable=False),
    Column("received", BigInteger, nullable=False, index=True),
    Column("state", String(16), nullable=False, index=True),
    Column("changed", BigInteger, nullable=False),
    Column("route", String(64)),
    Column("reason", Text),
    Column("hint", Text),
    Column("tries", Integer, nullable=False),
    Column("starts", Integer, nullable=False),
    Column("result_uid", _UID, index=True),
    Column("result", String(128)),
    Column("locked", BigInteger, index=True),
)
#: Newest studies, without a look at the rows.
Index("ix_node_object_study", objects.c.study_instance_uid, objects.c.received)

#: What is to be sent where.
deliveries = Table(
    "node_delivery",
    metadata,
    Column("object_id", String(64), ForeignKey(objects.c.id), primary_key=True),
    Column("destination", String(64), primary_key=True),
    Column("state", String(16), nullable=False),
    Column("tries", Integer, nullable=False),
    Column("next_try", BigInteger),
    Column("said", Text),
    Column("changed", BigInteger, nullable=False),
    Column("transaction_uid", _UID, index=True),
)
Index("ix_node_delivery_state", deliveries.c.destination, deliveries.c.state, deliveries.c.changed)

#: Requests of storage commitment that senders made of the node, until they are answered.
promises = Table(
    "node_promise",
    metadata,
    Column("transaction_uid", _UID, primary_key=True),
    Column("calling_ae_title", _AE, primary_key=True),
    Column("items", Text, nullable=False),
    Column("received", BigInteger, nullable=False),
    Column("answered", BigInteger),
)

#: Processes that work, with the moment at which each was last alive.
workers = Table(
    "node_worker",
    metadata,
    Column("name", String(128), primary_key=True),
    Column("alive", BigInteger, nullable=False),
)

TABLES: Final = Tables(
    "queue of a node",
    metadata,
    objects.name,
    Path(__file__).with_name("revisions"),
    "node_revision",
    "medlocker node run",
)
