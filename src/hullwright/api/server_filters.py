"""The query of a server list: filters, sort keys, and which of them whom the caller may use, as conditions on the database."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import falcon
import sqlalchemy as sa

from hullwright.api import server_states
from hullwright.api.context import ApiContext, Caller, microversion
from hullwright.api.queries import bad_parameter, boolean, every, last, page_limit
from hullwright.api.times import moment
from hullwright.api.validation import is_uuid
from hullwright.objects.errors import BadRequest, Forbidden
from hullwright.persistence import patterns, server_pages

Condition = sa.ColumnElement[bool]

# Parameter -> column, for those that must be equal. Admins may use all, others the second list.
_EQUAL_ADMIN = {
    "host": "host",
    "node": "node",
    "hypervisor_hostname": "node",
    "user_id": "user_id",
    "launch_index": "launch_index",
    "created_at": "created_at",
    "launched_at": "launched_at",
    "terminated_at": "terminated_at",
    "instance_type_id": "instance_type_id",
}
_EQUAL = {
    "image": "image_ref",
    "image_ref": "image_ref",
    "flavor": "instance_type_id",
    "reservation_id": "reservation_id",
    "uuid": "uuid",
    "key_name": "key_name",
    "vm_state": "vm_state",
    "task_state": "task_state",
    "access_ip_v4": "access_ip_v4",
    "access_ip_v6": "access_ip_v6",
}
_MATCH = {
    "name": "display_name",
    "display_name": "display_name",
    "hostname": "hostname",
    "description": "description",
    "display_description": "description",
}
_NUMBERS = frozenset({"launch_index", "power_state"})
_TIMES = frozenset({"created_at", "launched_at", "terminated_at"})
_OTHERS = {
    "availability_zone": 1,
    "status": 1,
    "ip": 1,
    "ip6": 1,
    "power_state": 1,
    "config_drive": 1,
    "metadata": 1,
    "system_metadata": 1,
    "all_tenants": 1,
    "deleted": 1,
    "changes-since": 1,
    "project_id": 1,
    "tenant_id": 1,
    "soft_deleted": 1,
    "limit": 1,
    "marker": 1,
    "sort_key": 1,
    "sort_dir": 1,
    "root_device_name": 1,
    "kernel_id": 1,
    "ramdisk_id": 1,
    "progress": 1,
    "locked_by": 1,
    "auto_disk_config": 1,
    "tags": 26,
    "tags-any": 26,
    "not-tags": 26,
    "not-tags-any": 26,
    "changes-before": 66,
    "locked": 73,
}
_KNOWN = dict.fromkeys((*_EQUAL_ADMIN, *_EQUAL, *_MATCH), 1) | _OTHERS
_SORTABLE = frozenset(server_pages.COLUMNS)
_ADMIN_SORT = frozenset({"host", "node"})
_STRICT_SINCE = 75  # from 2.75 on an unknown parameter is an error


@dataclass(frozen=True)
class ServerQuery:
    """A list request, understood."""

    where: list[Condition]
    sort: list[tuple[str, bool]]
    marker: str | None
    limit: int
    nothing: bool  # no server can match
    searches: bool  # for a pattern


def read(context: ApiContext, req: falcon.Request, who: Caller) -> ServerQuery:
    """What a list request asks for.

    Raises: BadRequest, Forbidden.
    """
    minor = microversion(req)
    _refuse_unknown(req, minor)
    reader = _Reader(context, req, who, minor)
    where = reader.scope()
    if reader.matching():
        where.extend(reader.conditions)
    marker = last(req, "marker")
    limit = page_limit(req, context.conf.api.max_limit)
    return ServerQuery(where, _sort(req, who, context, minor), marker, limit, reader.nothing, reader.searches)


def _refuse_unknown(req: falcon.Request, minor: int) -> None:
    if minor < _STRICT_SINCE:
        return
    unknown = [name for name in req.params if _KNOWN.get(name, 10**6) > minor]
    if unknown:
        names = ", ".join(repr(name[:100]) for name in unknown[:10])
        was = "was" if len(unknown) == 1 else "were"
        raise BadRequest(
            f"Invalid input for query parameters {unknown[0][:100]}. Additional properties are not allowed ({names} {was} unexpected)"
        )


def _sort(req: falcon.Request, who: Caller, context: ApiContext, minor: int) -> list[tuple[str, bool]]:
    keys, directions = every(req, "sort_key"), every(req, "sort_dir")
    allowed = set(_SORTABLE)
    if minor >= 73:
        allowed.add("locked")
    if not context.policy.allows(who, "os-extended-server-attributes"):
        allowed -= _ADMIN_SORT
    sort: list[tuple[str, bool]] = []
    for index, key in enumerate(keys):
        if key not in allowed:
            raise bad_parameter("sort_key", key, "It is not a sort key.")
        direction = directions[index] if index < len(directions) else "desc"
        if direction not in ("asc", "desc"):
            raise bad_parameter("sort_dir", direction, "It is neither asc nor desc.")
        sort.append((server_pages.COLUMNS.get(key, key), direction == "desc"))
    if any(direction not in ("asc", "desc") for direction in directions):
        raise bad_parameter("sort_dir", ",".join(directions), "It is neither asc nor desc.")
    return sort or [("created_at", not directions or directions[0] == "desc")]


class _Reader:
    def __init__(self, context: ApiContext, req: falcon.Request, who: Caller, minor: int) -> None:
        self._context = context
        self._req = req
        self._who = who
        self._minor = minor
        self.admin = context.policy.allows(who, "os-extended-server-attributes")
        self.conditions: list[Condition] = []
        self.nothing = False
        self.searches = False

    def scope(self) -> list[Condition]:
        """Whose servers, and whether deleted ones."""
        policy, who = self._context.policy, self._who
        where: list[Condition] = []
        project = last(self._req, "project_id") or last(self._req, "tenant_id")
        if self._flag("all_tenants"):
            if not policy.allows(who, "servers:index:get_all_tenants"):
                raise Forbidden(reason="Policy doesn't allow os_compute_api:servers:index:get_all_tenants to be performed.")
            if project:
                where.append(server_pages.equals("project_id", project))
        else:
            where.append(server_pages.equals("project_id", project if project and self.admin else who.project_id))
        may_see_deleted = policy.allows(who, "servers:index:deleted")
        wants_deleted = last(self._req, "deleted")
        statuses = [status.upper() for status in every(self._req, "status")]
        if "DELETED" in statuses and not may_see_deleted:
            raise Forbidden(reason="Only administrators may list deleted servers")
        since, before = self._moment("changes-since"), self._moment("changes-before", since_version=66)
        if since is not None and before is not None and before < since:
            raise BadRequest("The value of changes-since must be less than or equal to changes-before.")
        where.extend(server_pages.updated(since=since, before=before))
        if wants_deleted is not None and may_see_deleted:
            where.append(server_pages.deleted() if self._flag("deleted") else server_pages.living())
        elif "DELETED" in statuses:
            if statuses == ["DELETED"]:
                where.append(server_pages.deleted())
        elif since is None and before is None:
            where.append(server_pages.living())
        return where

    def matching(self) -> bool:
        """Collect the conditions; False when nothing can match."""
        req, add = self._req, self.conditions.append
        if statuses := every(req, "status"):
            states = [state for status in statuses for state in server_states.states_of(status)]
            self.nothing = not states
            add(server_pages.in_states(states))
        equal = {**_EQUAL, **_EQUAL_ADMIN} if self.admin else _EQUAL
        for name, column in equal.items():
            if values := every(req, name):
                add(server_pages.one_of(column, [self._value(name, value) for value in values]))
        if zones := every(req, "availability_zone"):
            add(server_pages.in_zones(zones))
        for name, column in _MATCH.items():
            for pattern in every(req, name):
                add(server_pages.matches(column, self._pattern(name, pattern)))
        if self.admin or self._minor >= 5:
            self._addresses("ip6", 6)
        self._addresses("ip", 4)
        if (state := last(req, "power_state")) is not None:
            add(server_pages.equals("power_state", self._value("power_state", state)))
        if last(req, "config_drive") is not None:
            add(server_pages.equals("config_drive", self._flag("config_drive")))
        if self._minor >= 73 and last(req, "locked") is not None:
            add(server_pages.equals("locked_by", self._flag("locked", strict=True)))
        self._metadata()
        if self._minor >= 26:
            self._tags()
        return not self.nothing

    def _addresses(self, name: str, version: int) -> None:
        for pattern in every(self._req, name):
            self.conditions.append(server_pages.has_address(self._pattern(name, pattern), version))

    def _metadata(self) -> None:
        for text in every(self._req, "metadata"):
            for key, value in re.findall(r"""['"]([^'"]+)['"]\s*:\s*u?['"]([^'"]*)['"]""", text):
                self.conditions.append(server_pages.has_metadata(key, value))

    def _tags(self) -> None:
        ways: dict[str, Callable[[list[Condition]], Condition]] = {
            "tags": lambda found: sa.and_(*found),
            "tags-any": lambda found: sa.or_(*found),
            "not-tags": lambda found: ~sa.and_(*found),
            "not-tags-any": lambda found: ~sa.or_(*found),
        }
        for name, combine in ways.items():
            for text in every(self._req, name):
                tags = [tag for tag in text.split(",") if tag]
                if tags:
                    self.conditions.append(combine([server_pages.has_tag(tag) for tag in tags]))

    def _flag(self, name: str, *, strict: bool = False) -> bool:
        value = last(self._req, name)
        if value is None:
            return False
        if value == "" and not strict:
            return True  # ?all_tenants without a value
        return boolean(value, name)

    def _moment(self, name: str, since_version: int = 1) -> float | None:
        value = last(self._req, name)
        return moment(value, name) if value is not None and self._minor >= since_version else None

    def _value(self, name: str, value: str) -> Any:
        if name in _NUMBERS:
            try:
                return int(value)
            except ValueError:
                raise bad_parameter(name, value, "It is not an integer.") from None
        if name in _TIMES:
            return moment(value, name)
        if name in ("image", "flavor"):
            return value.rstrip("/").rsplit("/", 1)[-1]
        if name == "uuid" and not is_uuid(value):
            raise bad_parameter("uuid", value, "It is not a uuid.")
        return value

    def _pattern(self, name: str, pattern: str) -> str:
        try:
            patterns.compiled(pattern)
        except ValueError as error:
            raise bad_parameter(name, pattern, f"It is no regular expression that can be searched for: {error}") from None
        self.searches = True
        return pattern
