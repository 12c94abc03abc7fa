"""Volumes and attachments as the Block Storage API shows them."""

from __future__ import annotations

from typing import Any

import falcon

from hullwright.api.context import ApiContext, base_url
from hullwright.api.times import iso_micro
from hullwright.objects.volumes import Attachment, Volume


def brief_view(req: falcon.Request, context: ApiContext, volume: Volume) -> dict[str, Any]:
    """Id, name and links."""
    base = f"{base_url(req, context.conf)}/volume"
    return {
        "id": volume.id,
        "name": volume.name,
        "links": [
            {"rel": "self", "href": f"{base}/v3/{volume.project_id}/volumes/{volume.id}"},
            {"rel": "bookmark", "href": f"{base}/{volume.project_id}/volumes/{volume.id}"},
        ],
    }


def volume_view(req: falcon.Request, context: ApiContext, volume: Volume, attachment: Attachment | None, *, admin: bool) -> dict[str, Any]:
    """All of a volume; administrators see hosts."""
    attached = attachment is not None and attachment.state == "attached"
    view = brief_view(req, context, volume) | {
        "size": volume.size_gb,
        "status": volume.status,
        "bootable": "true" if volume.bootable else "false",
        "description": volume.description,
        "volume_type": volume.volume_type,
        "availability_zone": volume.availability_zone,
        "metadata": dict(volume.metadata),
        "attachments": [attached_view(attachment, admin=admin)] if attachment is not None and attached else [],
        "created_at": iso_micro(volume.created_at),
        "updated_at": None,
        "user_id": volume.user_id,
        "os-vol-tenant-attr:tenant_id": volume.project_id,
        "encrypted": False,
        "multiattach": False,
        "replication_status": None,
        "snapshot_id": None,
        "source_volid": None,
        "consistencygroup_id": None,
        "group_id": None,
    }
    if admin:
        view["os-vol-host-attr:host"] = attachment.host if attachment is not None else None
    if volume.image_id is not None:
        view["volume_image_metadata"] = {"image_id": volume.image_id}
    return view


def attached_view(attachment: Attachment, *, admin: bool) -> dict[str, Any]:
    """An attachment within a volume."""
    return {
        "id": attachment.volume_id,
        "attachment_id": attachment.id,
        "volume_id": attachment.volume_id,
        "server_id": attachment.instance_uuid,
        "host_name": attachment.host if admin else None,
        "device": attachment.device,
        "attached_at": iso_micro(attachment.created_at),
    }


def attachment_view(attachment: Attachment) -> dict[str, Any]:
    """An attachment by itself. How a host connects is between the conductor and the host, and not shown."""
    return {
        "id": attachment.id,
        "volume_id": attachment.volume_id,
        "instance": attachment.instance_uuid,
        "status": attachment.state,
        "attach_mode": "rw",
        "attached_at": iso_micro(attachment.created_at),
        "detached_at": None,
        "connection_info": {},
    }
