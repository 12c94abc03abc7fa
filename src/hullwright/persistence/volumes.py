"""Volumes and their attachments. Whose a volume is, is decided by a compare-and-swap of its status.

A volume: creating -> available -> reserved -> in-use -> available ..., deleting; error when its bytes could not be made.
Module functions take a connection; `SqlVolumeStore` is the `VolumeStore` that the local volume driver is given.
Not for: bytes; the driver makes and deletes them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from hullwright.objects.errors import VolumeError, VolumeInvalidState, VolumeNotFound
from hullwright.objects.hosts import HostRef
from hullwright.objects.volumes import Attachment, BlockDeviceRequest, Volume
from hullwright.persistence.database import Database, now
from hullwright.persistence.inserts import insert_if_absent
from hullwright.persistence.models.hosts import hosts
from hullwright.persistence.models.volumes import attachments, volumes
from hullwright.persistence.paging import Sort, page

# What the API calls a column when it sorts or filters.
COLUMNS: dict[str, sa.Column[Any]] = {
    **{name: volumes.c[name] for name in ("id", "name", "status", "bootable", "availability_zone", "user_id", "created_at")},
    "size": volumes.c.size_gb,
}
ATTACHMENT_COLUMNS: dict[str, sa.Column[Any]] = {
    "id": attachments.c.id,
    "volume_id": attachments.c.volume_id,
    "instance_id": attachments.c.instance_uuid,
    "status": attachments.c.state,
}

# An attachment in this state only remembers that its volume is still to be deleted with the instance.
_DELETING = "deleting"

# Every build runs these, so they are built once. Bootable ones come first; a negative boot index means "never".
_NEVER_BOOTED = sa.or_(attachments.c.boot_index.is_(None), attachments.c.boot_index < 0)
_OF_INSTANCES = (
    sa.select(attachments)
    .where(attachments.c.instance_uuid.in_(sa.bindparam("instances", expanding=True)), attachments.c.state != _DELETING)
    .order_by(sa.case((_NEVER_BOOTED, 1), else_=0), attachments.c.boot_index, attachments.c.position)
)
_SET_DEVICE = attachments.update().where(attachments.c.id == sa.bindparam("its_id")).values(device=sa.bindparam("device"))
_ANY_OF_INSTANCE = sa.select(attachments.c.id).where(attachments.c.instance_uuid == sa.bindparam("instance")).limit(1)


def create(conn: Connection, volume: Volume) -> None:
    """Write a volume."""
    conn.execute(volumes.insert(), volume.to_dict())


def get(conn: Connection, volume_id: str) -> Volume:
    """One volume.

    Raises: VolumeNotFound.
    """
    row = conn.execute(sa.select(volumes).where(volumes.c.id == volume_id)).mappings().one_or_none()
    if row is None:
        raise VolumeNotFound(id=volume_id)
    return Volume(**row)


def of_project(project_id: str) -> sa.ColumnElement[bool]:
    """Condition: the project's."""
    return volumes.c.project_id == project_id


def usage(conn: Connection, project_id: str) -> tuple[int, int]:
    """How many volumes a project has, and how many GiB they are together."""
    counted = sa.select(sa.func.count(), sa.func.coalesce(sa.func.sum(volumes.c.size_gb), 0))
    count, size_gb = conn.execute(counted.where(of_project(project_id))).one()
    return int(count), int(size_gb)


def list_all(
    conn: Connection,
    *,
    where: Iterable[sa.ColumnElement[bool]] = (),
    sort: Sort = (("created_at", True),),
    marker: str | None = None,
    limit: int | None = None,
) -> list[Volume]:
    """A page of volumes, newest first unless sorted otherwise.

    Raises: LookupError when the marker is not there.
    """
    return [Volume(**row) for row in page(conn, sa.select(volumes).where(*where), volumes, sort, marker, limit)]


def update(conn: Connection, volume_id: str, **changes: Any) -> None:
    """Change columns of a volume.

    Raises: VolumeNotFound.
    """
    if changes and conn.execute(volumes.update().where(volumes.c.id == volume_id).values(**changes)).rowcount == 0:
        raise VolumeNotFound(id=volume_id)


def swap_status(conn: Connection, volume_id: str, expected: Sequence[str], status: str) -> None:
    """Change the status if it is one of `expected`, in one statement.

    Raises: VolumeNotFound, VolumeInvalidState.
    """
    here = sa.and_(volumes.c.id == volume_id, volumes.c.status.in_(expected))
    if conn.execute(volumes.update().where(here).values(status=status)).rowcount == 0:
        raise VolumeInvalidState(id=volume_id, state=get(conn, volume_id).status, wanted=" or ".join(expected))


def set_status(conn: Connection, volume_id: str, status: str) -> None:
    """Record what became of a volume; one that is gone stays so."""
    conn.execute(volumes.update().where(volumes.c.id == volume_id).values(status=status))


def reserve(conn: Connection, instance_uuid: str, project_id: str, user_id: str, devices: Sequence[BlockDeviceRequest]) -> list[Attachment]:
    """Have an attachment for each device, in order; write rows (status creating) for the volumes that the build makes.

    An attachment that is the instance's already counts as done.
    Raises: VolumeNotFound, VolumeInvalidState.
    """
    present = {attachment.id: attachment for attachment in of_instance(conn, instance_uuid)}
    answer = []
    for position, device in enumerate(devices):
        if device.attachment_id in present:
            answer.append(present[device.attachment_id])
            continue
        if device.created_by_build:
            _have_row(conn, device, project_id, user_id)
        else:
            swap_status(conn, device.volume_id, ["available"], "reserved")
        attachment = Attachment(
            id=device.attachment_id,
            volume_id=device.volume_id,
            instance_uuid=instance_uuid,
            device=device.device_name,
            delete_on_termination=device.delete_on_termination,
            created_by_build=device.created_by_build,
            boot_index=device.boot_index,
            created_at=now(),
        )
        if not insert_if_absent(conn, attachments, attachment.to_dict() | {"position": position}):
            raise VolumeInvalidState(id=device.volume_id, state="attached", wanted="available")
        answer.append(attachment)
    return answer


def _have_row(conn: Connection, device: BlockDeviceRequest, project_id: str, user_id: str) -> None:
    volume = Volume(
        id=device.volume_id,
        name="",
        size_gb=device.size_gb or 0,
        status="creating",
        bootable=device.image_id is not None,
        image_id=device.image_id,
        project_id=project_id,
        user_id=user_id,
        created_at=now(),
    )
    insert_if_absent(conn, volumes, volume.to_dict())


def of_instance(conn: Connection, instance_uuid: str) -> list[Attachment]:
    """The attachments of an instance, in boot order, then that of the request."""
    return of_instances(conn, [instance_uuid])[instance_uuid]


def of_instances(conn: Connection, instance_uuids: Sequence[str]) -> dict[str, list[Attachment]]:
    """Instance uuid -> its attachments, in boot order, then that of the request; one statement."""
    answer: dict[str, list[Attachment]] = {uuid: [] for uuid in instance_uuids}
    for row in conn.execute(_OF_INSTANCES, {"instances": list(instance_uuids)}).mappings():
        answer[row["instance_uuid"]].append(_attachment(row))
    return answer


def of_volumes(conn: Connection, volume_ids: Sequence[str]) -> dict[str, Attachment]:
    """Volume id -> its attachment, for those that have one."""
    if not volume_ids:
        return {}
    statement = sa.select(attachments).where(attachments.c.volume_id.in_(volume_ids), attachments.c.state != _DELETING)
    return {row["volume_id"]: _attachment(row) for row in conn.execute(statement).mappings()}


def attached_of_project(project_id: str) -> sa.ColumnElement[bool]:
    """Condition: an attachment of one of the project's volumes."""
    return attachments.c.volume_id.in_(sa.select(volumes.c.id).where(of_project(project_id)))


def list_attachments(conn: Connection, *, where: Iterable[sa.ColumnElement[bool]] = ()) -> list[Attachment]:
    """Attachments, oldest first."""
    statement = sa.select(attachments).where(attachments.c.state != _DELETING, *where).order_by(attachments.c.created_at)
    return [_attachment(row) for row in conn.execute(statement).mappings()]


def mark_attached(conn: Connection, attachment_ids: Sequence[str], host: str) -> None:
    """Record where attachments are connected; their volumes are in use."""
    chosen = attachments.c.id.in_(attachment_ids)
    conn.execute(attachments.update().where(chosen).values(host=host, state="attached"))
    theirs = volumes.c.id.in_(sa.select(attachments.c.volume_id).where(chosen))
    conn.execute(volumes.update().where(theirs).values(status="in-use"))


def mark_detached(conn: Connection, instance_uuid: str, host: str) -> None:
    """Record that an instance's attachments are connected on this host no more; those that are elsewhere meanwhile stay so."""
    here = sa.and_(attachments.c.instance_uuid == instance_uuid, attachments.c.host == host, attachments.c.state == "attached")
    freed = conn.execute(attachments.update().where(here).values(host=None, state="reserved").returning(attachments.c.volume_id))
    theirs = volumes.c.id.in_(freed.scalars().all())
    conn.execute(volumes.update().where(theirs, volumes.c.status == "in-use").values(status="reserved"))


def mark_unmade(conn: Connection, instance_uuid: str) -> None:
    """Have the volumes that a build makes count as not made yet, where they are nowhere. One that is connected meanwhile stays in use."""
    made_by_it = sa.select(attachments.c.volume_id).where(
        attachments.c.instance_uuid == instance_uuid, attachments.c.created_by_build.is_(True), attachments.c.state != _DELETING
    )
    nowhere = sa.and_(volumes.c.id.in_(made_by_it), volumes.c.host.is_(None), volumes.c.status == "reserved")
    conn.execute(volumes.update().where(nowhere).values(status="creating"))


def set_devices(conn: Connection, devices: Mapping[str, str]) -> None:
    """Record the names (/dev/vdb) under which a guest sees its volumes, by attachment."""
    if devices:
        conn.execute(_SET_DEVICE, [{"its_id": id, "device": device} for id, device in devices.items()])


def place(conn: Connection, volume_id: str, host: str | None, attachment_id: str | None) -> None:
    """Record on which host a volume's bytes are, and the attachment for which they were made; None: nowhere."""
    conn.execute(volumes.update().where(volumes.c.id == volume_id).values(host=host, placed_by=attachment_id))


def begin_cleaning(conn: Connection, volume_id: str, host: str, *, instance_uuid: str | None, shared: bool) -> bool:
    """Mark that a volume's bytes on a host are being deleted, if they are left over there: it is nowhere, and nobody but `instance_uuid`
    is about to use it; or it is elsewhere, and bytes are not `shared`. One statement: whoever makes bytes there looks at the mark first.

    Raises: VolumeNotFound; VolumeError while they are being deleted on another host.
    """
    others = attachments.c.instance_uuid != instance_uuid if instance_uuid is not None else sa.true()
    wanted = sa.exists().where(attachments.c.volume_id == volume_id, attachments.c.state != _DELETING, others)
    elsewhere = sa.false() if shared else volumes.c.host != host
    left_over = sa.or_(sa.and_(volumes.c.host.is_(None), ~wanted), elsewhere)
    is_free = sa.or_(volumes.c.cleaning_on.is_(None), volumes.c.cleaning_on == host)
    marked = volumes.update().where(volumes.c.id == volume_id, left_over, is_free).values(cleaning_on=host)
    if conn.execute(marked).rowcount:
        return True
    on = get(conn, volume_id).cleaning_on
    if on not in (None, host):
        raise VolumeError(volume=volume_id, reason=f"what is left of it on host {on} is being deleted just now")
    return False


def end_cleaning(conn: Connection, volume_id: str, host: str) -> None:
    """Take the mark away."""
    conn.execute(volumes.update().where(volumes.c.id == volume_id, volumes.c.cleaning_on == host).values(cleaning_on=None))


def home(conn: Connection, volume_id: str) -> HostRef | None:
    """The host where a volume's bytes are; None when they are nowhere, or on a host that is no longer registered."""
    statement = (
        sa.select(hosts.c.name, hosts.c.uri, hosts.c.driver).join(volumes, volumes.c.host == hosts.c.name).where(volumes.c.id == volume_id)
    )
    row = conn.execute(statement).one_or_none()
    return None if row is None else HostRef(row.name, row.uri, row.driver)


def release(conn: Connection, instance_uuid: str, *, undo: bool = False) -> list[Volume]:
    """Delete the instance's attachments and free its volumes; answer those that are to be deleted with it.

    These are the ones marked so, and those that the build began to make and never finished. `undo`: a build is undone, there was no
    instance yet: all that the build made, and nothing that the user gave, however it is marked. They keep a mark of the instance
    until `forget`, so that a release which is cut short answers them again.
    """
    mine = attachments.c.instance_uuid == instance_uuid
    joined = sa.select(volumes).join(attachments, attachments.c.volume_id == volumes.c.id)
    unfinished = sa.and_(attachments.c.created_by_build.is_(True), volumes.c.status.in_(["creating", "error"]))
    with_it = attachments.c.created_by_build.is_(True) if undo else sa.or_(attachments.c.delete_on_termination.is_(True), unfinished)
    doomed_where = sa.or_(attachments.c.state == _DELETING, with_it)
    doomed = [Volume(**row) for row in conn.execute(joined.where(mine, doomed_where)).mappings()]
    doomed_ids = [volume.id for volume in doomed]
    if doomed_ids:
        conn.execute(volumes.update().where(volumes.c.id.in_(doomed_ids)).values(status="deleting"))
        conn.execute(attachments.update().where(mine, attachments.c.volume_id.in_(doomed_ids)).values(state=_DELETING, host=None))
    freed = sa.select(attachments.c.volume_id).where(mine, attachments.c.state != _DELETING)
    conn.execute(volumes.update().where(volumes.c.id.in_(freed)).values(status="available"))
    conn.execute(attachments.delete().where(mine, attachments.c.state != _DELETING))
    return [replace(volume, status="deleting") for volume in doomed]


def forget(conn: Connection, volume_id: str) -> None:
    """Delete a volume's row and what marks it; gone is done."""
    conn.execute(attachments.delete().where(attachments.c.volume_id == volume_id))
    conn.execute(volumes.delete().where(volumes.c.id == volume_id))


def _attachment(row: sa.RowMapping) -> Attachment:
    return Attachment(**{name: value for name, value in row.items() if name != "position"})


class SqlVolumeStore:
    """The `VolumeStore` on the database: each call is one transaction."""

    def __init__(self, db: Database) -> None:
        """Keep the door to the database."""
        self._db = db

    def volume(self, volume_id: str) -> Volume:
        """See `get`."""
        with self._db.read() as conn:
            return get(conn, volume_id)

    def reserve(self, instance_uuid: str, project_id: str, user_id: str, devices: Sequence[BlockDeviceRequest]) -> list[Attachment]:
        """See the function `reserve`."""
        if not devices:
            return []
        with self._db.write() as conn:
            return reserve(conn, instance_uuid, project_id, user_id, devices)

    def attachments_of(self, instance_uuid: str) -> list[Attachment]:
        """See `of_instance`."""
        with self._db.read() as conn:
            return of_instance(conn, instance_uuid)

    def mark_attached(self, attachment_ids: Sequence[str], host: str) -> None:
        """See the function `mark_attached`."""
        with self._db.write() as conn:
            mark_attached(conn, attachment_ids, host)

    def mark_detached(self, instance_uuid: str, host: str) -> None:
        """See the function `mark_detached`."""
        with self._db.write() as conn:
            mark_detached(conn, instance_uuid, host)

    def mark_unmade(self, instance_uuid: str) -> None:
        """See the function `mark_unmade`."""
        with self._db.write() as conn:
            mark_unmade(conn, instance_uuid)

    def begin_cleaning(self, volume_id: str, host: str, *, instance_uuid: str | None, shared: bool) -> bool:
        """See the function `begin_cleaning`."""
        with self._db.write() as conn:
            return begin_cleaning(conn, volume_id, host, instance_uuid=instance_uuid, shared=shared)

    def end_cleaning(self, volume_id: str, host: str) -> None:
        """See the function `end_cleaning`."""
        with self._db.write() as conn:
            end_cleaning(conn, volume_id, host)

    def place(self, volume_id: str, host: str | None, attachment_id: str | None) -> None:
        """See the function `place`."""
        with self._db.write() as conn:
            place(conn, volume_id, host, attachment_id)

    def home(self, volume_id: str) -> HostRef | None:
        """See the function `home`."""
        with self._db.read() as conn:
            return home(conn, volume_id)

    def release(self, instance_uuid: str, *, undo: bool = False) -> list[Volume]:
        """See the function `release`."""
        with self._db.read() as conn:  # most instances have none: no write lock for them
            if conn.execute(_ANY_OF_INSTANCE, {"instance": instance_uuid}).first() is None:
                return []
        with self._db.write() as conn:
            return release(conn, instance_uuid, undo=undo)

    def forget_volume(self, volume_id: str) -> None:
        """See `forget`."""
        with self._db.write() as conn:
            forget(conn, volume_id)
