"""Finds drivers by name (entry points) and keeps one of each; steps ask here at execute time, so a graph needs no hypervisor to be drawn.

Not for: choosing a host. The stores that embedded services keep their records in are handed in; drivers know no database.
"""

from __future__ import annotations

import contextlib
import threading
from importlib.metadata import entry_points
from typing import Any, cast

from hullwright.drivers.image.contract import ImageDriver, ImageStore
from hullwright.drivers.network.contract import NetworkDriver, PortStore
from hullwright.drivers.virt.contract import VirtDriver
from hullwright.drivers.volume.contract import ImageReader, VolumeDriver, VolumeStore
from hullwright.objects.errors import HullwrightError
from hullwright.objects.hosts import HostRef


class DriverNotFound(HullwrightError):
    """The configuration names a driver that is not installed."""

    message = "No {kind} driver is called {name!r}; there are: {known}"


def load(kind: str, name: str) -> Any:
    """The driver class `name` of a kind: virt, network, volume or image.

    Raises: DriverNotFound.
    """
    found = {entry.name: entry for entry in entry_points(group=f"hullwright.{kind}")}
    if name not in found:
        raise DriverNotFound(kind=kind, name=name, known=", ".join(sorted(found)) or "none")
    return found[name].load()


class Drivers:
    """One object per driver and, for hypervisors, per host. Safe to use from many threads."""

    def __init__(
        self, conf: Any, *, ports: PortStore, volumes: VolumeStore, images: ImageStore, image_reader: ImageReader | None = None
    ) -> None:
        self._conf = conf
        self._stores: dict[str, dict[str, Any]] = {
            "network": {"ports": ports},
            "volume": {"volumes": volumes},
            "image": {"images": images},
        }
        self._image_reader = image_reader
        self._lock = threading.RLock()
        self._services: dict[str, Any] = {}
        self._hypervisors: dict[HostRef, VirtDriver] = {}

    def virt(self, host: HostRef) -> VirtDriver:
        """The hypervisor of a host."""
        found = self._hypervisors.get(host)
        if found is None:
            with self._lock:
                if host not in self._hypervisors:
                    self._hypervisors[host] = load("virt", host.driver)(host, self._conf)
                found = self._hypervisors[host]
        return found

    def _service(self, kind: str) -> Any:
        found = self._services.get(kind)
        if found is None:
            with self._lock:
                if kind not in self._services:
                    given = dict(self._stores[kind])
                    if kind == "volume":  # volumes are made from the image service's images
                        given["images"] = self._image_reader or self.image
                    self._services[kind] = load(kind, self._conf[kind].driver)(self._conf, **given)
                found = self._services[kind]
        return found

    @property
    def network(self) -> NetworkDriver:
        """The network service."""
        return cast(NetworkDriver, self._service("network"))

    @property
    def volume(self) -> VolumeDriver:
        """The volume service."""
        return cast(VolumeDriver, self._service("volume"))

    @property
    def image(self) -> ImageDriver:
        """The image service."""
        return cast(ImageDriver, self._service("image"))

    def close(self) -> None:
        """Give all connections back."""
        with self._lock:
            for driver in [*self._hypervisors.values(), *self._services.values()]:
                with contextlib.suppress(HullwrightError):
                    driver.close()
            self._hypervisors.clear()
            self._services.clear()
