"""Which versions, resources and extensions of the Network API there are. A client asks for an extension before it uses what that adds."""

from __future__ import annotations

from typing import Any

import falcon

from hullwright.api.context import base_url
from hullwright.api.resource import Resource, send

_UPDATED = "2026-01-01T00:00:00-00:00"
_EXTENSIONS = {
    "binding": ("Port Binding", "Expose port bindings of a virtual port to external application"),
    "net-mtu": ("Network MTU", "Provides MTU attribute for a network resource."),
    "net-mtu-writable": ("Network MTU (writable)", "Provides a writable MTU attribute for a network resource."),
    "pagination": ("Pagination support", "Extension that indicates that pagination is enabled."),
    "port-security": ("Port Security", "Provides port security"),
    "project-id": ("project_id field enabled", "Extension that indicates that project_id field is enabled."),
    "provider": ("Provider Network", "Expose mapping of virtual networks to physical networks"),
    "security-group": ("security-group", "The security groups extension."),
    "sorting": ("Sorting support", "Extension that indicates that sorting is enabled."),
    "standard-attr-description": ("standard-attr-description", "Extension to add descriptions to standard attributes"),
    "standard-attr-timestamp": ("Resource timestamps", "Adds created_at and updated_at fields to resources."),
}


class Versions(Resource):
    """GET /network."""

    def on_get(self, req: falcon.Request, resp: falcon.Response) -> None:
        """The one version."""
        href = f"{base_url(req, self.context.conf)}/network/v2.0/"
        send(resp, {"versions": [{"id": "v2.0", "status": "CURRENT", "links": [{"rel": "self", "href": href}]}]})


class Resources(Resource):
    """GET /network/v2.0."""

    def on_get(self, req: falcon.Request, resp: falcon.Response) -> None:
        """The collections."""
        base = f"{base_url(req, self.context.conf)}/network/v2.0"
        send(
            resp,
            {
                "resources": [
                    {"name": name, "collection": f"{name}s", "links": [{"rel": "self", "href": f"{base}/{name}s"}]}
                    for name in ("network", "subnet", "port")
                ]
            },
        )


class Extensions:
    """GET /network/v2.0/extensions."""

    def on_get(self, req: falcon.Request, resp: falcon.Response) -> None:
        """All of them."""
        send(resp, {"extensions": [_view(alias) for alias in _EXTENSIONS]})


class ExtensionItem:
    """GET /network/v2.0/extensions/{alias}."""

    def on_get(self, req: falcon.Request, resp: falcon.Response, alias: str) -> None:
        """One."""
        if alias not in _EXTENSIONS:
            raise falcon.HTTPNotFound
        send(resp, {"extension": _view(alias)})


def _view(alias: str) -> dict[str, Any]:
    name, description = _EXTENSIONS[alias]
    return {"alias": alias, "name": name, "description": description, "updated": _UPDATED, "links": []}
