"""Bodies of POST /servers/{id}/action, one schema per action."""

from __future__ import annotations

from hullwright.api.schemas.parts import Schema, closed, number
from hullwright.api.validation import Windows

_ANYTHING: Schema = {}
_NOTHING: Schema = {"type": "null"}


def _only(name: str, inner: Schema) -> Schema:
    return closed({name: inner}, required=(name,))


_REASON = closed({"locked_reason": {"type": "string", "minLength": 1, "maxLength": 255}})

ACTIONS = {
    "os-start": Windows({1: _only("os-start", _ANYTHING)}),
    "os-stop": Windows({1: _only("os-stop", _ANYTHING)}),
    "reboot": Windows(
        {
            1: _only(
                "reboot",
                closed(
                    {"type": {"type": "string", "enum": ["HARD", "Hard", "hard", "SOFT", "Soft", "soft"]}},
                    required=("type",),
                ),
            )
        }
    ),
    "lock": Windows({1: _only("lock", _ANYTHING), 73: _only("lock", {"anyOf": [_NOTHING, _REASON]})}),
    "unlock": Windows({1: _only("unlock", _ANYTHING)}),
    "forceDelete": Windows({1: _only("forceDelete", _ANYTHING)}),
    "os-resetState": Windows(
        {1: _only("os-resetState", closed({"state": {"type": "string", "enum": ["active", "error"]}}, required=("state",)))}
    ),
    "os-getConsoleOutput": Windows(
        {
            1: _only(
                "os-getConsoleOutput",
                closed({"length": {**number(-1), "type": ["integer", "string", "null"]}}),
            )
        }
    ),
}
