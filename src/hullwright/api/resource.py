"""What all resources share: the parts, the answer as JSON; and what those of compute do, finding the server that a path names."""

from __future__ import annotations

from typing import Any
from uuid import UUID

import falcon
from sqlalchemy.engine import RowMapping

from hullwright.api import validation
from hullwright.api.context import ApiContext, Caller, caller, microversion, request_id
from hullwright.api.validation import Windows
from hullwright.conductor.client import Asker
from hullwright.objects.errors import Conflict, InstanceNotFound
from hullwright.persistence import instances


def send(resp: falcon.Response, answer: Any, status: int = 200) -> None:
    """Answer with JSON."""
    resp.status = status
    resp.media = answer


def asker(req: falcon.Request) -> Asker:
    """Whose request it is, for the record."""
    who = caller(req)
    return Asker(request_id(req), who.project_id, who.user_id)


class Resource:
    """Something that answers requests; one per process."""

    def __init__(self, context: ApiContext) -> None:
        """Keep the parts."""
        self.context = context

    def body(self, req: falcon.Request, windows: Windows) -> Any:
        """The request's body, checked.

        Raises: HttpError, BadRequest.
        """
        return validation.body(req, windows, self.context.conf)

    def require(self, req: falcon.Request, rule: str) -> Caller:
        """The caller, if the policy lets him.

        Raises: Forbidden.
        """
        return self.context.policy.require(req, rule)

    def server(self, req: falcon.Request, uuid: str, rule: str, *, deleted: bool = False, unlocked: bool = False) -> RowMapping:
        """The row of a server that the caller may do `rule` to; those of others do not exist for him.

        `unlocked`: refuse a locked server to whom its lock holds.

        Raises: InstanceNotFound, Forbidden, Conflict.
        """
        if not validation.is_uuid(uuid):
            raise InstanceNotFound(id=uuid[:100])
        uuid = str(UUID(uuid))
        with self.context.db.read() as conn:
            row = instances.get_row(conn, uuid, deleted=deleted)
        who, policy = caller(req), self.context.policy
        if row["project_id"] != who.project_id and not who.is_admin:
            raise InstanceNotFound(id=uuid)
        policy.require(req, rule, row["project_id"], row["user_id"])
        if unlocked and row["locked"] and not policy.allows(who, "os-lock-server:unlock_override"):
            raise Conflict(reason=f"Instance {uuid} is locked")
        return row


__all__ = ["Resource", "asker", "caller", "microversion", "request_id", "send"]
