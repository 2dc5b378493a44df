"""The tables of the first vaults."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Make them, and an empty audit chain."""
    op.create_table(
        "audit_checkpoint",
        sa.Column("length", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("hash", sa.LargeBinary(), nullable=False),
        sa.Column("issuer", sa.LargeBinary(), nullable=False),
        sa.Column("signature", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("length", name=op.f("pk_audit_checkpoint")),
    )
    op.create_table(
        "audit_entry",
        sa.Column("number", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("at", sa.BigInteger(), nullable=False),
        sa.Column("event", sa.String(length=24), nullable=False),
        sa.Column("detail", sa.Text(), nullable=False),
        sa.Column("digest", sa.LargeBinary(), nullable=False),
        sa.Column("hash", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("number", name=op.f("pk_audit_entry")),
    )
    op.create_table(
        "audit_head",
        sa.Column("id", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("length", sa.BigInteger(), nullable=False),
        sa.Column("hash", sa.LargeBinary(), nullable=False),
        sa.Column("at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_audit_head")),
    )
    op.create_table(
        "instance",
        sa.Column("locked_uid", sa.String(length=64), nullable=False),
        sa.Column("source_uid", sa.String(length=64), nullable=False),
        sa.Column("study_uid", sa.String(length=64), nullable=False),
        sa.Column("source_series_uid", sa.String(length=64), nullable=False),
        sa.Column("locked_series_uid", sa.String(length=64), nullable=False),
        sa.Column("binding", sa.LargeBinary(), nullable=False),
        sa.Column("issuer", sa.LargeBinary(), nullable=False),
        sa.Column("locked", sa.BigInteger(), nullable=False),
        sa.Column("record", sa.Text(), nullable=False),
        sa.Column("packet", sa.LargeBinary(), nullable=True),
        sa.PrimaryKeyConstraint("locked_uid", name=op.f("pk_instance")),
    )
    op.create_index(
        op.f("ix_instance_locked_series_uid"), "instance", ["locked_series_uid"], unique=False
    )
    op.create_index(
        op.f("ix_instance_source_series_uid"), "instance", ["source_series_uid"], unique=False
    )
    op.create_index(op.f("ix_instance_source_uid"), "instance", ["source_uid"], unique=False)
    op.create_index(op.f("ix_instance_study_uid"), "instance", ["study_uid"], unique=False)
    op.create_table(
        "issuer",
        sa.Column("number", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("verify_key", sa.LargeBinary(), nullable=False),
        sa.Column("line", sa.Text(), nullable=False),
        sa.Column("succession", sa.Text(), nullable=True),
        sa.PrimaryKeyConstraint("number", name=op.f("pk_issuer")),
        sa.UniqueConstraint("verify_key", name=op.f("uq_issuer_verify_key")),
    )
    op.create_table(
        "recipient",
        sa.Column("id", sa.LargeBinary(), nullable=False),
        sa.Column("name", sa.String(length=64), nullable=False),
        sa.Column("line", sa.Text(), nullable=False),
        sa.Column("custodian", sa.Boolean(), nullable=False),
        sa.Column("added", sa.BigInteger(), nullable=False),
        sa.Column("retired", sa.BigInteger(), nullable=True),
        sa.Column("signature", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_recipient")),
        sa.UniqueConstraint("name", name=op.f("uq_recipient_name")),
    )
    op.create_table(
        "status_list",
        sa.Column("number", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("issued", sa.BigInteger(), nullable=False),
        sa.Column("revoked", sa.Integer(), nullable=False),
        sa.PrimaryKeyConstraint("number", name=op.f("pk_status_list")),
    )
    op.create_table(
        "key_grant",
        sa.Column("grant_id", sa.LargeBinary(), nullable=False),
        sa.Column("locked_uid", sa.String(length=64), nullable=False),
        sa.Column("recipient", sa.LargeBinary(), nullable=False),
        sa.Column("binding", sa.LargeBinary(), nullable=False),
        sa.Column("expires", sa.BigInteger(), nullable=True),
        sa.Column("sealed", sa.LargeBinary(), nullable=False),
        sa.Column("signature", sa.LargeBinary(), nullable=False),
        sa.Column("issued", sa.BigInteger(), nullable=False),
        sa.Column("live", sa.Boolean(), nullable=False),
        sa.Column("revoked", sa.BigInteger(), nullable=True),
        sa.ForeignKeyConstraint(
            ["locked_uid"], ["instance.locked_uid"], name=op.f("fk_key_grant_locked_uid_instance")
        ),
        sa.ForeignKeyConstraint(
            ["recipient"], ["recipient.id"], name=op.f("fk_key_grant_recipient_recipient")
        ),
        sa.PrimaryKeyConstraint("grant_id", name=op.f("pk_key_grant")),
    )
    op.create_index("ix_key_grant_locked_uid", "key_grant", ["locked_uid"], unique=False)
    op.create_index(
        "uq_key_grant_live",
        "key_grant",
        ["recipient", "locked_uid"],
        unique=True,
        sqlite_where=sa.text("live"),
        postgresql_where=sa.text("live"),
    )
    op.create_table(
        "receipt",
        sa.Column("digest", sa.LargeBinary(), nullable=False),
        sa.Column("recipient", sa.LargeBinary(), nullable=False),
        sa.Column("received", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(
            ["recipient"], ["recipient.id"], name=op.f("fk_receipt_recipient_recipient")
        ),
        sa.PrimaryKeyConstraint("digest", name=op.f("pk_receipt")),
    )
    head = sa.table(
        "audit_head", sa.column("id"), sa.column("length"), sa.column("hash"), sa.column("at")
    )
    op.bulk_insert(head, [{"id": 1, "length": 0, "hash": bytes(32), "at": 0}])
