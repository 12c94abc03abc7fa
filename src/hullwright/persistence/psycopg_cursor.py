"""psycopg's cursor, sending many rows of a statement one by one.

psycopg sends them as a pipeline that ends in a Flush after its Sync, and PostgreSQL (seen with 15) then no longer minds how long the
transaction stays idle: a process that stalls right there would hold its locks for as long as it stalls.
Not for: other drivers of PostgreSQL.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, cast

import psycopg
from psycopg.abc import Params, Query, QueryNoTemplate


class Cursor(psycopg.Cursor[Any]):
    """For `cursor_factory`, and one statement, as SQLAlchemy's cursors are."""

    _rows_of_all: int | None = None

    def executemany(self, query: Query, params_seq: Iterable[Params], *, returning: bool = False) -> None:
        """One round trip for each row. `returning` has no effect: SQLAlchemy puts rows that answer something into one statement."""
        count = 0
        for params in params_seq:
            self.execute(cast(QueryNoTemplate, query), params, prepare=True)
            count += super().rowcount
        self._rows_of_all = count

    @property
    def rowcount(self) -> int:
        """How many rows the statement changed, with all its parameters."""
        return super().rowcount if self._rows_of_all is None else self._rows_of_all
