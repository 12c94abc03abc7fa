"""Regular expressions that users send: none may keep the database, or this process, busy for long.

RE2's syntax says what a pattern may be: Perl's without back references and look-around. SQLite searches by RE2 itself, in time linear in
the text. PostgreSQL has an engine of its own, which needs minutes to read some nested counts, `((.?){30}){33}`: it is given a time. Its
dialect differs in small things: a word's bound is not written alike.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from functools import lru_cache
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection

LONGEST_PATTERN = 255  # characters
LONGEST_SEARCH_SECONDS = 5.0  # of one statement on PostgreSQL

_QUERY_CANCELED = "57014"  # SQLSTATE

_SPECIAL = frozenset(r".^$*+?{}[]\|()")


@lru_cache(maxsize=256)
def compiled(pattern: str) -> Any:
    """The pattern, ready to search.

    Raises: ValueError when it is too long, malformed, or could take longer than linear time.
    """
    if len(pattern) > LONGEST_PATTERN:
        raise ValueError(f"It has more than {LONGEST_PATTERN} characters.")
    import re2  # only who searches pays for its memory: no conductor does

    options = re2.Options()
    options.log_errors = False  # what is wrong with a user's pattern is told to the user
    try:
        return re2.compile(pattern, options)
    except re2.error as error:
        reason = error.args[0]
        raise ValueError(reason.decode(errors="replace") if isinstance(reason, bytes) else str(reason)) from None


@contextlib.contextmanager
def bounded(conn: Connection) -> Iterator[None]:
    """Statements that search for patterns, on a connection for reading.

    Raises: ValueError when one takes too long.
    """
    if conn.dialect.name != "postgresql":
        yield
        return
    conn.exec_driver_sql(f"SET statement_timeout = {int(LONGEST_SEARCH_SECONDS * 1000)}")
    try:
        yield
    except sa.exc.OperationalError as error:
        if getattr(error.orig, "sqlstate", None) != _QUERY_CANCELED:
            raise
        raise ValueError(f"The search took longer than {LONGEST_SEARCH_SECONDS} seconds.") from None
    finally:
        with contextlib.suppress(sa.exc.SQLAlchemyError):  # a connection that was lost needs it no more
            conn.exec_driver_sql("RESET statement_timeout")


def search(pattern: str, text: str | None) -> bool | None:
    """Whether some part of `text` matches: SQLite's REGEXP. NULL for NULL."""
    return None if text is None else compiled(pattern).search(text) is not None


def matches(column: sa.Column[Any], pattern: str) -> sa.ColumnElement[bool]:
    """Condition: a text column holds a match of the pattern."""
    if _SPECIAL.isdisjoint(pattern):
        return holds(column, pattern)
    found: sa.ColumnElement[bool] = column.regexp_match(pattern)
    return found


def holds(column: sa.Column[Any], text: str) -> sa.ColumnElement[bool]:
    """Condition: a text column holds exactly this text somewhere."""
    # Not LIKE: SQLite's ignores case. `replace` is the same in all databases.
    plain = sa.type_coerce(column, sa.Text)
    return sa.func.replace(plain, text, "") != plain
