"""What an authority is before it is certified and after it ends; proposals of two people; ceremonies and what is asked
of them. The tables' SQL lies beside this file, one for each dialect.
"""

from __future__ import annotations

from pathlib import Path

from alembic import op
from sqlalchemy import BigInteger, Column, LargeBinary, Text

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Expand only: code of before does not know these columns and tables and does not need to."""
    for name in ("spec", "backend", "key_id", "successor"):
        op.add_column("authorities", Column(name, Text))
    op.add_column("authorities", Column("csr", LargeBinary))
    for name in ("requested_at", "compromised_at", "waves_until", "destroyed_at"):
        op.add_column("authorities", Column(name, BigInteger))
    conn = op.get_bind()
    for statement in Path(__file__).with_name(f"0009.{conn.dialect.name}.sql").read_text().split(";\n"):
        if statement.strip():
            conn.exec_driver_sql(statement)
