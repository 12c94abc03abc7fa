"""Imported once by the server that forks the harness's processes, so that none of them begins cold.

SQLAlchemy compiles each statement once per engine, which is half of what a short conductor costs. Here engines of one kind of database
share what they compiled, and builds and deletes are played before the first fork: children inherit their statements, and all modules.
"""

from __future__ import annotations

import functools
import gc
import tempfile
from pathlib import Path
from typing import Any

from sqlalchemy.dialects.postgresql.psycopg import PGDialect_psycopg
from sqlalchemy.dialects.sqlite.pysqlite import SQLiteDialect_pysqlite

import hullwright.api.app  # noqa: F401
from crash import children, strikes, troubles  # noqa: F401
from crash.scenarios import MARKER, SCENARIOS
from hullwright.persistence.database import Database
from support import invariants
from support.house import House

_compiled: dict[Any, Any] = {}


def _share() -> None:
    """Have equal dialects be equal: the key of a compiled statement holds the dialect."""
    for kind in (SQLiteDialect_pysqlite, PGDialect_psycopg):
        kind.__eq__ = lambda ours, other: type(ours) is type(other)  # type: ignore[assignment, method-assign]
        kind.__hash__ = lambda ours: hash(type(ours))  # type: ignore[assignment, method-assign]
    inner = Database.__init__

    @functools.wraps(inner)
    def made(database: Database, *args: Any, **kwargs: Any) -> None:
        inner(database, *args, **kwargs)
        database.engine.update_execution_options(compiled_cache=_compiled)

    Database.__init__ = made  # type: ignore[method-assign]


def _play(name: str) -> None:
    with tempfile.TemporaryDirectory() as directory:
        house = House(Path(directory), conductor={"poll_interval": 0.02, "retry_interval": 0.1})
        facts = SCENARIOS[name].furnish(house)
        with house.conductor():
            house.rest()
        invariants.check(house, marker=MARKER)
        SCENARIOS[name].expect(house, facts)
        house.close()


_share()
for _name in ("fail", "delete"):
    _play(_name)
gc.collect()
gc.freeze()  # children's collections leave all of this where it is, shared
