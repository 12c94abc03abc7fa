"""An image as the Image API shows it."""

from __future__ import annotations

from typing import Any

from hullwright.api.times import iso
from hullwright.objects.images import Image


def image_view(image: Image) -> dict[str, Any]:
    """Base attributes and, beside them, the image's own properties."""
    link = f"/v2/images/{image.id}"
    known = image.status not in ("queued", "saving")
    return {
        **image.properties,
        "id": image.id,
        "name": image.name,
        "status": image.status,
        "visibility": image.visibility,
        "protected": image.protected,
        "disk_format": image.disk_format,
        "container_format": image.container_format,
        "min_disk": image.min_disk_gb,
        "min_ram": image.min_ram_mb,
        "size": image.size_bytes if known else None,
        "virtual_size": image.virtual_size_bytes,
        "checksum": image.checksum_md5,
        "os_hash_algo": "sha256" if image.checksum_sha256 else None,
        "os_hash_value": image.checksum_sha256,
        "os_hidden": False,
        "owner": image.owner,
        "tags": list(image.tags),
        "created_at": iso(image.created_at),
        "updated_at": iso(image.updated_at),
        "self": link,
        "file": f"{link}/file",
        "schema": "/v2/schemas/image",
    }
