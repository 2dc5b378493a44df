"""The tables of the first nodes."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Make them."""
    op.create_table(
        "node_object",
        sa.Column("id", sa.String(length=64), nullable=False),
        sa.Column("sop_instance_uid", sa.String(length=64), nullable=False),
        sa.Column("sop_class_uid", sa.String(length=64), nullable=False),
        sa.Column("transfer_syntax_uid", sa.String(length=64), nullable=False),
        sa.Column("study_instance_uid", sa.String(length=64), nullable=False),
        sa.Column("series_instance_uid", sa.String(length=64), nullable=False),
        sa.Column("sha256", sa.String(length=64), nullable=False),
        sa.Column("size", sa.BigInteger(), nullable=False),
        sa.Column("calling_ae_title", sa.String(length=16), nullable=False),
        sa.Column("called_ae_title", sa.String(length=16), nullable=False),
        sa.Column("address", sa.String(length=64), nullable=False),
        sa.Column("received", sa.BigInteger(), nullable=False),
        sa.Column("state", sa.String(length=16), nullable=False),
        sa.Column("changed", sa.BigInteger(), nullable=False),
        sa.Column("route", sa.String(length=64), nullable=True),
        sa.Column("reason", sa.Text(), nullable=True),
        sa.Column("hint", sa.Text(), nullable=True),
        sa.Column("tries", sa.Integer(), nullable=False),
        sa.Column("starts", sa.Integer(), nullable=False),
        sa.Column("result_uid", sa.String(length=64), nullable=True),
        sa.Column("result", sa.String(length=128), nullable=True),
        sa.Column("locked", sa.BigInteger(), nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_node_object")),
    )
    for column in ("locked", "received", "result_uid", "sop_instance_uid", "state"):
        op.create_index(op.f(f"ix_node_object_{column}"), "node_object", [column], unique=False)
    op.create_index("ix_node_object_study", "node_object", ["study_instance_uid", "received"])
    op.create_table(
        "node_delivery",
        sa.Column("object_id", sa.String(length=64), nullable=False),
        sa.Column("destination", sa.String(length=64), nullable=False),
        sa.Column("state", sa.String(length=16), nullable=False),
        sa.Column("tries", sa.Integer(), nullable=False),
        sa.Column("next_try", sa.BigInteger(), nullable=True),
        sa.Column("said", sa.Text(), nullable=True),
        sa.Column("changed", sa.BigInteger(), nullable=False),
        sa.Column("transaction_uid", sa.String(length=64), nullable=True),
        sa.ForeignKeyConstraint(
            ["object_id"], ["node_object.id"], name=op.f("fk_node_delivery_object_id_node_object")
        ),
        sa.PrimaryKeyConstraint("object_id", "destination", name=op.f("pk_node_delivery")),
    )
    op.create_index(
        op.f("ix_node_delivery_transaction_uid"), "node_delivery", ["transaction_uid"], unique=False
    )
    op.create_index("ix_node_delivery_state", "node_delivery", ["destination", "state", "changed"])
    op.create_table(
        "node_promise",
        sa.Column("transaction_uid", sa.String(length=64), nullable=False),
        sa.Column("calling_ae_title", sa.String(length=16), nullable=False),
        sa.Column("items", sa.Text(), nullable=False),
        sa.Column("received", sa.BigInteger(), nullable=False),
        sa.Column("answered", sa.BigInteger(), nullable=True),
        sa.PrimaryKeyConstraint(
            "transaction_uid", "calling_ae_title", name=op.f("pk_node_promise")
        ),
    )
    op.create_table(
        "node_worker",
        sa.Column("name", sa.String(length=128), nullable=False),
        sa.Column("alive", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_node_worker")),
    )
