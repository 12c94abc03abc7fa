"""Passes hosts that the hint `query` describes: JSON such as `["and", [">=", "$free_ram_mb", 1024], ["=", "$host", "h1"]]`.

Operators are = < > <= >= in not and or; a word with $ in front is a host's attribute (`attributes`). A comparison with an attribute that
does not exist is false. A query that cannot be read, or is very long, is met by no host.
"""

from __future__ import annotations

import json
import operator
from collections.abc import Callable, Iterator
from functools import cache, partial
from typing import Any

import numpy as np

from hullwright.scheduler import attributes
from hullwright.scheduler.columns import Columns, Mask
from hullwright.scheduler.filters import Verdict
from hullwright.scheduler.request import Request

_COMPARE: dict[str, Callable[[Any, Any], Any]] = {
    "=": operator.eq,
    "<": operator.lt,
    ">": operator.gt,
    "<=": operator.le,
    ">=": operator.ge,
}
_DEPTH_MAX = 50
_PARTS_MAX = 100  # operators, words and numbers: each may be compared with all hosts, while other requests wait

Read = Callable[[str], Any]  # an attribute of all hosts by its name, None when there is no such attribute


class _Unreadable(ValueError):
    pass


def check(hosts: Columns, request: Request) -> Iterator[Verdict]:
    """Reject hosts that do not meet the query."""
    query = request.spec.scheduler_hints.get("query")
    if not query:
        return
    try:
        parsed = json.loads(query) if isinstance(query, str) else query
        if _has_too_many_parts(parsed):
            yield hosts.none(), f"not met by a query of more than {_PARTS_MAX} parts"
            return
        mask = _evaluate(hosts, parsed, cache(partial(attributes.read, hosts)), 0) if parsed else hosts.all()
    except (_Unreadable, ValueError, RecursionError):  # the last: of JSON that is nested without end
        yield hosts.none(), "not met by a query that cannot be read"
    else:
        yield mask, "do not meet the query"


def _has_too_many_parts(query: Any) -> bool:
    waiting, parts = [query], 0
    while waiting and parts <= _PARTS_MAX:
        part = waiting.pop()
        if isinstance(part, list):
            waiting += part
        else:
            parts += 1
    return parts > _PARTS_MAX


def _evaluate(hosts: Columns, query: Any, read: Read, depth: int) -> Mask:
    if not isinstance(query, list) or not query or not isinstance(query[0], str) or depth > _DEPTH_MAX:
        raise _Unreadable
    sign, *given = query
    values = [value for value in (_value(hosts, each, read, depth) for each in given) if value is not None]
    if sign in ("and", "or", "not"):
        truths = [np.broadcast_to(np.asarray(value, dtype=bool), len(hosts)) for value in values]
        match sign:
            case "and":
                return _all([hosts.all(), *truths])
            case "or":
                return _any([hosts.none(), *truths])
            case _:
                return _any([hosts.none(), *(~truth for truth in truths)])
    if sign == "in":
        equals = [_compare(hosts, operator.eq, values[0], value) for value in values[1:]]
        return _any([hosts.none(), *equals])
    if sign not in _COMPARE:
        raise _Unreadable
    if len(values) < 2:
        return hosts.none()
    return _all([_compare(hosts, _COMPARE[sign], values[0], value) for value in values[1:]])


def _all(masks: list[Any]) -> Mask:
    found: Mask = np.logical_and.reduce(masks)
    return found


def _any(masks: list[Any]) -> Mask:
    found: Mask = np.logical_or.reduce(masks)
    return found


def _value(hosts: Columns, given: Any, read: Read, depth: int) -> Any:
    """An attribute's array, a plain value, or None for an attribute that does not exist."""
    if isinstance(given, list):
        return _evaluate(hosts, given, read, depth + 1)
    if isinstance(given, str) and given.startswith("$"):
        return read(given[1:].replace(".", ":"))
    return given


def _compare(hosts: Columns, compare: Callable[[Any, Any], Any], left: Any, right: Any) -> Mask:
    try:
        found: Mask = np.broadcast_to(np.asarray(compare(left, right), dtype=bool), len(hosts))
    except TypeError:  # a text with a number: neither is more than the other
        return hosts.none()
    return found
