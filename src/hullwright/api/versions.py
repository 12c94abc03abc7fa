"""/, /v2.1 and /v2.1/versions/{id}: which versions of the compute API are served."""

from __future__ import annotations

from typing import Any

import falcon

from hullwright.api import microversions
from hullwright.api.context import base_url
from hullwright.api.resource import Resource, send

_ID = "v2.1"
_MEDIA_TYPE = {"base": "application/json", "type": "application/vnd.openstack.compute+json;version=2.1"}


class Versions(Resource):
    """The roots. They answer anybody."""

    def on_get(self, req: falcon.Request, resp: falcon.Response) -> None:
        """All versions: one."""
        send(resp, {"versions": [self._version(req)]})

    def on_get_one(self, req: falcon.Request, resp: falcon.Response) -> None:
        """The version of this root."""
        version = self._version(req)
        version["links"].append({"rel": "describedby", "type": "text/html", "href": "https://docs.openstack.org/api-ref/compute/"})
        version["media-types"] = [_MEDIA_TYPE]
        send(resp, {"version": version})

    def on_get_by_id(self, req: falcon.Request, resp: falcon.Response, version_id: str) -> None:
        """A version by its id: the one there is."""
        if version_id != _ID:
            raise falcon.HTTPNotFound
        self.on_get_one(req, resp)

    def _version(self, req: falcon.Request) -> dict[str, Any]:
        return {
            "id": _ID,
            "status": "CURRENT",
            "version": microversions.text(microversions.MAXIMUM),
            "min_version": microversions.text(microversions.MINIMUM),
            "updated": "2013-07-23T11:33:21Z",
            "links": [{"rel": "self", "href": f"{base_url(req, self.context.conf)}/v2.1/"}],
        }


class Health(Resource):
    """/healthz: this process answers and reaches its database."""

    def on_get(self, req: falcon.Request, resp: falcon.Response) -> None:
        """200, or 503 when the database does not answer."""
        with self.context.db.read() as conn:
            conn.exec_driver_sql("SELECT 1")
        send(resp, {"status": "ok"})
