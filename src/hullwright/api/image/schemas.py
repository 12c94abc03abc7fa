"""The JSON schemas that the Image API publishes about itself; clients read from them which attributes are base ones."""

from __future__ import annotations

from typing import Any

import falcon

from hullwright.api.image.access import VISIBILITIES
from hullwright.api.resource import send

DISK_FORMATS = ("qcow2", "raw", "aki", "ari", "ami")
CONTAINER_FORMATS = ("bare", "aki", "ari", "ami")

_TEXT_OR_NULL = {"type": ["string", "null"]}
_COUNT = {"type": "integer", "minimum": 0, "maximum": 2147483647}

# What may be given at creation and changed later.
WRITABLE: dict[str, dict[str, Any]] = {
    "name": {"type": ["string", "null"], "maxLength": 255},
    "visibility": {"type": "string", "enum": list(VISIBILITIES)},
    "protected": {"type": "boolean"},
    "disk_format": {"type": ["string", "null"], "enum": [None, *DISK_FORMATS]},
    "container_format": {"type": ["string", "null"], "enum": [None, *CONTAINER_FORMATS]},
    "min_disk": _COUNT,
    "min_ram": _COUNT,
    "tags": {"type": "array", "items": {"type": "string", "maxLength": 255}, "maxItems": 128},
    "owner": {"type": ["string", "null"], "maxLength": 255},
}
UUID = {"type": "string", "pattern": "^([0-9a-fA-F]){8}-([0-9a-fA-F]){4}-([0-9a-fA-F]){4}-([0-9a-fA-F]){4}-([0-9a-fA-F]){12}$"}

READ_ONLY: dict[str, dict[str, Any]] = {
    "status": {"type": "string", "enum": ["queued", "saving", "active", "killed", "deactivated"]},
    "size": {"type": ["integer", "null"]},
    "virtual_size": {"type": ["integer", "null"]},
    "checksum": {**_TEXT_OR_NULL, "maxLength": 32},
    "os_hash_algo": {**_TEXT_OR_NULL, "maxLength": 64},
    "os_hash_value": {**_TEXT_OR_NULL, "maxLength": 128},
    "os_hidden": {"type": "boolean"},
    "created_at": {"type": "string"},
    "updated_at": {"type": "string"},
    "self": {"type": "string"},
    "file": {"type": "string"},
    "schema": {"type": "string"},
}

# A property that is not a base attribute is a string.
PROPERTY: dict[str, Any] = {"type": "string", "maxLength": 65535}


def image_schema() -> dict[str, Any]:
    """The schema of one image."""
    read_only = {name: {**schema, "readOnly": True} for name, schema in READ_ONLY.items()}
    return {
        "name": "image",
        "properties": {"id": UUID, **WRITABLE, **read_only},
        "additionalProperties": {"type": "string"},
        "links": [
            {"rel": "self", "href": "{self}"},
            {"rel": "enclosure", "href": "{file}"},
            {"rel": "describedby", "href": "{schema}"},
        ],
    }


class Schemas:
    """GET /v2/schemas/{name}."""

    def on_get(self, req: falcon.Request, resp: falcon.Response, name: str) -> None:
        """The schema of an image or of a list of them."""
        if name == "image":
            send(resp, image_schema())
        elif name == "images":
            send(
                resp,
                {
                    "name": "images",
                    "properties": {
                        "images": {"type": "array", "items": image_schema()},
                        "first": {"type": "string"},
                        "next": {"type": "string"},
                        "schema": {"type": "string"},
                    },
                    "links": [{"rel": "first", "href": "{first}"}, {"rel": "next", "href": "{next}"}],
                },
            )
        else:
            raise falcon.HTTPNotFound
