"""INSERT that leaves a row alone which is there already, for code that holds a connection and no `Database`.

It is how concurrent writers meet on a unique index without an error that would end their transaction.
"""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects import mysql, postgresql, sqlite
from sqlalchemy.engine import Connection


def insert_if_absent(conn: Connection, table: sa.Table, values: dict[str, Any]) -> bool:
    """Insert one row; False when any unique index holds such a row already, committed by whomever."""
    statement: Any
    match conn.dialect.name:
        case "postgresql":
            statement = postgresql.insert(table).on_conflict_do_nothing()
        case "mysql" | "mariadb":
            statement = mysql.insert(table).prefix_with("IGNORE")
        case _:
            statement = sqlite.insert(table).on_conflict_do_nothing()
    # Without the option SQLAlchemy does not ask the driver for an INSERT's count.
    done = conn.execute(statement, values, execution_options={"preserve_rowcount": True})
    return done.rowcount == 1
