"""What every request handler may use: the parts of the API process, and who is asking.

Not for: deciding what a caller may do; see `policies`.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import falcon

from hullwright.conductor.client import ConductorClient
from hullwright.objects.errors import HullwrightError
from hullwright.persistence.database import Database

if TYPE_CHECKING:
    from hullwright.api.policies import Policy

# (HTTP status, message, the error if it is one of ours) -> the body of an error answer, in the form of one service.
ErrorBody = Callable[[int, str, HullwrightError | None], Mapping[str, Any]]


@dataclass(frozen=True, slots=True)
class Caller:
    """Who asks."""

    project_id: str
    user_id: str
    is_admin: bool
    roles: tuple[str, ...] = ()


@dataclass(frozen=True)
class ApiContext:
    """The parts that handlers share. One per process."""

    db: Database
    conf: Any
    client: ConductorClient
    policy: Policy
    # Path prefix -> form of error bodies. A service that is mounted beside compute registers its own, e.g. "/network".
    error_bodies: dict[str, ErrorBody] = field(default_factory=dict)
    # Set when this process is asked to stop: answers that have no end of their own end then.
    stopping: threading.Event = field(default_factory=threading.Event)


def caller(req: falcon.Request) -> Caller:
    """Who sent this request."""
    found: Caller = req.context.caller
    return found


def request_id(req: falcon.Request) -> str:
    """The id that this request was given: req-<uuid>."""
    found: str = req.context.request_id
    return found


def microversion(req: falcon.Request) -> int:
    """The minor number of the compute API version that this request is answered in: 100 for 2.100."""
    found: int = req.context.microversion
    return found


def base_url(req: falcon.Request, conf: Any) -> str:
    """What absolute links begin with, without a slash at the end."""
    return str(conf.api.public_url or req.prefix).rstrip("/")
