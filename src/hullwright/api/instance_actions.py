"""/servers/{id}/os-instance-actions: what was asked of a server, and as events each step of it, with its true result.

A step that failed is an Error though the build went on elsewhere; each attempt's steps are events of their own, and so is each undo.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import falcon

from hullwright.api.context import caller, microversion
from hullwright.api.links import Links
from hullwright.api.queries import cut, last, page_limit
from hullwright.api.resource import Resource, send
from hullwright.api.server_views import host_id
from hullwright.api.times import iso_micro, moment
from hullwright.objects.builds import Action
from hullwright.objects.errors import BadRequest, NotFound
from hullwright.objects.history import History, Run
from hullwright.objects.states import StepState
from hullwright.persistence import actions, events

_STRICT_SINCE = 75
_PARAMETERS = {"limit": 58, "marker": 58, "changes-since": 58, "changes-before": 66}


class ActionNotFound(NotFound):
    """No such request."""

    message = "Action for request_id {id} on instance {server} not found"


class InstanceActions(Resource):
    """The record of a server, deleted ones too from 2.21 on."""

    def on_get(self, req: falcon.Request, resp: falcon.Response, server_id: str) -> None:
        """All actions, newest first; in pages from 2.58 on."""
        minor = microversion(req)
        row = self.server(req, server_id, "os-instance-actions", deleted=minor >= 21)
        unknown = [name for name in req.params if minor >= _STRICT_SINCE and _PARAMETERS.get(name, 10**6) > minor]
        if unknown:
            raise BadRequest(
                f"Invalid input for query parameters {unknown[0][:100]}. Additional properties are not allowed "
                f"({unknown[0][:100]!r} was unexpected)"
            )
        answer: dict[str, Any] = {}
        with self.context.db.read() as conn:
            if minor < 58:
                page: Sequence[Action] = actions.list_for(conn, row["uuid"])
            else:
                limit = page_limit(req, self.context.conf.api.max_limit)
                since, before, before_id = last(req, "changes-since"), None, None
                if minor >= 66:
                    before = last(req, "changes-before")
                if (marker := last(req, "marker")) is not None:
                    start = actions.get(conn, row["uuid"], marker)
                    if start is None:
                        raise BadRequest(f"marker [{marker[:100]}] not found")
                    before_id = start.id
                found = actions.list_for(
                    conn,
                    row["uuid"],
                    limit=limit + 1,
                    before_id=before_id,
                    since=None if since is None else moment(since, "changes-since"),
                    before=None if before is None else moment(before, "changes-before"),
                )
                page, more = cut(found, limit)
                if more:
                    answer["links"] = Links(req, self.context.conf).next(req, page[-1].request_id)
        answer["instanceActions"] = [_action(action, minor) for action in page]
        send(resp, answer)

    def on_get_one(self, req: falcon.Request, resp: falcon.Response, server_id: str, action_id: str) -> None:
        """One action with its events."""
        minor = microversion(req)
        row = self.server(req, server_id, "os-instance-actions", deleted=minor >= 21)
        with self.context.db.read() as conn:
            action = actions.get(conn, row["uuid"], action_id)
            if action is None:
                raise ActionNotFound(id=action_id[:100], server=row["uuid"])
            steps = events.list_since(conn, action.job_uuid) if action.job_uuid else []
        admin = self.context.policy.allows(caller(req), "os-instance-actions:events:details")
        shown = _action(action, minor)
        if minor >= 51 or admin:
            shown["events"] = [_event(run, row["project_id"], minor, admin) for run in History().apply_all(steps).runs]
        send(resp, {"instanceAction": shown})


def _action(action: Action, minor: int) -> dict[str, Any]:
    shown: dict[str, Any] = {
        "action": action.action,
        "instance_uuid": action.instance_uuid,
        "request_id": action.request_id,
        "user_id": action.user_id,
        "project_id": action.project_id,
        "start_time": iso_micro(action.started_at),
        "message": action.message,
    }
    if minor >= 58:
        shown["updated_at"] = iso_micro(action.finished_at or action.started_at)
    return shown


def _event(run: Run, project_id: str, minor: int, admin: bool) -> dict[str, Any]:
    has_failed = run.state in (StepState.FAILURE, StepState.REVERT_FAILURE)
    shown: dict[str, Any] = {
        "event": f"{run.step} (undo)" if run.is_undo else run.step,
        "start_time": iso_micro(run.started_at),
        "finish_time": iso_micro(run.finished_at),
        "result": None if run.finished_at is None else "Error" if has_failed else "Success",
    }
    if admin:
        shown["traceback"] = f"{run.error}: {run.message}" if run.error else None
    if minor >= 62:
        shown["hostId"] = host_id(project_id, run.host)
        if admin:
            shown["host"] = run.host
    if minor >= 84:
        # The message of an error may name hosts; its class does not.
        cause = "waits for room" if run.state == StepState.WAITING else run.message if admin else run.error
        place = f"attempt {run.attempt}" if run.attempt else None
        shown["details"] = ": ".join(part for part in (place, cause) if part) or None
    return shown
