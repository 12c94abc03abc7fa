"""Passes hosts that have the traits that flavor and image require, and none that they forbid.

Asked for by `trait:NAME` (or `trait<group>:NAME`) with `required` or `forbidden`, names as in os-traits. A host has the traits of the CPU
that its guests see (HW_CPU_X86_...), and those that the metadata of its aggregates give it: `trait:NAME` = `required`.
A trait that nobody knows is nobody's.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

from hullwright.scheduler import cpu_traits
from hullwright.scheduler.columns import Columns, Mask
from hullwright.scheduler.filters import Verdict
from hullwright.scheduler.request import Request

_KEY = re.compile(r"^trait[\w-]*:(\w+)$")


def check(hosts: Columns, request: Request) -> Iterator[Verdict]:
    """Reject hosts that lack one that is required or have one that is forbidden, and say which."""
    for name, wanted in sorted(_asked(request.spec.flavor.extra_specs) | _asked(request.spec.image_properties)):
        has = _having(hosts, name)
        if wanted == "required":
            yield has, f"without trait {name}"
        else:
            yield ~has, f"with trait {name}"


def _asked(properties: Mapping[str, str]) -> set[tuple[str, str]]:
    found = ((_KEY.match(key), wanted) for key, wanted in properties.items() if wanted in ("required", "forbidden"))
    return {(match[1], wanted) for match, wanted in found if match}


def _having(hosts: Columns, name: str) -> Mask:
    _, given = hosts.aggregates.with_value(f"trait:{name}", lambda word: word == "required")
    if not (flags := cpu_traits.flags_of(name)):
        return given
    return given | hosts.guest_cpu_features.matching(lambda words: not flags.isdisjoint(map(cpu_traits.bare, words.split())))
