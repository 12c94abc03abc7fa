"""Hosts and their inventories: registered, asked for facts, enabled, disabled, counted for failed builds.

Not for: claiming what they have; that is `allocations`, and nothing here ever touches `inventories.used`.
"""

from __future__ import annotations

import math
import uuid as uuids
from collections.abc import Collection, Iterable, Mapping
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from hullwright.objects.aggregates import ZONE_KEY
from hullwright.objects.errors import BadRequest, Conflict, HostExists, HostNotFound
from hullwright.objects.hosts import HOST_RATIOS, HOST_SETTINGS, Host, HostFacts, Inventory
from hullwright.persistence.database import now
from hullwright.persistence.inserts import insert_if_absent
from hullwright.persistence.models.changes import NextChange
from hullwright.persistence.models.groups import aggregate_hosts, aggregates
from hullwright.persistence.models.hosts import allocations, hosts, inventories, removed_hosts
from hullwright.persistence.models.volumes import volumes
from hullwright.persistence.patterns import holds

_host_columns = [hosts.c[name] for name in Host.__dataclass_fields__]
_next_generation = {"generation": hosts.c.generation + 1}
_NO_FAILURES = {"failed_builds": 0, "failed_step": None, "failed_in_step": 0}
_FORGET_FAILURES = sa.update(hosts).where(hosts.c.name == sa.bindparam("its_name"), hosts.c.failed_builds != 0).values(_NO_FAILURES)
_NO_QUARANTINE = {"quarantined_at": None, "quarantine_reason": None, "probed_at": None}
_UNCHANGED = {"changed": hosts.c.changed}  # nothing that a scheduler would know
_REASON_MAX = 1000  # characters


def _host(row: Any) -> Host:
    values = dict(row._mapping)
    values["facts"] = None if values["facts"] is None else HostFacts.from_dict(values["facts"])
    return Host(**values)


# --- Registering and finding ------------------------------------------------------------------------------------------


def register(conn: Connection, name: str, uri: str, driver: str = "libvirt", *, availability_zone: str = "nova") -> Host:
    """Add a host. It is scheduled to once its hypervisor has answered for the first time.

    Raises: HostExists.
    """
    values = {"uuid": str(uuids.uuid4()), "name": name, "uri": uri, "driver": driver}
    zones = {"availability_zone": availability_zone, "home_zone": availability_zone}
    try:
        conn.execute(sa.insert(hosts).values(**values, **zones, checked_at=0.0, last_seen_at=0.0, created_at=now()))
    except sa.exc.IntegrityError as error:
        raise HostExists(id=name) from error
    return get(conn, name)


def get(conn: Connection, name: str) -> Host:
    """The host of that name.

    Raises: HostNotFound.
    """
    host = by_name(conn, name)
    if host is None:
        raise HostNotFound(id=name)
    return host


def by_name(conn: Connection, name: str) -> Host | None:
    """The host of that name, if there is one."""
    return _only(conn, hosts.c.name == name)


def by_uuid(conn: Connection, uuid: str) -> Host | None:
    """The host of that uuid, if there is one."""
    return _only(conn, hosts.c.uuid == uuid)


def by_id(conn: Connection, id: int) -> Host | None:
    """The host of that number, if there is one."""
    return _only(conn, hosts.c.id == id)


def _only(conn: Connection, which: sa.ColumnElement[bool]) -> Host | None:
    row = conn.execute(sa.select(*_host_columns).where(which)).first()
    return None if row is None else _host(row)


def zone_of(conn: Connection, name: str) -> str | None:
    """The availability zone of the host of that name, if there is one."""
    return conn.scalar(sa.select(hosts.c.availability_zone).where(hosts.c.name == name))


def has_zone(conn: Connection, zone: str) -> bool:
    """Whether some host is in that availability zone."""
    return conn.execute(sa.select(hosts.c.id).where(hosts.c.availability_zone == zone).limit(1)).first() is not None


def list_all(conn: Connection, *, name_part: str | None = None, after: str | None = None, limit: int | None = None) -> list[Host]:
    """Hosts by name: those whose names hold `name_part` and come after the name `after`, at most `limit`."""
    query = sa.select(*_host_columns).order_by(hosts.c.name).limit(limit)
    if name_part is not None:
        query = query.where(holds(hosts.c.name, name_part))
    if after is not None:
        query = query.where(hosts.c.name > after)
    return [_host(row) for row in conn.execute(query)]


def list_zones(conn: Connection) -> dict[str, bool]:
    """Availability zone -> whether some host of it takes builds, by name."""
    takes_builds = sa.func.max(sa.case((sa.and_(hosts.c.enabled, hosts.c.quarantined_at.is_(None)), 1), else_=0))
    zones = sa.select(hosts.c.availability_zone, takes_builds).group_by(hosts.c.availability_zone).order_by(hosts.c.availability_zone)
    return {zone: bool(any_takes) for zone, any_takes in conn.execute(zones)}


def list_inventories(conn: Connection, host_ids: Collection[int] | None = None) -> dict[int, list[Inventory]]:
    """Host id -> what it has, of these hosts or of all."""
    query = sa.select(inventories).order_by(inventories.c.host_id, inventories.c.resource_class)
    if host_ids is not None:
        query = query.where(inventories.c.host_id.in_(host_ids))
    found: dict[int, list[Inventory]] = {}
    for row in conn.execute(query):
        found.setdefault(row.host_id, []).append(Inventory(row.resource_class, row.total, row.reserved, row.allocation_ratio, row.used))
    return found


def remove(conn: Connection, name: str) -> None:
    """Forget a host that holds nothing.

    Raises: HostNotFound; Conflict while instances hold allocations there.
    """
    host = get(conn, name)
    in_use = Conflict(f"Host {name} still holds instances. Delete or move them first.")
    if conn.execute(sa.select(allocations.c.host_id).where(allocations.c.host_id == host.id).limit(1)).first():
        raise in_use
    conn.execute(sa.update(volumes).where(volumes.c.cleaning_on == name).values(cleaning_on=None))  # nobody cleans there any more
    conn.execute(sa.insert(removed_hosts).values(host_id=host.id))  # before the others go: its number is above theirs
    try:
        conn.execute(sa.delete(inventories).where(inventories.c.host_id == host.id))  # first, as a claim does: no deadlock
        conn.execute(sa.delete(hosts).where(hosts.c.id == host.id))
    except sa.exc.IntegrityError as error:  # a claim got in between
        raise in_use from error


# --- What operators say -----------------------------------------------------------------------------------------------


def change_settings(conn: Connection, name: str, changes: Mapping[str, float | None]) -> None:
    """Have a host differ from [compute] in these of HOST_SETTINGS; None: not any more. It is asked anew soon, and has it then.

    Raises: HostNotFound; BadRequest for what is no such setting, or no number that it may have.
    """
    for key, value in changes.items():
        least = math.ulp(0.0) if key in HOST_RATIOS else 0.0
        if key not in HOST_SETTINGS or (value is not None and not least <= value < math.inf):
            raise BadRequest(f"A host cannot have {key} {value}: a ratio is more than 0, a reserve not less than 0.")
    row = conn.execute(sa.select(hosts.c.settings).where(hosts.c.name == name).with_for_update()).first()
    if row is None:
        raise HostNotFound(id=name)
    settings = {key: value for key, value in {**row.settings, **changes}.items() if value is not None}
    conn.execute(sa.update(hosts).where(hosts.c.name == name).values(settings=settings, checked_at=0.0, **_UNCHANGED))


def ask_soon(conn: Connection, host_ids: Collection[int]) -> None:
    """Have hosts asked at the conductors' next look, not when their interval is over."""
    conn.execute(sa.update(hosts).where(hosts.c.id.in_(host_ids)).values(checked_at=0.0, **_UNCHANGED))


def have_reread(conn: Connection, host_id: int) -> None:
    """Have schedulers read anew what they know of a host: it joined an aggregate, or left one."""
    conn.execute(sa.update(hosts).where(hosts.c.id == host_id).values(_next_generation))


def settings_of(conn: Connection, names: Collection[str]) -> dict[str, Mapping[str, float]]:
    """Host name -> what of HOST_SETTINGS it has for itself."""
    return {row.name: row.settings for row in conn.execute(sa.select(hosts.c.name, hosts.c.settings).where(hosts.c.name.in_(names)))}


def enable(conn: Connection, name: str) -> None:
    """Let builds go there again: what an operator disabled, and what failed builds put into quarantine. It is asked anew soon.

    Raises: HostNotFound.
    """
    _change(conn, name, enabled=True, disabled_reason=None, checked_at=0.0, **_NO_FAILURES, **_NO_QUARANTINE)


def disable(conn: Connection, name: str, reason: str | None = None) -> None:
    """Send no more builds there; what runs there goes on.

    Raises: HostNotFound.
    """
    _change(conn, name, enabled=False, disabled_reason=reason)


def force_down(conn: Connection, name: str, forced_down: bool) -> None:
    """Say that a host is down whatever its hypervisor answers, or take that back.

    Raises: HostNotFound.
    """
    _change(conn, name, forced_down=forced_down)


def settle_zones(conn: Connection, host_ids: Collection[int]) -> None:
    """Put hosts into the zone that an aggregate gives them, else into their own."""
    members = sa.select(aggregate_hosts.c.host_id, aggregates.c.metadata).join(aggregates).where(aggregate_hosts.c.host_id.in_(host_ids))
    given = {row.host_id: zone for row in conn.execute(members) if (zone := row.metadata.get(ZONE_KEY))}
    zones = sa.select(hosts.c.id, hosts.c.availability_zone, hosts.c.home_zone).where(hosts.c.id.in_(host_ids)).order_by(hosts.c.id)
    for row in conn.execute(zones).all():
        zone = given.get(row.id, row.home_zone)
        if zone != row.availability_zone:
            conn.execute(sa.update(hosts).where(hosts.c.id == row.id).values({"availability_zone": zone} | _next_generation))


def _change(conn: Connection, name: str, **values: Any) -> None:
    if conn.execute(sa.update(hosts).where(hosts.c.name == name).values(values | _next_generation)).rowcount == 0:
        raise HostNotFound(id=name)


# --- What hypervisors say ---------------------------------------------------------------------------------------------


def take_due_checks(conn: Connection, *, interval_seconds: float, limit: int, at: float | None = None) -> list[Host]:
    """Take it on oneself to ask the hosts that nobody has asked for `interval_seconds`; no two callers get the same one."""
    at = now() if at is None else at
    due = hosts.c.checked_at <= at - interval_seconds
    oldest = sa.select(hosts.c.id).where(due).order_by(hosts.c.checked_at).limit(limit)
    # `due` is said twice: a second taker waits for the first one's row lock and then looks at the row again, not at the list.
    taken = sa.update(hosts).where(hosts.c.id.in_(oldest), due).values(checked_at=at, **_UNCHANGED).returning(*_host_columns)
    return [_host(row) for row in conn.execute(taken)]


def next_check_due(conn: Connection) -> float | None:
    """When the host longest unasked was last asked (seconds since the epoch), or None without hosts."""
    return conn.execute(sa.select(sa.func.min(hosts.c.checked_at))).scalar()


def record_facts(conn: Connection, name: str, facts: HostFacts, inventories: Iterable[Inventory] = (), *, at: float | None = None) -> None:
    """Note that a host answered, what it said of itself, and what there is to claim.

    Raises: HostNotFound.
    """
    row = conn.execute(sa.select(hosts.c.id, hosts.c.facts).where(hosts.c.name == name)).first()
    if row is None:
        raise HostNotFound(id=name)
    values: dict[str, Any] = {"last_seen_at": now() if at is None else at, "silent_since": None, "silent_seconds": 0.0, "error": None}
    told = facts.to_dict()
    is_news = sa.or_(hosts.c.last_seen_at == 0, hosts.c.silent_seconds != 0)
    values["changed"] = sa.case((is_news, NextChange()), else_=hosts.c.changed)
    if row.facts is None or HostFacts.from_dict(row.facts) != HostFacts.from_dict(told):
        values |= {"facts": told, "changed": NextChange()} | _next_generation
    set_inventory(conn, row.id, inventories)  # first: rows of resources before those of hosts, as when a build ends, so that none deadlock
    conn.execute(sa.update(hosts).where(hosts.c.id == row.id).values(values))


def record_silence(conn: Connection, name: str, error: str, *, at: float | None = None) -> None:
    """Note that a host was asked and did not answer, and why; when that goes on for long it counts as down (`is_up`)."""
    at = now() if at is None else at
    since = sa.func.coalesce(hosts.c.silent_since, at)
    silence = {"silent_since": since, "silent_seconds": at - since}
    conn.execute(sa.update(hosts).where(hosts.c.name == name).values(silence | {"error": error}))


def set_inventory(conn: Connection, host_id: int, wanted: Iterable[Inventory]) -> None:
    """Say what a host has of some resources. What is used of them stays, even when it is more than there is now."""
    known = {inventory.resource_class: inventory for inventory in list_inventories(conn, [host_id]).get(host_id, [])}
    for inventory in wanted:
        values = {"total": inventory.total, "reserved": inventory.reserved, "allocation_ratio": inventory.allocation_ratio}
        before = known.get(inventory.resource_class)
        if before is not None and (before.total, before.reserved, before.allocation_ratio) == tuple(values.values()):
            continue
        this_one = (inventories.c.host_id == host_id, inventories.c.resource_class == inventory.resource_class)
        if before is None:
            row = {"host_id": host_id, "resource_class": inventory.resource_class, "used": 0}
            if insert_if_absent(conn, inventories, row | values):
                continue
        conn.execute(sa.update(inventories).where(*this_one).values(values))


# --- What builds say --------------------------------------------------------------------------------------------------


def count_build(conn: Connection, name: str, failed: bool, step: str | None = None, reason: str | None = None, threshold: int = 0) -> bool:
    """Count a build that failed there at `step`; one that succeeded sets the counts back and ends a quarantine.

    `threshold`: so many failures in a row at the same step put the host into quarantine; 0: none do.
    Returns whether the host went into quarantine, or left it, by this.
    """
    if not failed:
        had_failures = conn.execute(_FORGET_FAILURES, {"its_name": name}).rowcount
        return bool(had_failures) and _end_quarantine(conn, name)
    this_one = sa.update(hosts).where(hosts.c.name == name)
    counts = {
        "failed_builds": hosts.c.failed_builds + 1,
        "failed_step": step,
        "checked_at": 0.0,  # its hypervisor is asked anew soon: what it told may be old
        "failed_in_step": sa.case((hosts.c.failed_step == step, hosts.c.failed_in_step + 1), else_=1),
    }
    found = conn.execute(this_one.values(counts).returning(hosts.c.failed_in_step, hosts.c.quarantined_at)).first()
    if found is None or not threshold or found.failed_in_step < threshold or found.quarantined_at is not None:
        return False
    told = f"{found.failed_in_step} builds in a row failed at {step}; the last one: {reason or 'no reason given'}"[:_REASON_MAX]
    at = now()
    values = {"quarantined_at": at, "quarantine_reason": told, "probed_at": at}
    conn.execute(this_one.values(values | _next_generation))
    return True


def _end_quarantine(conn: Connection, name: str) -> bool:
    left = sa.update(hosts).where(hosts.c.name == name, hosts.c.quarantined_at.is_not(None))
    return conn.execute(left.values(_NO_QUARANTINE | _next_generation)).rowcount > 0
