"""INSERTs that meet a row that is there already: leave it alone, or replace some of its columns. Both databases say it alike, and
SQLAlchemy has a construct for each.

It is how concurrent writers meet on a unique index without an error that would end their transaction. Statements are built once.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.engine import Connection

_INSERTS: dict[str, Any] = {"postgresql": postgresql.insert, "sqlite": sqlite.insert}


@cache
def _if_absent(dialect: str, table: sa.Table) -> Any:
    statement = _INSERTS[dialect](table).on_conflict_do_nothing()
    # Without the option SQLAlchemy does not ask the driver for an INSERT's count.
    return statement.execution_options(preserve_rowcount=True)


@cache
def _replacing(dialect: str, table: sa.Table, keys: tuple[str, ...], columns: tuple[str, ...]) -> Any:
    statement = _INSERTS[dialect](table)
    return statement.on_conflict_do_update(index_elements=keys, set_={name: statement.excluded[name] for name in columns})


def insert_if_absent(conn: Connection, table: sa.Table, values: dict[str, Any]) -> bool:
    """Insert one row; False when any unique index holds such a row already, committed by whomever."""
    return conn.execute(_if_absent(conn.dialect.name, table), values).rowcount == 1


def insert_those_absent(conn: Connection, table: sa.Table, rows: Sequence[Mapping[str, Any]]) -> int:
    """Insert rows but those that a unique index holds already; answers how many went in."""
    return conn.execute(_if_absent(conn.dialect.name, table), list(rows)).rowcount


def upsert(
    conn: Connection, table: sa.Table, rows: Mapping[str, Any] | Sequence[Mapping[str, Any]], *, keys: Sequence[str], replace: Sequence[str]
) -> None:
    """Insert rows; where one with the same `keys` is there, replace its columns `replace`."""
    conn.execute(_replacing(conn.dialect.name, table, tuple(keys), tuple(replace)), rows if isinstance(rows, Mapping) else list(rows))
