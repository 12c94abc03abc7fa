"""The one reader of request bodies: bounded, whole, JSON of the announced type, without what a database cannot hold.

Not for: what a body must say; see `validation` and `bodies`. Nor for an image's bytes; see `image.data`.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import falcon
import orjson

from hullwright.api.errors import HttpError

_JSON = "application/json"
_BROKEN_OFF = "The request's body ended before its announced length, or came too slowly."


def read_json(req: falcon.Request, conf: Any, content_types: Collection[str] = (_JSON,)) -> Any:
    """The request's body, at most [api] max_body_bytes long. A body without a type counts as JSON's.

    Raises: HttpError 400, 413 or 415.
    """
    kind = (req.content_type or _JSON).partition(";")[0].strip().lower()
    if kind not in content_types:
        raise HttpError(415, f"Unsupported Content-Type {kind}; use {' or '.join(content_types)}.")
    max_bytes = conf.api.max_body_bytes
    if (req.content_length or 0) > max_bytes:
        raise HttpError(413, f"The request's body is longer than {max_bytes} bytes.")
    # A chunked body has no length; Falcon's bounded stream would take it for empty.
    try:
        data = (req.stream if req.content_length is None else req.bounded_stream).read(max_bytes + 1)
    except OSError:
        raise HttpError(400, _BROKEN_OFF) from None
    if len(data) < (req.content_length or 0):
        raise HttpError(400, _BROKEN_OFF)
    if len(data) > max_bytes:
        raise HttpError(413, f"The request's body is longer than {max_bytes} bytes.")
    if b"\\u0000" in data.replace(b"\\\\", b""):  # PostgreSQL's text cannot hold it; an escaped backslash begins no escape
        raise HttpError(400, "The request's body must not hold NUL characters.")
    try:
        return orjson.loads(data)
    except orjson.JSONDecodeError:
        raise HttpError(400, "Malformed request body") from None
