"""For tests and benchmarks: guests and cached images of a fake hypervisor, as things on a fake host.

Rooms: `guests`, `images` (whole ones), `parts` (how far a transfer came), `disks` (instances with files but no guest; put
there by tests only). Not for: deciding what a call means; see `driver`.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import threading
from collections.abc import Callable, Iterator
from typing import Any

from hullwright.drivers.fake_host import FakeHost
from hullwright.objects.guests import GuestInfo, GuestSpec
from hullwright.objects.states import PowerState


def describe(guest: GuestSpec) -> dict[str, Any]:
    """What is kept of a guest. Of the config drive only digests: it may hold secrets."""
    files = guest.config_drive_files
    digests = None if files is None else {path: hashlib.sha256(data).hexdigest() for path, data in files.items()}
    return {
        "uuid": guest.uuid,
        "name": guest.name,
        "hostname": guest.hostname,
        "vcpus": guest.vcpus,
        "memory_mb": guest.memory_mb,
        "root_gb": guest.root_gb,
        "image_id": guest.image.image_id if guest.image else None,
        "ports": [vif.port_id for vif in guest.vifs],
        "volumes": [volume.connection.volume_id for volume in guest.volumes],
        "config_drive": digests,
        "ours": True,
        "power_state": int(PowerState.PAUSED),
        "starts": 0,
    }


class Guests:
    """The guests of a host."""

    def __init__(self, host: FakeHost) -> None:
        self._things = host.things

    def define(self, guest: GuestSpec) -> dict[str, Any]:
        """Have the guest, paused when it is new."""
        thing = describe(guest)
        self._things.make("guests", guest.uuid, thing, "define")
        return self.find(guest.uuid) or thing

    def find(self, uuid: str) -> dict[str, Any] | None:
        """The guest's record, or None."""
        return self._things.get("guests", uuid)

    def switch(self, guest: dict[str, Any], state: PowerState, effect: str) -> None:
        """Have the guest in a power state; the effect is recorded when that changed anything."""
        starts = guest["starts"] + (effect in ("start", "reboot"))
        if guest["power_state"] != state or effect == "reboot":
            self._things.change("guests", guest["uuid"], {"power_state": int(state), "starts": starts}, effect)

    def remove(self, uuid: str) -> None:
        """Have the guest and its files gone."""
        self._things.drop("guests", uuid, "destroy")
        self._things.drop("disks", uuid, "remove_files")

    def all(self) -> list[GuestInfo]:
        """Every guest."""
        return [
            GuestInfo(uuid, guest["name"], PowerState(guest["power_state"]), guest["ours"])
            for uuid, guest in self._things.all("guests").items()
        ]

    def with_files(self) -> list[str]:
        """Uuids of instances that have files here."""
        return sorted({*self._things.all("disks"), *self._things.all("guests")})


class Watch:
    """A thread that tells which guests change power state on a host, whoever changed them."""

    def __init__(self, host: FakeHost, tell: Callable[[str], None], pause_seconds: float = 0.05) -> None:
        self._things = host.things
        self._tell = tell
        self._pause_seconds = pause_seconds
        self._stop = threading.Event()
        self._seen = self._look()
        threading.Thread(target=self._follow, name=f"watch-{host.name}", daemon=True).start()

    def _look(self) -> dict[str, int]:
        return {uuid: guest["power_state"] for uuid, guest in self._things.all("guests").items()}

    def _follow(self) -> None:
        while not self._stop.wait(self._pause_seconds):
            found = self._look()
            changed = [uuid for uuid in {*found, *self._seen} if found.get(uuid) != self._seen.get(uuid)]
            self._seen = found
            for uuid in changed:
                self._tell(uuid)

    def stop(self) -> None:
        """Tell no more."""
        self._stop.set()


@contextlib.contextmanager
def alone_with_image(host: FakeHost, image_id: str, *, wait: bool = True) -> Iterator[bool]:
    """Keep other threads and processes from the same transfer meanwhile; a killed owner frees it.

    `wait`: False yields False at once when somebody else has it.
    """
    locks = host.directory / "locks"
    locks.mkdir(parents=True, exist_ok=True)
    handle = os.open(locks / image_id, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError:
            yield False
        else:
            yield True
    finally:
        os.close(handle)
