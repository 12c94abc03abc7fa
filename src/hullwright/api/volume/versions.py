"""Which version of the Block Storage API there is, and the agreement on a microversion."""

from __future__ import annotations

import re
from typing import Any

import falcon

from hullwright.api.context import base_url, caller
from hullwright.api.errors import HttpError
from hullwright.api.resource import Resource, send

MINIMUM, MAXIMUM = 0, 44  # 3.0 to 3.44: nothing that is shown here changed between them
HEADER = "OpenStack-API-Version"
_ASKED = re.compile(r"\s*volume\s+3\.(\d{1,4})\s*", re.ASCII)


class Versions(Resource):
    """GET /volume and /volume/v3."""

    def on_get(self, req: falcon.Request, resp: falcon.Response) -> None:
        """The one version; 300 as Cinder says it at the root."""
        href = f"{base_url(req, self.context.conf)}/volume/v3/"
        send(
            resp,
            {
                "versions": [
                    {
                        "id": "v3.0",
                        "status": "CURRENT",
                        "version": f"3.{MAXIMUM}",
                        "min_version": f"3.{MINIMUM}",
                        "updated": "2026-01-01T00:00:00Z",
                        "links": [{"rel": "self", "href": href}],
                        "media-types": [{"base": "application/json", "type": "application/vnd.openstack.volume+json;version=3"}],
                    }
                ]
            },
            200 if req.path.endswith("/v3") else 300,
        )


def enter(req: falcon.Request, resp: falcon.Response, params: dict[str, Any]) -> None:
    """What every handler of this API does first: agree on the version, and check a project id in the path.

    Raises: HttpError 400 or 406.
    """
    minor = MINIMUM
    for entry in (req.get_header(HEADER) or "").split(","):
        if entry.strip().lower() in ("volume latest", "volume 3.latest"):
            minor = MAXIMUM
        elif found := _ASKED.fullmatch(entry):
            minor = int(found[1])
    if not MINIMUM <= minor <= MAXIMUM:
        raise HttpError(406, f"Version 3.{minor} is not supported by the API. Minimum is 3.{MINIMUM} and maximum is 3.{MAXIMUM}.")
    resp.set_header(HEADER, f"volume 3.{minor}")
    resp.append_header("Vary", HEADER)
    project_id = params.pop("project_id", None)
    who = caller(req)
    if project_id is not None and project_id != who.project_id and not who.is_admin:
        raise HttpError(400, "Malformed request url")


def before(req: falcon.Request, resp: falcon.Response, resource: object, params: dict[str, Any]) -> None:
    """`enter` as a hook of Falcon's."""
    enter(req, resp, params)
