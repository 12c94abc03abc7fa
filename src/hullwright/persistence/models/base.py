"""Column types and helpers that all tables share.

Times are seconds since the epoch as floats: the same on every database, cheap to compare, no time zones.
"""

from __future__ import annotations

from typing import Any

import orjson
from sqlalchemy import BigInteger, Column, Double, Integer, MetaData, String, Text
from sqlalchemy.types import TypeDecorator

# Names for constraints, so that migrations can address them on every database.
metadata = MetaData(
    naming_convention={
        "ix": "ix_%(column_0_label)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "fk": "fk_%(table_name)s_%(column_0_name)s_%(referred_table_name)s",
        "pk": "pk_%(table_name)s",
    }
)

BigKey = BigInteger().with_variant(Integer, "sqlite")  # SQLite counts rows only in INTEGER PRIMARY KEY


class Json(TypeDecorator[Any]):
    """JSON as text, by orjson: the database never looks inside, so its own JSON type would only cost."""

    impl = Text
    cache_ok = True

    def process_bind_param(self, value: Any, dialect: Any) -> str | None:
        """To text."""
        return None if value is None else orjson.dumps(value).decode()

    def process_result_value(self, value: str | None, dialect: Any) -> Any:
        """From text."""
        return None if value is None else orjson.loads(value)


def key() -> Column[int]:
    """A growing number as primary key."""
    return Column("id", BigKey, primary_key=True, autoincrement=True)


def uuid_key(name: str = "id") -> Column[str]:
    """A uuid as primary key."""
    return Column(name, String(36), primary_key=True)


def time_column(name: str, *, nullable: bool = False) -> Column[float]:
    """Seconds since the epoch, which `info` says too."""
    return Column(name, Double, nullable=nullable, info={"epoch": True})
