"""Passes hosts that this build has not failed on yet."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator

from hullwright.scheduler.columns import Columns
from hullwright.scheduler.filters import Verdict
from hullwright.scheduler.request import Request

REASON_MAX = 200  # characters


def check(hosts: Columns, request: Request) -> Iterator[Verdict]:
    """Reject the hosts of earlier attempts. What happened there may name hosts, and is for administrators."""
    known = {name: at for name in request.tried if (at := hosts.position(name)) is not None}
    reasons = {int(hosts.ids[at]): textwrap.shorten(request.tried[name], REASON_MAX, placeholder="...") for name, at in known.items()}
    yield ~hosts.named(known), "already tried", {id_: reason for id_, reason in reasons.items() if reason}
