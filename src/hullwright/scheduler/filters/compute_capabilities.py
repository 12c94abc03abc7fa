"""Passes hosts that have the capabilities that the flavor's extra specs ask for.

Asked for are those of the scope `capabilities:`, and those without a scope that are a host's attribute (`attributes`); see `extra_specs`
for the operators.
"""

from __future__ import annotations

from collections.abc import Iterator

from hullwright.scheduler import attributes
from hullwright.scheduler.columns import Columns
from hullwright.scheduler.filters import Verdict
from hullwright.scheduler.request import Request


def check(hosts: Columns, request: Request) -> Iterator[Verdict]:
    """Reject hosts that lack one of them, and say which; a capability that does not exist is nobody's."""
    for key, wanted in request.spec.flavor.extra_specs.items():
        scope, _, rest = key.partition(":")
        if scope == "capabilities" and rest:
            name = rest
        elif not rest and scope in attributes.NAMES:
            name = scope
        else:
            continue
        yield attributes.meeting(hosts, name, wanted), f"without capability {name} {wanted}"
