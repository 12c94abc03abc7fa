"""Bodies of POST /os-keypairs."""

from __future__ import annotations

from hullwright.api.schemas.parts import Schema, closed, wrapped
from hullwright.api.validation import Windows


def _create(minor: int) -> Schema:
    allowed = r"^[a-zA-Z0-9 _@.-]+$" if minor >= 92 else r"^[a-zA-Z0-9 _-]+$"
    pair: Schema = {
        "name": {"type": "string", "minLength": 1, "maxLength": 255, "format": "name", "pattern": allowed},
        "public_key": {"type": "string", "maxLength": 16384},
    }
    if minor >= 2:
        pair["type"] = {"type": "string", "enum": ["ssh", "x509"]}
    if minor >= 10:
        pair["user_id"] = {"type": "string", "minLength": 1, "maxLength": 255, "format": "name"}
    return wrapped("keypair", closed(pair, ("name", "public_key") if minor >= 92 else ("name",)))


CREATE = Windows({since: _create(since) for since in (1, 2, 10, 92)})
