"""/os-aggregates: hosts that belong together, their metadata, and the availability zones that some aggregates are."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import falcon

from hullwright.api.context import microversion
from hullwright.api.json_body import read_json
from hullwright.api.queries import row_number
from hullwright.api.resource import Resource, send
from hullwright.api.schemas import aggregates as schemas
from hullwright.api.times import iso_micro
from hullwright.objects.aggregates import ZONE_KEY, Aggregate
from hullwright.objects.errors import AggregateNotFound, BadRequest, InvalidAggregateAction
from hullwright.persistence import aggregates

_UUIDS_SINCE = 41


def show(aggregate: Aggregate, minor: int) -> dict[str, Any]:
    """All fields."""
    shown: dict[str, Any] = {
        "id": aggregate.id,
        "name": aggregate.name,
        "availability_zone": aggregate.availability_zone,
        "hosts": list(aggregate.hosts),
        "metadata": dict(aggregate.metadata),
        "created_at": iso_micro(aggregate.created_at),
        "updated_at": iso_micro(aggregate.updated_at),
        "deleted": False,
        "deleted_at": None,
    }
    if minor >= _UUIDS_SINCE:
        shown["uuid"] = aggregate.uuid
    return shown


class Aggregates(Resource):
    """The collection."""

    def on_get(self, req: falcon.Request, resp: falcon.Response) -> None:
        """All of them."""
        self.require(req, "os-aggregates:index")
        with self.context.db.read() as conn:
            found = aggregates.list_all(conn)
        send(resp, {"aggregates": [show(aggregate, microversion(req)) for aggregate in found]})

    def on_post(self, req: falcon.Request, resp: falcon.Response) -> None:
        """Create one, without hosts."""
        self.require(req, "os-aggregates:create")
        given = self.body(req, schemas.CREATE)["aggregate"]
        with self.context.db.write() as conn:
            made = aggregates.create(conn, given["name"], given.get("availability_zone"))
        shown = show(made, microversion(req))
        del shown["hosts"], shown["metadata"]  # Nova's answer has neither
        send(resp, {"aggregate": shown})


class OneAggregate(Resource):
    """One aggregate, by its number."""

    def on_get(self, req: falcon.Request, resp: falcon.Response, aggregate_id: str) -> None:
        """Show it."""
        self.require(req, "os-aggregates:show")
        self._show(req, resp, _number(aggregate_id))

    def on_put(self, req: falcon.Request, resp: falcon.Response, aggregate_id: str) -> None:
        """Change its name or its zone; its hosts move with it."""
        self.require(req, "os-aggregates:update")
        id, given = _number(aggregate_id), self.body(req, schemas.UPDATE)["aggregate"]
        try:
            with self.context.db.write() as conn:
                if "name" in given:
                    aggregates.rename(conn, id, given["name"])
                if "availability_zone" in given:
                    aggregates.set_metadata(conn, id, {ZONE_KEY: given["availability_zone"]}, "update_aggregate")
        except InvalidAggregateAction as error:
            raise BadRequest(error.text) from None
        self._show(req, resp, id)

    def on_delete(self, req: falcon.Request, resp: falcon.Response, aggregate_id: str) -> None:
        """Remove it, when no host is in it."""
        self.require(req, "os-aggregates:delete")
        try:
            with self.context.db.write() as conn:
                aggregates.delete(conn, _number(aggregate_id))
        except InvalidAggregateAction as error:
            raise BadRequest(error.text) from None
        resp.status = 200

    def on_post_action(self, req: falcon.Request, resp: falcon.Response, aggregate_id: str) -> None:
        """add_host, remove_host, set_metadata."""
        body = read_json(req, self.context.conf)
        if not isinstance(body, dict) or len(body) != 1:
            raise BadRequest("Malformed request body")
        [(name, arguments)] = body.items()
        windows = schemas.ACTIONS.get(name)
        if windows is None:
            raise BadRequest(f"There is no such action: {name[:100]}")
        self.require(req, f"os-aggregates:{name}")
        windows.check(body, microversion(req))
        id = _number(aggregate_id)
        {"add_host": self._add_host, "remove_host": self._remove_host, "set_metadata": self._set_metadata}[name](id, arguments)
        self._show(req, resp, id)

    def _add_host(self, id: int, given: Mapping[str, Any]) -> None:
        with self.context.db.write() as conn:
            aggregates.add_host(conn, id, given["host"])

    def _remove_host(self, id: int, given: Mapping[str, Any]) -> None:
        with self.context.db.write() as conn:
            aggregates.remove_host(conn, id, given["host"])

    def _set_metadata(self, id: int, given: Mapping[str, Any]) -> None:
        try:
            with self.context.db.write() as conn:
                aggregates.set_metadata(conn, id, given["metadata"])
        except InvalidAggregateAction as error:
            raise BadRequest(error.text) from None

    def _show(self, req: falcon.Request, resp: falcon.Response, id: int) -> None:
        with self.context.db.read() as conn:
            found = aggregates.get(conn, id)
        send(resp, {"aggregate": show(found, microversion(req))})


def _number(id: str) -> int:
    """An aggregate's number as a path tells it.

    Raises: AggregateNotFound.
    """
    number = row_number(id)
    if number is None:
        raise AggregateNotFound(id=id[:100])
    return number
