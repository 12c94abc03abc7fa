"""For tests and benchmarks: a hypervisor that keeps records instead of running guests, fast, and breaks as it is told.

Its host is a directory (`fake:///directory` or `fake://name`, see `drivers/fake_host`), shared by all processes. Facts
come from the URI's query (`?vcpus=64&memory_mb=262144&disk_gb=2000&metrics=cpu.percent:7,cpu.frequency:2400`) or from
`facts.json` in the directory, which is read again when it changes. An image's bytes are really read from their source and
checked; only how many came is kept.
Not for: production. Nothing runs here.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Collection
from dataclasses import replace
from typing import Any

from hullwright.drivers.fake_host import FakeHost
from hullwright.drivers.virt.contract import ImageSource, ReportProgress, VirtDriver, WatchGuests, no_report
from hullwright.drivers.virt.fake.state import Guests, Watch, alone_with_image
from hullwright.objects.errors import FlavorDiskTooSmall, HypervisorError, ImageCorrupt, InstanceNotFound
from hullwright.objects.guests import GuestInfo, GuestSpec
from hullwright.objects.hosts import IMAGES_TOLD_MAX, HostFacts, HostRef
from hullwright.objects.images import CachedImage, Image
from hullwright.objects.states import PowerState

GIB = 1 << 30


class FakeDriver(VirtDriver):
    """Speaks for one fake host."""

    def __init__(self, host: HostRef, conf: Any) -> None:
        self.host = FakeHost(host, conf.state_path)
        self._guests = Guests(self.host)
        self._watch: Watch | None = None
        self._facts: tuple[int, HostFacts] | None = None  # stamp of facts.json, what it said

    def facts(self) -> HostFacts:
        """Inventory and capabilities, from the URI and `facts.json`."""
        with self.host.call("facts"):
            path = self.host.directory / "facts.json"
            try:
                stamp = os.stat(path).st_mtime_ns
            except FileNotFoundError:
                stamp = 0
            if self._facts is None or self._facts[0] != stamp:
                told = json.loads(path.read_text()) if stamp else {}
                self._facts = (stamp, self._read_facts(told))
            return replace(self._facts[1], cached_images=tuple(sorted(self.host.things.all("images")))[:IMAGES_TOLD_MAX])

    def _read_facts(self, told: dict[str, Any]) -> HostFacts:
        numbers = {"vcpus": 64, "memory_mb": 262_144, "disk_gb": 4_000}
        numbers |= {key: int(self.host.parameters[key]) for key in numbers if key in self.host.parameters}
        metrics = self.host.parameters.get("metrics", "")
        defaults = {
            "hostname": self.host.parameters.get("name", self.host.name),
            "hypervisor_type": "fake",
            "hypervisor_version": 1_000_000,
            "cpu_model": "fake",
            "machine_types": ["pc", "q35"],
            "metrics": {name: float(number) for name, _, number in (each.partition(":") for each in metrics.split(",") if each)},
            **numbers,
            "disk_free_gb": numbers["disk_gb"],
        }
        return HostFacts.from_dict(defaults | told)

    def ensure_image(self, image: Image, source: ImageSource, progress: ReportProgress) -> CachedImage:
        """Read the image from where an earlier transfer stopped, check it, and record that it is here."""
        with self.host.call("ensure_image", image.id):
            if self.host.things.get("images", image.id) is None:
                with alone_with_image(self.host, image.id):
                    if self.host.things.get("images", image.id) is None:
                        self._transfer(image, source, progress)
        return CachedImage(
            image_id=image.id,
            path=str(self.host.directory / "images" / image.id),
            disk_format=image.disk_format or "raw",
            size_bytes=image.size_bytes,
            virtual_size_bytes=image.virtual_size_bytes or image.size_bytes,
        )

    def _transfer(self, image: Image, source: ImageSource, progress: ReportProgress) -> None:
        start = done = (self.host.things.get("parts", image.id) or {"done": 0})["done"]
        digest = hashlib.sha256()
        for chunk in source.read(image, start):
            digest.update(chunk)
            done += len(chunk)
            self.host.things.put("parts", image.id, {"done": done}, None)
            progress(done, image.size_bytes)
            self.host.halfway("ensure_image", image.id)
        wrong = None
        if done != image.size_bytes:
            wrong = f"{done} of {image.size_bytes} bytes came"
        elif start == 0 and image.checksum_sha256 not in (None, digest.hexdigest()):
            wrong = "its SHA-256 is not the image's"  # of a transfer that was resumed the earlier bytes are gone
        if wrong:
            self.host.things.drop("parts", image.id, None)
            raise ImageCorrupt(image=image.id, host=self.host.name, reason=wrong)
        self.host.things.put("images", image.id, {"size_bytes": done, "resumed_at": start}, "image")
        self.host.things.drop("parts", image.id, None)

    def spawn(self, guest: GuestSpec, progress: ReportProgress = no_report) -> None:
        """Record the guest, first paused, then running."""
        with self.host.call("spawn", guest.uuid):
            image = guest.image
            if image is not None and guest.root_gb and image.virtual_size_bytes > guest.root_gb * GIB:
                raise FlavorDiskTooSmall(flavor_bytes=guest.root_gb * GIB, image_bytes=image.virtual_size_bytes)
            found = self._guests.define(guest)
            self.host.halfway("spawn", guest.uuid)
            self._guests.switch(found, PowerState.RUNNING, "start")

    def destroy(self, uuid: str, *, lives_elsewhere: bool = False) -> None:
        """Remove the guest's record; fake hosts share nothing."""
        with self.host.call("destroy", uuid):
            found = self._guests.find(uuid)
            if found is not None and not found["ours"]:
                reason = f"{found['name']} was not made by Hullwright"
                raise HypervisorError(operation=f"destroy {uuid}", host=self.host.name, reason=reason)
            self._guests.remove(uuid)

    def power_state(self, uuid: str) -> PowerState | None:
        """What the record says."""
        with self.host.call("power_state", uuid):
            found = self._guests.find(uuid)
            return None if found is None else PowerState(found["power_state"])

    def guests(self) -> list[GuestInfo]:
        """All records."""
        with self.host.call("guests"):
            return self._guests.all()

    def leftovers(self) -> list[str]:
        """Uuids that have a guest or a thing in `disks`."""
        with self.host.call("leftovers"):
            return self._guests.with_files()

    def console_log(self, uuid: str, max_bytes: int = 102_400) -> bytes:
        """A line per start of the guest."""
        with self.host.call("console_log", uuid):
            found = self._guests.find(uuid)
            if found is None:
                return b""
            line = f"fake guest {found['name']} hostname={found['hostname']} start"
            text = "".join(f"{line} {n + 1}\n" for n in range(found["starts"])).encode()
            return text[-max_bytes:] if max_bytes > 0 else b""

    def power_on(self, uuid: str) -> None:
        """Set the record running."""
        with self.host.call("power_on", uuid):
            self._guests.switch(self._existing(uuid), PowerState.RUNNING, "start")

    def power_off(self, uuid: str, timeout_seconds: float = 60.0) -> None:
        """Set the record shut off, at once."""
        with self.host.call("power_off", uuid):
            self._guests.switch(self._existing(uuid), PowerState.SHUTDOWN, "stop")

    def reboot(self, uuid: str, hard: bool) -> None:
        """Set the record running, counted as one more start."""
        with self.host.call("reboot", uuid):
            self._guests.switch(self._existing(uuid), PowerState.RUNNING, "reboot")

    def half_images(self) -> dict[str, str]:
        """What transfers have left, with how far they came."""
        with self.host.call("half_images"):
            return {image_id: str(part["done"]) for image_id, part in self.host.things.all("parts").items()}

    def discard_half_image(self, image_id: str) -> bool:
        """Forget the part, unless a transfer holds it."""
        with self.host.call("discard_half_image", image_id), alone_with_image(self.host, image_id, wait=False) as alone:
            return alone and self.host.things.drop("parts", image_id, "discard_part")

    def damaged_images(self, *, deep: bool = False, only: Collection[str] | None = None) -> dict[str, str]:
        """Those that a test gave a `damage`."""
        with self.host.call("damaged_images"):
            things = self.host.things.all("images")
        return {image_id: thing["damage"] for image_id, thing in things.items() if "damage" in thing and (only is None or image_id in only)}

    def evict_image(self, image_id: str) -> list[str] | None:
        """Forget it, unless guests were made from it."""
        with self.host.call("evict_image", image_id):
            if "damage" not in (self.host.things.get("images", image_id) or {}):
                return None
            standing = [guest["name"] for guest in self.host.things.all("guests").values() if guest.get("image_id") == image_id]
            if not standing:
                self.host.things.drop("images", image_id, "evict")
            return standing

    def watch(self, tell: WatchGuests) -> bool:
        """Follow the journal, where the host's URI asks for it (`?events=1`): a thread for each of thousands of hosts would cost."""
        if "events" not in self.host.parameters:
            return False
        if self._watch is None:
            self._watch = Watch(self.host, tell)
        return True

    def _existing(self, uuid: str) -> dict[str, Any]:
        found = self._guests.find(uuid)
        if found is None:
            raise InstanceNotFound(id=uuid)
        return found

    def close(self) -> None:
        """Stop watching; nothing else is held open."""
        if self._watch is not None:
            self._watch.stop()
