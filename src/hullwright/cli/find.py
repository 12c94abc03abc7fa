"""Finds a resource by id or by name, and says so when there is none or more than one."""

from __future__ import annotations

import re
import uuid
from typing import Any
from urllib.parse import quote

from hullwright.cli import http
from hullwright.objects.errors import Conflict, NotFound


class Ambiguous(Conflict):
    """Several things have that name."""

    message = "{count} {kind}s are named {name}: give the id."


class NoSuch(NotFound):
    """Nothing has that name or id."""

    message = "There is no {kind} {name}."


def _one(kind: str, wanted: str, found: list[dict[str, Any]]) -> dict[str, Any]:
    named = [item for item in found if item["id"] == wanted] or [item for item in found if item.get("name") == wanted]
    if not named:
        raise NoSuch(kind=kind, name=wanted)
    if len(named) > 1:
        raise Ambiguous(kind=kind, name=wanted, count=len(named))
    return named[0]


def flavor(client: http.Client, wanted: str) -> dict[str, Any]:
    """The flavor of that id or name.

    Raises: NoSuch.
    """
    return _one("flavor", wanted, client.get(http.COMPUTE + "/flavors/detail", is_public="None")["flavors"])


def image(client: http.Client, wanted: str) -> dict[str, Any]:
    """The image of that id or name.

    Raises: NoSuch, Ambiguous.
    """
    if _is_uuid(wanted):
        try:
            return dict(client.get(f"{http.IMAGE}/images/{wanted}"))
        except http.Gone:
            raise NoSuch(kind="image", name=wanted) from None
    return _one("image", wanted, client.get(http.IMAGE + "/images", name=wanted)["images"])


def network(client: http.Client, wanted: str) -> dict[str, Any]:
    """The network of that id or name.

    Raises: NoSuch, Ambiguous.
    """
    query = {"id": wanted} if _is_uuid(wanted) else {"name": wanted}
    return _one("network", wanted, client.get(http.NETWORK + "/networks", **query)["networks"])


def server(client: http.Client, wanted: str) -> dict[str, Any]:
    """The server of that id or name, in detail.

    Raises: NoSuch, Ambiguous.
    """
    if _is_uuid(wanted):
        try:
            return dict(client.get(f"{http.COMPUTE}/servers/{quote(wanted)}")["server"])
        except http.Gone:
            raise NoSuch(kind="server", name=wanted) from None
    found = client.get(http.COMPUTE + "/servers/detail", name=f"^{re.escape(wanted)}$")["servers"]
    return _one("server", wanted, found)


def recorded_server(client: http.Client, wanted: str) -> str:
    """The id of the server of that id or name; of one that is deleted only the id finds its record, so it is taken for one.

    Raises: Ambiguous.
    """
    try:
        return str(server(client, wanted)["id"])
    except NoSuch:
        return wanted


def _is_uuid(text: str) -> bool:
    try:
        return str(uuid.UUID(text)) == text.lower()
    except ValueError:
        return False
