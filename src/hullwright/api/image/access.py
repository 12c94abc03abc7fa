"""Who may see and change an image. One that may not be seen is not found: its existence is nobody else's business."""

from __future__ import annotations

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from hullwright.api.context import Caller
from hullwright.objects.errors import Forbidden, ImageNotFound
from hullwright.objects.images import Image
from hullwright.persistence import images

# "shared" is the Image API's default: its owner's, until members are added.
VISIBILITIES = ("public", "community", "shared", "private")


def listable(caller: Caller, visibility: str | None) -> list[sa.ColumnElement[bool]]:
    """Conditions for a list. `visibility`: as asked; None or "all" means whatever the caller may see."""
    where: list[sa.ColumnElement[bool]] = []
    if visibility is not None and visibility != "all":
        where.append(images.of_visibility(visibility))
    if not caller.is_admin:
        open_to_all = ("public", "community") if visibility in ("community", "all") else ("public",)
        where.append(images.visible_to(caller.project_id, open_to_all))
    return where


def visible(conn: Connection, caller: Caller, image_id: str) -> Image:
    """An image that the caller may see.

    Raises: ImageNotFound.
    """
    image = images.get(conn, image_id)
    if caller.is_admin or image.visibility in ("public", "community") or image.owner == caller.project_id:
        return image
    raise ImageNotFound(id=image_id)


def changeable(conn: Connection, caller: Caller, image_id: str) -> Image:
    """An image that the caller may change.

    Raises: ImageNotFound, Forbidden.
    """
    image = visible(conn, caller, image_id)
    if not caller.is_admin and image.owner != caller.project_id:
        raise Forbidden(reason="You are not permitted to modify this image.")
    return image


def check_visibility(caller: Caller, visibility: str) -> None:
    """Only an administrator shows an image to everybody.

    Raises: Forbidden.
    """
    if visibility == "public" and not caller.is_admin:
        raise Forbidden(reason="You are not authorized to publicize images.")
