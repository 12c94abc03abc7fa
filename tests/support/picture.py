"""All that a house's database says, as plain values, to be compared with what it says later. Who serves is left out."""

from __future__ import annotations

import json
from typing import Any

import sqlalchemy as sa

from hullwright.persistence.models import metadata
from support.house import House

TABLES = [table for table in metadata.sorted_tables if table.name != "conductors"]
Rows = dict[str, dict[str, dict[str, Any]]]  # table -> primary key -> row


def rows(house: House) -> Rows:
    """Every row."""
    found: Rows = {}
    with house.db.read() as connection:
        for table in TABLES:
            keys = [column.name for column in table.primary_key]
            of_table = [dict(row) for row in connection.execute(sa.select(table)).mappings()]
            found[table.name] = {json.dumps([row[key] for key in keys]): row for row in of_table}
    return found
