"""Records of ports, volumes and images in memory, for tests of the local drivers without a database.

They keep to the Store protocols of the drivers' contracts. Not for: testing the records themselves; the real ones are in
persistence.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import replace

from hullwright.objects.errors import (
    FixedIpAlreadyInUse,
    ImageNotFound,
    NetworkNotFound,
    PortInUse,
    PortNotFound,
    VolumeError,
    VolumeInvalidState,
    VolumeNotFound,
)
from hullwright.objects.hosts import HostRef
from hullwright.objects.images import Image
from hullwright.objects.networks import FixedIp, Network, NetworkRequest, Port
from hullwright.objects.volumes import Attachment, BlockDeviceRequest, Volume


class MemoryPortStore:
    """Networks and ports. A network's first subnet gives addresses from .10 on."""

    def __init__(self, *networks: Network) -> None:
        self.networks = {network.id: network for network in networks}
        self.ports: dict[str, Port] = {}
        self._lock = threading.RLock()
        self._made = 0

    def network(self, network_id: str) -> Network:
        try:
            return self.networks[network_id]
        except KeyError:
            raise NetworkNotFound(id=network_id) from None

    def known_macs(self, macs: Sequence[str]) -> set[str]:
        return {port.mac_address for port in self.ports.values()} & set(macs)

    def ensure_ports(self, instance_uuid: str, project_id: str, requests: Sequence[NetworkRequest]) -> list[Port]:
        with self._lock:
            return [self._ensure(instance_uuid, project_id, request) for request in requests]

    def _ensure(self, instance_uuid: str, project_id: str, request: NetworkRequest) -> Port:
        port = self.ports.get(request.port_id)
        if port is None:
            if request.user_port:
                raise PortNotFound(id=request.port_id)
            port = self._make(project_id, request)
        elif port.device_id not in (None, instance_uuid):
            raise PortInUse(id=port.id)
        self.ports[port.id] = replace(port, device_id=instance_uuid)
        return self.ports[port.id]

    def _make(self, project_id: str, request: NetworkRequest) -> Port:
        network = self.network(request.network_id)
        self._made += 1
        fixed: tuple[FixedIp, ...] = ()
        if network.subnets:
            address = request.fixed_ip or network.subnets[0].cidr.rsplit(".", 1)[0] + f".{9 + self._made}"
            if any(have.address == address for port in self.ports.values() for have in port.fixed_ips):
                raise FixedIpAlreadyInUse(address=address, network=network.id)
            fixed = (FixedIp(network.subnets[0].id, address),)
        return Port(
            id=request.port_id,
            network_id=network.id,
            mac_address=f"fa:16:3e:00:{self._made >> 8:02x}:{self._made & 255:02x}",
            fixed_ips=fixed,
            created_by_build=True,
            project_id=project_id,
            tag=request.tag,
        )

    def ports_of(self, instance_uuid: str) -> list[Port]:
        with self._lock:
            return [port for port in self.ports.values() if port.device_id == instance_uuid]

    def bind(self, port_ids: Sequence[str], host: str | None) -> None:
        with self._lock:
            for port_id in port_ids:
                self.ports[port_id] = replace(self.ports[port_id], host=host)

    def release(self, instance_uuid: str) -> None:
        with self._lock:
            for port in self.ports_of(instance_uuid):
                if port.created_by_build:
                    del self.ports[port.id]
                else:
                    self.ports[port.id] = replace(port, device_id=None, host=None)


class MemoryVolumeStore:
    """Volumes and attachments."""

    def __init__(self, *hosts: HostRef) -> None:
        self.hosts = {host.name: host for host in hosts}
        self.volumes: dict[str, Volume] = {}
        self.attachments: dict[str, Attachment] = {}
        self._lock = threading.RLock()

    def volume(self, volume_id: str) -> Volume:
        try:
            return self.volumes[volume_id]
        except KeyError:
            raise VolumeNotFound(id=volume_id) from None

    def reserve(self, instance_uuid: str, project_id: str, user_id: str, devices: Sequence[BlockDeviceRequest]) -> list[Attachment]:
        with self._lock:
            return [self._reserve(instance_uuid, project_id, user_id, device) for device in devices]

    def _reserve(self, instance_uuid: str, project_id: str, user_id: str, device: BlockDeviceRequest) -> Attachment:
        if device.attachment_id in self.attachments:
            return self.attachments[device.attachment_id]
        if device.created_by_build:
            made = Volume(device.volume_id, "", device.size_gb or 1, "creating", image_id=device.image_id, project_id=project_id)
            self.volumes.setdefault(device.volume_id, made)
        else:
            volume = self.volume(device.volume_id)
            if volume.status != "available":
                raise VolumeInvalidState(id=volume.id, state=volume.status, wanted="available")
            self._set_status(volume.id, "reserved")
        attachment = Attachment(
            device.attachment_id,
            device.volume_id,
            instance_uuid,
            delete_on_termination=device.delete_on_termination,
            created_by_build=device.created_by_build,
            boot_index=device.boot_index,
        )
        self.attachments[attachment.id] = attachment
        return attachment

    def attachments_of(self, instance_uuid: str) -> list[Attachment]:
        with self._lock:
            return [found for found in self.attachments.values() if found.instance_uuid == instance_uuid]

    def _set_status(self, volume_id: str, status: str) -> None:
        with self._lock:
            self.volumes[volume_id] = replace(self.volumes[volume_id], status=status)

    def mark_attached(self, attachment_ids: Sequence[str], host: str) -> None:
        with self._lock:
            for attachment_id in attachment_ids:
                self.attachments[attachment_id] = replace(self.attachments[attachment_id], host=host, state="attached")
                self._set_status(self.attachments[attachment_id].volume_id, "in-use")

    def mark_detached(self, instance_uuid: str, host: str) -> None:
        with self._lock:
            for attachment in self.attachments_of(instance_uuid):
                if attachment.host == host:
                    self.attachments[attachment.id] = replace(attachment, host=None, state="reserved")
                    if self.volumes[attachment.volume_id].status == "in-use":
                        self._set_status(attachment.volume_id, "reserved")

    def mark_unmade(self, instance_uuid: str) -> None:
        with self._lock:
            for attachment in self.attachments_of(instance_uuid):
                volume = self.volumes[attachment.volume_id]
                if attachment.created_by_build and (volume.host, volume.status) == (None, "reserved"):
                    self._set_status(volume.id, "creating")

    def begin_cleaning(self, volume_id: str, host: str, *, instance_uuid: str | None, shared: bool) -> bool:
        with self._lock:
            volume = self.volume(volume_id)
            wanted = any(
                found.volume_id == volume_id and found.instance_uuid != instance_uuid and volume.status != "deleting"
                for found in self.attachments.values()
            )
            if volume.cleaning_on not in (None, host):
                raise VolumeError(volume=volume_id, reason="it is being cleaned")
            is_left_over = not wanted if volume.host is None else volume.host != host and not shared
            if is_left_over:
                self.volumes[volume_id] = replace(volume, cleaning_on=host)
            return is_left_over

    def end_cleaning(self, volume_id: str, host: str) -> None:
        with self._lock:
            self.volumes[volume_id] = replace(self.volumes[volume_id], cleaning_on=None)

    def place(self, volume_id: str, host: str | None, attachment_id: str | None) -> None:
        with self._lock:
            self.volumes[volume_id] = replace(self.volumes[volume_id], host=host, placed_by=attachment_id)

    def home(self, volume_id: str) -> HostRef | None:
        volume = self.volumes.get(volume_id)
        return None if volume is None or volume.host is None else self.hosts.get(volume.host)

    def release(self, instance_uuid: str, *, undo: bool = False) -> list[Volume]:
        with self._lock:
            doomed = []
            for attachment in self.attachments_of(instance_uuid):
                volume = self.volumes[attachment.volume_id]
                unfinished = attachment.created_by_build and volume.status in ("creating", "error")
                if attachment.created_by_build if undo else attachment.delete_on_termination or unfinished:
                    self._set_status(volume.id, "deleting")
                    doomed.append(self.volumes[volume.id])
                else:
                    self._set_status(volume.id, "available")
                    del self.attachments[attachment.id]
            return doomed

    def forget_volume(self, volume_id: str) -> None:
        with self._lock:
            self.volumes.pop(volume_id, None)
            for attachment in [found for found in self.attachments.values() if found.volume_id == volume_id]:
                del self.attachments[attachment.id]


class MemoryImageStore:
    """Records of images."""

    def __init__(self) -> None:
        self.images: dict[str, Image] = {}

    def image(self, image_id: str) -> Image:
        try:
            return self.images[image_id]
        except KeyError:
            raise ImageNotFound(id=image_id) from None
