"""Demand: what of a request says on which hosts it fits. Builds whose demand is equal wait for the same room, whoever asked for them.

So it leaves out what no filter in use reads: names, the project, the image, as long as only its size and its needs count.
Not for: whether there is room; see `select`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection
from typing import Any

import orjson

from hullwright.objects.instances import RequestSpec
from hullwright.scheduler import filters
from hullwright.scheduler.filters import Filter, image_properties

_OF_ONE_SERVER = ("instance_uuid", "user_id", "networks", "block_devices", "max_attempts", "wait_seconds")  # whatever the filters read
_PATIENCE_HINT = "wait_for_capacity"  # what `wait_seconds` came from


def demand(spec: RequestSpec, tried: Collection[str], used: Collection[Filter]) -> str:
    """Equal for requests that fit on the same hosts by the filters `used`: 40 characters."""
    if any(_is_foreign(each) for each in used):
        told = {name: value for name, value in spec.to_dict().items() if name not in _OF_ONE_SERVER}
    else:
        told = _read_of(spec, {each.name for each in used})
    told["scheduler_hints"] = {name: value for name, value in spec.scheduler_hints.items() if name != _PATIENCE_HINT}
    told |= {"resources": spec.resources(), "tried": sorted(tried)}
    return hashlib.sha1(orjson.dumps(told, option=orjson.OPT_SORT_KEYS), usedforsecurity=False).hexdigest()


def _is_foreign(each: Filter) -> bool:
    """Whether a filter is somebody's own: it may read anything."""
    return not getattr(each.passes or each.check, "__module__", "").startswith(f"{filters.__name__}.")


def _read_of(spec: RequestSpec, used: Collection[str]) -> dict[str, Any]:
    """What our filters of these names read, besides resources and hints."""
    told = {
        "availability_zone": spec.availability_zone,
        "force_host": spec.force_host,
        "requested_host": spec.requested_host,
        "volume_host": spec.volume_host,
        "ignore_hosts": sorted(spec.ignore_hosts),
        "extra_specs": dict(spec.flavor.extra_specs),
        "image_properties": dict(spec.image_properties),
        "image_disk_format": None if spec.boots_from_volume else spec.image_disk_format,
    }
    if "aggregate_image_properties_isolation" not in used:
        read = image_properties.PROPERTIES
        told["image_properties"] = {
            name: value for name, value in spec.image_properties.items() if name in read or name.startswith("trait:")
        }
    if "aggregate_multi_tenancy_isolation" in used:
        told["project_id"] = spec.project_id
    if "isolated_hosts" in used:
        told["image_id"] = spec.image_id
    if "aggregate_type_affinity" in used:
        told["flavor"] = spec.flavor.name
    return told
