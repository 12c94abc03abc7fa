"""Request: what filters and weighers are asked about, apart from the hosts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from hullwright.objects.instances import RequestSpec
from hullwright.scheduler.relations import NONE, Relations


@dataclass(frozen=True, slots=True)
class Request:
    """One question to the scheduler."""

    spec: RequestSpec
    resources: Mapping[str, int]  # resource class -> amount
    tried: Mapping[str, str]  # host -> why it failed there
    at: float  # seconds since the epoch
    conf: Any  # the options
    relations: Relations = NONE  # where other instances are that the request speaks of
