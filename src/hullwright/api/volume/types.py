"""Volume types: there is one, the embedded service's own."""

from __future__ import annotations

import uuid
from typing import Any

import falcon

from hullwright.api.resource import Resource, send
from hullwright.api.volume.versions import before

NAME = "local"
_ID = str(uuid.uuid5(uuid.UUID("0f0b0f0e-7c39-5d0c-8c41-5f0a3b1d9e55"), NAME))


def type_view() -> dict[str, Any]:
    """The one type."""
    return {
        "id": _ID,
        "name": NAME,
        "description": "Volumes of the embedded volume service.",
        "is_public": True,
        "os-volume-type-access:is_public": True,
        "qos_specs_id": None,
        "extra_specs": {},
    }


def is_known(name_or_id: str) -> bool:
    """Whether that is the type."""
    return name_or_id in (NAME, _ID)


@falcon.before(before)
class Types(Resource):
    """GET /v3/types."""

    def on_get(self, req: falcon.Request, resp: falcon.Response) -> None:
        """All of them."""
        send(resp, {"volume_types": [type_view()]})


@falcon.before(before)
class TypeItem(Resource):
    """GET /v3/types/{type_id}."""

    def on_get(self, req: falcon.Request, resp: falcon.Response, type_id: str) -> None:
        """By id, or the default."""
        if type_id not in (_ID, "default"):
            raise falcon.HTTPNotFound
        send(resp, {"volume_type": type_view()})
