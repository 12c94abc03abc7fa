"""The Build API, as the commands use it: the builds of a server, one build whole, and following one while it happens."""

from __future__ import annotations

import datetime
import time
from collections.abc import Iterator, Mapping
from typing import Any

from hullwright.cli import http
from hullwright.cli.watch import Watch
from hullwright.objects.builds import StepEvent
from hullwright.objects.errors import NotFound
from hullwright.objects.history import History, Run
from hullwright.objects.states import OPEN_JOB_STATES

RETRY_SECONDS = 0.5
PATIENCE_SECONDS = 60.0  # how long an API that went away may take to come back


def list_for(client: http.Client, server_id: str, kind: str = "build_instance") -> list[dict[str, Any]]:
    """The builds of a server, newest first; `kind` all: other work on it too."""
    return list(client.get(http.BUILDS, server=server_id, kind=kind)["builds"])


def latest(client: http.Client, server_id: str) -> dict[str, Any]:
    """The newest build of a server.

    Raises: NotFound.
    """
    for build in list_for(client, server_id):
        return build
    raise NotFound(kind="The build of server", id=server_id)


def show(client: http.Client, build_id: str) -> dict[str, Any]:
    """One build with its attempts, events and progress."""
    return dict(client.get(f"{http.BUILDS}/{build_id}")["build"])


def seconds(text: str) -> float:
    """A time of the Build API (ISO 8601) in seconds since the epoch."""
    return datetime.datetime.fromisoformat(text).timestamp()


def history(build: Mapping[str, Any]) -> History:
    """What a build's events tell, with how far its long steps came."""
    told = History().apply_all(_event(event) for event in build["events"])
    for entry in build["step_progress"]:
        _progress(told, entry)
    return told


def _progress(told: History, entry: Mapping[str, Any]) -> Run | None:
    return told.progress(entry["step"], entry["done"], entry["total"], entry["unit"], seconds(entry["at"]))


def _event(event: Mapping[str, Any]) -> StepEvent:
    return StepEvent.from_dict({"job_uuid": "", "owner": "", "fence": 0} | dict(event) | {"at": seconds(event["at"])})


def follow(client: http.Client, build_id: str, screen: Watch) -> dict[str, Any]:
    """Show a build on `screen` until it has ended; the build as it ended.

    The stream of events is taken up again where it broke off, for as long as the API is not away for more than a minute; where there
    is no place for a stream, the events are asked for in intervals.

    Raises: ApiUnreachable.
    """
    told = History()
    away_since: float | None = None
    while True:
        try:
            for event, data in _stream(client, build_id, told.seq):
                away_since = None
                if event == "step":
                    screen.changed(told, told.apply(_event(data)))
                elif event == "progress":
                    screen.changed(told, _progress(told, data))
            build = show(client, build_id)
            if build["state"] not in OPEN_JOB_STATES:
                for event in build["events"]:  # what a stream that ended early did not tell
                    screen.changed(told, told.apply(_event(event)))
                return build
        except http.ApiUnreachable:
            away_since = away_since or time.monotonic()
            if time.monotonic() - away_since > PATIENCE_SECONDS:
                raise
        time.sleep(RETRY_SECONDS)


def _stream(client: http.Client, build_id: str, after: int) -> Iterator[tuple[str, Any]]:
    path = f"{http.BUILDS}/{build_id}"
    try:
        for _, event, data in client.events(f"{path}/stream", str(after)):
            yield event, data
    except http.ApiError:  # every place for a stream is taken
        build = show(client, build_id)
        for event in build["events"][after:]:
            yield "step", event
        for entry in build["step_progress"]:
            yield "progress", entry
