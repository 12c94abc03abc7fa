"""POST /servers: from a body that its schema accepts to instances that are ready to be written.

Everything that can be refused is refused here, before anything is written; nothing is written here.
"""

from __future__ import annotations

import random
import re
import secrets
import string
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any
from uuid import UUID, uuid4

import falcon
from sqlalchemy.engine import Connection

from hullwright.api import guest_shape, server_block_devices, server_networks, unheeded
from hullwright.api.context import ApiContext, Caller, microversion
from hullwright.api.links import plain_address
from hullwright.api.network.security_groups import default_group_id
from hullwright.api.schemas.parts import LONGEST_NAME, truth
from hullwright.api.server_block_devices import Disks
from hullwright.api.server_images import check_fits, usable_image
from hullwright.objects.errors import BadRequest, FlavorNotFound, Forbidden, KeypairNotFound, ServerGroupNotFound
from hullwright.objects.flavors import Flavor
from hullwright.objects.images import Image
from hullwright.objects.instances import Instance, RequestSpec
from hullwright.objects.states import PowerState, TaskState, VmState
from hullwright.persistence import flavors, hosts, key_pairs, server_groups
from hullwright.persistence.database import now

_LOWER = string.ascii_lowercase + string.digits


@dataclass(frozen=True, slots=True)
class Placement:
    """Where a request wants to be."""

    availability_zone: str | None = None
    force_host: str | None = None
    requested_host: str | None = None


@dataclass(frozen=True, slots=True)
class Batch:
    """The instances of one request."""

    instances: tuple[Instance, ...]
    reservation_id: str


def prepare(context: ApiContext, req: falcon.Request, body: Mapping[str, Any]) -> Batch:
    """The instances that `body` asks for, with every id that their builds will use.

    Raises: BadRequest, Conflict, Forbidden.
    """
    who = context.policy.require(req, "servers:create")
    server = body["server"]
    minor = microversion(req)
    count = _count(server, context.conf.api.max_servers_per_request)
    _refuse_unsupported(server, count, who)
    _check_metadata(server, context.conf.api.metadata_items)
    hints = body.get("os:scheduler_hints") or body.get("OS-SCH-HNT:scheduler_hints") or {}
    with context.db.read() as conn:
        flavor = _flavor(conn, server["flavorRef"], who)
        volumes_move = context.conf.volume.driver != "local" or context.conf.volume.shared
        disks = server_block_devices.choose(conn, server, flavor, who, count, volumes_move=volumes_move)
        image = _image(conn, server, disks, flavor, context, who)
        cards = server_networks.choose(conn, server.get("networks"), who, count)
        place = _placement(conn, server, context, who)
        if disks.host is not None:
            _check_volume_host(conn, disks.host, place)
        key_data = _key_data(conn, server.get("key_name"), who)
        if hints.get("group"):
            hints = {**hints, "group": _group(conn, hints["group"], who)}
    wait_seconds = _wait_seconds(hints.get("wait_for_capacity"), context.conf.scheduler)
    reservation_id = "r-" + "".join(random.choices(_LOWER, k=8))
    at = now()
    found_image = image or disks.root_image
    properties = dict(found_image.properties) if found_image else {}
    unheeded.refuse_properties(properties)
    guest_shape.refuse_properties(properties)
    config_drive = (
        context.conf.force_config_drive or truth(server.get("config_drive") or False) or properties.get("img_config_drive") == "mandatory"
    )
    guest_shape.refuse_crowd(disks.devices, properties, flavor, config_drive=config_drive)
    batch = []
    for index in range(count):
        uuid = str(uuid4())
        name = server["name"] if count == 1 else _numbered(server["name"], index + 1)
        spec = RequestSpec(
            instance_uuid=uuid,
            project_id=who.project_id,
            user_id=who.user_id,
            flavor=flavor,
            image_id=image.id if image else None,
            image_properties=properties,
            image_disk_format=found_image.disk_format if found_image else None,
            image_min_ram_mb=found_image.min_ram_mb if found_image else 0,
            availability_zone=place.availability_zone,
            force_host=place.force_host,
            requested_host=place.requested_host,
            volume_host=disks.host,
            networks=cards if index == 0 else server_networks.again(cards),
            block_devices=disks.devices if index == 0 else server_block_devices.again(disks.devices),
            scheduler_hints=hints,
            config_drive=config_drive,
            # Who names the one host, or a volume that is there, leaves nothing to try.
            max_attempts=1 if place.force_host or disks.host else context.conf.scheduler.max_attempts,
            wait_seconds=wait_seconds,
        )
        batch.append(
            Instance(
                uuid=uuid,
                name=name,
                project_id=who.project_id,
                user_id=who.user_id,
                vm_state=VmState.BUILDING,
                task_state=TaskState.SCHEDULING,
                power_state=PowerState.NOSTATE,
                flavor=flavor,
                image_id=spec.image_id,
                hostname=server.get("hostname") or hostname_of(name, uuid),
                created_at=at,
                updated_at=at,
                spec=spec,
                description=server.get("description") if minor >= 19 else server["name"],
                key_name=server.get("key_name"),
                key_data=key_data,
                user_data=server.get("user_data") or None,
                config_drive=config_drive,
                disk_config=server.get("OS-DCF:diskConfig", "MANUAL"),
                access_ip_v4=plain_address(server.get("accessIPv4")),
                access_ip_v6=plain_address(server.get("accessIPv6")),
                metadata=server.get("metadata") or {},
                tags=unique(server.get("tags") or ()),
                availability_zone=place.availability_zone,
                reservation_id=reservation_id,
                launch_index=index,
            )
        )
    return Batch(tuple(batch), reservation_id)


def hostname_of(name: str, uuid: str) -> str:
    """The host name that a guest gets when its user names none: the server's name as a DNS label, at most 63 characters."""
    label = re.sub(r"[ _.]", "-", name)
    label = re.sub(r"[^A-Za-z0-9-]+", "", label).lower().strip("-")[:63].rstrip("-")
    return label or f"server-{uuid}"


def _numbered(name: str, number: int) -> str:
    """The name of one server of several: name-1, name-2, with a name that leaves room for the number."""
    end = f"-{number}"
    return name[: LONGEST_NAME - len(end)] + end


def unique(tags: Iterable[str]) -> tuple[str, ...]:
    """The tags, each once, in order."""
    return tuple(dict.fromkeys(tags))


def generated_password() -> str:
    """Twelve characters, none that is easily taken for another."""
    symbols = "23456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz"
    return "".join(secrets.choice(symbols) for _ in range(12))


def _count(server: Mapping[str, Any], most: int) -> int:
    fewest = int(server.get("min_count") or 1)
    wanted = int(server.get("max_count") or fewest)
    if fewest > wanted:
        raise BadRequest("min_count must be <= max_count")
    if wanted > most:
        # All or none: a batch is one transaction, so that fewer than max_count are never made behind the user's back.
        raise Forbidden(reason=f"Quota exceeded for instances: Requested {wanted}, but one request may ask for {most}.")
    return wanted


def _refuse_unsupported(server: Mapping[str, Any], count: int, who: Caller) -> None:
    if server.get("personality"):
        raise BadRequest("personality is not supported: no files are injected into images. Use user_data, with or without config_drive.")
    if server.get("trusted_image_certificates"):
        raise BadRequest("trusted_image_certificates is not supported: image signatures are not checked.")
    for group in server.get("security_groups") or ():
        # A client looks a group up by its name, and sends the id that it was told.
        if group.get("name", "default") not in ("default", default_group_id(who.project_id)):
            raise BadRequest(f"Security group {group['name']} not found for project: only default exists.")
    if server.get("hostname") and count > 1:
        raise BadRequest("Unable to allocate a single hostname to multiple instances")


def _check_metadata(server: Mapping[str, Any], most: int) -> None:
    if 0 <= most < len(server.get("metadata") or {}):
        raise Forbidden(reason=f"Maximum number of metadata items exceeds {most}")


def _flavor(conn: Connection, ref: str | int, who: Caller) -> Flavor:
    """The flavor of an id, or of a link that ends with one."""
    flavor_id = str(ref).rstrip("/").rsplit("/", 1)[-1]
    try:
        flavor = flavors.get(conn, flavor_id)
    except FlavorNotFound as error:
        raise BadRequest(error.text) from None
    if flavor.disabled or not (flavor.is_public or who.is_admin):
        raise BadRequest(FlavorNotFound(id=flavor_id).text)
    unheeded.refuse_specs(flavor.extra_specs)
    return flavor


def _image(conn: Connection, server: Mapping[str, Any], disks: Disks, flavor: Flavor, context: ApiContext, who: Caller) -> Image | None:
    """The image of a local root disk; None when the root disk is a volume."""
    image_id = server.get("imageRef") or disks.local_image_id
    if not image_id:
        if not disks.root_is_volume:
            if not disks.devices:
                raise BadRequest("Invalid imageRef provided: a server boots from an image or a volume.")
            raise BadRequest(
                "Block Device Mapping is Invalid: Boot sequence for the instance and image/block device mapping combination is not valid."
            )
        if disks.root_image:
            check_fits(disks.root_image, flavor, on_local_disk=False)
        return None
    image = usable_image(conn, image_id, who)
    if flavor.root_gb == 0 and not context.policy.allows(who, "servers:create:zero_disk_flavor"):
        raise Forbidden(reason="Only volume-backed servers are allowed for flavors with zero disk.")
    check_fits(image, flavor, on_local_disk=True)
    return image


def _placement(conn: Connection, server: Mapping[str, Any], context: ApiContext, who: Caller) -> Placement:
    zone, _, forced = (server.get("availability_zone") or "").partition(":")
    host, _, node = forced.partition(":")
    forced_host = host or node or None
    requested = server.get("host") or server.get("hypervisor_hostname")
    if not (zone or forced_host or requested):
        return Placement()
    if forced_host or requested:
        if not context.policy.allows(who, "servers:create:forced_host"):
            raise Forbidden(reason="Policy doesn't allow os_compute_api:servers:create:forced_host to be performed.")
        if forced_host and requested:
            raise BadRequest("The host is given twice: by availability_zone and by host or hypervisor_hostname.")
        if server.get("host") and server.get("hypervisor_hostname") not in (None, server["host"]):
            raise BadRequest(f"Compute host {server['host']} has no hypervisor {server['hypervisor_hostname']}.")
    for wanted in (forced_host, requested):
        if wanted is not None and hosts.zone_of(conn, wanted) is None:
            raise BadRequest(f"Compute host {wanted} could not be found.")
    if zone and zone != context.conf.default_availability_zone and not hosts.has_zone(conn, zone):
        raise BadRequest("The requested availability zone is not available")
    return Placement(zone or None, forced_host, requested)


def _check_volume_host(conn: Connection, host: str, place: Placement) -> None:
    """Refuse a request for a host or a zone that is not the one where its volumes' bytes are."""
    because = "the volume's bytes are on another host, and local volumes do not move."
    for wanted in (place.force_host, place.requested_host):
        if wanted not in (None, host):
            raise BadRequest(f"The server cannot be on host {wanted}: {because}")
    if place.availability_zone and hosts.zone_of(conn, host) not in (None, place.availability_zone):
        raise BadRequest(f"The server cannot be in availability zone {place.availability_zone}: {because}")


def _group(conn: Connection, uuid: str, who: Caller) -> str:
    """The server group that a hint names, if it is the caller's."""
    try:
        group = server_groups.get(conn, str(UUID(uuid)))
    except ServerGroupNotFound as error:
        raise BadRequest(error.text) from None
    if group.project_id != who.project_id:
        raise BadRequest(ServerGroupNotFound(id=uuid).text)
    return group.uuid


def _wait_seconds(hint: Any, options: Any) -> int:
    """How long the build may wait for room, by its request or by the configuration."""
    if hint is None:
        return int(options.wait_for_capacity)
    text = str(hint)
    if not (text.isascii() and text.isdigit()) or len(text) > 9:
        raise BadRequest(f"Invalid scheduler hint wait_for_capacity '{text}': say for how many seconds the build may wait for room.")
    if int(text) > options.max_wait_for_capacity:
        raise BadRequest(f"Invalid scheduler hint wait_for_capacity '{text}': at most {options.max_wait_for_capacity} seconds are allowed.")
    return int(text)


def _key_data(conn: Connection, name: str | None, who: Caller) -> str | None:
    if name is None:
        return None
    try:
        return key_pairs.get(conn, who.user_id, name).public_key
    except KeypairNotFound:
        raise BadRequest("Invalid key_name provided.") from None
