"""Pages of a list by marker: rows after the marker's row in a total order, so that a page never depends on how many come before.

Not for: which rows are listed; the repositories' filters say that.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection

Sort = Sequence[tuple[str, bool]]  # (column's name, descending)


def page(
    conn: Connection, statement: sa.Select[Any], table: sa.Table, sort: Sort, marker: str | None, limit: int | None
) -> list[sa.RowMapping]:
    """The rows of `statement` in order, from after `marker` (an id) on.

    The id ends the order, so that it is total. NULL counts as the empty string, or as zero.
    Raises: LookupError when there is no row with the marker's id.
    """
    names = [name for name, _ in sort]
    order = [*sort, *([] if "id" in names else [("id", sort[-1][1] if sort else False)])]
    keys = [(_comparable(table.c[name]), descending) for name, descending in order]
    if marker is not None:
        found = conn.execute(sa.select(*(key for key, _ in keys)).where(table.c.id == marker)).one_or_none()
        if found is None:
            raise LookupError(marker)
        # (a, b, id) > (A, B, ID), spelt out because each may run in its own direction.
        either: list[sa.ColumnElement[bool]] = []
        equal: sa.ColumnElement[bool] = sa.true()
        for (key, descending), value in zip(keys, found, strict=True):
            either.append(sa.and_(equal, key < value if descending else key > value))
            equal = sa.and_(equal, key == value)
        statement = statement.where(sa.or_(*either))
    statement = statement.order_by(*(key.desc() if descending else key.asc() for key, descending in keys))
    if limit is not None:
        statement = statement.limit(limit)
    return list(conn.execute(statement).mappings())


def _comparable(column: sa.Column[Any]) -> sa.ColumnElement[Any]:
    if not column.nullable:
        return column
    return sa.func.coalesce(column, "" if isinstance(column.type, sa.String) else 0)
