"""Volumes: list, create, show, change, delete. Bytes are made and removed by the conductor, which a job tells."""

from __future__ import annotations

import uuid
from typing import Any

import falcon
from sqlalchemy.engine import Connection

from hullwright.api import unsupported
from hullwright.api.bodies import BOOLEAN, TEXT, TEXT_OR_NULL, Body, only
from hullwright.api.context import ApiContext, Caller, base_url, caller, request_id
from hullwright.api.errors import HttpError, no_such_action
from hullwright.api.image.access import visible as visible_image
from hullwright.api.json_body import read_json
from hullwright.api.queries import equal_filters, next_query, page_of
from hullwright.api.resource import Resource, send
from hullwright.api.volume import types
from hullwright.api.volume.versions import before
from hullwright.api.volume.views import brief_view, volume_view
from hullwright.conductor.client import DELETABLE
from hullwright.objects.errors import ImageNotFound, VolumeInvalidState, VolumeNotFound
from hullwright.objects.images import Image
from hullwright.objects.volumes import Volume
from hullwright.persistence import volumes
from hullwright.persistence.database import now

_GIB = 1 << 30
_MAX_GB = 1 << 20
_METADATA = {"type": ["object", "null"], "additionalProperties": TEXT, "propertyNames": {"minLength": 1, "maxLength": 255}}
_CREATE = Body(
    "volume",
    {
        "size": {"type": ["integer", "string", "null"]},
        "name": TEXT_OR_NULL,
        "description": TEXT_OR_NULL,
        "imageRef": TEXT_OR_NULL,
        "volume_type": TEXT_OR_NULL,
        "availability_zone": TEXT_OR_NULL,
        "metadata": _METADATA,
        # What cannot be otherwise may be said all the same: clients send their defaults.
        "snapshot_id": only(None),
        "source_volid": only(None),
        "backup_id": only(None),
        "consistencygroup_id": only(None),
        "group_id": only(None),
        "multiattach": only(False, None),
    },
)
_UPDATE = Body("volume", {"name": TEXT_OR_NULL, "description": TEXT_OR_NULL, "metadata": _METADATA})
_SORTABLE = {name: volumes.COLUMNS[name].name for name in ("id", "name", "status", "size", "created_at", "bootable")}
_FILTERS = {name: volumes.COLUMNS[name] for name in ("id", "name", "status", "bootable", "size", "availability_zone", "user_id")}


def visible(conn: Connection, who: Caller, volume_id: str) -> Volume:
    """A volume that the caller may see and change.

    Raises: VolumeNotFound.
    """
    volume = volumes.get(conn, volume_id)
    if who.is_admin or volume.project_id == who.project_id:
        return volume
    raise VolumeNotFound(id=volume_id)


def _page(req: falcon.Request, context: ApiContext, conn: Connection) -> tuple[list[Volume], dict[str, Any]]:
    """The volumes that are asked for, and the body's link to the next page.

    Raises: HttpError 400.
    """
    page = page_of(req, context.conf.api.max_limit, _SORTABLE, default=("created_at", True))
    who = caller(req)
    where = equal_filters(req, _FILTERS)
    if who.is_admin and req.get_param("all_tenants") in ("1", "true", "True"):
        if project_id := req.get_param("project_id"):
            where.append(volumes.of_project(project_id))
    else:
        where.append(volumes.of_project(who.project_id))
    try:
        found = volumes.list_all(conn, where=where, sort=page.sort, marker=page.marker, limit=page.limit + 1)
    except LookupError:
        raise HttpError(400, f"Volume {page.marker} could not be found.") from None
    more: dict[str, Any] = {}
    if len(found) > page.limit > 0:
        href = f"{base_url(req, context.conf)}{req.path}?{next_query(req, found[page.limit - 1].id)}"
        more["volumes_links"] = [{"rel": "next", "href": href}]
    return found[: page.limit], more


@falcon.before(before)
class Volumes(Resource):
    """GET and POST /v3/volumes."""

    def on_get(self, req: falcon.Request, resp: falcon.Response) -> None:
        """A page of them, in brief."""
        with self.context.db.read() as conn:
            found, more = _page(req, self.context, conn)
        send(resp, {"volumes": [brief_view(req, self.context, volume) for volume in found], **more})

    def on_post(self, req: falcon.Request, resp: falcon.Response) -> None:
        """A new volume, empty or with an image's content. It is available when the conductor has made it."""
        given = _CREATE.read(req, self.context.conf)
        who = caller(req)
        size_gb = _size(given.get("size"))
        if (kind := given.get("volume_type")) and not types.is_known(kind):
            raise HttpError(404, f"Volume type with name {kind} could not be found.")
        if image_id := given.get("imageRef"):
            with self.context.db.read() as conn:
                _check_image(visible_image_or_400(conn, who, image_id), size_gb)
        volume = Volume(
            id=str(uuid.uuid4()),
            name=given.get("name") or "",
            size_gb=size_gb,
            status="creating",
            bootable=bool(image_id),
            image_id=image_id or None,
            volume_type=types.NAME,
            description=given.get("description"),
            availability_zone=given.get("availability_zone") or self.context.conf.default_availability_zone,
            project_id=who.project_id,
            user_id=who.user_id,
            metadata=given.get("metadata") or {},
            created_at=now(),
        )
        self.context.client.create_volume(volume, request_id(req))
        send(resp, {"volume": volume_view(req, self.context, volume, None, admin=who.is_admin)}, 202)


@falcon.before(before)
class VolumesDetail(Resource):
    """GET /v3/volumes/detail."""

    def on_get(self, req: falcon.Request, resp: falcon.Response) -> None:
        """A page of them, whole."""
        admin = caller(req).is_admin
        with self.context.db.read() as conn:
            found, more = _page(req, self.context, conn)
            bonds = volumes.of_volumes(conn, [volume.id for volume in found])
        views = [volume_view(req, self.context, volume, bonds.get(volume.id), admin=admin) for volume in found]
        send(resp, {"volumes": views, **more})


@falcon.before(before)
class VolumeItem(Resource):
    """GET, PUT and DELETE /v3/volumes/{volume_id}."""

    def on_get(self, req: falcon.Request, resp: falcon.Response, volume_id: str) -> None:
        """The volume."""
        self._show(req, resp, volume_id)

    def on_put(self, req: falcon.Request, resp: falcon.Response, volume_id: str) -> None:
        """Change its name, description or metadata."""
        given = _UPDATE.read(req, self.context.conf)
        changes = {name: value for name, value in given.items() if value is not None or name == "description"}
        with self.context.db.write() as conn:
            visible(conn, caller(req), volume_id)
            volumes.update(conn, volume_id, **changes)
        self._show(req, resp, volume_id)

    def on_delete(self, req: falcon.Request, resp: falcon.Response, volume_id: str) -> None:
        """Have it deleted, bytes and all. A server's is refused."""
        with self.context.db.read() as conn:
            visible(conn, caller(req), volume_id)
        try:
            self.context.client.delete_volume(volume_id, request_id(req))
        except VolumeInvalidState as error:
            wanted = " or ".join(DELETABLE)
            raise HttpError(
                400, f"Invalid volume: Volume status must be {wanted}, but current status is: {error.fields.get('state')}."
            ) from error
        resp.status = 202

    def _show(self, req: falcon.Request, resp: falcon.Response, volume_id: str) -> None:
        who = caller(req)
        with self.context.db.read() as conn:
            volume = visible(conn, who, volume_id)
            bond = volumes.of_volumes(conn, [volume_id]).get(volume_id)
        send(resp, {"volume": volume_view(req, self.context, volume, bond, admin=who.is_admin)})


@falcon.before(before)
class VolumeMetadata(Resource):
    """GET, POST and PUT /v3/volumes/{volume_id}/metadata."""

    _BODY = Body(None, {"metadata": _METADATA}, required=("metadata",))

    def on_get(self, req: falcon.Request, resp: falcon.Response, volume_id: str) -> None:
        """All of it."""
        with self.context.db.read() as conn:
            send(resp, {"metadata": dict(visible(conn, caller(req), volume_id).metadata)})

    def on_post(self, req: falcon.Request, resp: falcon.Response, volume_id: str) -> None:
        """Add to it."""
        self._write(req, resp, volume_id, keep=True)

    def on_put(self, req: falcon.Request, resp: falcon.Response, volume_id: str) -> None:
        """Replace it."""
        self._write(req, resp, volume_id, keep=False)

    def _write(self, req: falcon.Request, resp: falcon.Response, volume_id: str, *, keep: bool) -> None:
        given = self._BODY.read(req, self.context.conf)["metadata"] or {}
        with self.context.db.write() as conn:
            volume = visible(conn, caller(req), volume_id)
            metadata = {**(volume.metadata if keep else {}), **given}
            volumes.update(conn, volume_id, metadata=metadata)
        send(resp, {"metadata": metadata})


@falcon.before(before)
class VolumeMetadataItem(Resource):
    """DELETE /v3/volumes/{volume_id}/metadata/{name}."""

    def on_delete(self, req: falcon.Request, resp: falcon.Response, volume_id: str, name: str) -> None:
        """Remove one item."""
        with self.context.db.write() as conn:
            metadata = dict(visible(conn, caller(req), volume_id).metadata)
            if metadata.pop(name, None) is None:
                raise falcon.HTTPNotFound
            volumes.update(conn, volume_id, metadata=metadata)


@falcon.before(before)
class VolumeAction(Resource):
    """POST /v3/volumes/{volume_id}/action."""

    _SET_BOOTABLE = Body("os-set_bootable", {"bootable": BOOLEAN}, required=("bootable",))

    def on_post(self, req: falcon.Request, resp: falcon.Response, volume_id: str) -> None:
        """The one action there is: say whether a server may boot from it."""
        data = read_json(req, self.context.conf)
        if not isinstance(data, dict) or "os-set_bootable" not in data:
            name = next(iter(data), "?") if isinstance(data, dict) else "?"
            raise no_such_action(name, unsupported.VOLUME_ACTIONS)
        bootable = self._SET_BOOTABLE.check(data)["bootable"]
        with self.context.db.write() as conn:
            visible(conn, caller(req), volume_id)
            volumes.update(conn, volume_id, bootable=bootable)


def visible_image_or_400(conn: Connection, who: Caller, image_id: str) -> Image:
    """The image that a request names.

    Raises: HttpError 400, for it is the request that is wrong.
    """
    try:
        return visible_image(conn, who, image_id)
    except ImageNotFound as error:
        raise HttpError(400, f"Invalid image identifier or unable to access requested image: {image_id}") from error


def _size(given: int | str | None) -> int:
    """GiB, as number or digits.

    Raises: HttpError 400.
    """
    if isinstance(given, str) and given.isascii() and given.isdigit() and len(given) < 12:
        given = int(given)
    if isinstance(given, bool) or not isinstance(given, int) or not 1 <= given <= _MAX_GB:
        raise HttpError(400, f"Invalid input received: Volume size '{given}' must be an integer from 1 to {_MAX_GB} GiB.")
    return given


def _check_image(image: Image, size_gb: int) -> None:
    """The image is whole and fits.

    Raises: HttpError 400.
    """
    if image.status != "active":
        raise HttpError(400, f"Invalid input received: Image {image.id} is not active; it is {image.status}.")
    needed_gb = max(-(-(image.virtual_size_bytes or image.size_bytes) // _GIB), image.min_disk_gb)
    if size_gb < needed_gb:
        raise HttpError(400, f"Invalid input received: Size of specified image {needed_gb}GB is larger than volume size {size_gb}GB.")
