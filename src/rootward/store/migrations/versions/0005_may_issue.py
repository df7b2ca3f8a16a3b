"""On PostgreSQL, the question that an intent's own statement asks: whether its authority may issue (ADR 0020)."""

from __future__ import annotations

from alembic import op

revision = "0005"
down_revision = "0003"
branch_labels = None
depends_on = None

# VOLATILE, so that the second statement sees what was committed before the first one got its lock. Freezing takes the
# same lock exclusively (store/authorities.py).
_POSTGRESQL = """
    CREATE FUNCTION rootward_may_issue(which text) RETURNS boolean LANGUAGE plpgsql VOLATILE AS $$ BEGIN
    PERFORM pg_advisory_xact_lock_shared(1382445690, hashtext(which));
    RETURN EXISTS (SELECT 1 FROM authorities WHERE name = which AND frozen_at IS NULL AND retired_at IS NULL);
    END $$
"""


def upgrade() -> None:
    """Expand only: nothing that is there changes. SQLite has one writer, and needs no lock to be asked under."""
    if op.get_bind().dialect.name == "postgresql":
        op.execute(_POSTGRESQL)
