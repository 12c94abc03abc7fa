"""Images: list, create, show, change, delete. Their bytes are in `data`."""

from __future__ import annotations

import uuid
from typing import Any

import falcon
import sqlalchemy as sa

from hullwright.api.bodies import Body
from hullwright.api.context import ApiContext, caller
from hullwright.api.errors import HttpError
from hullwright.api.image import patches
from hullwright.api.image.access import changeable, check_visibility, listable, visible
from hullwright.api.image.schemas import PROPERTY, READ_ONLY, UUID, WRITABLE
from hullwright.api.image.views import image_view
from hullwright.api.json_body import read_json
from hullwright.api.queries import MAX_BIG_INTEGER, MAX_INTEGER, boolean, every, integer, next_query, page_of
from hullwright.api.resource import Resource, send
from hullwright.api.times import moment
from hullwright.drivers.image.local.store import ImageDirectory
from hullwright.objects.images import Image
from hullwright.persistence import images
from hullwright.persistence.database import now

_DEFAULT_LIMIT = 25  # Glance's
_CREATE = Body(None, {"id": UUID, **WRITABLE}, others=PROPERTY)
_SORTABLE = {
    name: images.COLUMNS[name].name
    for name in ("id", "name", "status", "disk_format", "container_format", "created_at", "updated_at", "size")
}
_MATCHED = ("id", "name", "status", "disk_format", "container_format", "owner")
_KNOWN = {*_MATCHED, *READ_ONLY, *WRITABLE, "limit", "marker", "sort", "sort_key", "sort_dir", "tag", "size_min", "size_max"}
_KNOWN |= {"member_status", "is_public"}


class Images(Resource):
    """GET and POST /v2/images."""

    def on_get(self, req: falcon.Request, resp: falcon.Response) -> None:
        """A page of the images that the caller may see and the query describes."""
        page = page_of(req, self.context.conf.api.max_limit, _SORTABLE, default=("created_at", True), default_limit=_DEFAULT_LIMIT)
        where = listable(caller(req), req.get_param("visibility")) + _filters(req)
        with self.context.db.read() as conn:
            try:
                found = images.list_all(conn, where=where, sort=page.sort, marker=page.marker, limit=page.limit + 1)
            except LookupError:
                raise HttpError(400, f"Marker {page.marker} could not be found.") from None
        body: dict[str, Any] = {
            "images": [image_view(image) for image in found[: page.limit]],
            "first": "/v2/images",
            "schema": "/v2/schemas/images",
        }
        if len(found) > page.limit > 0:
            body["next"] = f"/v2/images?{next_query(req, found[page.limit - 1].id)}"
        send(resp, body)

    def on_post(self, req: falcon.Request, resp: falcon.Response) -> None:
        """A record without bytes yet."""
        given = _CREATE.check(_without_read_only(read_json(req, self.context.conf)))
        who = caller(req)
        at = now()
        owner = given.get("owner", who.project_id)
        if not who.is_admin and owner != who.project_id:
            raise HttpError(403, f"You are not permitted to create images owned by '{owner}'.")
        visibility = given.get("visibility", "shared")
        check_visibility(who, visibility)
        image = Image(
            id=given.get("id") or str(uuid.uuid4()),
            name=given.get("name") or "",
            status="queued",
            disk_format=given.get("disk_format"),
            container_format=given.get("container_format"),
            min_disk_gb=given.get("min_disk", 0),
            min_ram_mb=given.get("min_ram", 0),
            visibility=visibility,
            protected=given.get("protected", False),
            owner=owner,
            properties={name: value for name, value in given.items() if name not in WRITABLE and name != "id"},
            tags=tuple(dict.fromkeys(given.get("tags", []))),
            created_at=at,
            updated_at=at,
        )
        with self.context.db.write() as conn:
            if images.exists(conn, image.id):
                raise HttpError(409, f"Image ID {image.id} already exists!")
            images.create(conn, image)
        resp.location = f"/image/v2/images/{image.id}"
        send(resp, image_view(image), 201)


class ImageItem(Resource):
    """GET, PATCH and DELETE /v2/images/{image_id}."""

    def __init__(self, context: ApiContext, directory: ImageDirectory) -> None:
        """Keep the parts."""
        super().__init__(context)
        self._directory = directory

    def on_get(self, req: falcon.Request, resp: falcon.Response, image_id: str) -> None:
        """The image."""
        with self.context.db.read() as conn:
            send(resp, image_view(visible(conn, caller(req), image_id)))

    def on_patch(self, req: falcon.Request, resp: falcon.Response, image_id: str) -> None:
        """Change attributes; answers the whole image."""
        operations = read_json(req, self.context.conf, patches.MEDIA_TYPES)
        who = caller(req)
        with self.context.db.write() as conn:
            image = changeable(conn, who, image_id)
            changes = patches.changes_of(image, operations)
            if changes.get("visibility", image.visibility) != image.visibility:
                check_visibility(who, changes["visibility"])
            if changes.get("owner", image.owner) != image.owner and not who.is_admin:
                raise HttpError(403, "You are not permitted to change the owner of this image.")
            if changes:
                images.update(conn, image_id, **changes)
            image = images.get(conn, image_id)
        send(resp, image_view(image))

    def on_delete(self, req: falcon.Request, resp: falcon.Response, image_id: str) -> None:
        """Delete the record, then the bytes: bytes without a record are garbage, a record without bytes would be a lie."""
        with self.context.db.write() as conn:
            changeable(conn, caller(req), image_id)
            images.delete(conn, image_id)
        self._directory.delete(image_id)
        resp.status = 204


def _without_read_only(given: Any) -> Any:
    """Refuse what only the service may set.

    Raises: HttpError 403.
    """
    if isinstance(given, dict):
        for name in given:
            if name in READ_ONLY and not (name == "os_hidden" and given[name] is False):
                raise HttpError(403, f"Attribute '{name}' is read-only.")
        return {name: value for name, value in given.items() if name != "os_hidden"}
    return given


def _filters(req: falcon.Request) -> list[sa.ColumnElement[bool]]:
    """Conditions for the query's filters.

    Raises: HttpError 400.
    """
    where: list[sa.ColumnElement[bool]] = []
    columns = images.COLUMNS
    for name in _MATCHED:
        column = columns[name]
        for text in every(req, name):
            if text.startswith("in:"):
                where.append(column.in_([part.strip('"') for part in text[3:].split(",")]))
            else:
                where.append(column == text)
    if (protected := req.get_param("protected")) is not None:
        where.append(columns["protected"] == boolean(protected, "protected"))
    if (hidden := req.get_param("os_hidden")) is not None and boolean(hidden, "os_hidden"):
        where.append(sa.false())  # no image is hidden
    for name in ("min_disk", "min_ram"):
        if (number := integer(req, name, MAX_BIG_INTEGER)) is not None:
            where.append(columns[name] == number if number <= MAX_INTEGER else sa.false())
    if (number := integer(req, "size_min", MAX_BIG_INTEGER)) is not None:
        where.append(columns["size"] >= number)
    if (number := integer(req, "size_max", MAX_BIG_INTEGER)) is not None:
        where.append(columns["size"] <= number)
    for name in ("created_at", "updated_at"):
        for text in every(req, name):
            where.append(_time_filter(name, text))
    where += [images.has_tag(tag) for tag in every(req, "tag")]
    where += [images.has_property(name, value) for name in req.params if name not in _KNOWN for value in every(req, name)]
    return where


def _time_filter(name: str, text: str) -> sa.ColumnElement[bool]:
    """`gte:2026-01-31T12:00:00Z` and its like; without an operator it means the same second."""
    operator, separator, time = text.partition(":")
    if operator not in ("gt", "gte", "lt", "lte", "eq", "neq") or not separator:
        operator, time = "eq", text
    column, seconds = images.COLUMNS[name], moment(time, name)
    same = sa.and_(column >= seconds, column < seconds + 1)
    match operator:
        case "gt":
            return column >= seconds + 1
        case "gte":
            return column >= seconds
        case "lt":
            return column < seconds
        case "lte":
            return column < seconds + 1
        case "neq":
            return sa.not_(same)
    return same
