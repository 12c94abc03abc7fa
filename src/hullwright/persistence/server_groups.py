"""Server groups in the database: policy, members, and where the members are.

A member is where it holds a claim. Claims of one group are made one after the other: each locks the group's row first (`lock`), so that
none is made on a view that another one changes.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from hullwright.objects.errors import ServerGroupNotFound
from hullwright.objects.server_groups import GroupPlacement, GroupPolicy, ServerGroup
from hullwright.persistence.models.groups import server_group_members as members
from hullwright.persistence.models.groups import server_groups as groups
from hullwright.persistence.models.hosts import allocations
from hullwright.persistence.models.instances import instances

_HARD = (GroupPolicy.AFFINITY, GroupPolicy.ANTI_AFFINITY)
_by_uuid = sa.select(groups).where(groups.c.uuid == sa.bindparam("wanted"))
# Not FOR UPDATE: new members refer to the group meanwhile.
_lock = _by_uuid.where(groups.c.policy.in_(_HARD)).with_for_update(key_share=True)
_whereabouts = (
    sa.select(allocations.c.instance_uuid, allocations.c.host_id)
    .distinct()
    .join(members, members.c.instance_uuid == allocations.c.instance_uuid)
    .where(members.c.group_uuid == sa.bindparam("wanted"))
)


def create(conn: Connection, group: ServerGroup) -> None:
    """Add a group without members."""
    row = group.to_dict()
    del row["members"]
    conn.execute(sa.insert(groups).values(row))


def get(conn: Connection, uuid: str) -> ServerGroup:
    """One group.

    Raises: ServerGroupNotFound.
    """
    row = conn.execute(_by_uuid, {"wanted": uuid}).first()
    if row is None:
        raise ServerGroupNotFound(id=uuid)
    return _group(row, _members_of(conn, [uuid]).get(uuid, ()))


def list_groups(conn: Connection, *, project_id: str | None = None, limit: int, offset: int = 0) -> list[ServerGroup]:
    """Groups of a project, or of all, oldest first."""
    query = sa.select(groups).order_by(groups.c.created_at, groups.c.uuid).limit(limit).offset(offset)
    if project_id is not None:
        query = query.where(groups.c.project_id == project_id)
    rows = conn.execute(query).all()
    found = _members_of(conn, [row.uuid for row in rows])
    return [_group(row, found.get(row.uuid, ())) for row in rows]


def count(conn: Connection, project_id: str) -> int:
    """How many groups a project has."""
    return conn.execute(sa.select(sa.func.count()).select_from(groups).where(groups.c.project_id == project_id)).scalar_one()


def delete(conn: Connection, uuid: str) -> None:
    """Forget a group; its members stay where they are.

    Raises: ServerGroupNotFound.
    """
    conn.execute(_lock, {"wanted": uuid})  # a claim that is being made sees the group whole, or not at all
    conn.execute(sa.delete(members).where(members.c.group_uuid == uuid))
    if conn.execute(sa.delete(groups).where(groups.c.uuid == uuid)).rowcount == 0:
        raise ServerGroupNotFound(id=uuid)


def add_members(conn: Connection, group_of: Mapping[str, str]) -> None:
    """Make instances members: instance uuid -> group uuid.

    Raises: ServerGroupNotFound when a group went away meanwhile.
    """
    if not group_of:
        return
    try:
        conn.execute(sa.insert(members), [{"instance_uuid": instance, "group_uuid": group} for instance, group in group_of.items()])
    except sa.exc.IntegrityError as error:
        raise ServerGroupNotFound(id=next(iter(group_of.values()))) from error


def of_instance(conn: Connection, instance_uuid: str) -> str | None:
    """The group that an instance is in."""
    return conn.execute(sa.select(members.c.group_uuid).where(members.c.instance_uuid == instance_uuid)).scalar()


def lock(conn: Connection, uuid: str, instance_uuid: str) -> GroupPlacement | None:
    """Where a group's members are but `instance_uuid`, and keep others from claiming for it until this transaction ends.

    None when nothing is to be kept: the policy is a wish, or the group is gone.
    """
    row = conn.execute(_lock, {"wanted": uuid}).first()
    return None if row is None else _placement(row, _read_whereabouts(conn, uuid), instance_uuid)


def placement(conn: Connection, uuid: str, instance_uuid: str, in_flight: Mapping[str, int]) -> GroupPlacement | None:
    """Where a group's members are but `instance_uuid`, those counted that are about to claim (instance uuid -> host id).

    None when the group is gone.
    """
    row = conn.execute(_by_uuid, {"wanted": uuid}).first()
    return None if row is None else _placement(row, {**in_flight, **_read_whereabouts(conn, uuid)}, instance_uuid)


def _read_whereabouts(conn: Connection, uuid: str) -> dict[str, int]:
    return {row.instance_uuid: row.host_id for row in conn.execute(_whereabouts, {"wanted": uuid})}


def _placement(row: Any, whereabouts: Mapping[str, int], instance_uuid: str) -> GroupPlacement:
    members_on: dict[int, int] = {}
    for member, host_id in whereabouts.items():
        if member != instance_uuid:
            members_on[host_id] = members_on.get(host_id, 0) + 1
    return GroupPlacement(row.uuid, GroupPolicy(row.policy), row.max_server_per_host or 1, members_on)


def _members_of(conn: Connection, uuids: Sequence[str]) -> dict[str, list[str]]:
    living = sa.select(members).join(instances, instances.c.uuid == members.c.instance_uuid)
    living = living.where(members.c.group_uuid.in_(uuids), instances.c.deleted_at.is_(None)).order_by(instances.c.id)
    found: dict[str, list[str]] = {}
    for row in conn.execute(living):
        found.setdefault(row.group_uuid, []).append(row.instance_uuid)
    return found


def _group(row: Any, found: Iterable[str]) -> ServerGroup:
    return ServerGroup(
        uuid=row.uuid,
        name=row.name,
        project_id=row.project_id,
        user_id=row.user_id,
        policy=GroupPolicy(row.policy),
        max_server_per_host=row.max_server_per_host,
        members=tuple(found),
        created_at=row.created_at,
    )
