"""Heads of the audit tree name the one before them, and each has one successor at most."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Expand only. Nothing has written a head before this version."""
    op.add_column("heads", sa.Column("was", sa.BigInteger().with_variant(sa.Integer, "sqlite")))
    op.create_index("heads_was", "heads", ["was"], unique=True)
