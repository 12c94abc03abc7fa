"""Body of PUT /os-services/{id}."""

from __future__ import annotations

from hullwright.api.schemas.parts import BOOLEAN, closed
from hullwright.api.validation import Windows

UPDATE = Windows(
    {
        53: closed(
            {
                "status": {"type": "string", "enum": ["enabled", "disabled"]},
                "disabled_reason": {"type": "string", "minLength": 1, "maxLength": 255},
                "forced_down": BOOLEAN,
            },
            minProperties=1,
        )
    }
)
