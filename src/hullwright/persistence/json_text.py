"""Conditions on JSON columns, which are text to the database: compact, as orjson writes it.

A quoted word stands nowhere in such a text but as itself: quotes within others are escaped.
"""

from __future__ import annotations

from typing import Any

import orjson
import sqlalchemy as sa

from hullwright.persistence.patterns import holds


def has_item(column: sa.Column[Any], item: str) -> sa.ColumnElement[bool]:
    """A list has this text among its items."""
    return holds(column, orjson.dumps(item).decode())


def has_member(column: sa.Column[Any], key: str, value: str) -> sa.ColumnElement[bool]:
    """An object has this member."""
    return holds(column, orjson.dumps({key: value}).decode()[1:-1])
