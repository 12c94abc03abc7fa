"""/limits and /os-quota-sets: what a project may have. Nothing is limited yet but metadata items and key pairs; use is counted."""

from __future__ import annotations

from typing import Any

import falcon

from hullwright.api.context import caller, microversion
from hullwright.api.key_pairs import MAX_KEY_PAIRS
from hullwright.api.queries import last
from hullwright.api.resource import Resource, send
from hullwright.persistence import instances, server_groups

_UNLIMITED = -1
_NETWORK_QUOTAS = ("fixed_ips", "floating_ips", "networks", "security_group_rules", "security_groups")
_INJECTION_QUOTAS = ("injected_file_content_bytes", "injected_file_path_bytes", "injected_files")


class Limits(Resource):
    """Limits and use of a project."""

    def on_get(self, req: falcon.Request, resp: falcon.Response) -> None:
        """The caller's project, or for administrators the one named by tenant_id."""
        minor, who = microversion(req), caller(req)
        project_id = last(req, "tenant_id") or who.project_id
        if project_id != who.project_id:
            self.context.policy.require(req, "os-quota-sets:show", project_id)
        with self.context.db.read() as conn:
            count, vcpus, memory_mb = instances.count_living(conn, project_id)
            groups = server_groups.count(conn, project_id)
        absolute: dict[str, Any] = {
            "maxServerMeta": self.context.conf.api.metadata_items,
            "maxTotalInstances": _UNLIMITED,
            "maxTotalCores": _UNLIMITED,
            "maxTotalRAMSize": _UNLIMITED,
            "maxTotalKeypairs": MAX_KEY_PAIRS,
            "maxServerGroups": _UNLIMITED,
            "maxServerGroupMembers": _UNLIMITED,
            "totalInstancesUsed": count,
            "totalCoresUsed": vcpus,
            "totalRAMUsed": memory_mb,
            "totalServerGroupsUsed": groups,
        }
        if minor < 57:
            absolute |= {"maxPersonality": 0, "maxPersonalitySize": 0}
        if minor < 39:
            absolute["maxImageMeta"] = self.context.conf.api.metadata_items
        if minor < 36:
            absolute |= {
                "maxSecurityGroups": _UNLIMITED,
                "maxSecurityGroupRules": _UNLIMITED,
                "maxTotalFloatingIps": _UNLIMITED,
                "totalFloatingIpsUsed": 0,
                "totalSecurityGroupsUsed": 0,
            }
        send(resp, {"limits": {"rate": [], "absolute": absolute}})


class QuotaSets(Resource):
    """Quotas of a project."""

    def on_get(self, req: falcon.Request, resp: falcon.Response, project_id: str) -> None:
        """The limits."""
        self.context.policy.require(req, "os-quota-sets:show", project_id)
        send(resp, {"quota_set": {"id": project_id, **self._limits(microversion(req))}})

    def on_get_defaults(self, req: falcon.Request, resp: falcon.Response, project_id: str) -> None:
        """The limits of a project that has none of its own: the same."""
        self.on_get(req, resp, project_id)

    def on_get_detail(self, req: falcon.Request, resp: falcon.Response, project_id: str) -> None:
        """Limits and use."""
        self.context.policy.require(req, "os-quota-sets:show", project_id)
        with self.context.db.read() as conn:
            count, vcpus, memory_mb = instances.count_living(conn, project_id)
            groups = server_groups.count(conn, project_id)
        used = {"instances": count, "cores": vcpus, "ram": memory_mb, "server_groups": groups}
        shown: dict[str, Any] = {"id": project_id}
        for name, limit in self._limits(microversion(req)).items():
            shown[name] = {"limit": limit, "in_use": used.get(name, 0), "reserved": 0}
        send(resp, {"quota_set": shown})

    def _limits(self, minor: int) -> dict[str, int]:
        limits = {
            "instances": _UNLIMITED,
            "cores": _UNLIMITED,
            "ram": _UNLIMITED,
            "metadata_items": self.context.conf.api.metadata_items,
            "key_pairs": MAX_KEY_PAIRS,
            "server_groups": _UNLIMITED,
            "server_group_members": _UNLIMITED,
        }
        if minor < 36:
            limits |= dict.fromkeys(_NETWORK_QUOTAS, _UNLIMITED)
        if minor < 57:
            limits |= dict.fromkeys(_INJECTION_QUOTAS, 0)
        return limits
