"""Links in answers, pages of lists, and times and addresses as clients read them."""

from __future__ import annotations

import ipaddress
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any
from urllib.parse import urlencode

import falcon

from hullwright.api.context import base_url
from hullwright.objects.errors import BadRequest


class Links:
    """Absolute links for one request."""

    __slots__ = ("base", "versioned")

    def __init__(self, req: falcon.Request, conf: Any) -> None:
        """Links begin with the configured public URL, else with what the client used."""
        self.base = base_url(req, conf)
        self.versioned = self.base + "/v2.1"

    def of(self, collection: str, id: str) -> list[dict[str, str]]:
        """The usual pair: self with the version, bookmark without."""
        return [
            {"rel": "self", "href": f"{self.versioned}/{collection}/{id}"},
            {"rel": "bookmark", "href": f"{self.base}/{collection}/{id}"},
        ]

    def bookmark(self, collection: str, id: str) -> list[dict[str, str]]:
        """The link without the version only."""
        return [{"rel": "bookmark", "href": f"{self.base}/{collection}/{id}"}]

    def next(self, req: falcon.Request, marker: str) -> list[dict[str, str]]:
        """Where the next page is: this request again with another marker."""
        parameters: list[tuple[str, str]] = []
        for name, value in req.params.items():
            if name != "marker":
                parameters.extend((name, each) for each in (value if isinstance(value, list) else [value]))
        parameters.append(("marker", marker))
        return [{"rel": "next", "href": f"{self.base}{req.path}?{urlencode(parameters)}"}]


def bad_parameter(name: str, value: str, why: str) -> BadRequest:
    """The refusal of a query parameter's value."""
    return BadRequest(f"Invalid input for query parameters {name}. Value: {value[:100]}. {why}")


def integer(req: falcon.Request, name: str, default: int | None = None, minimum: int = 0) -> int | None:
    """A query parameter that is a whole number.

    Raises: BadRequest.
    """
    value = last(req, name)
    if value is None:
        return default
    try:
        number = int(value) if value.isascii() else minimum - 1
    except ValueError:
        raise bad_parameter(name, value, "It is not an integer.") from None
    if not minimum <= number < 2**31:
        raise bad_parameter(name, value, f"It must be at least {minimum}.")
    return number


def row_number(text: str) -> int | None:
    """A row's number as a path tells it; None when it can be no row's."""
    return int(text) if text.isascii() and text.isdigit() and len(text) <= 18 else None


def page_limit(req: falcon.Request, max_limit: int) -> int:
    """How many items to answer: what is asked, at most `max_limit`; 0 asks for the most."""
    return min(integer(req, "limit") or max_limit, max_limit)


def last(req: falcon.Request, name: str) -> str | None:
    """A query parameter's value; the last one when it was given several times."""
    values = every(req, name)
    return values[-1] if values else None


def every(req: falcon.Request, name: str) -> list[str]:
    """All values of a query parameter."""
    value: str | list[str] | None = req.params.get(name)
    if value is None:
        return []
    return list(value) if isinstance(value, list) else [value]


def cut(items: Sequence[Any], limit: int) -> tuple[Sequence[Any], bool]:
    """The page, and whether more follows, from a list that was read with one item more than the page has."""
    return items[:limit], len(items) > limit


def plain_address(text: str | None) -> str | None:
    """An IP address in its shortest form: the same text for the same address, and short enough for its column."""
    return None if text is None else str(ipaddress.ip_address(text))


def iso(at: float | None) -> str | None:
    """2026-01-31T12:00:00Z"""
    return None if at is None else time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(at))


def iso_micro(at: float | None) -> str | None:
    """2026-01-31T12:00:00.000000: without a zone, as the older fields have it."""
    return None if at is None else datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%dT%H:%M:%S.%f")


def moment(text: str, name: str) -> float:
    """Seconds since the epoch of an ISO 8601 time; without a zone it is UTC.

    Raises: BadRequest.
    """
    try:
        at = datetime.fromisoformat(text.replace(" ", "+"))  # a plus that a client did not quote arrives as a space
    except ValueError:
        try:
            at = datetime.fromisoformat(text)
        except ValueError:
            raise bad_parameter(name, text, "It is not a time.") from None
    try:
        return (at if at.tzinfo else at.replace(tzinfo=UTC)).timestamp()
    except (OverflowError, ValueError):
        raise bad_parameter(name, text, "It is out of range.") from None
