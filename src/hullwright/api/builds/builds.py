"""Builds: list, show, events, and the door to the stream."""

from __future__ import annotations

import functools
from typing import Any

import falcon
from sqlalchemy.engine import Connection

from hullwright.api.builds.stream import MEDIA_TYPE, Streams
from hullwright.api.builds.views import brief_view, build_view, event_view, is_at_rest
from hullwright.api.context import ApiContext, Caller, caller
from hullwright.api.errors import HttpError
from hullwright.api.queries import boolean, every, integer, next_query
from hullwright.api.resource import Resource, send
from hullwright.conf.conductor import step_limit_seconds
from hullwright.objects.builds import Job
from hullwright.objects.states import JobState
from hullwright.persistence import attempts, builds, events, faults, waits
from hullwright.persistence.builds import Server
from hullwright.persistence.jobs import JobNotFound

_DEFAULT_LIMIT = 100
_MAX_EVENTS = 10_000


def visible(conn: Connection, who: Caller, id: str) -> tuple[Job, Server | None]:
    """A build by its own id or by its server's (then the newest one), if the caller may see it.

    Raises: JobNotFound.
    """
    found = builds.find(conn, id)
    if found is None or not (who.is_admin or (found[1] is not None and found[1].project_id == who.project_id)):
        raise JobNotFound(id=id)
    return found


class Builds(Resource):
    """GET /v1/builds."""

    def on_get(self, req: falcon.Request, resp: falcon.Response) -> None:
        """Builds, newest first. `kind=all` lists other work on servers and volumes too; `waiting=true` only what waits for room."""
        who = caller(req)
        states = every(req, "state")
        for state in states:
            if state not in list(JobState):
                raise HttpError(400, f"Invalid state '{state}': use one of {', '.join(JobState)}.")
        kinds = every(req, "kind") or ["build_instance"]
        limit = integer(req, "limit")
        limit = min(_DEFAULT_LIMIT if limit is None else limit, self.context.conf.api.max_limit)
        with self.context.db.read() as conn:
            before_id = None
            if marker := req.get_param("marker"):
                before_id = visible(conn, who, marker)[0].id
            found = builds.list_all(
                conn,
                project_id=None if who.is_admin else who.project_id,
                server_id=req.get_param("server") or req.get_param("server_id"),
                kinds=[] if "all" in kinds else kinds,
                states=states,
                waiting=boolean(req.get_param("waiting") or "false", "waiting"),
                before_id=before_id,
                limit=limit + 1,
            )
            places = waits.places(conn, [job for job, _ in found[:limit]])
        body: dict[str, Any] = {"builds": [brief_view(job, server, places.get(job.id)) for job, server in found[:limit]], "next": None}
        if len(found) > limit > 0:
            body["next"] = f"/v1/builds?{next_query(req, found[limit - 1][0].uuid)}"
        send(resp, body)


class BuildItem(Resource):
    """GET /v1/builds/{build_id}."""

    def __init__(self, context: ApiContext) -> None:
        """Keep the parts."""
        super().__init__(context)
        self._limit_seconds = functools.partial(step_limit_seconds, context.conf.conductor)

    def on_get(self, req: falcon.Request, resp: falcon.Response, build_id: str) -> None:
        """All of a build. `build_id` may be a server's id and then means its newest build."""
        who = caller(req)
        with self.context.db.read() as conn:
            job, server = visible(conn, who, build_id)
            fault = faults.latest(conn, job.instance_uuid) if job.instance_uuid else None
            if fault is not None and fault.created_at < job.created_at:
                fault = None  # an older build's
            view = build_view(
                job,
                server,
                attempts.list_for(conn, job.uuid),
                events.list_since(conn, job.uuid, limit=_MAX_EVENTS),
                events.list_progress(conn, job.uuid),
                fault,
                waits.place(conn, job),
                limit_seconds=self._limit_seconds,
                admin=who.is_admin,
            )
        send(resp, {"build": view})


class BuildEvents(Resource):
    """GET /v1/builds/{build_id}/events."""

    def __init__(self, context: ApiContext, streams: Streams) -> None:
        """Keep the parts."""
        super().__init__(context)
        self._streams = streams

    def on_get(self, req: falcon.Request, resp: falcon.Response, build_id: str) -> None:
        """The events behind number `after`; as a stream, for those who accept nothing else."""
        if (req.accept or "").split(";")[0].strip() == MEDIA_TYPE:
            _stream(self.context.db, self._streams, req, resp, build_id)
            return
        after = integer(req, "after") or 0
        limit = integer(req, "limit")
        admin = caller(req).is_admin
        with self.context.db.read() as conn:
            job, _ = visible(conn, caller(req), build_id)
            found = events.list_since(conn, job.uuid, after, _MAX_EVENTS if limit is None else min(limit, _MAX_EVENTS))
        send(
            resp,
            {
                "events": [event_view(event, admin=admin) for event in found],
                "last_seq": found[-1].seq if found else after,
                "state": job.state,
                "at_rest": is_at_rest(job.state),
                "progress": job.progress,
            },
        )


class BuildStream(Resource):
    """GET /v1/builds/{build_id}/stream."""

    def __init__(self, context: ApiContext, streams: Streams) -> None:
        """Keep the parts."""
        super().__init__(context)
        self._streams = streams

    def on_get(self, req: falcon.Request, resp: falcon.Response, build_id: str) -> None:
        """What happens, as it happens."""
        _stream(self.context.db, self._streams, req, resp, build_id)


def _stream(db: Any, streams: Streams, req: falcon.Request, resp: falcon.Response, build_id: str) -> None:
    """Answer with a stream, behind the client's last event.

    Raises: JobNotFound, TooManyStreams, HttpError 400.
    """
    who = caller(req)
    name, last = "Last-Event-ID", req.get_header("Last-Event-ID")
    if not last:
        name, last = "after", req.get_param("after") or "0"
    if not (last.isascii() and last.isdigit()) or len(last) > 9:
        raise HttpError(400, f"{name} must be the number of an event, not '{last[:100]}'.")
    with db.read() as conn:
        job, _ = visible(conn, who, build_id)
    resp.content_type = MEDIA_TYPE
    resp.set_header("Cache-Control", "no-store")
    resp.set_header("X-Accel-Buffering", "no")  # nginx would hold events back
    resp.stream = streams.open(job.uuid, int(last), admin=who.is_admin)
