"""Revoked certificates: all that a CRL lists in one index, so that a million entries are read without their rows; and
the order of their expiry, and which are an owner's. What of an owner expires next, for the same order.
"""

from __future__ import annotations

from alembic import op
from sqlalchemy import text

revision = "0007"
down_revision = "0005"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Expand only. The index that it begins like, on the same rows, is not needed beside it."""
    revoked = text("revoked_at IS NOT NULL")
    op.create_index(
        "certificates_listed",
        "certificates",
        ["issuer", "revoked_at", "n", "serial", "reason", "not_after"],
        sqlite_where=revoked,
        postgresql_where=revoked,
    )
    op.create_index(
        "certificates_revoked_expiry",
        "certificates",
        ["not_after", "n"],
        sqlite_where=revoked,
        postgresql_where=revoked,
    )
    op.create_index(
        "certificates_revoked_owner",
        "certificates",
        ["owner", "n"],
        sqlite_where=revoked,
        postgresql_where=revoked,
    )
    op.create_index("certificates_owner_expiry", "certificates", ["owner", "not_after", "n"])
    op.drop_index("certificates_revoked", "certificates")
