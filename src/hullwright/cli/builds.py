"""The Build API, as the commands use it: the builds of a server, one build whole, and following one while it happens."""

from __future__ import annotations

import time
from typing import Any

from hullwright.cli import http
from hullwright.cli.history import History
from hullwright.cli.watch import Watch
from hullwright.objects.errors import NotFound
from hullwright.objects.states import OPEN_JOB_STATES

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


def history(build: dict[str, Any]) -> History:
    """What a build's events tell, with how far its long steps came."""
    told = History().apply_all(build["events"])
    for entry in build["progress"]:
        told.progress(entry["step"], entry["done"], entry["total"], entry["unit"])
    return told


def follow(client: http.Client, build_id: str, screen: Watch) -> dict[str, Any]:
    """Show a build on `screen` until it has ended; the build as it ended.

    The stream is taken up again where it broke off, for as long as the API is not away for more than a minute.

    Raises: ApiUnreachable.
    """
    told = History()
    last_id: str | None = None
    away_since: float | None = None
    while True:
        try:
            for identity, event, data in client.events(f"{http.BUILDS}/{build_id}/events", last_id):
                last_id, away_since = identity, None
                if event == "step":
                    screen.changed(told, told.apply(data))
                elif event == "progress":
                    screen.changed(told, told.progress(data["step"], data["done"], data["total"], data["unit"]))
            build = show(client, build_id)
            if build["state"] not in OPEN_JOB_STATES:
                return build
        except http.ApiUnreachable:
            away_since = away_since or time.monotonic()
            if time.monotonic() - away_since > PATIENCE_SECONDS:
                raise
        time.sleep(RETRY_SECONDS)
