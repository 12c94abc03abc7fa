"""Attachments of the caller's volumes, to look at. Builds make and end them."""

from __future__ import annotations

import falcon
import sqlalchemy as sa

from hullwright.api.context import ApiContext, Caller, caller
from hullwright.api.queries import every
from hullwright.api.volume.versions import before
from hullwright.api.volume.views import attachment_view
from hullwright.persistence import volumes
from hullwright.persistence.models.volumes import attachments as table
from hullwright.persistence.models.volumes import volumes as volumes_table


def _visible_where(who: Caller, *, all_projects: bool) -> list[sa.ColumnElement[bool]]:
    if who.is_admin and all_projects:
        return []
    theirs = sa.select(volumes_table.c.id).where(volumes_table.c.project_id == who.project_id)
    return [table.c.volume_id.in_(theirs)]


@falcon.before(before)
class Attachments:
    """GET /v3/attachments and /v3/attachments/detail."""

    def __init__(self, context: ApiContext) -> None:
        """Keep the parts."""
        self._context = context

    def on_get(self, req: falcon.Request, resp: falcon.Response) -> None:
        """Those of the caller's volumes; details only where asked for."""
        where = _visible_where(caller(req), all_projects=req.get_param("all_tenants") in ("1", "true", "True"))
        for name, column in (("volume_id", table.c.volume_id), ("instance_id", table.c.instance_uuid), ("status", table.c.state)):
            if wanted := every(req, name):
                where.append(column.in_(wanted))
        with self._context.db.read() as conn:
            views = [attachment_view(found) for found in volumes.list_attachments(conn, where=where)]
        if not req.path.endswith("/detail"):
            views = [{name: view[name] for name in ("id", "volume_id", "instance", "status")} for view in views]
        resp.media = {"attachments": views}


@falcon.before(before)
class AttachmentItem:
    """GET /v3/attachments/{attachment_id}."""

    def __init__(self, context: ApiContext) -> None:
        """Keep the parts."""
        self._context = context

    def on_get(self, req: falcon.Request, resp: falcon.Response, attachment_id: str) -> None:
        """One of them."""
        where = [*_visible_where(caller(req), all_projects=True), table.c.id == attachment_id]
        with self._context.db.read() as conn:
            found = volumes.list_attachments(conn, where=where)
        if not found:
            raise falcon.HTTPNotFound
        resp.media = {"attachment": attachment_view(found[0])}
