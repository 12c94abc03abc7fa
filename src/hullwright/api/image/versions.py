"""Which versions of the Image API there are."""

from __future__ import annotations

import falcon

from hullwright.api.context import base_url
from hullwright.api.resource import Resource, send

# Minor versions add calls; a client looks here before it uses one. 2.9 has what we answer.
_MINORS = ("2.9", "2.7", "2.6", "2.5", "2.4", "2.3", "2.2", "2.1", "2.0")


class Versions(Resource):
    """GET /image and /image/versions."""

    def on_get(self, req: falcon.Request, resp: falcon.Response) -> None:
        """The list; 300 as Glance says it: choose one."""
        href = f"{base_url(req, self.context.conf)}/image/v2/"
        send(
            resp,
            {
                "versions": [
                    {
                        "id": f"v{minor}",
                        "status": "CURRENT" if minor == _MINORS[0] else "SUPPORTED",
                        "links": [{"rel": "self", "href": href}],
                    }
                    for minor in _MINORS
                ]
            },
            200 if req.path.endswith(("/versions", "/v2")) else 300,
        )
