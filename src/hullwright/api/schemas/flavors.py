"""Bodies of flavors and their extra specs."""

from __future__ import annotations

from hullwright.api.schemas.parts import BOOLEAN, NAME, Schema, closed, number, wrapped
from hullwright.api.validation import Windows

_DESCRIPTION: Schema = {"type": ["string", "null"], "minLength": 0, "maxLength": 65535, "format": "printable_lines"}
_FLAVOR: Schema = {
    "name": NAME,
    "id": {"type": ["string", "number", "null"], "minLength": 1, "maxLength": 255, "pattern": r"^(?! )[a-zA-Z0-9. _-]+(?<! )$"},
    "ram": number(1),
    "vcpus": number(1),
    "disk": number(),
    "OS-FLV-EXT-DATA:ephemeral": number(),
    "swap": number(),
    "rxtx_factor": {"type": ["number", "string"], "pattern": r"^[0-9]+(\.[0-9]+)?$", "minimum": 0, "maximum": 3.40282e38},
    "os-flavor-access:is_public": BOOLEAN,
}
_REQUIRED = ("name", "ram", "vcpus", "disk")

CREATE = Windows(
    {
        1: wrapped("flavor", closed(_FLAVOR, _REQUIRED)),
        55: wrapped("flavor", closed({**_FLAVOR, "description": _DESCRIPTION}, _REQUIRED)),
    }
)
UPDATE = Windows({55: wrapped("flavor", closed({"description": _DESCRIPTION}, ("description",)))})

_SPECS: Schema = {
    "type": "object",
    "patternProperties": {r"^[a-zA-Z0-9-_:. ]{1,255}$": {"type": ["string", "number"], "maxLength": 255}},
    "additionalProperties": False,
}
EXTRA_SPECS = Windows({1: wrapped("extra_specs", _SPECS)})
EXTRA_SPEC = Windows({1: {**_SPECS, "minProperties": 1, "maxProperties": 1}})
