"""What happens to every request before and after its handler: id, caller, version, and their headers on every answer."""

from __future__ import annotations

import uuid
from typing import Any

import falcon

from hullwright.api import microversions
from hullwright.api.context import ApiContext, Caller
from hullwright.api.errors import HttpError

COMPUTE_PREFIX = "/v2.1"
# Answered to anybody: a client must find the version before it can have a token.
_PUBLIC_PATHS = frozenset({"/", "/healthz", "/v2.1", "/v2.1/", "/image", "/network", "/volume"})


class RequestId:
    """Gives each request an id and tells it in the answer's headers, errors included."""

    def process_request(self, req: falcon.Request, resp: falcon.Response) -> None:
        """Choose the id."""
        req.context.request_id = f"req-{uuid.uuid4()}"
        if "\x00" in req.path or "%00" in req.query_string:
            raise HttpError(400, "The URL must not hold NUL characters.")

    def process_response(self, req: falcon.Request, resp: falcon.Response, resource: Any, succeeded: bool) -> None:
        """Tell the id."""
        request_id = req.context.request_id
        resp.set_header("x-openstack-request-id", request_id)
        if req.path.startswith(COMPUTE_PREFIX):
            resp.set_header("x-compute-request-id", request_id)


class Authentication:
    """Who asks: one fixed administrator without Keystone, else what keystonemiddleware found in the token."""

    def __init__(self, context: ApiContext) -> None:
        """Read the strategy once."""
        conf = context.conf.api
        self._keystone = conf.auth_strategy == "keystone"
        self._everybody = Caller(conf.project_id, conf.user_id, is_admin=True, roles=("admin", "member", "reader"))

    def process_request(self, req: falcon.Request, resp: falcon.Response) -> None:
        """Set `req.context.caller`.

        Raises: HttpError 401 without a valid token.
        """
        if not self._keystone:
            req.context.caller = self._everybody
            return
        if req.path in _PUBLIC_PATHS:
            req.context.caller = Caller("", "", is_admin=False)
            return
        if req.get_header("X-Identity-Status") != "Confirmed":
            raise HttpError(401, "The request you have made requires authentication.")
        roles = tuple(role.strip() for role in (req.get_header("X-Roles") or "").split(",") if role.strip())
        project_id, user_id = req.get_header("X-Project-Id"), req.get_header("X-User-Id")
        if not project_id or not user_id:
            raise HttpError(403, "The token must be scoped to a project.")
        is_admin = "admin" in (role.lower() for role in roles)
        req.context.caller = Caller(project_id, user_id, is_admin=is_admin, roles=roles)


class Microversion:
    """Agrees on the version of the compute API and says so in the answer, errors included."""

    def __init__(self, resources: frozenset[str]) -> None:
        """`resources`: the words that may follow /v2.1/; another word there is a project id."""
        self._resources = resources

    def process_request(self, req: falcon.Request, resp: falcon.Response) -> None:
        """Set `req.context.microversion`, and take a project id out of the path.

        Raises: HttpError 400 or 406.
        """
        if not req.path.startswith(COMPUTE_PREFIX):
            return
        req.context.microversion = None
        req.context.microversion = microversions.negotiate(
            req.get_header(microversions.HEADER), req.get_header(microversions.LEGACY_HEADER)
        )
        parts = req.path.split("/", 3)  # "", "v2.1", first, rest
        if len(parts) > 3 and parts[2] not in self._resources and parts[3].split("/", 1)[0] in self._resources:
            if parts[2] != req.context.caller.project_id:
                raise HttpError(
                    400,
                    f"Malformed request URL: URL's project_id '{parts[2]}' doesn't match Context's project_id "
                    f"'{req.context.caller.project_id}'",
                )
            req.path = f"{COMPUTE_PREFIX}/{parts[3]}"

    def process_response(self, req: falcon.Request, resp: falcon.Response, resource: Any, succeeded: bool) -> None:
        """Tell the version."""
        minor = getattr(req.context, "microversion", None)
        if not req.path.startswith(COMPUTE_PREFIX):
            return
        if minor is not None:
            version = microversions.text(minor)
            resp.set_header(microversions.HEADER, f"compute {version}")
            resp.set_header(microversions.LEGACY_HEADER, version)
        resp.append_header("Vary", microversions.HEADER)
        resp.append_header("Vary", microversions.LEGACY_HEADER)
