"""Small calls on images: deactivate and reactivate, tags, and what the Image API has that we do not."""

from __future__ import annotations

import falcon

from hullwright.api.context import caller
from hullwright.api.errors import HttpError
from hullwright.api.image.access import changeable, visible
from hullwright.api.resource import Resource, send
from hullwright.persistence import images


class Actions(Resource):
    """POST /v2/images/{image_id}/actions/{action}."""

    def on_post(self, req: falcon.Request, resp: falcon.Response, image_id: str, action: str) -> None:
        """Deactivate: no new server is made from it; reactivate."""
        changes = {"deactivate": ("active", "deactivated"), "reactivate": ("deactivated", "active")}
        if action not in changes:
            raise falcon.HTTPNotFound
        before, after = changes[action]
        with self.context.db.write() as conn:
            image = changeable(conn, caller(req), image_id)
            if image.status not in (before, after):
                raise HttpError(403, f"Not allowed to {action} image in status '{image.status}'")
            images.update(conn, image_id, status=after)
        resp.status = 204


class Tags(Resource):
    """PUT and DELETE /v2/images/{image_id}/tags/{tag}."""

    def on_put(self, req: falcon.Request, resp: falcon.Response, image_id: str, tag: str) -> None:
        """Have the tag."""
        if len(tag) > 255:
            raise HttpError(400, "A tag has at most 255 characters.")
        with self.context.db.write() as conn:
            image = changeable(conn, caller(req), image_id)
            if tag not in image.tags:
                images.update(conn, image_id, tags=[*image.tags, tag])
        resp.status = 204

    def on_delete(self, req: falcon.Request, resp: falcon.Response, image_id: str, tag: str) -> None:
        """Have it no more."""
        with self.context.db.write() as conn:
            image = changeable(conn, caller(req), image_id)
            if tag not in image.tags:
                raise falcon.HTTPNotFound
            images.update(conn, image_id, tags=[each for each in image.tags if each != tag])
        resp.status = 204


class Members(Resource):
    """GET /v2/images/{image_id}/members: there are none, images are shared by visibility only."""

    def on_get(self, req: falcon.Request, resp: falcon.Response, image_id: str) -> None:
        """The empty list, for an image that is there."""
        with self.context.db.read() as conn:
            visible(conn, caller(req), image_id)
        send(resp, {"members": [], "schema": "/v2/schemas/members"})


class ImportInfo:
    """GET /v2/info/import: which ways of import there are."""

    def on_get(self, req: falcon.Request, resp: falcon.Response) -> None:
        """None: bytes come by upload."""
        send(resp, {"import-methods": {"description": "Import methods available.", "type": "array", "value": []}})
