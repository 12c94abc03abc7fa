"""POST /servers/{id}/action: the things that one asks of a server.

What needs the server's guest becomes a job; the answer is 202 and the server's task_state tells that it is under way.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import falcon
from sqlalchemy.engine import RowMapping

from hullwright.api import unsupported
from hullwright.api.context import microversion, request_id
from hullwright.api.errors import no_such_action
from hullwright.api.json_body import read_json
from hullwright.api.resource import Resource, asker, send
from hullwright.api.schemas.actions import ACTIONS
from hullwright.conductor.client import CONSOLE_LOG
from hullwright.objects.errors import BadRequest, Conflict, InstanceInvalidState
from hullwright.objects.states import OPEN_JOB_STATES, TaskState, VmState
from hullwright.persistence import actions, instances, jobs

_MAX_CONSOLE_BYTES = 1024 * 1024

Handler = Callable[[falcon.Request, falcon.Response, str, Any], None]


def check_state(
    row: RowMapping, action: str, vm_states: Sequence[VmState], task_states: Sequence[TaskState | None] | None = (None,)
) -> None:
    """Refuse an action that the server's state does not allow; `task_states` None: whatever is being done.

    Raises: InstanceInvalidState.
    """
    if row["vm_state"] not in vm_states:
        raise InstanceInvalidState(action=action, id=row["uuid"], attribute="vm_state", state=row["vm_state"])
    if task_states is not None and row["task_state"] not in task_states:
        raise InstanceInvalidState(action=action, id=row["uuid"], attribute="task_state", state=row["task_state"])


class ServerActions(Resource):
    """One path for all actions: the body's only key says which."""

    def on_post(self, req: falcon.Request, resp: falcon.Response, server_id: str) -> None:
        """Do what the body names."""
        body = read_json(req, self.context.conf)
        if not isinstance(body, dict) or len(body) != 1:
            raise BadRequest("Malformed request body")
        [(name, arguments)] = body.items()
        windows = ACTIONS.get(name)
        if windows is None:
            raise no_such_action(name, unsupported.ACTIONS)
        windows.check(body, microversion(req))
        handlers: dict[str, Handler] = {
            "os-start": self._start,
            "os-stop": self._stop,
            "reboot": self._reboot,
            "lock": self._lock,
            "unlock": self._unlock,
            "forceDelete": self._force_delete,
            "os-resetState": self._reset_state,
            "os-getConsoleOutput": self._console_output,
        }
        resp.status = 202
        handlers[name](req, resp, server_id, arguments)

    def _start(self, req: falcon.Request, resp: falcon.Response, server_id: str, _arguments: Any) -> None:
        row = self.server(req, server_id, "servers:start", unlocked=True)
        check_state(row, "start", (VmState.STOPPED,))
        self.context.client.start_server(row["uuid"], asker(req))

    def _stop(self, req: falcon.Request, resp: falcon.Response, server_id: str, _arguments: Any) -> None:
        row = self.server(req, server_id, "servers:stop", unlocked=True)
        check_state(row, "stop", (VmState.ACTIVE, VmState.ERROR))
        self._check_has_guest(row, "stop")
        self.context.client.stop_server(row["uuid"], asker(req))

    def _reboot(self, req: falcon.Request, resp: falcon.Response, server_id: str, arguments: Any) -> None:
        row = self.server(req, server_id, "servers:reboot", unlocked=True)
        hard = arguments["type"].upper() == "HARD"
        if hard:
            vm_states = (VmState.ACTIVE, VmState.STOPPED, VmState.PAUSED, VmState.SUSPENDED, VmState.ERROR)
            check_state(row, "reboot", vm_states, (None, TaskState.REBOOTING, TaskState.REBOOTING_HARD))
        else:
            check_state(row, "reboot", (VmState.ACTIVE,))
        self._check_has_guest(row, "reboot")
        self.context.client.reboot_server(row["uuid"], asker(req), hard=hard)

    @staticmethod
    def _check_has_guest(row: RowMapping, action: str) -> None:
        """A server whose build failed has no host, and nothing there to act on."""
        if row["host"] is None:
            raise InstanceInvalidState(action=action, id=row["uuid"], attribute="vm_state", state=row["vm_state"])

    def _lock(self, req: falcon.Request, resp: falcon.Response, server_id: str, arguments: Any) -> None:
        row = self.server(req, server_id, "os-lock-server:lock")
        # The reason came with 2.73; before, whatever the body holds means nothing.
        reason = (arguments or {}).get("locked_reason") if microversion(req) >= 73 else None
        self._set_lock(req, row, locked=True, reason=reason)

    def _unlock(self, req: falcon.Request, resp: falcon.Response, server_id: str, _arguments: Any) -> None:
        self._set_lock(req, self.server(req, server_id, "os-lock-server:unlock"), locked=False, reason=None)

    def _set_lock(self, req: falcon.Request, row: RowMapping, *, locked: bool, reason: str | None) -> None:
        who = asker(req)
        with self.context.db.write() as conn:
            instances.update(conn, row["uuid"], locked=locked, locked_reason=reason)
            actions.start(
                conn,
                instance_uuid=row["uuid"],
                action="lock" if locked else "unlock",
                request_id=who.request_id,
                project_id=who.project_id,
                user_id=who.user_id,
                job_uuid=None,
            )

    def _force_delete(self, req: falcon.Request, resp: falcon.Response, server_id: str, _arguments: Any) -> None:
        row = self.server(req, server_id, "servers:delete", unlocked=True)
        self.context.client.delete_server(row["uuid"], asker(req))

    def _reset_state(self, req: falcon.Request, resp: falcon.Response, server_id: str, arguments: Any) -> None:
        row = self.server(req, server_id, "os-admin-actions:reset_state")
        state = VmState.ACTIVE if arguments["state"] == "active" else VmState.ERROR
        with self.context.db.write() as conn:
            current = instances.get_row(conn, row["uuid"], for_update=True)
            if jobs.list_jobs(conn, instance_uuid=row["uuid"], states=OPEN_JOB_STATES, limit=1):
                # Its steps would meet a state that they did not leave; delete the server to end what is under way.
                raise Conflict(reason=f"Instance {row['uuid']} has work under way (task_state {current['task_state']}).")
            instances.update(conn, row["uuid"], vm_state=state, task_state=None)

    def _console_output(self, req: falcon.Request, resp: falcon.Response, server_id: str, arguments: Any) -> None:
        row = self.server(req, server_id, "os-console-output")
        if row["host"] is None:
            raise Conflict(reason=f"Instance {row['uuid']} is not ready")
        length = arguments.get("length")
        lines = None if length is None or int(length) < 0 else int(length)
        text = self.context.client.query(
            CONSOLE_LOG,
            row["uuid"],
            {"max_bytes": _MAX_CONSOLE_BYTES if lines is None else min(_MAX_CONSOLE_BYTES, 16384 + 512 * lines)},
            self.context.conf.api.query_timeout_seconds,
            request_id(req),
        )
        send(resp, {"output": tail(str(text or ""), lines)})


def tail(text: str, lines: int | None) -> str:
    """The last lines of a text; None: all."""
    if lines is None:
        return text
    if lines == 0:
        return ""
    kept = text.split("\n")
    if kept and kept[-1] == "":
        return "\n".join(kept[-lines - 1 :])
    return "\n".join(kept[-lines:])
