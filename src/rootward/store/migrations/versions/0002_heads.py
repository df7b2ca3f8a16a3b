"""The audit tree: what each leaf hashes to, and the heads."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Expand only: a program that knows 0001 alone can go on beside this."""
    op.add_column("events", sa.Column("leaf_hash", sa.LargeBinary))
    size = sa.BigInteger().with_variant(sa.Integer, "sqlite")
    op.create_table(
        "heads",
        sa.Column("size", size, primary_key=True, autoincrement=False),
        sa.Column("root", sa.LargeBinary, nullable=False),
        sa.Column("frontier", sa.LargeBinary, nullable=False),
        sa.Column("at", sa.BigInteger, nullable=False),
        sa.Column("note", sa.Text),
    )
