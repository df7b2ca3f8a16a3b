"""ACME's tables, and the cross-signed certificates of authorities. Their SQL lies beside this file, one for each
dialect.
"""

from __future__ import annotations

from pathlib import Path

from alembic import op
from sqlalchemy import Column, Text

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Expand only: code of before does not know these tables and does not need to."""
    conn = op.get_bind()
    for statement in Path(__file__).with_name(f"0008.{conn.dialect.name}.sql").read_text().split(";\n"):
        if statement.strip():
            conn.exec_driver_sql(statement)
    op.add_column("requests", Column("asked_by", Text))
