"""/servers: create, list, show, change, delete."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from typing import Any

import falcon
import sqlalchemy as sa
from sqlalchemy.engine import RowMapping

from hullwright.api import idempotency, server_filters
from hullwright.api.context import ApiContext, Caller, caller, microversion
from hullwright.api.links import Links, plain_address
from hullwright.api.queries import cut
from hullwright.api.resource import Resource, asker, send
from hullwright.api.schemas import servers as schemas
from hullwright.api.schemas.parts import truth
from hullwright.api.server_create import generated_password, prepare
from hullwright.api.server_views import DEFAULT_GROUPS, ServerView
from hullwright.objects.errors import BadRequest, HullwrightError
from hullwright.persistence import instances, patterns, server_groups, server_pages
from hullwright.persistence.idempotency_keys import KeyedRequest, Made


class Servers(Resource):
    """The collection."""

    def on_get(self, req: falcon.Request, resp: falcon.Response) -> None:
        """Names and links."""
        self._list(req, resp, detail=False)

    def on_get_detail(self, req: falcon.Request, resp: falcon.Response) -> None:
        """All fields."""
        self._list(req, resp, detail=True)

    def on_post(self, req: falcon.Request, resp: falcon.Response) -> None:
        """Create one server, or several alike. When this answers, the builds are on record.

        With an Idempotency-Key the same request can be sent again and makes nothing again.
        """
        body = self.body(req, schemas.CREATE)
        who = self.require(req, "servers:create")
        once = idempotency.read(req, body, who, self.context.conf)
        made = idempotency.made_before(self.context.db, once)
        again = made is not None
        if made is None:
            made, again = self._create(req, body, once)
        links = Links(req, self.context.conf)
        resp.location = links.of("servers", made.server_ids[0])[0]["href"]
        if again:
            resp.set_header(idempotency.REPLAYED_HEADER, "true")
        send(resp, self._created(body["server"], made, links, again=again), 202)

    def _create(self, req: falcon.Request, body: Mapping[str, Any], once: KeyedRequest | None) -> tuple[Made, bool]:
        """What was made, and whether a twin of this request made it in the meantime."""
        try:
            batch = prepare(self.context, req, body)
            self.context.client.create_servers(batch.instances, asker(req), once)
        except HullwrightError:
            # A twin that was quicker has the key, and perhaps the port or volume for which this one was refused.
            made = idempotency.made_before(self.context.db, once)
            if made is None:
                raise
            return made, True
        return Made(tuple(instance.uuid for instance in batch.instances), batch.reservation_id), False

    def _created(self, asked: Mapping[str, Any], made: Made, links: Links, *, again: bool) -> dict[str, Any]:
        if truth(asked.get("return_reservation_id", False)):
            return {"reservation_id": made.reservation_id}
        server: dict[str, Any] = {
            "id": made.server_ids[0],
            "links": links.of("servers", made.server_ids[0]),
            "security_groups": DEFAULT_GROUPS,
            "OS-DCF:diskConfig": asked.get("OS-DCF:diskConfig", "MANUAL"),
        }
        if self.context.conf.api.enable_instance_password and not again:
            server["adminPass"] = asked.get("adminPass") or generated_password()
        return {"server": server}

    def _list(self, req: falcon.Request, resp: falcon.Response, *, detail: bool) -> None:
        context = self.context
        who = context.policy.require(req, "servers:index")
        query = server_filters.read(context, req, who)
        rows: list[RowMapping] = []
        related = server_pages.Related()
        if not query.nothing:
            with context.db.read() as conn:
                try:
                    with patterns.bounded(conn) if query.searches else contextlib.nullcontext():
                        rows = server_pages.list_rows(
                            conn,
                            where=query.where,
                            sort=query.sort,
                            marker=query.marker,
                            limit=query.limit + 1,
                            brief=not detail,
                        )
                except ValueError as error:
                    raise BadRequest(str(error)) from None
                except LookupError:
                    raise BadRequest(f"marker [{query.marker}] not found") from None
                except sa.exc.DataError:
                    raise BadRequest("A value in the query is not one that the database can compare with.") from None
                page, more = cut(rows, query.limit)
                if detail:
                    related = server_pages.related(conn, page)
        else:
            page, more = rows, False
        view = view_for(context, req, who)
        shown = [view.detail(row, related) if detail else view.brief(row) for row in page]
        answer: dict[str, Any] = {"servers": shown}
        if more:
            answer["servers_links"] = Links(req, context.conf).next(req, page[-1]["uuid"])
        send(resp, answer)


def view_for(context: ApiContext, req: falcon.Request, who: Caller) -> ServerView:
    """How servers are shown to the caller in the request's version."""
    return ServerView(
        Links(req, context.conf),
        microversion(req),
        admin=context.policy.allows(who, "os-extended-server-attributes"),
        fault_details=context.policy.allows(who, "servers:show:fault_details"),
        host_down_seconds=context.conf.compute.service_down_time,
    )


class Server(Resource):
    """One server."""

    def on_get(self, req: falcon.Request, resp: falcon.Response, server_id: str) -> None:
        """Show it."""
        self._show(req, resp, self.server(req, server_id, "servers:show"))

    def on_put(self, req: falcon.Request, resp: falcon.Response, server_id: str) -> None:
        """Change what needs no guest: name, description, access addresses, host name."""
        body = self.body(req, schemas.UPDATE)["server"]
        row = self.server(req, server_id, "servers:update", unlocked=True)
        names = {
            "name": "name",
            "description": "description",
            "accessIPv4": "access_ip_v4",
            "accessIPv6": "access_ip_v6",
            "OS-DCF:diskConfig": "disk_config",
            "hostname": "hostname",
        }
        changes = {column: body[name] for name, column in names.items() if name in body}
        for column in ("access_ip_v4", "access_ip_v6"):
            if column in changes:
                changes[column] = plain_address(changes[column])
        if changes:
            with self.context.db.write() as conn:
                instances.update(conn, row["uuid"], **changes)
        self._show(req, resp, self.server(req, server_id, "servers:update"))

    def on_delete(self, req: falcon.Request, resp: falcon.Response, server_id: str) -> None:
        """Delete it, whatever it is doing; a build under way is undone. Again while that happens is fine too."""
        row = self.server(req, server_id, "servers:delete", unlocked=True)
        self.context.client.delete_server(row["uuid"], asker(req))
        resp.status = 204

    def _show(self, req: falcon.Request, resp: falcon.Response, row: RowMapping) -> None:
        with self.context.db.read() as conn:
            related = server_pages.related(conn, [row])
            group = server_groups.of_instance(conn, row["uuid"])
        view = view_for(self.context, req, caller(req))
        send(resp, {"server": view.detail(row, related, groups=[group] if group else [])})
