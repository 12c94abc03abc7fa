"""What the chosen host is prepared with before the guest: network cards, volumes, the base image."""

from __future__ import annotations

from typing import Any, ClassVar

from hullwright.flows.context import RunContext
from hullwright.flows.leftovers import clean_now_or_later
from hullwright.flows.step import Step
from hullwright.objects.errors import FlavorMemoryTooSmall
from hullwright.objects.images import CachedImage


class PlugNetwork(Step):
    """Prepares the host's network for the instance's ports.

    Reverts: takes the ports' entries off the host; the ports and their addresses stay reserved.
    """

    step_name = "plug_network"
    default_provides: ClassVar[str] = "vifs"

    def execute(self, run: RunContext, host: str) -> list[dict[str, Any]]:
        """Plug; answers the interfaces as `Vif` records."""
        if not run.spec.networks:
            return []
        return [vif.to_dict() for vif in run.network.plug(run.host_ref(host), run.instance_uuid, run.instance.hostname)]

    def revert(self, run: RunContext, host: str, **kwargs: Any) -> None:
        """Unplug."""
        if run.spec.networks:
            clean_now_or_later(run, host, lambda: run.network.unplug(run.host_ref(host), run.instance_uuid))


class ConnectVolumes(Step):
    """Makes the instance's volumes reachable from the host.

    Reverts: disconnects them; the reservations stay.
    """

    step_name = "connect_volumes"
    default_provides: ClassVar[str] = "connections"

    def execute(self, run: RunContext, host: str) -> list[dict[str, Any]]:
        """Connect; answers pairs of `Attachment` and `Connection` records."""
        if not run.spec.block_devices:
            return []
        volume, ref = run.volume, run.host_ref(host)
        pairs = volume.connect(ref, run.instance_uuid, lambda done, total: run.progress(self.name, done, total))
        return [{"attachment": attachment.to_dict(), "connection": connection.to_dict()} for attachment, connection in pairs]

    def revert(self, run: RunContext, host: str, **kwargs: Any) -> None:
        """Disconnect."""
        if run.spec.block_devices:
            clean_now_or_later(run, host, lambda: run.volume.disconnect(run.host_ref(host), run.instance_uuid, discard=True))


class FetchImage(Step):
    """Has the base image, and the kernel and ramdisk that it names, whole and verified in the host's cache.

    Reverts: nothing; a base image stays for the next build.
    """

    step_name = "fetch_image"
    default_provides: ClassVar[str] = "images"

    def execute(self, run: RunContext, host: str) -> dict[str, dict[str, Any]]:
        """Fetch what is missing; answers `CachedImage` records under root, kernel and ramdisk."""
        spec = run.spec
        if spec.image_id is None or spec.boots_from_volume:
            return {}
        if spec.image_min_ram_mb > spec.flavor.memory_mb:
            raise FlavorMemoryTooSmall(image_mb=spec.image_min_ram_mb, flavor_mb=spec.flavor.memory_mb)
        wanted = {
            "root": spec.image_id,
            "kernel": spec.image_properties.get("kernel_id"),
            "ramdisk": spec.image_properties.get("ramdisk_id"),
        }
        return {role: self._fetch(run, host, image_id).to_dict() for role, image_id in wanted.items() if image_id}

    def _fetch(self, run: RunContext, host: str, image_id: str) -> CachedImage:
        images = run.image
        image = images.show(image_id)
        return run.virt(host).ensure_image(image, images, lambda done, total: run.progress(self.name, done, total))

    def revert(self, run: RunContext, **kwargs: Any) -> None:
        """Nothing."""
