"""/extensions: a fixed list that old clients probe."""

from __future__ import annotations

from typing import Any

import falcon

from hullwright.api.resource import Resource, send
from hullwright.objects.errors import NotFound

_ALIASES = {
    "NMN": "Multinic",
    "OS-DCF": "DiskConfig",
    "OS-EXT-AZ": "ExtendedAvailabilityZone",
    "OS-EXT-IPS": "ExtendedIps",
    "OS-EXT-IPS-MAC": "ExtendedIpsMac",
    "OS-EXT-SRV-ATTR": "ExtendedServerAttributes",
    "OS-EXT-STS": "ExtendedStatus",
    "OS-FLV-DISABLED": "FlavorDisabled",
    "OS-FLV-EXT-DATA": "FlavorExtraData",
    "OS-SCH-HNT": "SchedulerHints",
    "OS-SRV-USG": "ServerUsage",
    "os-aggregates": "Aggregates",
    "os-availability-zone": "AvailabilityZone",
    "os-config-drive": "ConfigDrive",
    "os-console-output": "ConsoleOutput",
    "os-extended-volumes": "ExtendedVolumes",
    "os-flavor-extra-specs": "FlavorExtraSpecs",
    "os-flavor-manage": "FlavorManage",
    "os-hypervisors": "Hypervisors",
    "os-instance-actions": "InstanceActions",
    "os-keypairs": "Keypairs",
    "os-lock-server": "LockServer",
    "os-multiple-create": "MultipleCreate",
    "os-quota-sets": "Quotas",
    "os-server-groups": "ServerGroups",
    "os-server-start-stop": "ServerStartStop",
    "os-services": "Services",
    "os-user-data": "UserData",
}


class ExtensionNotFound(NotFound):
    """No such extension."""

    message = "No extension found with alias {id}."


class Extensions(Resource):
    """What was an extension once and is part of the API."""

    def on_get(self, req: falcon.Request, resp: falcon.Response) -> None:
        """All of them."""
        send(resp, {"extensions": [_extension(alias) for alias in _ALIASES]})

    def on_get_one(self, req: falcon.Request, resp: falcon.Response, alias: str) -> None:
        """One of them."""
        if alias not in _ALIASES:
            raise ExtensionNotFound(id=alias[:100])
        send(resp, {"extension": _extension(alias)})


def _extension(alias: str) -> dict[str, Any]:
    return {
        "alias": alias,
        "name": _ALIASES[alias],
        "description": "",
        "links": [],
        "namespace": "http://docs.openstack.org/compute/ext/fake_xml",
        "updated": "2014-12-03T00:00:00Z",
    }
