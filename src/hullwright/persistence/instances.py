"""Instances in the database: create, read, list, and every change of state as a compare-and-swap.

Not for: what belongs to other aggregates; see `faults`, `actions`, and `server_pages` for the pages of the API.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection, RowMapping

from hullwright.objects.errors import InstanceNotFound, UnexpectedDeletingTaskStateError, UnexpectedTaskStateError
from hullwright.objects.flavors import Flavor
from hullwright.objects.instances import Instance, RequestSpec
from hullwright.objects.states import TaskState, VmState
from hullwright.persistence.database import now
from hullwright.persistence.models.changes import NextChange
from hullwright.persistence.models.hosts import hosts
from hullwright.persistence.models.instances import instances

_FIELDS = tuple(Instance.__dataclass_fields__)
_COLUMNS = [instances.c[name] for name in _FIELDS]


def guest_name(id: int) -> str:
    """The name that an instance's guest has on its host."""
    return f"instance-{id:08x}"


def to_row(instance: Instance) -> dict[str, Any]:
    """Columns of a new row."""
    row: dict[str, Any] = {name: getattr(instance, name) for name in _FIELDS}
    row["flavor"] = dataclasses.asdict(instance.flavor)
    row["flavor_id"] = instance.flavor.id
    row["spec"] = instance.spec.to_dict()
    row["metadata"] = dict(instance.metadata)
    row["tags"] = list(instance.tags)
    return row


def from_row(row: RowMapping | Mapping[str, Any]) -> Instance:
    """The record of a row."""
    values = {name: row[name] for name in _FIELDS}
    values["flavor"] = Flavor.from_dict(values["flavor"])
    values["spec"] = RequestSpec.from_dict(values["spec"])
    values["tags"] = tuple(values["tags"])
    return Instance(**values)


def create(conn: Connection, instance: Instance) -> None:
    """Insert a new instance."""
    create_many(conn, [instance])


def create_many(conn: Connection, batch: Sequence[Instance]) -> None:
    """Insert new instances with one statement."""
    conn.execute(sa.insert(instances), [to_row(instance) for instance in batch])


def get(conn: Connection, uuid: str, *, deleted: bool = False) -> Instance:
    """One instance; a deleted one only when `deleted` is set.

    Raises: InstanceNotFound.
    """
    return from_row(get_row(conn, uuid, deleted=deleted))


_BY_UUID = sa.select(instances).where(instances.c.uuid == sa.bindparam("wanted"))
_LIVING_BY_UUID = _BY_UUID.where(instances.c.deleted_at.is_(None))


def get_row(conn: Connection, uuid: str, *, deleted: bool = False, for_update: bool = False) -> RowMapping:
    """One instance's row with every column, `id` too; `for_update` keeps others from changing it in the meantime.

    Raises: InstanceNotFound.
    """
    statement = _BY_UUID if deleted else _LIVING_BY_UUID
    if for_update:
        statement = statement.with_for_update()
    row = conn.execute(statement, {"wanted": uuid}).mappings().first()
    if row is None:
        raise InstanceNotFound(id=uuid)
    return row


def get_zone(conn: Connection, uuid: str) -> str | None:
    """The availability zone that an instance is in, or is asked into while it has no host."""
    zone: str | None = conn.scalar(sa.select(instances.c.availability_zone).where(instances.c.uuid == uuid))
    return zone


def transition(
    conn: Connection,
    uuid: str,
    *,
    expected_task_state: Iterable[TaskState | None],
    expected_vm_state: Iterable[VmState] | None = None,
    **changes: Any,
) -> None:
    """Change columns if, and only if, the instance is in one of the expected states: one conditional statement.

    Raises: InstanceNotFound, UnexpectedDeletingTaskStateError when it is being or was deleted, UnexpectedTaskStateError.
    """
    expected = tuple(expected_task_state)
    vm_states = None if expected_vm_state is None else tuple(expected_vm_state)
    values = _to_columns(changes) | {"updated_at": now()}
    statement = _transition(expected, vm_states, tuple(values))
    if conn.execute(statement, {"its_uuid": uuid} | values).rowcount == 1:
        return
    columns = (instances.c.vm_state, instances.c.task_state, instances.c.deleted_at)
    row = conn.execute(sa.select(*columns).where(instances.c.uuid == uuid)).first()
    if row is None:
        raise InstanceNotFound(id=uuid)
    told = {
        "instance": uuid,
        "expected": _tell(vm_states, expected),
        "actual": f"vm_state {row.vm_state}, task_state {row.task_state}",
    }
    if row.deleted_at is not None or row.task_state == TaskState.DELETING:
        raise UnexpectedDeletingTaskStateError(**told)
    raise UnexpectedTaskStateError(**told)


@cache
def _transition(expected: tuple[TaskState | None, ...], vm_states: tuple[VmState, ...] | None, columns: tuple[str, ...]) -> sa.Update:
    """The statement for these states and columns, built once: a build goes through it at every turn."""
    statement = sa.update(instances).where(
        instances.c.uuid == sa.bindparam("its_uuid"), instances.c.deleted_at.is_(None), _is_one_of(expected)
    )
    if vm_states is not None:
        statement = statement.where(instances.c.vm_state.in_(vm_states))
    values: dict[str, Any] = {name: sa.bindparam(name) for name in columns}
    if "host" in columns:
        values["changed"] = NextChange()
        # An instance is in the zone of its host; one that loses its host keeps the zone, unless another is given.
        zone = sa.select(hosts.c.availability_zone).where(hosts.c.name == values["host"]).scalar_subquery()
        values.setdefault("availability_zone", sa.func.coalesce(zone, instances.c.availability_zone))
    return statement.values(values)


def _is_one_of(expected: Sequence[TaskState | None]) -> sa.ColumnElement[bool]:
    named = [state for state in expected if state is not None]
    choices: list[sa.ColumnElement[bool]] = []
    if named:
        choices.append(instances.c.task_state.in_(named))
    if None in expected:
        choices.append(instances.c.task_state.is_(None))
    return sa.or_(sa.false(), *choices)


def _tell(vm_states: Sequence[VmState] | None, task_states: Sequence[TaskState | None]) -> str:
    text = "task_state " + " or ".join(str(state) for state in task_states)
    return text if vm_states is None else f"vm_state {' or '.join(vm_states)}, {text}"


def _to_columns(changes: Mapping[str, Any]) -> dict[str, Any]:
    columns = dict(changes)
    if isinstance(columns.get("spec"), RequestSpec):
        columns["spec"] = columns["spec"].to_dict()
    if isinstance(columns.get("flavor"), Flavor):
        columns["flavor_id"] = columns["flavor"].id
        columns["flavor"] = columns["flavor"].to_dict()
    return columns


def update(conn: Connection, uuid: str, **changes: Any) -> None:
    """Change columns that are no state: name, description, metadata, tags, lock.

    Raises: InstanceNotFound.
    """
    statement = sa.update(instances).where(instances.c.uuid == uuid, instances.c.deleted_at.is_(None))
    if conn.execute(statement.values(**changes, updated_at=now())).rowcount != 1:
        raise InstanceNotFound(id=uuid)


def mark_deleting(conn: Connection, uuid: str) -> bool:
    """Set task_state deleting, whatever the state; False when it is deleting already or gone."""
    statement = (
        sa.update(instances)
        .where(
            instances.c.uuid == uuid,
            instances.c.deleted_at.is_(None),
            sa.or_(instances.c.task_state.is_(None), instances.c.task_state != TaskState.DELETING),
        )
        .values(task_state=TaskState.DELETING, updated_at=now())
    )
    return conn.execute(statement).rowcount == 1


def count_living(conn: Connection, project_id: str | None = None) -> tuple[int, int, int]:
    """Instances, vCPUs and memory in MB of living instances, of one project if given."""
    # By snapshot: there are many instances and few flavors.
    query = sa.select(instances.c.flavor, sa.func.count()).where(instances.c.deleted_at.is_(None))
    if project_id is not None:
        query = query.where(instances.c.project_id == project_id)
    groups = [(flavor, int(count)) for flavor, count in conn.execute(query.group_by(instances.c.flavor))]
    return (
        sum(count for _, count in groups),
        sum(flavor["vcpus"] * count for flavor, count in groups),
        sum(flavor["memory_mb"] * count for flavor, count in groups),
    )
