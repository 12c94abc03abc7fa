"""/servers: create, list, show, change, delete."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from uuid import UUID

import falcon
import orjson
import sqlalchemy as sa
from sqlalchemy.engine import RowMapping

from hullwright.api import server_filters, validation
from hullwright.api.context import ApiContext, Caller, caller, microversion, request_id
from hullwright.api.links import Links, cut
from hullwright.api.schemas import servers as schemas
from hullwright.api.schemas.parts import truth
from hullwright.api.server_create import Batch, generated_password, prepare
from hullwright.api.server_views import DEFAULT_GROUPS, ServerView
from hullwright.conductor.client import Asker
from hullwright.objects.errors import BadRequest, Conflict, InstanceNotFound
from hullwright.objects.states import TaskState
from hullwright.persistence import instances, server_pages


def send(resp: falcon.Response, answer: Any, status: int = 200) -> None:
    """Answer with JSON."""
    resp.status = status
    resp.content_type = "application/json"
    resp.data = orjson.dumps(answer)


def asker(req: falcon.Request) -> Asker:
    """Whose request it is, for the record."""
    who = caller(req)
    return Asker(request_id(req), who.project_id, who.user_id)


def find(
    context: ApiContext, req: falcon.Request, uuid: str, rule: str, *, deleted: bool = False, unlocked: bool = False
) -> RowMapping:
    """The row of a server that the caller may do `rule` to; others do not exist for him.

    `unlocked`: refuse a locked server to whom its lock holds.

    Raises: InstanceNotFound, Forbidden, Conflict.
    """
    if not validation.is_uuid(uuid):
        raise InstanceNotFound(id=uuid[:100])
    uuid = str(UUID(uuid))
    with context.db.read() as conn:
        row = instances.get_row(conn, uuid, deleted=deleted)
    who = caller(req)
    if row["project_id"] != who.project_id and not who.is_admin:
        raise InstanceNotFound(id=uuid)
    context.policy.require(req, rule, row["project_id"], row["user_id"])
    if unlocked and row["locked"] and not context.policy.allows(who, "os-lock-server:unlock_override"):
        raise Conflict(reason=f"Instance {uuid} is locked")
    return row


class Servers:
    """The collection."""

    def __init__(self, context: ApiContext) -> None:
        """Keep the parts."""
        self._context = context

    def on_get(self, req: falcon.Request, resp: falcon.Response) -> None:
        """Names and links."""
        self._list(req, resp, detail=False)

    def on_get_detail(self, req: falcon.Request, resp: falcon.Response) -> None:
        """All fields."""
        self._list(req, resp, detail=True)

    def on_post(self, req: falcon.Request, resp: falcon.Response) -> None:
        """Create one server, or several alike. When this answers, the builds are on record."""
        conf = self._context.conf.api
        body = validation.body(req, schemas.CREATE, conf.max_body_bytes)
        batch = prepare(self._context, req, body)
        self._context.client.create_servers(batch.instances, asker(req))
        links = Links(req, self._context.conf)
        resp.location = links.of("servers", batch.instances[0].uuid)[0]["href"]
        send(resp, self._created(body["server"], batch, links), 202)

    def _created(self, asked: Mapping[str, Any], batch: Batch, links: Links) -> dict[str, Any]:
        if truth(asked.get("return_reservation_id", False)):
            return {"reservation_id": batch.reservation_id}
        first = batch.instances[0]
        server: dict[str, Any] = {
            "id": first.uuid,
            "links": links.of("servers", first.uuid),
            "security_groups": DEFAULT_GROUPS,
            "OS-DCF:diskConfig": first.disk_config,
        }
        if self._context.conf.api.enable_instance_password:
            server["adminPass"] = asked.get("adminPass") or generated_password()
        return {"server": server}

    def _list(self, req: falcon.Request, resp: falcon.Response, *, detail: bool) -> None:
        context = self._context
        who = context.policy.require(req, "servers:index")
        query = server_filters.read(context, req, who)
        rows: list[RowMapping] = []
        related = server_pages.Related()
        if not query.nothing:
            with context.db.read() as conn:
                try:
                    rows = server_pages.list_rows(
                        conn,
                        where=query.where,
                        sort=query.sort,
                        marker=query.marker,
                        limit=query.limit + 1,
                        brief=not detail,
                    )
                except LookupError:
                    raise BadRequest(f"marker [{query.marker}] not found") from None
                except sa.exc.DataError:
                    raise BadRequest("A value in the query is not one that the database can compare with.") from None
                page, more = cut(rows, query.limit)
                if detail:
                    related = server_pages.related(conn, page)
        else:
            page, more = rows, False
        view = self._view(req, who)
        if detail:
            servers = [view.detail(row, related) for row in page]
        else:
            servers = [view.brief(row) for row in page]
        answer: dict[str, Any] = {"servers": servers}
        if more:
            answer["servers_links"] = Links(req, context.conf).next(req, page[-1]["uuid"])
        send(resp, answer)

    def _view(self, req: falcon.Request, who: Caller) -> ServerView:
        return view_for(self._context, req, who)


def view_for(context: ApiContext, req: falcon.Request, who: Caller) -> ServerView:
    """How servers are shown to the caller in the request's version."""
    return ServerView(
        Links(req, context.conf),
        microversion(req),
        admin=context.policy.allows(who, "os-extended-server-attributes"),
        host_down_seconds=context.conf.compute.service_down_time,
    )


class Server:
    """One server."""

    def __init__(self, context: ApiContext) -> None:
        """Keep the parts."""
        self._context = context

    def on_get(self, req: falcon.Request, resp: falcon.Response, server_id: str) -> None:
        """Show it."""
        self._show(req, resp, find(self._context, req, server_id, "servers:show"))

    def on_put(self, req: falcon.Request, resp: falcon.Response, server_id: str) -> None:
        """Change what needs no guest: name, description, access addresses, host name."""
        body = validation.body(req, schemas.UPDATE, self._context.conf.api.max_body_bytes)["server"]
        row = find(self._context, req, server_id, "servers:update", unlocked=True)
        names = {
            "name": "name",
            "description": "description",
            "accessIPv4": "access_ip_v4",
            "accessIPv6": "access_ip_v6",
            "OS-DCF:diskConfig": "disk_config",
            "hostname": "hostname",
        }
        changes = {column: body[name] for name, column in names.items() if name in body}
        if changes:
            with self._context.db.write() as conn:
                instances.update(conn, row["uuid"], **changes)
        self._show(req, resp, find(self._context, req, server_id, "servers:update"))

    def on_delete(self, req: falcon.Request, resp: falcon.Response, server_id: str) -> None:
        """Delete it, whatever it is doing; a build under way is undone. Again while that happens is fine too."""
        row = find(self._context, req, server_id, "servers:delete", unlocked=True)
        self._context.client.delete_server(row["uuid"], asker(req))
        resp.status = 204

    def _show(self, req: falcon.Request, resp: falcon.Response, row: RowMapping) -> None:
        with self._context.db.read() as conn:
            related = server_pages.related(conn, [row])
        view = view_for(self._context, req, caller(req))
        send(resp, {"server": view.detail(row, related, show=True)})


def check_idle(row: RowMapping, action: str) -> None:
    """Refuse while the server is being deleted.

    Raises: Conflict.
    """
    if row["task_state"] == TaskState.DELETING:
        raise Conflict(reason=f"Cannot '{action}' instance {row['uuid']} while it is in task_state deleting")
