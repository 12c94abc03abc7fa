"""Bodies of PUT /os-services/{id}, and of PUT /os-services/{action} before 2.53."""

from __future__ import annotations

from hullwright.api.schemas.parts import BOOLEAN, HOST, Schema, closed
from hullwright.api.validation import Windows

_REASON: Schema = {"type": "string", "minLength": 1, "maxLength": 255}
_WHOM: Schema = {"host": HOST, "binary": {"type": "string", "minLength": 1, "maxLength": 255}}
ACTIONS_SINCE = {"enable": 1, "disable": 1, "disable-log-reason": 1, "force-down": 11}
ACTIONS = {
    "enable": Windows({1: closed(_WHOM, ("host", "binary"))}),
    "disable": Windows({1: closed(_WHOM, ("host", "binary"))}),
    "disable-log-reason": Windows({1: closed(_WHOM | {"disabled_reason": _REASON}, ("host", "binary", "disabled_reason"))}),
    "force-down": Windows({1: closed(_WHOM | {"forced_down": BOOLEAN}, ("host", "binary", "forced_down"))}),
}
UPDATE = Windows(
    {
        53: closed(
            {
                "status": {"type": "string", "enum": ["enabled", "disabled"]},
                "disabled_reason": _REASON,
                "forced_down": BOOLEAN,
            },
            minProperties=1,
        )
    }
)
