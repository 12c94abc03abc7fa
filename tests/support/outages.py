"""Ways in which a database goes away for as long as a `with` lasts.

Not for: a connection that is cut at a chosen statement; see `durability/child.py`.
"""

from __future__ import annotations

import contextlib
import sqlite3
import threading
from collections.abc import Iterator

import psycopg
from psycopg import sql

from support.postgres import PostgresServer

_AGAIN_SECONDS = 0.1


@contextlib.contextmanager
def locked(url: str) -> Iterator[None]:
    """Somebody else holds the write lock of a SQLite database."""
    other = sqlite3.connect(url.removeprefix("sqlite:///"), isolation_level=None, timeout=30)
    try:
        other.execute("BEGIN IMMEDIATE")
        yield
        other.execute("ROLLBACK")
    finally:
        other.close()


@contextlib.contextmanager
def terminated(server: PostgresServer, url: str) -> Iterator[None]:
    """All connections to a PostgreSQL database are terminated, also in the middle of a transaction, and no new one is let in."""
    name = url.rpartition("/")[2]
    stop = threading.Event()
    kill = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s"
    door = sql.SQL("ALTER DATABASE {} WITH ALLOW_CONNECTIONS {}")

    def keep_killing() -> None:  # one that was just being let in
        with psycopg.connect(server.url("postgres").replace("+psycopg", ""), autocommit=True) as again:
            while not stop.wait(_AGAIN_SECONDS):
                again.execute(kill, [name])

    with psycopg.connect(server.url("postgres").replace("+psycopg", ""), autocommit=True) as admin:
        admin.execute(door.format(sql.Identifier(name), sql.SQL("false")))
        admin.execute(kill, [name])
        killing = threading.Thread(target=keep_killing)
        killing.start()
        try:
            yield
        finally:
            stop.set()
            killing.join()
            admin.execute(door.format(sql.Identifier(name), sql.SQL("true")))


@contextlib.contextmanager
def stopped(server: PostgresServer) -> Iterator[None]:
    """A PostgreSQL server is stopped at once, and started again on the same port."""
    server.crash()
    try:
        yield
    finally:
        server.revive()
