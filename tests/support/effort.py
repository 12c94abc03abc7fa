"""How much work a call is, whatever the machine is doing meanwhile: what a test may assert where a time would tell of the machine."""

from __future__ import annotations

import gc
import re
import sys
from collections.abc import Callable
from types import FrameType
from typing import Any

import sqlalchemy as sa

from hullwright.persistence.database import Database


def count_calls(action: Callable[[], Any]) -> int:
    """How many functions, Python's and C's, are called in this thread while `action` runs.

    What a collection of garbage would call is not counted: when one comes depends on all that was made before.
    """
    calls = 0

    def note(_frame: FrameType, event: str, _argument: Any) -> None:
        nonlocal calls
        calls += event in ("call", "c_call")

    gc.collect()
    gc.disable()
    before = sys.getprofile()
    sys.setprofile(note)
    try:
        action()
    finally:
        sys.setprofile(before)
        gc.enable()
    return calls


def scans(db: Database, action: Callable[[], Any]) -> tuple[int, list[tuple[str, str | None, str]]]:
    """How many statements read something while `action` runs on SQLite, and which of them go through a whole table or index.

    Each of these: (table or its alias, index, the statement).
    """
    asked: list[tuple[str, Any]] = []

    def note(*told: Any) -> None:
        if "FROM" in told[2]:
            asked.append((told[2], told[3]))

    sa.event.listen(db.engine, "before_cursor_execute", note)
    try:
        action()
    finally:
        sa.event.remove(db.engine, "before_cursor_execute", note)
    found = []
    with db.read() as connection:
        for text, given in asked:
            for row in connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {text}", given):
                if scan := re.match(r"SCAN (\w+)(?: USING (?:COVERING )?INDEX (\w+))?", row[3]):
                    found.append((scan[1], scan[2], text))
    return len(asked), found
