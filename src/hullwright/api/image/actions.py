"""Small calls on images: deactivate and reactivate, tags, and what the Image API has that we do not."""

from __future__ import annotations

import falcon

from hullwright.api.context import ApiContext, caller
from hullwright.api.errors import HttpError
from hullwright.api.image.access import changeable, visible
from hullwright.persistence import images


class Actions:
    """POST /v2/images/{image_id}/actions/{action}."""

    def __init__(self, context: ApiContext) -> None:
        """Keep the parts."""
        self._context = context

    def on_post(self, req: falcon.Request, resp: falcon.Response, image_id: str, action: str) -> None:
        """Deactivate: no new server is made from it; reactivate."""
        changes = {"deactivate": ("active", "deactivated"), "reactivate": ("deactivated", "active")}
        if action not in changes:
            raise falcon.HTTPNotFound
        before, after = changes[action]
        with self._context.db.write() as conn:
            image = changeable(conn, caller(req), image_id)
            if image.status not in (before, after):
                raise HttpError(403, f"Not allowed to {action} image in status '{image.status}'")
            images.update(conn, image_id, status=after)
        resp.status = falcon.HTTP_204


class Tags:
    """PUT and DELETE /v2/images/{image_id}/tags/{tag}."""

    def __init__(self, context: ApiContext) -> None:
        """Keep the parts."""
        self._context = context

    def on_put(self, req: falcon.Request, resp: falcon.Response, image_id: str, tag: str) -> None:
        """Have the tag."""
        if len(tag) > 255:
            raise HttpError(400, "A tag has at most 255 characters.")
        with self._context.db.write() as conn:
            image = changeable(conn, caller(req), image_id)
            if tag not in image.tags:
                images.update(conn, image_id, tags=[*image.tags, tag])
        resp.status = falcon.HTTP_204

    def on_delete(self, req: falcon.Request, resp: falcon.Response, image_id: str, tag: str) -> None:
        """Have it no more."""
        with self._context.db.write() as conn:
            image = changeable(conn, caller(req), image_id)
            if tag not in image.tags:
                raise falcon.HTTPNotFound
            images.update(conn, image_id, tags=[each for each in image.tags if each != tag])
        resp.status = falcon.HTTP_204


class Members:
    """GET /v2/images/{image_id}/members: there are none, images are shared by visibility only."""

    def __init__(self, context: ApiContext) -> None:
        """Keep the parts."""
        self._context = context

    def on_get(self, req: falcon.Request, resp: falcon.Response, image_id: str) -> None:
        """The empty list, for an image that is there."""
        with self._context.db.read() as conn:
            visible(conn, caller(req), image_id)
        resp.media = {"members": [], "schema": "/v2/schemas/members"}


class ImportInfo:
    """GET /v2/info/import: which ways of import there are."""

    def on_get(self, req: falcon.Request, resp: falcon.Response) -> None:
        """None: bytes come by upload."""
        resp.media = {"import-methods": {"description": "Import methods available.", "type": "array", "value": []}}
