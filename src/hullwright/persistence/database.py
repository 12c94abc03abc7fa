"""The door to the database: an engine set up for SQLite (WAL) or PostgreSQL, reads, and write transactions.

Repositories take the connection that `read` or `write` gives, so that several of them share one transaction.
Not for: what is in the tables; see `models` and the repositories.
"""

from __future__ import annotations

import contextlib
import sqlite3
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlalchemy import event
from sqlalchemy.engine import URL, Connection, make_url
from tenacity import Retrying, retry_if_exception, stop_after_delay, wait_fixed

from hullwright.objects import fence
from hullwright.objects.errors import HullwrightError, Unavailable
from hullwright.persistence import patterns

_IDLE_TRANSACTION_SECONDS = 10  # our transactions wait for nothing but the database
# SQLSTATEs of a server that cannot serve now: failed over to and read-only; gone; out of room or connections; shutting down or starting.
_AWAY, _AWAY_CLASSES = {"25006"}, ("08", "53", "57P")
_IDLE_SECONDS = 1.0  # a connection unused for longer is asked for a sign of life before it is handed out
# How soon a server that vanished without a word (a power cut, a cut cable) is noticed; one that ends tells so itself.
_POSTGRESQL = {"connect_timeout": 10, "keepalives_idle": 10, "keepalives_interval": 5, "keepalives_count": 3, "tcp_user_timeout": 25_000}


class DatabaseUnavailable(Unavailable):
    """The database does not answer, or stayed locked for too long."""

    message = "The database is not available: {reason}"
    hint = "Check that it runs and that its disk is not full; the same request may work later."


class UnknownDatabase(HullwrightError):
    """The URL is none of a database that Hullwright works on."""

    message = "[database] connection is a URL of {backend}, and Hullwright works on SQLite and PostgreSQL only."
    hint = "Give it one that begins with sqlite:/// or postgresql+psycopg://, or none for SQLite under state_path."


class Database:
    """An engine and its transactions. One per process; safe to use from many threads."""

    def __init__(self, url: str, *, synchronous: str = "NORMAL", busy_timeout_seconds: float = 30.0, pool_size: int = 32) -> None:
        """Connect lazily to `url`; for SQLite the file's directory is made.

        `synchronous`: SQLite's pragma; NORMAL survives a killed process, FULL also a power cut.

        Raises: UnknownDatabase.
        """
        parsed = _parse(url)
        self.url = url
        self.is_sqlite = parsed.get_backend_name() == "sqlite"
        self.is_postgresql = not self.is_sqlite
        self.connect_args: dict[str, Any] = {"check_same_thread": False, "cached_statements": 512} if self.is_sqlite else {}
        if self.is_postgresql:
            self.connect_args = {name: value for name, value in _POSTGRESQL.items() if name not in parsed.query}
            if parsed.get_driver_name() == "psycopg":
                from hullwright.persistence.psycopg_cursor import Cursor  # psycopg is there only where PostgreSQL is used

                self.connect_args["cursor_factory"] = Cursor
        options: dict[str, Any] = {"pool_size": pool_size, "max_overflow": 0, "pool_timeout": busy_timeout_seconds}
        if self.is_sqlite:
            if parsed.database:
                Path(parsed.database).parent.mkdir(parents=True, exist_ok=True)
        else:
            options["pool_pre_ping"] = False  # only idle connections are asked; one lost in use shows as DatabaseUnavailable
        # Parameters may be secrets, and errors are logged.
        # AUTOCOMMIT: a read costs no BEGIN and ROLLBACK; `write` says BEGIN itself, and how.
        self.engine = sa.create_engine(url, isolation_level="AUTOCOMMIT", hide_parameters=True, connect_args=self.connect_args, **options)
        # SQLite has one writer; threads of one process queue here rather than in its sleeping busy handler.
        self._writer: contextlib.AbstractContextManager[Any] = threading.Lock() if self.is_sqlite else contextlib.nullcontext()
        self.statements = 0  # executed by this process, for benchmarks
        self.commits = 0
        event.listen(self.engine, "before_cursor_execute", self._count)
        if self.is_sqlite:
            timeout_ms = int(busy_timeout_seconds * 1000)

            def on_connect(dbapi: Any, _record: Any) -> None:
                cursor = dbapi.cursor()
                cursor.execute(f"PRAGMA busy_timeout={timeout_ms}")
                _enter_wal(cursor, busy_timeout_seconds)
                cursor.execute(f"PRAGMA synchronous={synchronous}")
                cursor.execute("PRAGMA foreign_keys=ON")
                cursor.close()
                dbapi.create_function("regexp", 2, patterns.search, deterministic=True)  # SQLAlchemy's own would backtrack

            event.listen(self.engine, "connect", on_connect)
        else:
            event.listen(self.engine, "connect", _limit_idle_transactions)
            event.listen(self.engine, "checkin", _note_use)
            event.listen(self.engine, "checkout", self._ask_if_idle)

    def _count(self, *_args: Any) -> None:
        self.statements += 1

    def _ask_if_idle(self, dbapi: Any, record: Any, _proxy: Any) -> None:
        """After a server's restart all pooled connections are dead: the first request of a quiet process must not fail for that."""
        if time.monotonic() - record.info.get("used_at", time.monotonic()) < _IDLE_SECONDS:
            return
        try:
            self.engine.dialect.do_ping(dbapi)
        except self.engine.dialect.loaded_dbapi.Error as error:
            raise sa.exc.DisconnectionError() from error  # the pool connects anew

    @contextlib.contextmanager
    def read(self) -> Iterator[Connection]:
        """A connection for reading; each statement sees what is committed when it runs.

        Raises: DatabaseUnavailable.
        """
        with self._translated(), self.engine.connect() as connection:
            yield connection

    @contextlib.contextmanager
    def snapshot(self) -> Iterator[Connection]:
        """A connection for reading whose statements all see the same moment.

        Raises: DatabaseUnavailable.
        """
        begin = "BEGIN" if self.is_sqlite else "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY"
        with self._translated(), self.engine.connect() as connection:
            connection.exec_driver_sql(begin)
            try:
                yield connection
            finally:
                with contextlib.suppress(sa.exc.SQLAlchemyError):
                    connection.exec_driver_sql("ROLLBACK")

    @contextlib.contextmanager
    def write(self) -> Iterator[Connection]:
        """A connection inside a write transaction: committed at the end, rolled back on any exception.

        On SQLite it holds the write lock from the start, so that nothing read in it can have changed at commit.
        In a step's thread it proves that the step's job is still ours, whoever writes: see `objects.fence`.

        When the connection is cut at the commit, nobody knows whether it took place: what writes must find what it wrote.

        Raises: DatabaseUnavailable, LeaseLost.
        """
        with self._translated(), self._writer, self.engine.connect() as connection:
            connection.exec_driver_sql("BEGIN IMMEDIATE" if self.is_sqlite else "BEGIN")
            try:
                fence.prove(connection)
                yield connection
                connection.exec_driver_sql("COMMIT")
                self.commits += 1
            except BaseException as error:
                with contextlib.suppress(sa.exc.SQLAlchemyError):
                    connection.exec_driver_sql("ROLLBACK")
                if _is_away(error):  # a server that takes no writes any more: the next connection may find the one that does
                    connection.invalidate()
                raise

    @contextlib.contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except (sa.exc.OperationalError, sa.exc.InterfaceError, sa.exc.TimeoutError, sa.exc.DisconnectionError) as error:
            raise _unavailable(error) from error
        except (sa.exc.PendingRollbackError, sa.exc.DBAPIError) as error:
            # A connection that was cut can show in other classes too, in whatever came next on it.
            if isinstance(error, sa.exc.DBAPIError) and not error.connection_invalidated and not _is_away(error):
                raise
            raise _unavailable(error) from error

    def close(self) -> None:
        """Close all connections."""
        self.engine.dispose()


def _parse(url: str) -> URL:
    try:
        parsed = make_url(url)
    except sa.exc.ArgumentError:  # the text may hold a password: it is not told
        raise UnknownDatabase(backend="nothing known") from None
    if parsed.get_backend_name() not in _CLOCKS:
        raise UnknownDatabase(backend=parsed.get_backend_name())
    return parsed


def _limit_idle_transactions(dbapi: Any, _record: Any) -> None:
    """A process that stalls inside a transaction holds locks that all others wait for: the server ends the transaction then."""
    dbapi.execute(f"SET idle_in_transaction_session_timeout = {_IDLE_TRANSACTION_SECONDS * 1000}")
    dbapi.commit()


def _note_use(_dbapi: Any, record: Any) -> None:
    record.info["used_at"] = time.monotonic()


def _is_away(error: BaseException) -> bool:
    """Whether PostgreSQL said that it cannot serve now, whatever the class of the error."""
    code = str(getattr(getattr(error, "orig", None), "sqlstate", None) or "")
    return code in _AWAY or code.startswith(_AWAY_CLASSES)


def _unavailable(error: BaseException) -> DatabaseUnavailable:
    said = str(getattr(error, "orig", None) or error).strip()
    return DatabaseUnavailable(reason=said.splitlines()[0] if said else type(error).__name__)


def _enter_wal(cursor: Any, timeout_seconds: float) -> None:
    """Have the file in WAL mode. SQLite asks no busy handler for this change, so two that open a new file at once would fail."""
    tries = Retrying(retry=retry_if_exception(_is_locked), wait=wait_fixed(0.005), stop=stop_after_delay(timeout_seconds), reraise=True)
    tries(cursor.execute, "PRAGMA journal_mode=WAL")


def _is_locked(error: BaseException) -> bool:
    return isinstance(error, sqlite3.OperationalError) and "locked" in str(error)


def now() -> float:
    """Seconds since the epoch, by this process. For what people read; what processes must agree on goes by `clock`."""
    return time.time()


def clock(connection: Connection) -> sa.ColumnElement[float]:
    """Seconds since the epoch, by the database: the one clock that conductors on several machines share."""
    return _CLOCKS[connection.dialect.name]


def read_clock(connection: Connection) -> float:
    """What `clock` says now."""
    return float(connection.execute(sa.select(clock(connection))).scalar_one())


_CLOCKS: dict[str, sa.ColumnElement[float]] = {
    "postgresql": sa.cast(sa.extract("epoch", sa.func.clock_timestamp()), sa.Double),  # not now(): that stands still in a transaction
    "sqlite": sa.literal_column("((julianday('now') - 2440587.5) * 86400.0)", sa.Double),
}
