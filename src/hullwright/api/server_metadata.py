"""/servers/{id}/metadata and /servers/{id}/tags: what users write on their servers."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import falcon

from hullwright.api.context import base_url
from hullwright.api.microversions import available
from hullwright.api.resource import Resource, send
from hullwright.api.schemas import servers as schemas
from hullwright.api.schemas.parts import TAG
from hullwright.api.server_actions import check_state
from hullwright.api.server_create import unique
from hullwright.api.validation import Windows
from hullwright.objects.errors import BadRequest, Forbidden, NotFound
from hullwright.objects.states import VmState
from hullwright.persistence import instances

_WRITABLE = (VmState.ACTIVE, VmState.PAUSED, VmState.SUSPENDED, VmState.STOPPED)
_MAX_TAGS = 50
_TAG = Windows({1: TAG})


class MetadataItemNotFound(NotFound):
    """No such item."""

    message = "Metadata item was not found"


class TagNotFound(NotFound):
    """No such tag."""

    message = "Server {server} has no tag '{id}'"


class ServerMetadata(Resource):
    """Metadata: names and values."""

    def on_get(self, req: falcon.Request, resp: falcon.Response, server_id: str) -> None:
        """All items."""
        send(resp, {"metadata": self.server(req, server_id, "os-server-metadata")["metadata"]})

    def on_post(self, req: falcon.Request, resp: falcon.Response, server_id: str) -> None:
        """Add items, replacing those of the same name."""
        given = self.body(req, schemas.METADATA_ALL)["metadata"]
        send(resp, {"metadata": self._change(req, server_id, lambda present: {**present, **given})})

    def on_put(self, req: falcon.Request, resp: falcon.Response, server_id: str) -> None:
        """Have exactly these items."""
        given = self.body(req, schemas.METADATA_ALL)["metadata"]
        send(resp, {"metadata": self._change(req, server_id, lambda _present: given)})

    def on_get_item(self, req: falcon.Request, resp: falcon.Response, server_id: str, key: str) -> None:
        """One item."""
        present = self.server(req, server_id, "os-server-metadata")["metadata"]
        if key not in present:
            raise MetadataItemNotFound
        send(resp, {"meta": {key: present[key]}})

    def on_put_item(self, req: falcon.Request, resp: falcon.Response, server_id: str, key: str) -> None:
        """Set one item."""
        given = self.body(req, schemas.METADATA_ONE)["meta"]
        if key not in given:
            raise BadRequest("Request body and URI mismatch")
        self._change(req, server_id, lambda present: {**present, **given})
        send(resp, {"meta": given})

    def on_delete_item(self, req: falcon.Request, resp: falcon.Response, server_id: str, key: str) -> None:
        """Remove one item."""

        def without(present: Mapping[str, str]) -> Mapping[str, str]:
            if key not in present:
                raise MetadataItemNotFound
            return {name: value for name, value in present.items() if name != key}

        self._change(req, server_id, without)
        resp.status = 204

    def _change(self, req: falcon.Request, server_id: str, change: Callable[[Mapping[str, str]], Mapping[str, str]]) -> Mapping[str, str]:
        row = self.server(req, server_id, "os-server-metadata", unlocked=True)
        most = self.context.conf.api.metadata_items
        with self.context.db.write() as conn:
            current = instances.get_row(conn, row["uuid"], for_update=True)
            check_state(current, "update metadata", _WRITABLE, None)
            changed = change(current["metadata"])
            if 0 <= most < len(changed):
                raise Forbidden(reason=f"Maximum number of metadata items exceeds {most}")
            instances.update(conn, row["uuid"], metadata=dict(changed))
        return changed


class ServerTags(Resource):
    """Tags: words."""

    @available(since=26)
    def on_get(self, req: falcon.Request, resp: falcon.Response, server_id: str) -> None:
        """All tags."""
        send(resp, {"tags": self.server(req, server_id, "os-server-tags")["tags"]})

    @available(since=26)
    def on_put(self, req: falcon.Request, resp: falcon.Response, server_id: str) -> None:
        """Have exactly these tags."""
        given = list(unique(self.body(req, schemas.TAGS)["tags"]))
        self._change(req, server_id, lambda _present: given)
        send(resp, {"tags": given})

    @available(since=26)
    def on_delete(self, req: falcon.Request, resp: falcon.Response, server_id: str) -> None:
        """Have none."""
        self._change(req, server_id, lambda _present: [])
        resp.status = 204

    @available(since=26)
    def on_get_one(self, req: falcon.Request, resp: falcon.Response, server_id: str, tag: str) -> None:
        """Whether it has the tag."""
        row = self.server(req, server_id, "os-server-tags")
        if tag not in row["tags"]:
            raise TagNotFound(server=row["uuid"], id=tag)
        resp.status = 204

    @available(since=26)
    def on_put_one(self, req: falcon.Request, resp: falcon.Response, server_id: str, tag: str) -> None:
        """Add a tag."""
        _TAG.check(tag, 1)
        present: list[str] = []

        def with_it(tags: list[str]) -> list[str]:
            present.extend(tags)
            if tag not in tags and len(tags) >= _MAX_TAGS:
                raise BadRequest(f"The number of tags exceeded the per-server limit {_MAX_TAGS}")
            return tags if tag in tags else [*tags, tag]

        self._change(req, server_id, with_it)
        resp.status = 204 if tag in present else 201
        if resp.status == 201:
            resp.location = f"{base_url(req, self.context.conf)}/v2.1/servers/{server_id}/tags/{tag}"

    @available(since=26)
    def on_delete_one(self, req: falcon.Request, resp: falcon.Response, server_id: str, tag: str) -> None:
        """Remove a tag."""

        def without(tags: list[str]) -> list[str]:
            if tag not in tags:
                raise TagNotFound(server=server_id, id=tag)
            return [each for each in tags if each != tag]

        self._change(req, server_id, without)
        resp.status = 204

    def _change(self, req: falcon.Request, server_id: str, change: Callable[[list[str]], list[Any]]) -> None:
        row = self.server(req, server_id, "os-server-tags", unlocked=True)
        with self.context.db.write() as conn:
            current = instances.get_row(conn, row["uuid"], for_update=True)
            check_state(current, "update tags", _WRITABLE, None)
            instances.update(conn, row["uuid"], tags=change(current["tags"]))
