"""Query strings: parameters, pages, orders and filters, as clients send them to all services.

Not for: the filters of server lists; see `server_filters`.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar
from urllib.parse import urlencode

import falcon
import sqlalchemy as sa

from hullwright.api.errors import HttpError
from hullwright.api.schemas.parts import FALSE_WORDS, TRUE_WORDS
from hullwright.objects.errors import BadRequest

MAX_INTEGER = 2**31 - 1  # of an INTEGER column
MAX_BIG_INTEGER = 2**63 - 1  # of a BIGINT column

R = TypeVar("R")


@dataclass(frozen=True, slots=True)
class PageRequest:
    """Which part of a list is asked for, in which order."""

    limit: int
    marker: str | None
    sort: tuple[tuple[str, bool], ...]  # (column, descending)


def page_of(
    req: falcon.Request, max_limit: int, sortable: Mapping[str, str], *, default: tuple[str, bool], default_limit: int | None = None
) -> PageRequest:
    """Read limit, marker and the order (`sort=name:asc,..` or pairs of sort_key and sort_dir).

    `sortable`: name in the API -> column.
    Raises: HttpError 400.
    """
    asked: list[tuple[str, str]] = []
    if sort := req.get_param("sort"):
        for entry in sort.split(","):
            name, _, direction = entry.strip().partition(":")
            asked.append((name, direction or "desc"))
    else:
        keys, directions = every(req, "sort_key"), every(req, "sort_dir")
        for position, name in enumerate(keys):
            asked.append((name, directions[min(position, len(directions) - 1)] if directions else "desc"))
    order: list[tuple[str, bool]] = []
    for name, direction in asked:
        if name not in sortable:
            raise HttpError(400, f"Invalid sort key: {name}")
        if direction.lower() not in ("asc", "desc"):
            raise HttpError(400, f"Invalid sort direction: {direction}")
        if sortable[name] not in [column for column, _ in order]:
            order.append((sortable[name], direction.lower() == "desc"))
    limit = integer(req, "limit")
    limit = min(default_limit or max_limit if limit is None else limit, max_limit)
    return PageRequest(limit, req.get_param("marker") or None, tuple(order) or (default,))


def bad_parameter(name: str, value: str, why: str) -> BadRequest:
    """The refusal of a query parameter's value."""
    return BadRequest(f"Invalid input for query parameters {name}. Value: {value[:100]}. {why}")


def integer(req: falcon.Request, name: str, most: int = MAX_INTEGER) -> int | None:
    """A whole number from 0 to `most`, or None when it is not given.

    Raises: BadRequest.
    """
    text = last(req, name)
    if text is None:
        return None
    if not (text.isascii() and text.isdigit()):
        raise bad_parameter(name, text, "It is not a whole number of at least 0.")
    if len(text) > 19 or int(text) > most:
        raise bad_parameter(name, text, f"It is more than {most}.")
    return int(text)


def row_number(text: str) -> int | None:
    """A row's number as a path tells it; None when it can be no row's."""
    return int(text) if text.isascii() and text.isdigit() and len(text) <= 18 else None


def page_limit(req: falcon.Request, max_limit: int) -> int:
    """How many items to answer: what is asked, at most `max_limit`; 0 asks for the most."""
    return min(integer(req, "limit") or max_limit, max_limit)


def cut(items: Sequence[R], limit: int) -> tuple[Sequence[R], bool]:
    """The page, and whether more follows, from a list that was read with one item more than the page has."""
    return items[:limit], len(items) > limit


def boolean(text: str, name: str) -> bool:
    """True or false as people and clients write them.

    Raises: BadRequest.
    """
    word = text.strip().lower()
    if word not in TRUE_WORDS and word not in FALSE_WORDS:
        raise bad_parameter(name, text, "It is not a boolean.")
    return word in TRUE_WORDS


def every(req: falcon.Request, name: str) -> list[str]:
    """All values of a parameter that may be repeated."""
    return req.get_param_as_list(name) or []


def last(req: falcon.Request, name: str) -> str | None:
    """A parameter's value; the last one when it was given several times."""
    found = every(req, name)
    return found[-1] if found else None


def equal_filters(req: falcon.Request, columns: Mapping[str, sa.Column[Any]]) -> list[sa.ColumnElement[bool]]:
    """Conditions for those of `columns` (name in the API -> column) that the query names; a repeated name means any of its values.

    Raises: HttpError 400.
    """
    where: list[sa.ColumnElement[bool]] = []
    for name, column in columns.items():
        asked: list[Any] = every(req, name)
        if not asked:
            continue
        if isinstance(column.type, sa.Boolean):
            asked = [boolean(text, name) for text in asked]
        elif isinstance(column.type, sa.Integer):
            # What is no number of the column's size is nobody's.
            asked = [int(text) if text.isascii() and text.isdigit() and int(text) <= MAX_INTEGER else -1 for text in asked]
        where.append(column.in_(asked) if len(asked) > 1 else column == asked[0])
    return where


def next_query(req: falcon.Request, marker: str) -> str:
    """The query string of the page after this one."""
    pairs: list[tuple[str, str]] = []
    for name, value in req.params.items():
        if name != "marker":
            pairs.extend((name, item) for item in (value if isinstance(value, list) else [value]))
    return urlencode([*pairs, ("marker", marker)])


def chosen(fields: Collection[str], item: Mapping[str, Any]) -> dict[str, Any]:
    """Only the `fields` of an item; all when none are named."""
    return {name: value for name, value in item.items() if not fields or name in fields}
