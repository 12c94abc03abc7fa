"""Weighers: each file is one thing that makes a host better than another.

A weigher has one function and the name of the option that says how much it counts:

    MULTIPLIER = "ram_weight_multiplier"

    def weigh(hosts: Columns, request: Request) -> Floats:
        return hosts.resource("MEMORY_MB").free

The numbers of the hosts that fit are brought to 0..1 (all equal: 0), multiplied, and summed over the weighers; the largest sum
is tried first. A host whose number is NaN cannot be weighed: it counts as the least of the others that fit.

Others bring their own by an entry point in the group `hullwright.weighers`, naming a module with these two, or name the module itself in
`[scheduler] weight_classes`; without MULTIPLIER it counts once. `NEEDS` names what is read for it only then (`surroundings`). An aggregate
with metadata of the option's name says how much it counts for its hosts; the least number of a host's aggregates holds. One whose number
is not in `[scheduler]` says it by `multiplier(conf)`.

    def taken(request: Request) -> float:
        return -request.resources.get("MEMORY_MB", 0)

One with `AGAINST = True` has a number that speaks against a host: it is brought to 0..1 as it is, and what it counts is taken away. A
negated number would not do where aggregates say what it counts: 0 times the best of them is less than what others get for the same.

A weigher with `LEAST = 0` compares hosts in proportion: 0 is 0 and the largest number 1, so that hosts which differ little weigh almost the
same, and what else they have decides.

A weigher may tell how much its number for a host changes when the host takes the request (default: not at all). Hosts that differ by no
more are about as good, and several conductors share them (`weighing.of_turn`).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection
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
    "nova.scheduler.weights.io_ops.IoOpsWeigher": "io_ops",
    "nova.scheduler.weights.num_instances.NumInstancesWeigher": "num_instances",
    "nova.scheduler.weights.hypervisor_version.HypervisorVersionWeigher": "hypervisor_version",
    "nova.scheduler.weights.image_props.ImagePropertiesWeigher": "image_properties",
    "nova.scheduler.weights.metrics.MetricsWeigher": "metrics",
    "nova.scheduler.weights.affinity.ServerGroupSoftAffinityWeigher": "soft_affinity",
    "nova.scheduler.weights.affinity.ServerGroupSoftAntiAffinityWeigher": "soft_anti_affinity",
}
# What others of Nova's names are about.
LACKING = {
    "nova.scheduler.weights.pci.PCIWeigher": "PCI devices for guests",
    "nova.scheduler.weights.cross_cell.CrossCellWeigher": "cells",
}
KIND = plugins.Kind("weighers", ALIASES, LACKING, ("weigh",), by_path=True)
ALL_CLASSES = {"all", "nova.scheduler.weights.all_weighers"}  # every file here
_SAID = {"needs": "NEEDS", "taken": "taken", "least": "LEAST", "against": "AGAINST"}  # what a weigher's module may say besides


@dataclass(frozen=True, slots=True)
class Weigher:
    """A weigher and how much it counts."""

    name: str
    weigh: Callable[[Columns, Request], Floats]
    multiplier: float
    option: str | None = None  # metadata of this name in a host's aggregates is its multiplier there
    needs: Collection[str] = ()
    taken: Callable[[Request], float] = lambda request: 0.0
    least: float | None = None  # the number that is worth 0; None: the least of the hosts that fit
    against: bool = False  # whether its number speaks against a host

    def multipliers(self, hosts: Columns) -> Any:
        """How much it counts: one number, or one for each host when aggregates say so; below 0 what is taken away."""
        found = self.multiplier if self.option is None else hosts.aggregates.least(self.option, self.multiplier)
        return -found if self.against else found


def load(names: list[str], conf: Any) -> list[Weigher]:
    """The weighers of these names, each once; one of ALL_CLASSES stands for all files of this package.

    Raises: UnknownPlugin.
    """
    found = {}
    every = ALL_CLASSES.intersection(names)
    wanted = [*(name for name in names if name not in every), *(plugins.names_of("weighers") if every else ())]
    for name, module in plugins.load(KIND, wanted):
        option = getattr(module, "MULTIPLIER", None)
        multiplier = module.multiplier(conf) if hasattr(module, "multiplier") else conf.scheduler[option] if option else 1.0
        if not math.isfinite(multiplier):
            raise plugins.UnknownPlugin(f"[scheduler] has {multiplier} for what the weigher {name!r} counts, which is no finite number")
        more = {field: getattr(module, said) for field, said in _SAID.items() if hasattr(module, said)}
        found[name] = Weigher(name, module.weigh, multiplier, option, **more)
    return list(found.values())
