"""Regular expressions that users send: only those that are searched for in time linear in the text, whatever the pattern.

RE2's syntax says which: Perl's without back references and look-around. SQLite searches by RE2 itself. PostgreSQL searches such a pattern
by an automaton of its own, and refuses one whose automaton would be too big; its dialect differs in small things, such as `\\b`.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import re2
import sqlalchemy as sa

LONGEST_PATTERN = 255  # characters

_SPECIAL = frozenset(r".^$*+?{}[]\|()")
_OPTIONS = re2.Options()
_OPTIONS.log_errors = False  # what is wrong with a user's pattern is told to the user


@lru_cache(maxsize=256)
def compiled(pattern: str) -> Any:
    """The pattern, ready to search.

    Raises: ValueError when it is too long, malformed, or could take longer than linear time.
    """
    if len(pattern) > LONGEST_PATTERN:
        raise ValueError(f"It has more than {LONGEST_PATTERN} characters.")
    try:
        return re2.compile(pattern, _OPTIONS)
    except re2.error as error:
        reason = error.args[0]
        raise ValueError(reason.decode(errors="replace") if isinstance(reason, bytes) else str(reason)) from None


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
