"""Passes hosts whose aggregates have what the flavor's extra specs ask for.

Asked for are extra specs without a scope and those of the scope `aggregate_instance_extra_specs:`; see `extra_specs` for the operators.
A host passes one when any of its aggregates has the key with a word that matches.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

from hullwright.scheduler.columns import Columns
from hullwright.scheduler.extra_specs import match
from hullwright.scheduler.filters import Verdict
from hullwright.scheduler.request import Request

SCOPE = "aggregate_instance_extra_specs"


def check(hosts: Columns, request: Request) -> Iterator[Verdict]:
    """Reject hosts that lack one of them, and say which."""
    for key, wanted in request.spec.flavor.extra_specs.items():
        scope, _, rest = key.partition(":")
        if rest and scope != SCOPE:
            continue
        name = rest or scope
        _, good = hosts.aggregates.with_value(name, partial(match, wanted=wanted))
        yield good, f"are in no aggregate with {name} {wanted}"
