"""A database with all tables, once on SQLite and once on PostgreSQL, for the embedded services' tests."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from hullwright.persistence.database import Database
from hullwright.persistence.models import metadata


@pytest.fixture(params=["sqlite", "postgresql"])
def any_db(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Database]:
    """Each test that asks for it runs on both databases."""
    sqlite = f"sqlite:///{tmp_path}/test.db"
    url = sqlite if request.param == "sqlite" else request.getfixturevalue("fresh_postgres_url")
    yield from _open(url)


@pytest.fixture
def db(tmp_path: Path) -> Iterator[Database]:
    """SQLite, for what does not depend on the database."""
    yield from _open(f"sqlite:///{tmp_path}/test.db")


def _open(url: str) -> Iterator[Database]:
    db = Database(url)
    metadata.create_all(db.engine)
    yield db
    db.close()
