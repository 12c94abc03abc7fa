"""The table of compute's routes: path, resource, and the suffix of its responders."""

from __future__ import annotations

from typing import Any

import falcon

from hullwright.api.aggregates import Aggregates, OneAggregate
from hullwright.api.context import ApiContext
from hullwright.api.extensions import Extensions
from hullwright.api.flavors import FlavorExtraSpecs, Flavors, OneFlavor
from hullwright.api.hypervisors import Hypervisors
from hullwright.api.instance_actions import InstanceActions
from hullwright.api.key_pairs import KeyPairs
from hullwright.api.limits import Limits, QuotaSets
from hullwright.api.server_actions import ServerActions
from hullwright.api.server_groups import ServerGroups
from hullwright.api.server_metadata import ServerMetadata, ServerTags
from hullwright.api.server_parts import ServerInterfaces, ServerIps, ServerVolumes
from hullwright.api.servers import Server, Servers
from hullwright.api.services import AvailabilityZones, Services
from hullwright.api.versions import Health, Versions

_SERVER = "/v2.1/servers/{server_id}"
_FLAVOR = "/v2.1/flavors/{flavor_id}"

# (path, class, suffix); one instance of a class serves all its paths.
ROUTES: tuple[tuple[str, type[Any], str | None], ...] = (
    ("/", Versions, None),
    ("/v2.1", Versions, "one"),
    ("/v2.1/versions/{version_id}", Versions, "by_id"),
    ("/healthz", Health, None),
    ("/v2.1/servers", Servers, None),
    ("/v2.1/servers/detail", Servers, "detail"),
    (_SERVER, Server, None),
    (f"{_SERVER}/action", ServerActions, None),
    (f"{_SERVER}/metadata", ServerMetadata, None),
    (f"{_SERVER}/metadata/{{key}}", ServerMetadata, "item"),
    (f"{_SERVER}/tags", ServerTags, None),
    (f"{_SERVER}/tags/{{tag}}", ServerTags, "one"),
    (f"{_SERVER}/ips", ServerIps, None),
    (f"{_SERVER}/ips/{{network}}", ServerIps, "network"),
    (f"{_SERVER}/os-interface", ServerInterfaces, None),
    (f"{_SERVER}/os-interface/{{port_id}}", ServerInterfaces, "one"),
    (f"{_SERVER}/os-volume_attachments", ServerVolumes, None),
    (f"{_SERVER}/os-volume_attachments/{{volume_id}}", ServerVolumes, "one"),
    (f"{_SERVER}/os-instance-actions", InstanceActions, None),
    (f"{_SERVER}/os-instance-actions/{{action_id}}", InstanceActions, "one"),
    ("/v2.1/flavors", Flavors, None),
    ("/v2.1/flavors/detail", Flavors, "detail"),
    (_FLAVOR, OneFlavor, None),
    (f"{_FLAVOR}/os-flavor-access", OneFlavor, "access"),
    (f"{_FLAVOR}/os-extra_specs", FlavorExtraSpecs, None),
    (f"{_FLAVOR}/os-extra_specs/{{key}}", FlavorExtraSpecs, "one"),
    ("/v2.1/os-keypairs", KeyPairs, None),
    ("/v2.1/os-keypairs/{name}", KeyPairs, "one"),
    ("/v2.1/os-hypervisors", Hypervisors, None),
    ("/v2.1/os-hypervisors/detail", Hypervisors, "detail"),
    ("/v2.1/os-hypervisors/statistics", Hypervisors, "statistics"),
    ("/v2.1/os-hypervisors/{hypervisor_id}", Hypervisors, "one"),
    ("/v2.1/os-services", Services, None),
    ("/v2.1/os-services/{service_id}", Services, "one"),
    ("/v2.1/os-availability-zone", AvailabilityZones, None),
    ("/v2.1/os-availability-zone/detail", AvailabilityZones, "detail"),
    ("/v2.1/limits", Limits, None),
    ("/v2.1/os-quota-sets/{project_id}", QuotaSets, None),
    ("/v2.1/os-quota-sets/{project_id}/defaults", QuotaSets, "defaults"),
    ("/v2.1/os-quota-sets/{project_id}/detail", QuotaSets, "detail"),
    ("/v2.1/extensions", Extensions, None),
    ("/v2.1/extensions/{alias}", Extensions, "one"),
    ("/v2.1/os-server-groups", ServerGroups, None),
    ("/v2.1/os-server-groups/{group_id}", ServerGroups, "one"),
    ("/v2.1/os-aggregates", Aggregates, None),
    ("/v2.1/os-aggregates/{aggregate_id}", OneAggregate, None),
    ("/v2.1/os-aggregates/{aggregate_id}/action", OneAggregate, "action"),
)

# The words that follow /v2.1/; what else stands there is a project id.
RESOURCES = frozenset(path.split("/")[2] for path, _, _ in ROUTES if path.startswith("/v2.1/"))


def add_routes(app: falcon.App[Any, Any], context: ApiContext) -> None:
    """Give `app` every compute route."""
    resources: dict[type[Any], Any] = {}
    for path, kind, suffix in ROUTES:
        if kind not in resources:
            resources[kind] = kind(context)
        app.add_route(path, resources[kind], suffix=suffix)
