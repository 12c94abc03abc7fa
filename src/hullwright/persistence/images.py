"""Images of the embedded image service: their records. An image is queued, saving while its bytes arrive, then active.

Module functions take a connection; `SqlImageStore` is the `ImageStore` that the local image driver is given.
Not for: bytes; those lie in a directory, see `drivers/image/local`.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from hullwright.objects.errors import ImageInUse, ImageNotFound, ImageProtected
from hullwright.objects.images import Image
from hullwright.objects.states import OPEN_JOB_STATES
from hullwright.persistence.database import Database, now
from hullwright.persistence.json_text import has_item, has_member
from hullwright.persistence.models.images import images
from hullwright.persistence.models.instances import instances
from hullwright.persistence.models.jobs import jobs
from hullwright.persistence.models.volumes import volumes
from hullwright.persistence.paging import Sort, page

# What the API calls a column when it sorts or filters.
COLUMNS: dict[str, sa.Column[Any]] = {
    **{name: images.c[name] for name in ("id", "name", "status", "disk_format", "container_format", "owner", "protected")},
    "min_disk": images.c.min_disk_gb,
    "min_ram": images.c.min_ram_mb,
    "size": images.c.size_bytes,
    "created_at": images.c.created_at,
    "updated_at": images.c.updated_at,
}

_BY_ID = sa.select(images).where(images.c.id == sa.bindparam("wanted"))


def create(conn: Connection, image: Image) -> None:
    """Write an image's record."""
    conn.execute(images.insert(), image.to_dict())


def get(conn: Connection, image_id: str) -> Image:
    """One image.

    Raises: ImageNotFound.
    """
    row = conn.execute(_BY_ID, {"wanted": image_id}).mappings().one_or_none()
    if row is None:
        raise ImageNotFound(id=image_id)
    return _image(row)


def exists(conn: Connection, image_id: str) -> bool:
    """True when there is a record with that id."""
    return conn.execute(sa.select(images.c.id).where(images.c.id == image_id)).first() is not None


def of_visibility(visibility: str) -> sa.ColumnElement[bool]:
    """Condition: shown to others to this degree."""
    return images.c.visibility == visibility


def visible_to(project_id: str, visibilities: Iterable[str]) -> sa.ColumnElement[bool]:
    """Condition: the project's own, or shown to others to one of these degrees."""
    return sa.or_(images.c.visibility.in_(list(visibilities)), images.c.owner == project_id)


def has_tag(tag: str) -> sa.ColumnElement[bool]:
    """Condition: carries the tag."""
    return has_item(images.c.tags, tag)


def has_property(name: str, value: str) -> sa.ColumnElement[bool]:
    """Condition: has a property of its own with this value."""
    return has_member(images.c.properties, name, value)


def list_all(
    conn: Connection,
    *,
    where: Iterable[sa.ColumnElement[bool]] = (),
    sort: Sort = (("created_at", True),),
    marker: str | None = None,
    limit: int | None = None,
) -> list[Image]:
    """A page of images, newest first unless sorted otherwise.

    Raises: LookupError when the marker is not there.
    """
    return [_image(row) for row in page(conn, sa.select(images).where(*where), images, sort, marker, limit)]


def update(conn: Connection, image_id: str, **changes: Any) -> None:
    """Change columns of an image, and its time of change.

    Raises: ImageNotFound.
    """
    # While bytes arrive, the time says which upload the record belongs to: it stays.
    touched = sa.case((images.c.status == "saving", images.c.updated_at), else_=now())
    values = {"updated_at": touched, **changes}
    if conn.execute(images.update().where(images.c.id == image_id).values(**values)).rowcount == 0:
        raise ImageNotFound(id=image_id)


def begin_upload(conn: Connection, image_id: str, at: float) -> bool:
    """Make the image's bytes this upload's, known by its time `at`; False when the image has bytes already, or is gone.

    One that is saving may be taken over: either its upload was killed, or the directory's lock keeps the second one out.
    """
    here = sa.and_(images.c.id == image_id, images.c.status.in_(["queued", "saving"]))
    return conn.execute(images.update().where(here).values(status="saving", updated_at=at)).rowcount == 1


def end_upload(conn: Connection, image_id: str, began_at: float, **changes: Any) -> bool:
    """Change columns, `status` among them; False when the image is gone or another upload has taken over."""
    here = sa.and_(images.c.id == image_id, images.c.status == "saving", images.c.updated_at == began_at)
    return conn.execute(images.update().where(here).values(**changes)).rowcount == 1


def delete(conn: Connection, image_id: str) -> None:
    """Delete an image's record.

    Raises: ImageNotFound, ImageProtected, ImageInUse while a build or a new volume still reads it.
    """
    row = conn.execute(sa.select(images).where(images.c.id == image_id).with_for_update()).mappings().one_or_none()
    if row is None:
        raise ImageNotFound(id=image_id)
    if row["protected"]:
        raise ImageProtected(id=image_id)
    # A kernel or ramdisk is named in the spec only, which is text to the database, written as orjson does.
    spec = sa.type_coerce(instances.c.spec, sa.Text)
    named = [spec.contains(f'"{role}":"{image_id}"', autoescape=True) for role in ("kernel_id", "ramdisk_id")]
    # Open jobs are few, whatever the number of instances: the search starts from them.
    builds = (
        sa.select(jobs.c.id)
        .join(instances, instances.c.uuid == jobs.c.instance_uuid)
        .where(
            jobs.c.state.in_(OPEN_JOB_STATES),
            jobs.c.kind == "build_instance",
            sa.or_(instances.c.image_id == image_id, *named),
        )
    )
    # A volume without a host has no bytes yet: those of the local driver are made when it is first used.
    unfilled = sa.and_(volumes.c.host.is_(None), volumes.c.status.in_(["available", "reserved"]))
    filling = sa.select(volumes.c.id).where(volumes.c.image_id == image_id, sa.or_(volumes.c.status == "creating", unfilled))
    if conn.execute(builds.limit(1)).first() or conn.execute(filling.limit(1)).first():
        raise ImageInUse(id=image_id)
    conn.execute(images.delete().where(images.c.id == image_id))


def _image(row: sa.RowMapping) -> Image:
    return Image(**{**row, "tags": tuple(row["tags"])})


class SqlImageStore:
    """The `ImageStore` on the database."""

    def __init__(self, db: Database) -> None:
        """Keep the door to the database."""
        self._db = db

    def image(self, image_id: str) -> Image:
        """See `get`."""
        with self._db.read() as conn:
            return get(conn, image_id)
