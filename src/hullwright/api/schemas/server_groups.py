"""Body of POST /os-server-groups, by microversion."""

from __future__ import annotations

from hullwright.api.schemas.parts import NAME, Schema, array, closed, number, wrapped
from hullwright.api.validation import Windows

_HARD = ["anti-affinity", "affinity"]
_ALL = [*_HARD, "soft-anti-affinity", "soft-affinity"]


def _policies(known: list[str]) -> Schema:
    group = {"name": NAME, "policies": array({"type": "string", "enum": known}, minItems=1, maxItems=1)}
    return wrapped("server_group", closed(group, ("name", "policies")))


_ONE_POLICY: Schema = {
    "name": NAME,
    "policy": {"type": "string", "enum": _ALL},
    "rules": closed({"max_server_per_host": number(1)}),
}

CREATE = Windows({1: _policies(_HARD), 15: _policies(_ALL), 64: wrapped("server_group", closed(_ONE_POLICY, ("name", "policy")))})
