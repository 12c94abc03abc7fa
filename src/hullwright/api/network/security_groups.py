"""Security groups as they are here: one per project, named default, which lets everything through.

It says what is true: guests on the embedded networks are kept from spoofing addresses, and nothing else is filtered. Clients look for
the group by name before they create a server. Others cannot be made.
"""

from __future__ import annotations

import uuid
from typing import Any

import falcon

from hullwright.api.context import caller
from hullwright.api.network.listing import show
from hullwright.api.queries import every
from hullwright.api.resource import Resource, send

_NAMESPACE = uuid.UUID("5d1b2a0e-6f0c-5b7e-9a57-3f2d6e2f7c11")
_DESCRIPTION = "Default security group: all traffic passes; only spoofed addresses are filtered."


def default_group_id(project_id: str) -> str:
    """The id of a project's group: the same at every look."""
    return str(uuid.uuid5(_NAMESPACE, project_id))


def group_view(project_id: str) -> dict[str, Any]:
    """A project's group."""
    return {
        "id": default_group_id(project_id),
        "name": "default",
        "description": _DESCRIPTION,
        "project_id": project_id,
        "tenant_id": project_id,
        "stateful": True,
        "shared": False,
        "tags": [],
        "security_group_rules": rule_views(project_id),
    }


def rule_views(project_id: str) -> list[dict[str, Any]]:
    """Its rules: in and out, IPv4 and IPv6, anything."""
    group_id = default_group_id(project_id)
    return [
        {
            "id": str(uuid.uuid5(_NAMESPACE, f"{project_id}/{direction}/{ethertype}")),
            "security_group_id": group_id,
            "direction": direction,
            "ethertype": ethertype,
            "protocol": None,
            "port_range_min": None,
            "port_range_max": None,
            "remote_ip_prefix": None,
            "remote_group_id": None,
            "description": "",
            "project_id": project_id,
            "tenant_id": project_id,
        }
        for direction in ("egress", "ingress")
        for ethertype in ("IPv4", "IPv6")
    ]


def _named(req: falcon.Request, views: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Those views whose attributes are as the query says."""
    for name in req.params:
        if views and name in views[0]:
            views = [view for view in views if str(view[name]) in every(req, name)]
    return views


class SecurityGroups(Resource):
    """GET /v2.0/security-groups."""

    def on_get(self, req: falcon.Request, resp: falcon.Response) -> None:
        """The caller's one group, if the query describes it."""
        send(resp, {"security_groups": _named(req, [group_view(caller(req).project_id)])})


class SecurityGroupItem:
    """GET /v2.0/security-groups/{group_id}."""

    def on_get(self, req: falcon.Request, resp: falcon.Response, group_id: str) -> None:
        """The caller's group."""
        view = group_view(caller(req).project_id)
        if group_id != view["id"]:
            raise falcon.HTTPNotFound
        send(resp, show(req, "security_group", view))


class SecurityGroupRules(Resource):
    """GET /v2.0/security-group-rules."""

    def on_get(self, req: falcon.Request, resp: falcon.Response) -> None:
        """The rules of the caller's group."""
        send(resp, {"security_group_rules": _named(req, rule_views(caller(req).project_id))})
