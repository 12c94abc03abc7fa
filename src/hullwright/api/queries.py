"""Query strings of the embedded services: pages, orders and filters, as the clients of Glance, Neutron and Cinder send them."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlencode

import falcon
import sqlalchemy as sa

from hullwright.api.errors import HttpError

MAX_LIMIT = 1000
MAX_INTEGER = 2**31 - 1  # of an INTEGER column


@dataclass(frozen=True, slots=True)
class PageRequest:
    """Which part of a list is asked for, in which order."""

    limit: int
    marker: str | None
    sort: tuple[tuple[str, bool], ...]  # (column, descending)


def page_of(req: falcon.Request, sortable: Mapping[str, str], *, default: tuple[str, bool], default_limit: int = MAX_LIMIT) -> PageRequest:
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
        keys, directions = req.get_param_as_list("sort_key") or [], req.get_param_as_list("sort_dir") or []
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
    limit = default_limit if limit is None else min(limit, MAX_LIMIT)
    return PageRequest(limit, req.get_param("marker") or None, tuple(order) or (default,))


def integer(req: falcon.Request, name: str) -> int | None:
    """A number of at least zero, or None when it is not given.

    Raises: HttpError 400.
    """
    text = req.get_param(name)
    if text is None:
        return None
    if not (text.isascii() and text.isdigit()) or len(text) > 18:
        raise HttpError(400, f"Invalid value for {name}: '{text}' must be a whole number of at least 0.")
    return int(text)


def boolean(text: str, name: str) -> bool:
    """True or false as people and clients write them.

    Raises: HttpError 400.
    """
    match text.strip().lower():
        case "true" | "1" | "yes" | "on":
            return True
        case "false" | "0" | "no" | "off":
            return False
    raise HttpError(400, f"Invalid value for {name}: '{text}' is neither true nor false.")


def values(req: falcon.Request, name: str) -> list[str]:
    """All values of a parameter that may be repeated."""
    return req.get_param_as_list(name) or []


def equal_filters(req: falcon.Request, columns: Mapping[str, sa.Column[Any]]) -> list[sa.ColumnElement[bool]]:
    """Conditions for those of `columns` (name in the API -> column) that the query names; a repeated name means any of its values.

    Raises: HttpError 400.
    """
    where: list[sa.ColumnElement[bool]] = []
    for name, column in columns.items():
        asked: list[Any] = values(req, name)
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
