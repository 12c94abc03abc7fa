"""Pieces that several schemas share."""

from __future__ import annotations

from typing import Any

Schema = dict[str, Any]

MAX_INT = 0x7FFFFFFF
LONGEST_NAME = 255  # characters


def closed(properties: Schema, required: tuple[str, ...] = (), **more: Any) -> Schema:
    """An object with these properties and no others."""
    return {
        "type": "object",
        "properties": properties,
        "required": list(required),
        "additionalProperties": False,
        **more,
    }


def wrapped(key: str, inner: Schema, **beside: Schema) -> Schema:
    """A body with one required member `key`; `beside` are optional members next to it."""
    return closed({key: inner, **beside}, required=(key,))


def array(items: Schema, **more: Any) -> Schema:
    """A list of `items`."""
    return {"type": "array", "items": items, **more}


def nullable(schema: Schema) -> Schema:
    """The same, or null."""
    kind = schema["type"]
    return {**schema, "type": [*(kind if isinstance(kind, list) else [kind]), "null"]}


NAME: Schema = {"type": "string", "minLength": 1, "maxLength": LONGEST_NAME, "format": "name"}
DESCRIPTION: Schema = {"type": ["string", "null"], "minLength": 0, "maxLength": 255, "format": "printable_lines"}
UUID_PATTERN = "[0-9a-fA-F]{8}-?([0-9a-fA-F]{4}-?){3}[0-9a-fA-F]{12}"
UUID: Schema = {"type": "string", "format": "uuid"}
NULLABLE_UUID: Schema = {"type": ["string", "null"], "format": "uuid"}
IPV4: Schema = {"type": "string", "format": "ipv4"}
IPV6: Schema = {"type": "string", "format": "ipv6"}
IP: Schema = {"type": "string", "format": "ip"}
TAG: Schema = {"type": "string", "minLength": 1, "maxLength": 60, "pattern": "^[^,/]*$"}
BASE64: Schema = {"type": "string", "format": "base64"}
DISK_CONFIG: Schema = {"type": "string", "enum": ["AUTO", "MANUAL"]}
HOST: Schema = {"type": "string", "minLength": 1, "maxLength": 255, "pattern": r"^[a-zA-Z0-9-._]*$"}
FQDN: Schema = {
    "type": "string",
    "minLength": 2,
    "maxLength": 255,
    "pattern": r"^[a-zA-Z0-9]+[a-zA-Z0-9-.]*[a-zA-Z0-9]+$",
}
HOSTNAME: Schema = {
    "type": "string",
    "minLength": 2,
    "maxLength": 63,
    "pattern": r"^[a-zA-Z0-9]+[a-zA-Z0-9-]*[a-zA-Z0-9]+$",
}

TRUE_WORDS = frozenset({"true", "1", "on", "yes", "y", "t"})
FALSE_WORDS = frozenset({"false", "0", "off", "no", "n", "f"})
_TRUE = ["True", "TRUE", "true", "1", "ON", "On", "on", "YES", "Yes", "yes", "y", "t"]
_FALSE = ["False", "FALSE", "false", "0", "OFF", "Off", "off", "NO", "No", "no", "n", "f"]
BOOLEAN: Schema = {"type": ["boolean", "string"], "enum": [True, False, *_TRUE, *_FALSE]}


def number(minimum: int = 0, maximum: int = MAX_INT) -> Schema:
    """An integer, or a string of digits."""
    return {"type": ["integer", "string"], "pattern": "^-?[0-9]+$", "format": f"int:{minimum}:{maximum}", "maxLength": 20}


METADATA: Schema = {
    "type": "object",
    "patternProperties": {r"^[a-zA-Z0-9-_:. ]{1,255}$": {"type": "string", "maxLength": 255}},
    "additionalProperties": False,
}


def truth(value: Any) -> bool:
    """The meaning of a value that `BOOLEAN` accepts."""
    return value if isinstance(value, bool) else str(value).lower() in TRUE_WORDS
