"""Which graph a job of each kind runs, and how a stored factory is found again.

The factory's dotted path is stored with the flow when it is first run. Old versions stay importable for as long as flows made by them are
open; a job whose factory is not known here is left to another version or parked, not guessed at.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from taskflow.flow import Flow

from hullwright.flows.build import build_instance_v1
from hullwright.flows.delete import clean_host_v1, delete_instance_v1, release_instance_v1
from hullwright.flows.networks import sweep_networks_v1
from hullwright.flows.power import switch_power_v1
from hullwright.flows.volumes import create_volume_v1, delete_volume_v1
from hullwright.objects.errors import JobUnloadable

Factory = Callable[[], Flow]


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of job."""

    factory: Factory  # the newest version; stored flows name their own
    goes_on: bool = False  # when the flow ends undone, it is run again later: such work must end, however long it takes


KINDS: dict[str, Kind] = {
    "build_instance": Kind(build_instance_v1),
    "delete_instance": Kind(delete_instance_v1, goes_on=True),
    "clean_host": Kind(clean_host_v1, goes_on=True),
    "release_instance": Kind(release_instance_v1, goes_on=True),
    "sweep_networks": Kind(sweep_networks_v1, goes_on=True),
    "start_instance": Kind(switch_power_v1),
    "stop_instance": Kind(switch_power_v1),
    "reboot_instance": Kind(switch_power_v1),
    "create_volume": Kind(create_volume_v1),
    "delete_volume": Kind(delete_volume_v1, goes_on=True),
}


def path_of(factory: Factory) -> str:
    """The dotted path that is stored."""
    return f"{factory.__module__}.{factory.__qualname__}"


def step_names() -> set[str]:
    """The names of all steps of the newest flows."""
    return {name for kind in KINDS.values() for name in _names(kind.factory())}


def _names(flow: Flow) -> Iterator[str]:
    for child, _ in flow.iter_nodes():
        if isinstance(child, Flow):
            yield from _names(child)
        else:
            yield str(child.name)


def find(path: str, job_uuid: str) -> Factory:
    """The factory stored under `path`.

    Raises: JobUnloadable.
    """
    module, _, name = path.rpartition(".")
    if not module.startswith("hullwright.flows."):
        raise JobUnloadable(id=job_uuid, reason=f"{path} is not a flow of ours")
    try:
        factory: Factory = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError):
        raise JobUnloadable(id=job_uuid, reason=f"this version does not know {path}") from None
    return factory
