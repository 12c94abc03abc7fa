"""Migrations: the migrated schema is that of the models, and a service runs on no other."""

import multiprocessing
import re
import subprocess
import sys
from pathlib import Path

import pytest
import sqlalchemy as sa
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory

import hullwright.persistence.migrations
from hullwright.persistence import schema
from hullwright.persistence.database import Database
from hullwright.persistence.models import metadata


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.postgresql)])
def empty_url(request, tmp_path):
    """An empty database of each kind."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/empty.db"
    return request.getfixturevalue("fresh_postgres_url")


@pytest.fixture
def empty_db(empty_url):
    database = Database(empty_url)
    yield database
    database.close()


def described(db):
    """All that the database itself tells of its tables, apart from Alembic's."""
    inspector = sa.inspect(db.engine)
    found = {}
    for table in sorted(set(inspector.get_table_names()) - {"alembic_version"}):
        found[table] = {
            "columns": [(c["name"], str(c["type"]), c["nullable"], c["default"]) for c in inspector.get_columns(table)],
            "key": inspector.get_pk_constraint(table),
            "foreign keys": sorted(map(str, inspector.get_foreign_keys(table))),
            "unique": sorted(map(str, inspector.get_unique_constraints(table))),
            "checks": sorted(map(str, inspector.get_check_constraints(table))),
            "indexes": sorted(map(_index, inspector.get_indexes(table))),
        }
    return found


def _index(told):
    options = {name: str(value) for name, value in told.get("dialect_options", {}).items()}
    return str((told["name"], told["column_names"], told["unique"], options))


def test_the_migrated_schema_is_that_of_the_models(empty_db):
    assert schema.upgrade(empty_db) is None
    with empty_db.read() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True, "compare_server_default": True})
        assert compare_metadata(context, metadata) == [], "run tools/schema-revision"


def test_constraints_and_partial_indexes_are_those_of_the_models_too(empty_db, request):
    schema.upgrade(empty_db)
    other = request.getfixturevalue("sqlite_url" if empty_db.is_sqlite else "postgres_tables_url")
    made_from_models = Database(other)
    assert described(empty_db) == described(made_from_models)
    made_from_models.close()


def test_a_service_refuses_another_revision_with_a_clear_line(empty_db):
    with pytest.raises(schema.WrongSchema, match=f"schema revision none, and this version of Hullwright needs {schema.HEAD}"):
        schema.check(empty_db)
    schema.upgrade(empty_db)
    schema.check(empty_db)
    assert schema.current(empty_db) == schema.HEAD
    with empty_db.write() as connection:
        connection.execute(sa.text("UPDATE alembic_version SET version_num = '9999'"))
    with pytest.raises(schema.WrongSchema, match="revision 9999"):
        schema.check(empty_db)
    with pytest.raises(schema.WrongSchema, match="revision 9999"):
        schema.upgrade(empty_db)


@pytest.mark.parametrize("service", ["api", "conductor"])
def test_neither_service_starts_without_a_schema(service, tmp_path):
    config = tmp_path / "hullwright.conf"
    config.write_text(f"[DEFAULT]\nstate_path = {tmp_path}\n")
    command = [sys.executable, "-m", "hullwright.cli.main", "--config-file", str(config), service]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode != 0
    assert f"schema revision none, and this version of Hullwright needs {schema.HEAD}" in done.stderr
    assert "Traceback" not in done.stderr


def test_an_upgrade_that_is_not_needed_changes_nothing(empty_db):
    schema.upgrade(empty_db)
    commits = empty_db.commits
    assert schema.upgrade(empty_db) == schema.HEAD
    assert empty_db.commits == commits


def test_an_upgrade_that_fails_leaves_nothing_behind(empty_db):
    with empty_db.write() as connection:  # in the way of one of the last tables
        connection.exec_driver_sql("CREATE TABLE volumes (id INTEGER)")
    with pytest.raises(sa.exc.SQLAlchemyError if empty_db.is_postgresql else Exception, match="volumes"):
        schema.upgrade(empty_db)
    assert sa.inspect(empty_db.engine).get_table_names() == ["volumes"]


def _upgrade(url, barrier, answers):
    db = Database(url)
    barrier.wait(60)
    try:
        answers.put(schema.upgrade(db))
    except BaseException as error:
        answers.put(repr(error))
        raise
    finally:
        db.close()


def test_processes_that_upgrade_at_once_do_it_once(empty_url):
    context = multiprocessing.get_context("spawn")
    answers, barrier = context.Queue(), context.Barrier(3)
    workers = [context.Process(target=_upgrade, args=(empty_url, barrier, answers)) for _ in range(3)]
    for worker in workers:
        worker.start()
    befores = [answers.get(timeout=60) for _ in workers]
    for worker in workers:
        worker.join(30)
    assert sorted(befores, key=str) == [schema.HEAD, schema.HEAD, None]
    db = Database(empty_url)
    schema.check(db)
    db.close()


def test_head_is_the_newest_script_and_scripts_are_numbered_without_gaps():
    directory = Path(hullwright.persistence.migrations.__file__).parent
    assert ScriptDirectory(str(directory)).get_heads() == [schema.HEAD]
    numbers = [re.match(r"(\d{4})_", path.name).group(1) for path in sorted((directory / "versions").glob("[0-9]*.py"))]
    assert numbers == [f"{number:04}" for number in range(1, len(numbers) + 1)]


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ("ALTER TABLE jobs DROP COLUMN waiting_since", "no jobs.waiting_since"),
        ("ALTER TABLE jobs ADD COLUMN colour TEXT", "an unknown jobs.colour"),
        ("DROP TABLE step_progress", "no step_progress.at"),
    ],
)
def test_a_database_made_by_another_state_of_the_same_revision_is_refused_with_what_to_do(empty_db, change, why):
    schema.upgrade(empty_db)
    schema.check(empty_db)
    with empty_db.write() as connection:
        connection.exec_driver_sql(change)
    with pytest.raises(schema.UnreleasedSchema, match=why) as refused:
        schema.check(empty_db)
    assert "Put it aside" in refused.value.hint
