"""/os-server-groups: servers that are to share a host, or not to. A server joins when it is created, by the hint `group`."""

from __future__ import annotations

from typing import Any
from uuid import UUID, uuid4

import falcon

from hullwright.api.context import caller, microversion
from hullwright.api.queries import every, integer, page_limit
from hullwright.api.resource import Resource, send
from hullwright.api.schemas import server_groups as schemas
from hullwright.api.validation import is_uuid
from hullwright.objects.errors import BadRequest, ServerGroupNotFound
from hullwright.objects.server_groups import GroupPolicy, ServerGroup
from hullwright.persistence import server_groups
from hullwright.persistence.database import now

_PROJECTS_SINCE = 13
_ONE_POLICY_SINCE = 64


def show(group: ServerGroup, minor: int) -> dict[str, Any]:
    """All fields."""
    shown: dict[str, Any] = {"id": group.uuid, "name": group.name, "members": list(group.members)}
    if minor >= _ONE_POLICY_SINCE:
        shown["policy"] = group.policy
        shown["rules"] = {} if group.max_server_per_host is None else {"max_server_per_host": group.max_server_per_host}
    else:
        shown["policies"] = [group.policy]
        shown["metadata"] = {}
    if minor >= _PROJECTS_SINCE:
        shown["project_id"] = group.project_id
        shown["user_id"] = group.user_id
    return shown


class ServerGroups(Resource):
    """The collection and its members."""

    def on_get(self, req: falcon.Request, resp: falcon.Response) -> None:
        """The project's groups; administrators may ask for those of all by `all_projects`."""
        who = self.require(req, "os-server-groups:index")
        everybody = bool(every(req, "all_projects"))
        if everybody:
            self.require(req, "os-server-groups:index:all_projects")
        limit, offset = page_limit(req, self.context.conf.api.max_limit), integer(req, "offset") or 0
        project_id = None if everybody else who.project_id
        with self.context.db.read() as conn:
            found = server_groups.list_groups(conn, project_id=project_id, limit=limit, offset=offset)
        send(resp, {"server_groups": [show(group, microversion(req)) for group in found]})

    def on_post(self, req: falcon.Request, resp: falcon.Response) -> None:
        """Create one, without members."""
        who, minor = self.require(req, "os-server-groups:create"), microversion(req)
        given = self.body(req, schemas.CREATE)["server_group"]
        policy = GroupPolicy(given["policy"] if minor >= _ONE_POLICY_SINCE else given["policies"][0])
        most = given.get("rules", {}).get("max_server_per_host")
        if most is not None and policy != GroupPolicy.ANTI_AFFINITY:
            raise BadRequest("Only anti-affinity policy supports rules.")
        group = ServerGroup(
            uuid=str(uuid4()),
            name=given["name"],
            project_id=who.project_id,
            user_id=who.user_id,
            policy=policy,
            max_server_per_host=None if most is None else int(most),
            created_at=now(),
        )
        with self.context.db.write() as conn:
            server_groups.create(conn, group)
        send(resp, {"server_group": show(group, minor)})

    def on_get_one(self, req: falcon.Request, resp: falcon.Response, group_id: str) -> None:
        """One of them."""
        self.require(req, "os-server-groups:show")
        send(resp, {"server_group": show(self._find(req, group_id), microversion(req))})

    def on_delete_one(self, req: falcon.Request, resp: falcon.Response, group_id: str) -> None:
        """Forget one; its servers stay where they are, and nothing holds them there."""
        self.require(req, "os-server-groups:delete")
        group = self._find(req, group_id)
        with self.context.db.write() as conn:
            server_groups.delete(conn, group.uuid)
        resp.status = 204

    def _find(self, req: falcon.Request, group_id: str) -> ServerGroup:
        """A group that the caller may see; those of others do not exist for him.

        Raises: ServerGroupNotFound.
        """
        if not is_uuid(group_id):
            raise ServerGroupNotFound(id=group_id[:100])
        who = caller(req)
        with self.context.db.read() as conn:
            group = server_groups.get(conn, str(UUID(group_id)))
        if group.project_id != who.project_id and not who.is_admin:
            raise ServerGroupNotFound(id=group_id)
        return group
