"""Request bodies of the embedded services: read, bounded, checked against a JSON schema, refused with a sentence.

Not for: compute's bodies, whose refusals have a form of their own; see `schemas`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import falcon
import jsonschema
import orjson
from jsonschema.exceptions import ValidationError, best_match

from hullwright.api.errors import HttpError

MAX_BODY_BYTES = 1 << 20


def read_json(req: falcon.Request) -> Any:
    """The body as JSON.

    Raises: HttpError 400 when it is none, 413 when it is too long.
    """
    if (req.content_length or 0) > MAX_BODY_BYTES:
        raise HttpError(413, f"The body is longer than {MAX_BODY_BYTES} bytes.")
    stream = req.bounded_stream if req.content_length is not None else req.stream
    try:
        data = stream.read(MAX_BODY_BYTES + 1)
    except OSError:
        raise HttpError(400, "The body broke off, or came too slowly.") from None
    if len(data) < min(req.content_length or 0, MAX_BODY_BYTES):
        raise HttpError(400, "The body is shorter than its announced length.")
    if len(data) > MAX_BODY_BYTES:
        raise HttpError(413, f"The body is longer than {MAX_BODY_BYTES} bytes.")
    if b"\\u0000" in data:  # PostgreSQL's text cannot hold it
        raise HttpError(400, "The body must not hold NUL characters.")
    try:
        return orjson.loads(data)
    except orjson.JSONDecodeError as error:
        raise HttpError(400, f"Malformed request body: {error}") from None


class Body:
    """A body that is an object, perhaps within one key: {"network": {..}}."""

    def __init__(self, key: str | None, properties: Mapping[str, Any], required: tuple[str, ...] = (), others: Any = False) -> None:
        """`properties`: name -> JSON schema; `others`: what further names may hold, False for none."""
        self._key = key
        schema: dict[str, Any] = {"type": "object", "properties": properties, "required": list(required), "additionalProperties": others}
        schema["propertyNames"] = {"maxLength": 255}
        self._validator = jsonschema.Draft202012Validator(schema, format_checker=jsonschema.FormatChecker())

    def read(self, req: falcon.Request) -> dict[str, Any]:
        """The object.

        Raises: HttpError 400 or 413.
        """
        return self.check(read_json(req))

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
UUID = {"type": "string", "pattern": "^[0-9a-fA-F]{8}-?([0-9a-fA-F]{4}-?){3}[0-9a-fA-F]{12}$"}
