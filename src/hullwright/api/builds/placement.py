"""POST /v1/placement:explain: where a server would go, and why the other hosts are not it. Builds nothing and keeps nothing.

The body is that of POST /servers and is checked in the same way, in the microversion that the request's header names. The API knows no
scheduler: a conductor answers.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import falcon

from hullwright.api import microversions
from hullwright.api.builds.views import report_view
from hullwright.api.context import caller, request_id
from hullwright.api.errors import HttpError
from hullwright.api.json_body import read_json
from hullwright.api.queries import integer
from hullwright.api.resource import Resource, send
from hullwright.api.schemas import servers as schemas
from hullwright.api.server_create import prepare
from hullwright.conductor.client import EXPLAIN
from hullwright.objects.errors import Forbidden
from hullwright.objects.placement import Explanation

PATH = "/v1/placement:explain"
_DEFAULT_LIMIT, _MAX_LIMIT = 1000, 10_000


class Explain(Resource):
    """The dry run of a create request."""

    def on_post(self, req: falcon.Request, resp: falcon.Response) -> None:
        """Explain `{"server": {...}}`, or `{"server_id": ...}` of a server that exists: what would become of its request now.

        `?detail=full`, for administrators, tells of every host, by name in pages of `limit` behind `marker`.
        """
        req.context.microversion = microversions.negotiate(
            req.get_header(microversions.HEADER), req.get_header(microversions.LEGACY_HEADER)
        )
        uuid, arguments = self._asked(req)
        detail = self._detail(req)
        limit = integer(req, "limit")
        limit = _DEFAULT_LIMIT if limit is None else max(1, min(limit, _MAX_LIMIT))
        arguments |= {"detail": detail, "after": req.get_param("marker") or "", "limit": limit}
        timeout_seconds = self.context.conf.api.query_timeout_seconds
        answer = self.context.client.query(EXPLAIN, uuid, arguments, timeout_seconds, request_id(req))
        explanation = Explanation.from_dict(answer)
        view = report_view(explanation.report, admin=caller(req).is_admin)
        if detail:
            view["hosts"] = [each.to_dict() for each in explanation.hosts]
            view["next_marker"] = explanation.hosts[-1].host if explanation.more else None
        send(resp, {"placement": view})

    def _asked(self, req: falcon.Request) -> tuple[str, dict[str, Any]]:
        """The server that it is about, and what a conductor has to know."""
        body = read_json(req, self.context.conf)
        if isinstance(body, Mapping) and "server_id" in body:
            if list(body) != ["server_id"] or not isinstance(body["server_id"], str):
                raise HttpError(400, 'Give either {"server": {...}} or {"server_id": "..."}.')
            return str(self.server(req, body["server_id"], "servers:show")["uuid"]), {}
        schemas.CREATE.check(body, req.context.microversion)
        first = prepare(self.context, req, body).instances[0]  # of several alike; each is placed by itself
        return first.uuid, {"spec": first.spec.to_dict()}

    def _detail(self, req: falcon.Request) -> bool:
        """Whether every host is asked for.

        Raises: HttpError 400, Forbidden.
        """
        detail = req.get_param("detail")
        if detail not in (None, "full"):
            raise HttpError(400, f"Invalid detail '{detail}': use full, or leave it out.")
        if detail and not caller(req).is_admin:
            raise Forbidden(reason="Only administrators see every host.")
        return bool(detail)
