"""/identity: a version document, and nothing behind it, for an installation without Keystone.

The OpenStack client looks for an identity service before most commands, even with auth_type none and even when it then asks nothing of it.
"""

from __future__ import annotations

from typing import Any

import falcon

from hullwright.api.context import ApiContext, base_url
from hullwright.api.resource import Resource, send


class IdentityVersion(Resource):
    """What discovery wants to see."""

    def on_get(self, req: falcon.Request, resp: falcon.Response) -> None:
        """The version of this path."""
        send(resp, {"version": self._version(req)})

    def on_get_root(self, req: falcon.Request, resp: falcon.Response) -> None:
        """All versions: one."""
        send(resp, {"versions": {"values": [self._version(req)]}}, 300)

    def _version(self, req: falcon.Request) -> dict[str, Any]:
        return {
            "id": "v3.14",
            "status": "stable",
            "updated": "2020-04-07T00:00:00Z",
            "links": [{"rel": "self", "href": f"{base_url(req, self.context.conf)}/identity/v3/"}],
            "media-types": [{"base": "application/json", "type": "application/vnd.openstack.identity-v3+json"}],
        }


def add_routes(app: falcon.App[Any, Any], context: ApiContext) -> None:
    """Give `app` the two documents."""
    resource = IdentityVersion(context)
    app.add_route("/identity", resource, suffix="root")
    app.add_route("/identity/v3", resource)
