"""Compute API microversions: what a request asks for, what it gets, and which responders exist in which window.

Headers, status codes and texts are Nova's, because clients match on them.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar

import falcon

from hullwright.api.errors import HttpError

MINIMUM = 1  # 2.1
MAXIMUM = 100  # 2.100

HEADER = "OpenStack-API-Version"
LEGACY_HEADER = "X-OpenStack-Nova-API-Version"

_FORM = re.compile(r"([1-9]\d{0,8})\.([1-9]\d{0,8}|0)", re.ASCII)

P = ParamSpec("P")
R = TypeVar("R")


def text(minor: int) -> str:
    """2.NN."""
    return f"2.{minor}"


def negotiate(header: str | None, legacy_header: str | None) -> int:
    """The minor number for the values of the two headers; absent ones mean 2.1, "latest" the newest.

    The new header may list several services; only compute's entry counts.

    Raises: HttpError 400 for a malformed version, 406 for one that is not served.
    """
    asked = _compute_entry(header)
    if asked is None:
        asked = legacy_header.strip() if legacy_header is not None else None
    if asked is None:
        return MINIMUM
    if asked == "latest":
        return MAXIMUM
    match = _FORM.fullmatch(asked)
    if match is None:
        raise HttpError(400, f"API Version String {asked} is of invalid format. Must be of format MajorNum.MinorNum.")
    major, minor = int(match[1]), int(match[2])
    if major != 2 or not MINIMUM <= minor <= MAXIMUM:
        raise HttpError(
            406,
            f"Version {major}.{minor} is not supported by the API. Minimum is {text(MINIMUM)} and maximum is {text(MAXIMUM)}.",
        )
    return minor


def _compute_entry(header: str | None) -> str | None:
    """The version in "compute 2.90"; None when the header does not speak of compute."""
    for entry in (header or "").split(","):
        service, _, version = entry.strip().partition(" ")
        if service.lower() == "compute":
            return version.strip()
    return None


def available(since: int = MINIMUM, until: int = MAXIMUM) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Decorate a Falcon responder that exists in versions 2.`since` to 2.`until` only; outside it looks unimplemented."""

    def decorate(responder: Callable[P, R]) -> Callable[P, R]:
        @functools.wraps(responder)
        def checked(*args: P.args, **kwargs: P.kwargs) -> R:
            request: Any = args[1]
            if not since <= request.context.microversion <= until:
                raise falcon.HTTPNotFound
            return responder(*args, **kwargs)

        return checked

    return decorate
