"""A process that stalls inside a transaction: PostgreSQL ends the transaction, whatever was sent last in it."""

from __future__ import annotations

import time
from typing import Any

import pytest
import sqlalchemy as sa

from hullwright.persistence import database
from hullwright.persistence.database import Database

things = sa.Table("things_of_a_stall", sa.MetaData(), sa.Column("id", sa.Integer, primary_key=True), sa.Column("name", sa.String))
ROWS = [{"id": 1, "name": "a"}, {"id": 2, "name": "b"}]


@pytest.mark.postgresql
@pytest.mark.parametrize(
    ("statement", "parameters", "rows"),
    [
        (sa.insert(things), ROWS[0], 1),
        (sa.insert(things), ROWS, 2),
        (sa.update(things).where(things.c.id == sa.bindparam("its_id")), [{"its_id": 3, "name": "d"}, {"its_id": 4, "name": "e"}], 1),
    ],
    ids=["one row", "many rows", "many changes"],
)
def test_what_an_idle_transaction_holds_is_free_again(
    fresh_postgres_url: str, monkeypatch: pytest.MonkeyPatch, statement: sa.Insert | sa.Update, parameters: Any, rows: int
) -> None:
    monkeypatch.setattr(database, "_IDLE_TRANSACTION_SECONDS", 1)
    db = Database(fresh_postgres_url)
    try:
        things.create(db.engine)
        with db.engine.connect() as stalls:
            stalls.exec_driver_sql("BEGIN")
            stalls.exec_driver_sql("LOCK TABLE things_of_a_stall")
            stalls.execute(sa.insert(things), {"id": 3, "name": "c"})
            done = stalls.execute(statement, parameters, execution_options={"preserve_rowcount": True})
            assert done.rowcount == rows
            with db.write() as other:
                other.exec_driver_sql("SET LOCAL lock_timeout = '20s'")
                began = time.monotonic()
                other.exec_driver_sql("LOCK TABLE things_of_a_stall")
                assert time.monotonic() - began > 0.5, "it was not locked"
            with pytest.raises(sa.exc.DBAPIError, match="idle-in-transaction"):
                stalls.exec_driver_sql("COMMIT")
            stalls.invalidate()
    finally:
        db.close()
