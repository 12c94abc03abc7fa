"""Pages of instances for the API: one statement for the rows, and one per kind of thing that hangs on them, however long the page.

Rows are answered as they are: building records of a thousand instances would cost more than reading them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection, RowMapping

from hullwright.objects.instances import Fault
from hullwright.objects.networks import Port
from hullwright.objects.states import OPEN_JOB_STATES, VmState
from hullwright.objects.volumes import Attachment
from hullwright.persistence import faults, json_text, patterns, ports, volumes
from hullwright.persistence.models.hosts import hosts
from hullwright.persistence.models.instances import instances
from hullwright.persistence.models.jobs import jobs
from hullwright.persistence.models.networks import addresses, networks
from hullwright.persistence.models.networks import ports as port_table
from hullwright.persistence.paging import Sort, page

# What the API calls a column when it sorts or filters.
COLUMNS = {
    "access_ip_v4": "access_ip_v4",
    "access_ip_v6": "access_ip_v6",
    "config_drive": "config_drive",
    "created_at": "created_at",
    "description": "description",
    "display_description": "description",
    "display_name": "name",
    "host": "host",
    "hostname": "hostname",
    "image_ref": "image_id",
    "instance_type_id": "flavor_id",
    "key_name": "key_name",
    "launch_index": "launch_index",
    "launched_at": "launched_at",
    "locked_by": "locked",
    "node": "node",
    "power_state": "power_state",
    "project_id": "project_id",
    "reservation_id": "reservation_id",
    "task_state": "task_state",
    "terminated_at": "terminated_at",
    "updated_at": "updated_at",
    "user_id": "user_id",
    "uuid": "uuid",
    "vm_state": "vm_state",
}


@dataclass(frozen=True)
class HostState:
    """What a page of servers tells of a host."""

    enabled: bool
    forced_down: bool
    last_seen_at: float
    silent_seconds: float
    availability_zone: str


@dataclass
class Related:
    """All that hangs on the instances of a page."""

    ports: Mapping[str, list[Port]] = field(default_factory=dict)
    network_names: Mapping[str, str] = field(default_factory=dict)
    attachments: Mapping[str, list[Attachment]] = field(default_factory=dict)
    faults: Mapping[str, Fault] = field(default_factory=dict)
    progress: Mapping[str, int] = field(default_factory=dict)  # percent, of builds under way
    hosts: Mapping[str, HostState] = field(default_factory=dict)


def list_rows(
    conn: Connection,
    *,
    where: Iterable[sa.ColumnElement[bool]],
    sort: Sort = (("created_at", True),),
    marker: str | None = None,
    limit: int,
    brief: bool = False,
) -> list[RowMapping]:
    """A page of rows from after the instance `marker` on; `brief` rows have id, uuid and name only.

    Raises: LookupError when there is no instance `marker`.
    """
    after: Any = None
    if marker is not None:
        after = conn.scalar(sa.select(instances.c.id).where(instances.c.uuid == marker))
        if after is None:
            raise LookupError(marker)
    columns = (instances.c.id, instances.c.uuid, instances.c.name) if brief else tuple(instances.c)
    return page(conn, sa.select(*columns).where(*where), instances, sort, after, limit)


def related(conn: Connection, rows: Sequence[RowMapping]) -> Related:
    """What hangs on these instances; at most seven statements."""
    uuids = [row["uuid"] for row in rows]
    if not uuids:
        return Related()
    found = Related(ports=ports.of_instances(conn, uuids), attachments=volumes.of_instances(conn, uuids))
    if used := {port.network_id for cards in found.ports.values() for port in cards}:
        names = sa.select(networks.c.id, networks.c.name).where(networks.c.id.in_(used))
        found.network_names = dict(conn.execute(names).tuples().all())
    if failed := [row["uuid"] for row in rows if row["vm_state"] in (VmState.ERROR, VmState.DELETED)]:
        found.faults = faults.latest_of(conn, failed)
    if building := [row["uuid"] for row in rows if row["vm_state"] == VmState.BUILDING]:
        found.progress = _progress(conn, building)
    if homes := {row["host"] for row in rows if row["host"]}:
        query = sa.select(hosts.c.name, *(hosts.c[name] for name in HostState.__dataclass_fields__)).where(hosts.c.name.in_(homes))
        found.hosts = {name: HostState(*rest) for name, *rest in conn.execute(query)}
    return found


def _progress(conn: Connection, uuids: Sequence[str]) -> dict[str, int]:
    query = sa.select(jobs.c.instance_uuid, jobs.c.progress).where(
        jobs.c.instance_uuid.in_(uuids), jobs.c.kind == "build_instance", jobs.c.state.in_(OPEN_JOB_STATES)
    )
    return {str(uuid): percent for uuid, percent in conn.execute(query)}


# --- Conditions -------------------------------------------------------------------------------------------------------


def living() -> sa.ColumnElement[bool]:
    """Not deleted."""
    return instances.c.deleted_at.is_(None)


def deleted() -> sa.ColumnElement[bool]:
    """Deleted."""
    return instances.c.deleted_at.is_not(None)


def equals(name: str, value: Any) -> sa.ColumnElement[bool]:
    """A column, by the API's name, has this value."""
    same: sa.ColumnElement[bool] = instances.c[COLUMNS[name]] == value
    return same


def one_of(name: str, values: Sequence[Any]) -> sa.ColumnElement[bool]:
    """A column, by the API's name, has one of these values."""
    return instances.c[COLUMNS[name]].in_(list(values))


def in_zones(zones: Sequence[str]) -> sa.ColumnElement[bool]:
    """In one of these availability zones: its host's; of an instance without a host, the one that was asked for."""
    of_host = sa.select(hosts.c.availability_zone).where(hosts.c.name == instances.c.host).scalar_subquery()
    return sa.func.coalesce(of_host, instances.c.availability_zone).in_(list(zones))


def updated(*, since: float | None = None, before: float | None = None) -> list[sa.ColumnElement[bool]]:
    """Changed in a span of time; seconds since the epoch, both ends included."""
    conditions: list[sa.ColumnElement[bool]] = []
    if since is not None:
        conditions.append(instances.c.updated_at >= since)
    if before is not None:
        conditions.append(instances.c.updated_at <= before)
    return conditions


def in_states(states: Iterable[tuple[str, Sequence[str | None]]]) -> sa.ColumnElement[bool]:
    """In one of the (vm_state, task states); None among them means that nothing is being done."""
    choices: list[sa.ColumnElement[bool]] = []
    for vm_state, task_states in states:
        named = [state for state in task_states if state is not None]
        doing: sa.ColumnElement[bool] = instances.c.task_state.in_(named) if named else sa.false()
        if None in task_states:
            doing = sa.or_(doing, instances.c.task_state.is_(None))
        choices.append(sa.and_(instances.c.vm_state == vm_state, doing))
    return sa.or_(sa.false(), *choices)


def matches(name: str, pattern: str) -> sa.ColumnElement[bool]:
    """A text column, by the API's name, holds a match of the regular expression."""
    return patterns.matches(instances.c[COLUMNS[name]], pattern)


def has_address(pattern: str, version: int) -> sa.ColumnElement[bool]:
    """Some address of that IP version matches the regular expression."""
    kind = addresses.c.address.contains(":")
    owners = (
        sa.select(port_table.c.device_id)
        .join(addresses, addresses.c.port_id == port_table.c.id)
        .where(kind if version == 6 else ~kind, patterns.matches(addresses.c.address, pattern), port_table.c.device_id.is_not(None))
    )
    return instances.c.uuid.in_(owners)


def has_tag(tag: str) -> sa.ColumnElement[bool]:
    """Carries the tag."""
    return json_text.has_item(instances.c.tags, tag)


def has_metadata(key: str, value: str) -> sa.ColumnElement[bool]:
    """Has the metadata item."""
    return json_text.has_member(instances.c.metadata, key, value)
