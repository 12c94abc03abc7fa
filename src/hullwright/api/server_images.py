"""Images as create requests use them: there, visible, active, and not too big for the flavor."""

from __future__ import annotations

from uuid import UUID

from sqlalchemy.engine import Connection

from hullwright.api.context import Caller
from hullwright.api.image import access
from hullwright.objects.errors import BadRequest, FlavorDiskTooSmall, FlavorMemoryTooSmall, ImageNotFound
from hullwright.objects.flavors import Flavor
from hullwright.objects.images import Image

_NOT_DISKS = ("aki", "ari")  # a kernel, a ramdisk


def usable_image(conn: Connection, image_id: str, who: Caller) -> Image:
    """An image that a root disk can be made of.

    Raises: BadRequest.
    """
    image = _visible(conn, str(UUID(image_id)), who)
    if image.disk_format in _NOT_DISKS:
        raise BadRequest(f"Image {image.id} is unacceptable: it is a kernel or ramdisk, not a disk.")
    for name in ("kernel_id", "ramdisk_id"):
        wanted = image.properties.get(name)
        if wanted:
            try:
                _visible(conn, str(UUID(wanted)), who)
            except ValueError:
                raise BadRequest(f"Image {image.id} is unacceptable: its {name} is not an image's id.") from None
    return image


def _visible(conn: Connection, image_id: str, who: Caller) -> Image:
    try:
        image = access.visible(conn, who, image_id)
    except ImageNotFound as error:
        raise BadRequest(error.text) from None
    if image.status != "active":
        raise BadRequest(f"Image {image_id} is not active.")
    return image


def check_fits(image: Image, flavor: Flavor, *, on_local_disk: bool) -> None:
    """Whether the flavor has the memory and, for a local root disk, the space that the image asks for.

    Raises: FlavorMemoryTooSmall, FlavorDiskTooSmall.
    """
    if flavor.memory_mb < image.min_ram_mb:
        raise FlavorMemoryTooSmall(image_mb=image.min_ram_mb, flavor_mb=flavor.memory_mb)
    if not on_local_disk or flavor.root_gb == 0:  # 0: as big as the image
        return
    if flavor.root_gb < image.min_disk_gb:
        raise BadRequest(
            f"Flavor's disk is smaller than the minimum size specified in image metadata. Flavor disk is {flavor.root_gb} GB, "
            f"minimum size is {image.min_disk_gb} GB."
        )
    needed, given = image.virtual_size_bytes or image.size_bytes, flavor.root_gb * 1024**3
    if needed > given:
        raise FlavorDiskTooSmall(flavor_bytes=given, image_bytes=needed)
