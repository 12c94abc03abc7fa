"""The Build API, as the commands use it: the builds of a server, one build whole, and following one while it happens."""

from __future__ import annotations

from typing import Any

from hullwright.cli import http
from hullwright.objects.errors import NotFound

RETRY_SECONDS = 0.5
PATIENCE_SECONDS = 60.0  # how long an API that went away may take to come back


def list_for(client: http.Client, server_id: str) -> list[dict[str, Any]]:
    """The jobs of a server, newest first."""
    return list(client.get(http.BUILDS, server_id=server_id)["builds"])


def latest(client: http.Client, server_id: str) -> dict[str, Any]:
    """The newest build of a server.

    Raises: NotFound.
    """
    for build in list_for(client, server_id):
        if build["kind"] == "build_instance":
            return build
    raise NotFound(kind="The build of server", id=server_id)


def show(client: http.Client, build_id: str) -> dict[str, Any]:
    """One build with its attempts, events and progress."""
    return dict(client.get(f"{http.BUILDS}/{build_id}")["build"])
