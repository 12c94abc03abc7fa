"""JSON patches as the Image API takes them: add, replace and remove of single attributes, in its two media types.

Not for: patches of anything nested: an image's attributes are flat, tags are replaced whole.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from hullwright.api.bodies import Body
from hullwright.api.errors import HttpError
from hullwright.api.image.schemas import PROPERTY, READ_ONLY, WRITABLE
from hullwright.objects.images import Image

MEDIA_TYPES = ("application/openstack-images-v2.1-json-patch", "application/openstack-images-v2.0-json-patch")

# Attribute of the API -> column of the record.
COLUMNS = {
    "name": "name",
    "visibility": "visibility",
    "protected": "protected",
    "disk_format": "disk_format",
    "container_format": "container_format",
    "min_disk": "min_disk_gb",
    "min_ram": "min_ram_mb",
    "tags": "tags",
    "owner": "owner",
}
_ATTRIBUTES = Body(None, WRITABLE, others=PROPERTY)


def changes_of(image: Image, operations: Any) -> dict[str, Any]:
    """Columns to change for a patch of `image`.

    Raises: HttpError 400 for what is no patch, 403 for a read-only attribute, 409 for a property that is not there.
    """
    if not isinstance(operations, list) or not all(isinstance(operation, Mapping) for operation in operations):
        raise HttpError(400, "The body of a patch is a list of operations.")
    properties = dict(image.properties)
    changes: dict[str, Any] = {}
    for operation in operations:
        verb, name, value = _parse(operation)
        if name in READ_ONLY or name == "id":
            raise HttpError(403, f"Attribute '{name}' is read-only.")
        if name in COLUMNS:
            if verb == "remove":
                raise HttpError(403, f"Property '{name}' may not be removed.")
            if name in ("disk_format", "container_format") and image.status != "queued":
                raise HttpError(403, f"Attribute '{name}' can be replaced only for a queued image.")
            _ATTRIBUTES.check({name: value})
            changes[COLUMNS[name]] = (value or "") if name == "name" else value
        elif verb == "remove":
            if properties.pop(name, None) is None:
                raise HttpError(409, f"Property {name} does not exist.")
        else:
            if verb == "replace" and name not in properties:
                raise HttpError(409, f"Property {name} does not exist.")
            _ATTRIBUTES.check({name: value})
            properties[name] = value
    if properties != dict(image.properties):
        changes["properties"] = properties
    return changes


def _parse(operation: Mapping[str, Any]) -> tuple[str, str, Any]:
    """(verb, attribute, value) of {"op", "path", "value"} or of the older {"replace": "/name", "value": ..}."""
    verb = operation.get("op")
    path = operation.get("path")
    if verb is None:
        found = [key for key in ("add", "replace", "remove") if key in operation]
        verb, path = (found[0], operation[found[0]]) if len(found) == 1 else (None, None)
    if verb not in ("add", "replace", "remove"):
        raise HttpError(400, "Operations must be one of: add, remove, replace.")
    if not isinstance(path, str) or not path.startswith("/") or "/" in path[1:]:
        raise HttpError(400, f"Invalid JSON pointer for this resource: '{path}'")
    if verb != "remove" and "value" not in operation:
        raise HttpError(400, f"Operation '{verb}' requires a member named 'value'.")
    return str(verb), path[1:].replace("~1", "/").replace("~0", "~"), operation.get("value")
