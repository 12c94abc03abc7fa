"""The column `changed`: a number that orders what happened to hosts, aggregates and instances, so that a scheduler reads only news.

A row's number is taken by the very statement that writes the row. A reader asks for the `horizon` first, then for the rows whose number is
at least that of its last horizon. Whatever was not to be seen when a horizon was taken will have a number that is at least as large:

* PostgreSQL: the number is the writer's transaction id, the horizon the oldest transaction still running. Commits may come in any order; a
  transaction that stays open has rows read again until it ends, never missed.
* SQLite: one writer at a time, so that one more than the largest number counts commits in their order.

Not for: what a reader does with the rows; see `scheduler/snapshot.py` and `scheduler/surroundings.py`.
"""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.functions import FunctionElement

# The largest number so far plus one. Numbers never go back: a removed host leaves its own in `removed_hosts`, an aggregate in
# `removed_aggregates`, instances stay as records.
TABLES = ("hosts", "inventories", "removed_hosts", "aggregates", "removed_aggregates", "instances")
_LARGEST = " UNION ALL ".join(f"SELECT max(changed) AS n FROM {name}" for name in TABLES)
_ONE_MORE = f"(SELECT coalesce(max(n), 0) + 1 FROM ({_LARGEST}))"


class NextChange(FunctionElement[int]):
    """The number of a change that is being written."""

    inherit_cache = True
    type = sa.BigInteger()


class Horizon(FunctionElement[int]):
    """The number that no change yet to be seen is below."""

    inherit_cache = True
    type = sa.BigInteger()


@compiles(NextChange, "sqlite")
@compiles(Horizon, "sqlite")
def _one_more(_element: Any, _compiler: Any, **_more: Any) -> str:
    return _ONE_MORE


@compiles(NextChange, "postgresql")
def _transaction(_element: Any, _compiler: Any, **_more: Any) -> str:
    return "CAST(CAST(pg_current_xact_id() AS TEXT) AS BIGINT)"


@compiles(Horizon, "postgresql")
def _oldest_transaction(_element: Any, _compiler: Any, **_more: Any) -> str:
    return "CAST(CAST(pg_snapshot_xmin(pg_current_snapshot()) AS TEXT) AS BIGINT)"


def changed_column() -> sa.Column[int]:
    """`changed`: set by each INSERT and UPDATE that does not say otherwise."""
    return sa.Column("changed", sa.BigInteger, nullable=False, default=NextChange(), onupdate=NextChange(), index=True)
