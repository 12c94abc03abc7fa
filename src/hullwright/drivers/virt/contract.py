"""What Hullwright asks of a hypervisor. One object speaks for one host.

Every call is idempotent and keyed by the instance's uuid: a step that runs twice finds what it made. "Gone" counts as done.
Drivers raise only errors from `objects.errors` and translate foreign ones once, at their edge.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import Protocol

from hullwright.objects.guests import GuestInfo, GuestSpec
from hullwright.objects.hosts import HostFacts
from hullwright.objects.images import CachedImage, Image
from hullwright.objects.states import PowerState

WatchGuests = Callable[[str], None]  # told the uuid of a guest whose power state may have changed, from any thread; returns at once
ReportProgress = Callable[[int, int], None]  # (bytes done, bytes in all); may raise to stop the transfer


def no_report(_done: int, _total: int) -> None:
    """Nobody wants to know."""


class ImageSource(Protocol):
    """Where an image's bytes come from: an image driver, seen from a hypervisor."""

    def read(self, image: Image, offset: int = 0) -> Iterator[bytes]:
        """Yield the bytes from `offset` on, in chunks.

        Raises: ImageUnavailable.
        """
        ...


class VirtDriver(ABC):
    """A hypervisor."""

    @abstractmethod
    def facts(self) -> HostFacts:
        """Inventory and capabilities, read now.

        Raises: HypervisorUnavailable.
        """

    @abstractmethod
    def ensure_image(self, image: Image, source: ImageSource, progress: ReportProgress) -> CachedImage:
        """Have the image whole and verified in the host's cache; send only what is missing.

        A transfer cut by a crash goes on at its offset. Concurrent calls for one image, also from several processes, make one whole file.

        Raises: ImageUnacceptable, ImageCorrupt, ImageUnavailable, HostDiskFull, HypervisorUnavailable.
        """

    @abstractmethod
    def spawn(self, guest: GuestSpec, progress: ReportProgress = no_report) -> None:
        """Have the guest running: disks made, config drive written, domain defined, started and resumed.

        When parts of it exist already (same uuid), goes on from there; never makes a second one. `progress` is told of disks that are
        copied in full.

        Raises: HypervisorError, GuestRefused (a kind of it: what the image or a block device asks for is what the host refuses),
        HostDiskFull, HypervisorUnavailable, FlavorDiskTooSmall, ImageUnacceptable (a kernel that is none).
        """

    @abstractmethod
    def destroy(self, uuid: str, *, lives_elsewhere: bool = False) -> None:
        """Leave nothing of the guest: domain, disks, config drive, console log. Volumes are not touched.

        `lives_elsewhere`: the instance is, or is about to be, on another host: files that hosts share are its own and stay.

        Raises: HypervisorError, HypervisorUnavailable.
        """

    @abstractmethod
    def power_state(self, uuid: str) -> PowerState | None:
        """The guest's power state, or None when there is no such guest."""

    @abstractmethod
    def guests(self) -> list[GuestInfo]:
        """All guests of the host, foreign ones too."""

    @abstractmethod
    def leftovers(self) -> list[str]:
        """Uuids of instances that have files on this host (disks, config drives, logs), with or without a domain."""

    @abstractmethod
    def console_log(self, uuid: str, max_bytes: int = 102_400) -> bytes:
        """The last bytes of the serial console's log; empty when there is none yet."""

    @abstractmethod
    def power_on(self, uuid: str) -> None:
        """Have the guest running."""

    @abstractmethod
    def power_off(self, uuid: str, timeout_seconds: float = 60.0) -> None:
        """Have the guest shut off: ask it (ACPI), then pull the plug after `timeout_seconds`; 0 pulls at once."""

    @abstractmethod
    def reboot(self, uuid: str, hard: bool) -> None:
        """Start the guest anew: `hard` pulls the plug first."""

    def half_images(self) -> Mapping[str, str]:
        """Images of which only a part is in the host's cache -> a mark that changes while somebody is at them."""
        return {}

    def discard_half_image(self, image_id: str) -> bool:
        """Leave nothing of an image that is not whole; False when somebody is at it, or it is whole or gone.

        Raises: HypervisorError, HypervisorUnavailable.
        """
        return False

    def damaged_images(self, *, deep: bool = False, only: Collection[str] | None = None) -> Mapping[str, str]:
        """Images in the host's cache that count as whole and are not what was verified there -> what is wrong with each.

        Those whose file was written to since then are read back and compared with their checksum; `deep`: all are, against disks that
        forget by themselves. `only`: these. Takes as long as the reading takes.
        Raises: HypervisorError, HypervisorUnavailable.
        """
        return {}

    def evict_image(self, image_id: str) -> Sequence[str] | None:
        """Leave nothing of a damaged image, so that the next build has it fetched anew; unless something stands on it.

        Answers the names of what does; none: it is gone. None: it is not damaged, or somebody is at it.
        Raises: HypervisorError, HypervisorUnavailable.
        """
        return None

    def watch(self, tell: WatchGuests) -> bool:
        """Call `tell` whenever a guest starts, stops or pauses, for as long as this driver is open; False when the hypervisor cannot.

        News may be lost with a connection. A second call does nothing.

        Raises: HypervisorUnavailable.
        """
        return False

    @abstractmethod
    def close(self) -> None:
        """Give connections back."""
