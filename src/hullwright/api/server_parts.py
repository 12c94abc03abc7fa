"""What a server consists of, read only: /servers/{id}/ips, os-interface, os-volume_attachments.

Attaching and detaching while the server lives are not served, see `unsupported`.
"""

from __future__ import annotations

from typing import Any

import falcon
from sqlalchemy.engine import RowMapping

from hullwright.api.context import microversion
from hullwright.api.resource import Resource, send
from hullwright.api.server_views import addresses
from hullwright.objects.errors import NotFound
from hullwright.objects.networks import Port
from hullwright.objects.volumes import Attachment
from hullwright.persistence import ports, server_pages, volumes


class PartNotFound(NotFound):
    """The server has no such network, card or volume."""

    message = "Instance {server} has no {kind} {id}."


class ServerIps(Resource):
    """Addresses by network."""

    def on_get(self, req: falcon.Request, resp: falcon.Response, server_id: str) -> None:
        """All networks."""
        send(resp, {"addresses": self._addresses(req, server_id)})

    def on_get_network(self, req: falcon.Request, resp: falcon.Response, server_id: str, network: str) -> None:
        """One network, by name."""
        found = self._addresses(req, server_id)
        if network not in found:
            raise PartNotFound(server=server_id, kind="network", id=network)
        send(resp, {network: found[network]})

    def _addresses(self, req: falcon.Request, server_id: str) -> dict[str, list[dict[str, Any]]]:
        row = self.server(req, server_id, "servers:show")
        with self.context.db.read() as conn:
            related = server_pages.related(conn, [row])
        found = addresses(related.ports[row["uuid"]], related.network_names)
        return {name: [{"version": a["version"], "addr": a["addr"]} for a in cards] for name, cards in found.items()}


class ServerInterfaces(Resource):
    """Network cards."""

    def on_get(self, req: falcon.Request, resp: falcon.Response, server_id: str) -> None:
        """All cards, in order."""
        cards = [_card(port, microversion(req)) for port in self._ports(req, server_id)]
        send(resp, {"interfaceAttachments": cards})

    def on_get_one(self, req: falcon.Request, resp: falcon.Response, server_id: str, port_id: str) -> None:
        """One card, by its port."""
        for port in self._ports(req, server_id):
            if port.id == port_id:
                send(resp, {"interfaceAttachment": _card(port, microversion(req))})
                return
        raise PartNotFound(server=server_id, kind="port", id=port_id)

    def _ports(self, req: falcon.Request, server_id: str) -> list[Port]:
        row = self.server(req, server_id, "os-attach-interfaces")
        with self.context.db.read() as conn:
            return ports.of_instance(conn, row["uuid"])


def _card(port: Port, minor: int) -> dict[str, Any]:
    card: dict[str, Any] = {
        "port_id": port.id,
        "net_id": port.network_id,
        "mac_addr": port.mac_address,
        "port_state": "ACTIVE" if port.host else "DOWN",
        "fixed_ips": [{"subnet_id": fixed.subnet_id, "ip_address": fixed.address} for fixed in port.fixed_ips],
    }
    if minor >= 70:
        card["tag"] = port.tag
    return card


class ServerVolumes(Resource):
    """Attached volumes."""

    def on_get(self, req: falcon.Request, resp: falcon.Response, server_id: str) -> None:
        """All volumes, in order."""
        row, attachments = self._attachments(req, server_id)
        shown = [_volume(attachment, row, microversion(req)) for attachment in attachments]
        send(resp, {"volumeAttachments": shown})

    def on_get_one(self, req: falcon.Request, resp: falcon.Response, server_id: str, volume_id: str) -> None:
        """One volume."""
        row, attachments = self._attachments(req, server_id)
        for attachment in attachments:
            if attachment.volume_id == volume_id:
                send(resp, {"volumeAttachment": _volume(attachment, row, microversion(req))})
                return
        raise PartNotFound(server=server_id, kind="volume", id=volume_id)

    def _attachments(self, req: falcon.Request, server_id: str) -> tuple[RowMapping, list[Attachment]]:
        row = self.server(req, server_id, "os-volumes-attachments")
        with self.context.db.read() as conn:
            return row, volumes.of_instance(conn, row["uuid"])


def _volume(attachment: Attachment, row: RowMapping, minor: int) -> dict[str, Any]:
    shown: dict[str, Any] = {
        "serverId": attachment.instance_uuid,
        "volumeId": attachment.volume_id,
        "device": attachment.device,
    }
    if minor < 89:
        shown["id"] = attachment.volume_id
    else:
        shown["attachment_id"] = attachment.id
        shown["bdm_uuid"] = attachment.id
    if minor >= 70:
        asked = (device for device in row["spec"]["block_devices"] if device["attachment_id"] == attachment.id)
        shown["tag"] = next((device["tag"] for device in asked), None)
    if minor >= 79:
        shown["delete_on_termination"] = attachment.delete_on_termination
    return shown
