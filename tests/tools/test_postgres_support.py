"""The tests' own PostgreSQL: databases are quick to make, apart from each other, and gone when dropped."""

import psycopg
import pytest

from support.postgres import PostgresServer


def connect(url: str) -> "psycopg.Connection[tuple[object, ...]]":
    return psycopg.connect(url.replace("postgresql+psycopg", "postgresql", 1), autocommit=True)


def make_table(url: str) -> None:
    with connect(url) as connection:
        connection.execute("CREATE TABLE hull (id integer)")


def test_copies_of_a_template_do_not_see_each_other(postgres_server: PostgresServer) -> None:
    template = postgres_server.make_template("with_a_table", make_table)
    first = postgres_server.create_database(template)
    second = postgres_server.create_database(template)
    with connect(first) as one, connect(second) as two:
        one.execute("INSERT INTO hull VALUES (1)")
        assert two.execute("SELECT count(*) FROM hull").fetchone() == (0,)
    for url in (first, second, postgres_server.url(template)):
        postgres_server.drop_database(url)


def test_a_database_is_dropped_though_somebody_is_connected(postgres_server: PostgresServer) -> None:
    url = postgres_server.create_database()
    with connect(url):
        postgres_server.drop_database(url)
    with pytest.raises(psycopg.OperationalError, match="does not exist"):
        connect(url)


def test_the_fresh_database_is_not_the_shared_one(postgres_url: str, fresh_postgres_url: str) -> None:
    make_table(fresh_postgres_url)
    with connect(postgres_url) as connection:
        assert connection.execute("SELECT to_regclass('hull')").fetchone() == (None,)
