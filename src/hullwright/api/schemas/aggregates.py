"""Bodies of aggregates and their actions."""

from __future__ import annotations

from hullwright.api.schemas.parts import HOST, NAME, Schema, closed, wrapped
from hullwright.api.validation import Windows

_ZONE: Schema = {**NAME, "type": ["string", "null"], "pattern": "^[^:]*$"}  # a colon begins a host: zone:host
_METADATA: Schema = {
    "type": "object",
    "patternProperties": {r"^[a-zA-Z0-9-_:. ]{1,255}$": {"type": ["string", "null"], "maxLength": 255}},
    "additionalProperties": False,
    "minProperties": 1,
}
_AGGREGATE: Schema = {"name": NAME, "availability_zone": _ZONE}

CREATE = Windows({1: wrapped("aggregate", closed(_AGGREGATE, ("name",)))})
UPDATE = Windows({1: wrapped("aggregate", closed(_AGGREGATE, minProperties=1))})
ACTIONS = {
    "add_host": Windows({1: wrapped("add_host", closed({"host": HOST}, ("host",)))}),
    "remove_host": Windows({1: wrapped("remove_host", closed({"host": HOST}, ("host",)))}),
    "set_metadata": Windows({1: wrapped("set_metadata", closed({"metadata": _METADATA}, ("metadata",)))}),
}
