"""Weighers: each file is one thing that makes a host better than another.

A weigher has one function and the name of the option that says how much it counts:

    MULTIPLIER = "ram_weight_multiplier"

    def weigh(hosts: Columns, request: Request) -> Floats:
        return hosts.resource("MEMORY_MB").free

The numbers of the hosts that fit are brought to 0..1 (all equal: 0), multiplied, and summed over the weighers; the largest sum
is tried first. Others bring their own by an entry point in the group `hullwright.weighers`, naming a module with these two; without
MULTIPLIER it counts once.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from hullwright.scheduler import plugins
from hullwright.scheduler.columns import Columns, Floats
from hullwright.scheduler.request import Request

# Names that configurations written for Nova use.
ALIASES = {
    "nova.scheduler.weights.ram.RAMWeigher": "ram",
    "nova.scheduler.weights.cpu.CPUWeigher": "cpu",
    "nova.scheduler.weights.disk.DiskWeigher": "disk",
    "nova.scheduler.weights.compute.BuildFailureWeigher": "build_failures",
}


@dataclass(frozen=True, slots=True)
class Weigher:
    """A weigher and how much it counts."""

    name: str
    weigh: Callable[[Columns, Request], Floats]
    multiplier: float


def load(names: list[str], conf: Any) -> list[Weigher]:
    """The weighers of these names that count at all.

    Raises: UnknownPlugin.
    """
    found = {}
    for name, module in plugins.load("weighers", names, ALIASES):
        option = getattr(module, "MULTIPLIER", None)
        found[name] = Weigher(name, module.weigh, conf.scheduler[option] if option else 1.0)
    return [weigher for weigher in found.values() if weigher.multiplier]
