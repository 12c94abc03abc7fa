"""/flavors, their extra specs, and who may use them."""

from __future__ import annotations

from dataclasses import replace
from typing import Any
from uuid import uuid4

import falcon

from hullwright.api.context import Caller, caller, microversion
from hullwright.api.links import Links
from hullwright.api.microversions import available
from hullwright.api.queries import bad_parameter, cut, every, integer, last, page_limit
from hullwright.api.resource import Resource, send
from hullwright.api.schemas import flavors as schemas
from hullwright.api.schemas.parts import BOOLEAN, truth
from hullwright.objects.errors import BadRequest, FlavorNotFound, NotFound
from hullwright.objects.flavors import Flavor
from hullwright.persistence import flavors


class ExtraSpecNotFound(NotFound):
    """The flavor has no such extra spec."""

    message = "Flavor {flavor} has no extra specs with key {id}."


class AccessListNotFound(NotFound):
    """A public flavor has no list of projects."""

    message = "Access list not available for public flavors."


def show(flavor: Flavor, links: Links, minor: int) -> dict[str, Any]:
    """All fields."""
    shown: dict[str, Any] = {
        "id": flavor.id,
        "name": flavor.name,
        "ram": flavor.memory_mb,
        "disk": flavor.root_gb,
        "vcpus": flavor.vcpus,
        "swap": flavor.swap_mb if flavor.swap_mb or minor >= 75 else "",
        "OS-FLV-EXT-DATA:ephemeral": flavor.ephemeral_gb,
        "OS-FLV-DISABLED:disabled": flavor.disabled,
        "os-flavor-access:is_public": flavor.is_public,
        "rxtx_factor": flavor.rxtx_factor,
        "links": links.of("flavors", flavor.id),
    }
    if minor >= 55:
        shown["description"] = flavor.description
    if minor >= 61:
        shown["extra_specs"] = flavor.extra_specs
    return shown


class _FlavorResource(Resource):
    def find(self, who: Caller, flavor_id: str) -> Flavor:
        """A flavor that the caller may see.

        Raises: FlavorNotFound.
        """
        with self.context.db.read() as conn:
            flavor = flavors.get(conn, flavor_id)
        if not (flavor.is_public or who.is_admin):
            raise FlavorNotFound(id=flavor_id)
        return flavor


class Flavors(_FlavorResource):
    """The collection."""

    def on_get(self, req: falcon.Request, resp: falcon.Response) -> None:
        """Names and links."""
        self._list(req, resp, detail=False)

    def on_get_detail(self, req: falcon.Request, resp: falcon.Response) -> None:
        """All fields."""
        self._list(req, resp, detail=True)

    def on_post(self, req: falcon.Request, resp: falcon.Response) -> None:
        """Create one; without an id, or with "auto", it gets a uuid."""
        self.require(req, "os-flavor-manage")
        given = self.body(req, schemas.CREATE)["flavor"]
        wanted_id = given.get("id")
        flavor = Flavor(
            id=str(uuid4()) if wanted_id in (None, "auto") else str(wanted_id),
            name=given["name"],
            vcpus=int(given["vcpus"]),
            memory_mb=int(given["ram"]),
            root_gb=int(given["disk"]),
            ephemeral_gb=int(given.get("OS-FLV-EXT-DATA:ephemeral", 0)),
            swap_mb=int(given.get("swap", 0)),
            is_public=truth(given.get("os-flavor-access:is_public", True)),
            rxtx_factor=float(given.get("rxtx_factor", 1.0)),
            description=given.get("description"),
        )
        with self.context.db.write() as conn:
            flavors.create(conn, flavor)
        send(resp, {"flavor": show(flavor, Links(req, self.context.conf), microversion(req))})

    def _list(self, req: falcon.Request, resp: falcon.Response, *, detail: bool) -> None:
        minor, links = microversion(req), Links(req, self.context.conf)
        limit = page_limit(req, self.context.conf.api.max_limit)
        key = last(req, "sort_key") or "flavorid"
        if key not in flavors.SORT_KEYS:
            raise bad_parameter("sort_key", key, "It is not a sort key.")
        direction = last(req, "sort_dir") or "asc"
        if direction not in ("asc", "desc"):
            raise bad_parameter("sort_dir", direction, "It is neither asc nor desc.")
        marker = last(req, "marker")
        with self.context.db.read() as conn:
            try:
                found = flavors.list_flavors(
                    conn,
                    is_public=self._wanted_public(req),
                    min_memory_mb=integer(req, "minRam") or 0,
                    min_disk_gb=integer(req, "minDisk") or 0,
                    sort=[(flavors.SORT_KEYS[key], direction == "desc")],
                    marker=marker,
                    limit=limit + 1,
                )
            except FlavorNotFound:
                raise BadRequest(f"marker [{marker}] not found") from None
        page, more = cut(found, limit)
        shown = [show(flavor, links, minor) for flavor in page]
        if not detail:
            kept = ("id", "name", "links", "description")
            shown = [{name: flavor[name] for name in kept if name in flavor} for flavor in shown]
        answer: dict[str, Any] = {"flavors": shown}
        if more:
            answer["flavors_links"] = links.next(req, page[-1].id)
        send(resp, answer)

    def _wanted_public(self, req: falcon.Request) -> bool | None:
        """Others than administrators see public flavors only; those may ask for private ones or, by "none", for all."""
        values = every(req, "is_public")
        if not caller(req).is_admin or not values:
            return True
        if values[-1].lower() == "none":
            return None
        if values[-1] not in BOOLEAN["enum"]:
            raise BadRequest(f"Invalid is_public filter [{values[-1][:100]}]")
        return truth(values[-1])


class OneFlavor(_FlavorResource):
    """One flavor."""

    def on_get(self, req: falcon.Request, resp: falcon.Response, flavor_id: str) -> None:
        """Show it."""
        flavor = self.find(caller(req), flavor_id)
        send(resp, {"flavor": show(flavor, Links(req, self.context.conf), microversion(req))})

    @available(since=55)
    def on_put(self, req: falcon.Request, resp: falcon.Response, flavor_id: str) -> None:
        """Change its description; all else is fixed."""
        who = self.require(req, "os-flavor-manage")
        description = self.body(req, schemas.UPDATE)["flavor"]["description"]
        flavor = self.find(who, flavor_id)
        with self.context.db.write() as conn:
            flavors.update(conn, flavor_id, description=description)
        changed = replace(flavor, description=description)
        send(resp, {"flavor": show(changed, Links(req, self.context.conf), microversion(req))})

    def on_delete(self, req: falcon.Request, resp: falcon.Response, flavor_id: str) -> None:
        """Remove it; servers keep the size that they were built with."""
        self.require(req, "os-flavor-manage")
        with self.context.db.write() as conn:
            flavors.delete(conn, flavor_id)
        resp.status = 202

    def on_get_access(self, req: falcon.Request, resp: falcon.Response, flavor_id: str) -> None:
        """The projects that may use a private flavor: none but administrators."""
        who = self.require(req, "os-flavor-access")
        if self.find(who, flavor_id).is_public:
            raise AccessListNotFound
        send(resp, {"flavor_access": []})


class FlavorExtraSpecs(_FlavorResource):
    """What else a flavor asks of a host or a guest."""

    def on_get(self, req: falcon.Request, resp: falcon.Response, flavor_id: str) -> None:
        """All of them."""
        send(resp, {"extra_specs": self.find(caller(req), flavor_id).extra_specs})

    def on_post(self, req: falcon.Request, resp: falcon.Response, flavor_id: str) -> None:
        """Add some, replacing those of the same key."""
        self.require(req, "os-flavor-manage")
        given = {key: str(value) for key, value in self.body(req, schemas.EXTRA_SPECS)["extra_specs"].items()}
        with self.context.db.write() as conn:
            specs = flavors.get(conn, flavor_id, for_update=True).extra_specs
            flavors.update(conn, flavor_id, extra_specs={**specs, **given})
        send(resp, {"extra_specs": given})

    def on_get_one(self, req: falcon.Request, resp: falcon.Response, flavor_id: str, key: str) -> None:
        """One of them."""
        specs = self.find(caller(req), flavor_id).extra_specs
        if key not in specs:
            raise ExtraSpecNotFound(flavor=flavor_id, id=key)
        send(resp, {key: specs[key]})

    def on_put_one(self, req: falcon.Request, resp: falcon.Response, flavor_id: str, key: str) -> None:
        """Set one of them."""
        self.require(req, "os-flavor-manage")
        given = {name: str(value) for name, value in self.body(req, schemas.EXTRA_SPEC).items()}
        if key not in given:
            raise BadRequest("Request body and URI mismatch")
        with self.context.db.write() as conn:
            specs = flavors.get(conn, flavor_id, for_update=True).extra_specs
            flavors.update(conn, flavor_id, extra_specs={**specs, **given})
        send(resp, given)

    def on_delete_one(self, req: falcon.Request, resp: falcon.Response, flavor_id: str, key: str) -> None:
        """Remove one of them."""
        self.require(req, "os-flavor-manage")
        with self.context.db.write() as conn:
            specs = dict(flavors.get(conn, flavor_id, for_update=True).extra_specs)
            if key not in specs:
                raise ExtraSpecNotFound(flavor=flavor_id, id=key)
            del specs[key]
            flavors.update(conn, flavor_id, extra_specs=specs)
        resp.status = 200
