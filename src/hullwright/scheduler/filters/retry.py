"""Passes hosts that this build has not failed on yet."""

from __future__ import annotations

import re
from collections.abc import Iterator

from hullwright.scheduler.columns import Columns
from hullwright.scheduler.filters import Verdict
from hullwright.scheduler.request import Request

REASON_MAX = 200  # characters


def check(hosts: Columns, request: Request) -> Iterator[Verdict]:
    """Reject the hosts of earlier attempts; hosts that failed for the same reason are counted together."""
    by_reason: dict[str, list[str]] = {}
    for name, reason in request.tried.items():
        by_reason.setdefault(_without_names(reason, request.tried), []).append(name)
    for reason, names in by_reason.items():
        yield ~hosts.named(names), f"already tried: {reason}" if reason else "already tried"


def _without_names(reason: str, names: object) -> str:
    """The reason as a user may read it: errors name the host that they happened on."""
    for name in sorted(names, key=len, reverse=True):  # type: ignore[call-overload]
        reason = re.sub(rf"(?<![\w.-]){re.escape(name)}(?![\w-])", "the host", reason)
    reason = " ".join(reason.replace("host the host", "the host").split()).rstrip(".")
    return reason if len(reason) <= REASON_MAX else reason[: REASON_MAX - 3] + "..."
