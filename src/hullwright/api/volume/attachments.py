"""Attachments of the caller's volumes, to look at. Builds make and end them."""

from __future__ import annotations

import falcon
import sqlalchemy as sa

from hullwright.api.context import Caller, caller
from hullwright.api.queries import equal_filters
from hullwright.api.resource import Resource, send
from hullwright.api.volume.versions import before
from hullwright.api.volume.views import attachment_view
from hullwright.persistence import volumes

_FILTERS = {name: volumes.ATTACHMENT_COLUMNS[name] for name in ("volume_id", "instance_id", "status")}


def _visible_where(who: Caller, *, all_projects: bool) -> list[sa.ColumnElement[bool]]:
    return [] if who.is_admin and all_projects else [volumes.attached_of_project(who.project_id)]


@falcon.before(before)
class Attachments(Resource):
    """GET /v3/attachments and /v3/attachments/detail."""

    def on_get(self, req: falcon.Request, resp: falcon.Response) -> None:
        """Those of the caller's volumes; details only where asked for."""
        where = _visible_where(caller(req), all_projects=req.get_param("all_tenants") in ("1", "true", "True"))
        where += equal_filters(req, _FILTERS)
        with self.context.db.read() as conn:
            views = [attachment_view(found) for found in volumes.list_attachments(conn, where=where)]
        if not req.path.endswith("/detail"):
            views = [{name: view[name] for name in ("id", "volume_id", "instance", "status")} for view in views]
        send(resp, {"attachments": views})


@falcon.before(before)
class AttachmentItem(Resource):
    """GET /v3/attachments/{attachment_id}."""

    def on_get(self, req: falcon.Request, resp: falcon.Response, attachment_id: str) -> None:
        """One of them."""
        where = [*_visible_where(caller(req), all_projects=True), volumes.ATTACHMENT_COLUMNS["id"] == attachment_id]
        with self.context.db.read() as conn:
            found = volumes.list_attachments(conn, where=where)
        if not found:
            raise falcon.HTTPNotFound
        send(resp, {"attachment": attachment_view(found[0])})
