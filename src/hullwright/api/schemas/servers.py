"""Bodies of POST /servers and PUT /servers/{id}, by microversion."""

from __future__ import annotations

from hullwright.api.schemas.parts import (
    BASE64,
    BOOLEAN,
    DESCRIPTION,
    DISK_CONFIG,
    FQDN,
    HOST,
    HOSTNAME,
    IP,
    IPV4,
    IPV6,
    METADATA,
    NAME,
    NULLABLE_UUID,
    TAG,
    UUID,
    Schema,
    array,
    closed,
    nullable,
    number,
    wrapped,
)
from hullwright.api.validation import Windows

_UUID_OR_UUIDS: Schema = {"anyOf": [UUID, array(UUID)]}

HINTS: Schema = {
    "type": "object",
    "properties": {
        "group": UUID,
        "different_host": _UUID_OR_UUIDS,
        "same_host": _UUID_OR_UUIDS,
        "query": {"type": ["string", "object"]},
        "target_cell": NAME,
        "different_cell": {"anyOf": [NAME, array(NAME)]},
        "build_near_host_ip": IP,
        "cidr": {"type": "string", "pattern": "^/[0-9a-f.:]+$"},
    },
    "additionalProperties": True,
}

_VOLUME_SIZE = number(1)
_DEVICE_NAME: Schema = {"type": "string", "minLength": 1, "maxLength": 255, "pattern": r"^[a-zA-Z0-9._/-]*$"}
_BLOCK_DEVICE_V1: Schema = {
    "virtual_name": {"type": "string", "maxLength": 255},
    "volume_id": UUID,
    "snapshot_id": UUID,
    "volume_size": _VOLUME_SIZE,
    "device_name": _DEVICE_NAME,
    "delete_on_termination": BOOLEAN,
    "no_device": {},
    "connection_info": {"type": "string", "maxLength": 16777215},
}
_BLOCK_DEVICE_V2: Schema = {
    **_BLOCK_DEVICE_V1,
    "device_name": nullable(_DEVICE_NAME),
    "volume_size": {**_VOLUME_SIZE, "type": ["integer", "string", "null"]},
    "source_type": {"type": "string", "enum": ["volume", "image", "snapshot", "blank"]},
    "uuid": {"type": "string", "minLength": 1, "maxLength": 255, "pattern": "^[a-zA-Z0-9._-]*$"},
    "image_id": UUID,
    "destination_type": {"type": "string", "enum": ["local", "volume"]},
    "guest_format": {"type": ["string", "null"], "maxLength": 255},
    "device_type": {"type": ["string", "null"], "maxLength": 255},
    "disk_bus": {"type": ["string", "null"], "maxLength": 255},
    "boot_index": {"type": ["integer", "string", "null"], "pattern": "^-?[0-9]+$", "maxLength": 10},
}
_VOLUME_TYPE: Schema = {"type": ["string", "null"], "minLength": 0, "maxLength": 255}
_PERSONALITY = array(closed({"path": {"type": "string", "maxLength": 255}, "contents": BASE64}))


def _networks(minor: int) -> Schema:
    card: Schema = {"fixed_ip": IP, "port": NULLABLE_UUID, "uuid": UUID if minor >= 37 else {"type": "string"}}
    if 32 <= minor < 37 or minor >= 42:
        card["tag"] = TAG
    cards = array(closed(card))
    return {"oneOf": [cards, {"type": "string", "enum": ["none", "auto"]}]} if minor >= 37 else cards


def _create(minor: int) -> Schema:
    device = dict(_BLOCK_DEVICE_V2)
    if minor == 32 or minor >= 42:
        device["tag"] = TAG
    if minor >= 67:
        device["volume_type"] = _VOLUME_TYPE
    server: Schema = {
        "name": NAME,
        "flavorRef": {"type": ["string", "integer"], "minLength": 1, "maxLength": 2048},
        "imageRef": {"type": "string", "format": "uuid_or_empty"},
        "adminPass": {"type": "string", "maxLength": 1024},
        "metadata": METADATA,
        "networks": _networks(minor),
        "OS-DCF:diskConfig": DISK_CONFIG,
        "accessIPv4": IPV4,
        "accessIPv6": IPV6,
        "availability_zone": NAME,
        "block_device_mapping": array(closed(_BLOCK_DEVICE_V1), maxItems=64),
        "block_device_mapping_v2": array(closed(device), maxItems=64),
        "config_drive": BOOLEAN,
        "key_name": NAME,
        "min_count": number(1),
        "max_count": number(1),
        "return_reservation_id": BOOLEAN,
        "security_groups": array(closed({"name": {"type": "string", "minLength": 1, "maxLength": 255}})),
        "user_data": {**BASE64, "maxLength": 65535},
    }
    required = ["name", "flavorRef"]
    if minor >= 19:
        server["description"] = DESCRIPTION
    if minor >= 37:
        required.append("networks")
    if minor >= 52:
        server["tags"] = array(TAG, maxItems=50)
    if minor < 57:
        server["personality"] = _PERSONALITY
    if minor >= 63:
        certificate: Schema = {"type": "string", "minLength": 1}
        server["trusted_image_certificates"] = {
            "type": ["array", "null"],
            "minItems": 1,
            "maxItems": 50,
            "uniqueItems": True,
            "items": certificate,
        }
    if minor >= 74:
        server["host"] = HOST
        server["hypervisor_hostname"] = HOST
    if minor >= 90:
        server["hostname"] = FQDN if minor >= 94 else HOSTNAME
    return wrapped(
        "server",
        closed(server, tuple(required)),
        **{"os:scheduler_hints": HINTS, "OS-SCH-HNT:scheduler_hints": HINTS},
    )


def _update(minor: int) -> Schema:
    server: Schema = {"name": NAME, "OS-DCF:diskConfig": DISK_CONFIG, "accessIPv4": IPV4, "accessIPv6": IPV6}
    if minor >= 19:
        server["description"] = DESCRIPTION
    if minor >= 90:
        server["hostname"] = FQDN if minor >= 94 else HOSTNAME
    return wrapped("server", closed(server))


CREATE = Windows({since: _create(since) for since in (1, 19, 32, 33, 37, 42, 52, 57, 63, 67, 74, 90, 94)})
UPDATE = Windows({since: _update(since) for since in (1, 19, 90, 94)})
METADATA_ALL = Windows({1: wrapped("metadata", METADATA)})
METADATA_ONE = Windows({1: wrapped("meta", {**METADATA, "minProperties": 1, "maxProperties": 1})})
TAGS = Windows({26: wrapped("tags", array(TAG, maxItems=50))})
