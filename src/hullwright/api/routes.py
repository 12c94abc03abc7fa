"""The table of compute's routes: path, resource, and the suffix of its responders."""

from __future__ import annotations

from typing import Any

import falcon

from hullwright.api.context import ApiContext
from hullwright.api.servers import Server, Servers
from hullwright.api.versions import Health, Versions

# (path, class, suffix); one instance of a class serves all its paths.
ROUTES: tuple[tuple[str, type[Any], str | None], ...] = (
    ("/", Versions, None),
    ("/v2.1", Versions, "one"),
    ("/healthz", Health, None),
    ("/v2.1/servers", Servers, None),
    ("/v2.1/servers/detail", Servers, "detail"),
    ("/v2.1/servers/{server_id}", Server, None),
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
