"""What all tables are made of: the one `metadata`, keys, and times as whole Unix seconds."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from sqlalchemy import BigInteger, Column, Integer, MetaData, TypeDecorator

metadata = MetaData()
Serial64 = BigInteger().with_variant(Integer, "sqlite")


class Moment(TypeDecorator[datetime]):
    """An aware UTC datetime, kept as whole Unix seconds."""

    impl = BigInteger
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Any) -> int | None:
        return self.seconds(value)

    def process_result_value(self, value: int | None, dialect: Any) -> datetime | None:
        return self.moment(value)

    @staticmethod
    def seconds(value: datetime | None) -> int | None:
        """What is stored. ValueError for a naive time (I-68)."""
        if value is None:
            return None
        if value.tzinfo is None:
            raise ValueError("a time without a zone never goes into the store (I-68)")
        return int(value.timestamp())

    @staticmethod
    def moment(value: int | None) -> datetime | None:
        """What was stored, as aware UTC."""
        return None if value is None else datetime.fromtimestamp(value, UTC)


def key() -> Column[int]:
    """The number of a row, in the order in which rows were made."""
    return Column("n", Serial64, primary_key=True, autoincrement=True)
