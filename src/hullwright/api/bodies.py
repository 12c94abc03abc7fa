"""Request bodies of the embedded services: checked against a JSON schema, refused with a sentence.

Not for: compute's bodies, whose refusals have a form of their own; see `validation`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import falcon
import orjson
from jsonschema.exceptions import ValidationError, best_match

from hullwright.api.errors import HttpError
from hullwright.api.json_body import read_json
from hullwright.api.validation import Validator


class Body:
    """A body that is an object, perhaps within one key: {"network": {..}}."""

    def __init__(self, key: str | None, properties: Mapping[str, Any], required: tuple[str, ...] = (), others: Any = False) -> None:
        """`properties`: name -> JSON schema; `others`: what further names may hold, False for none."""
        self._key = key
        schema: dict[str, Any] = {"type": "object", "properties": properties, "required": list(required), "additionalProperties": others}
        schema["propertyNames"] = {"maxLength": 255}
        self._validator = Validator(schema)

    def read(self, req: falcon.Request, conf: Any) -> dict[str, Any]:
        """The object.

        Raises: HttpError 400, 413 or 415.
        """
        return self.check(read_json(req, conf))

    def check(self, data: Any) -> dict[str, Any]:
        """The object within `data`.

        Raises: HttpError 400.
        """
        if self._key is not None:
            if not isinstance(data, dict) or self._key not in data:
                raise HttpError(400, f"The body must be an object with the key '{self._key}'.")
            data = data[self._key]
        error = best_match(self._validator.iter_errors(data))
        if error is not None:
            raise HttpError(400, _tell(error, self._key or "body"))
        found: dict[str, Any] = data
        return found


def only(*values: Any) -> dict[str, Any]:
    """The schema of an attribute that is always the first of `values` here. Clients may say so: they send their defaults."""
    return {"enum": list(values), "$comment": _ALWAYS}


_ALWAYS = "It cannot be otherwise."


def _tell(error: ValidationError, whole: str) -> str:
    where = ".".join(str(part) for part in error.absolute_path)
    schema: Any = error.schema
    if error.validator == "enum" and schema.get("$comment") == _ALWAYS:
        return f"Hullwright does not support another '{where}' than {orjson.dumps(schema['enum'][0]).decode()}."
    if error.validator == "additionalProperties" and schema["additionalProperties"] is False and isinstance(error.instance, dict):
        names = ", ".join(f"'{name[:100]}'" for name in sorted(set(error.instance) - set(schema["properties"]))[:10])
        return f"Invalid input for '{where or whole}': Hullwright does not support {names}."
    return f"Invalid input for '{where or whole}': {error.message}"


TEXT = {"type": "string", "maxLength": 255}
TEXT_OR_NULL = {"type": ["string", "null"], "maxLength": 255}
BOOLEAN = {"type": "boolean"}
