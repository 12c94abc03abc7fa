"""The part of the Network API (v2.0) that clients need, answered from the embedded network service.

Not for: networks that live in Neutron; no driver asks it yet.
"""

from __future__ import annotations

from typing import Any

import falcon

from hullwright.api.context import ApiContext
from hullwright.api.network import extensions, networks, ports, security_groups, subnets
from hullwright.api.network.errors import error_body

PREFIX = "/network"


def add_routes(app: falcon.App[Any, Any], context: ApiContext) -> None:
    """Answer below /network."""
    context.error_bodies[PREFIX] = error_body
    v2 = f"{PREFIX}/v2.0"
    app.add_route(PREFIX, extensions.Versions(context))
    app.add_route(v2, extensions.Resources(context))
    app.add_route(f"{v2}/extensions", extensions.Extensions())
    app.add_route(f"{v2}/extensions/{{alias}}", extensions.ExtensionItem())
    app.add_route(f"{v2}/networks", networks.Networks(context))
    app.add_route(f"{v2}/networks/{{network_id}}", networks.NetworkItem(context))
    app.add_route(f"{v2}/subnets", subnets.Subnets(context))
    app.add_route(f"{v2}/subnets/{{subnet_id}}", subnets.SubnetItem(context))
    app.add_route(f"{v2}/ports", ports.Ports(context))
    app.add_route(f"{v2}/ports/{{port_id}}", ports.PortItem(context))
    app.add_route(f"{v2}/security-groups", security_groups.SecurityGroups(context))
    app.add_route(f"{v2}/security-groups/{{group_id}}", security_groups.SecurityGroupItem())
    app.add_route(f"{v2}/security-group-rules", security_groups.SecurityGroupRules(context))
