"""What all tests share: the fixtures of tests/support, and `db`, a fresh database on SQLite and on PostgreSQL.

A test that asks for `db` runs once on each. `sqlite_db` gives one database only, for tests that are not about SQL.
"""

import shutil
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
from hypothesis import settings

import hullwright.persistence.models  # noqa: F401  (fills the metadata)
from hullwright.conf import opts
from hullwright.drivers import fake_journal
from hullwright.persistence.database import Database
from hullwright.persistence.models import metadata

_here = Path(__file__).parent
# They import each other, in any order: all are rewritten, whoever comes first.
pytest.register_assert_rewrite("support")
pytest_plugins = [f"support.{path.stem}" for path in sorted((_here / "support").glob("[!_]*.py"))]


# How long an example takes says something of the machine. A failure prints what repeats it.
settings.register_profile("hullwright", deadline=None, print_blob=True)
settings.load_profile("hullwright")


@pytest.fixture(autouse=True)
def _no_open_journals(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Thousands of fake hosts come and go in one process of tests."""
    yield
    fake_journal.close_all(tmp_path_factory.getbasetemp())


def _create_tables(url: str) -> None:
    database = Database(url)
    metadata.create_all(database.engine)
    database.close()


@pytest.fixture(scope="session")
def sqlite_template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A SQLite file with all tables, to be copied."""
    path = tmp_path_factory.mktemp("sqlite") / "template.db"
    _create_tables(f"sqlite:///{path}")
    return path


@pytest.fixture(scope="session")
def postgres_template(request: pytest.FixtureRequest) -> str:
    """The name of a PostgreSQL database with all tables, to be copied."""
    name: str = request.getfixturevalue("postgres_server").make_template("hullwright_tables", _create_tables)
    return name


@pytest.fixture
def sqlite_url(sqlite_template: Path, tmp_path: Path) -> str:
    """The URL of a fresh SQLite database with all tables."""
    path = tmp_path / "hullwright.db"
    shutil.copyfile(sqlite_template, path)
    return f"sqlite:///{path}"


@pytest.fixture(scope="session")
def _emptied_databases() -> list[str]:
    """URLs of databases that tests are done with, emptied: making one costs PostgreSQL more than most tests do."""
    return []


@pytest.fixture
def postgres_tables_url(request: pytest.FixtureRequest, postgres_template: str, _emptied_databases: list[str]) -> Iterator[str]:
    """The URL of a PostgreSQL database with all tables, empty."""
    url = _emptied_databases.pop() if _emptied_databases else request.getfixturevalue("postgres_server").create_database(postgres_template)
    yield url
    _empty(url)
    _emptied_databases.append(url)


def _empty(url: str) -> None:
    """Leave nobody connected and no row."""
    with psycopg.connect(url.replace("postgresql+psycopg", "postgresql"), autocommit=True) as connection:
        others = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"
        connection.execute(others)  # type: ignore[arg-type]
        names = [f'"{table.name}"' for table in metadata.sorted_tables]
        looks = " UNION ALL ".join(f"(SELECT '{name}' FROM {name} LIMIT 1)" for name in names)
        used = [row[0] for row in connection.execute(looks)]  # type: ignore[arg-type]
        if used:
            connection.execute(f"TRUNCATE {', '.join(used)} RESTART IDENTITY CASCADE")  # type: ignore[arg-type]


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.postgresql)])
def db_url(request: pytest.FixtureRequest) -> str:
    """The URL of a fresh database with all tables, on each kind in turn."""
    name = "sqlite_url" if request.param == "sqlite" else "postgres_tables_url"
    url: str = request.getfixturevalue(name)
    return url


@pytest.fixture
def db(db_url: str) -> Iterator[Database]:
    """A fresh database with all tables, on each kind in turn."""
    database = Database(db_url, pool_size=16)
    yield database
    database.close()


@pytest.fixture
def sqlite_db(sqlite_url: str) -> Iterator[Database]:
    """A fresh SQLite database with all tables."""
    database = Database(sqlite_url)
    yield database
    database.close()


@pytest.fixture
def conf(tmp_path: Path) -> opts.cfg.ConfigOpts:
    """The options with their defaults, and a state_path of the test's own; change them with `conf.set_override`."""
    return opts.load([], {"DEFAULT": {"state_path": str(tmp_path)}})
