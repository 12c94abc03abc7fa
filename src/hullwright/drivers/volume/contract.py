"""What Hullwright asks of a volume service, shaped as Cinder's attachments are: reserve, connect with a host's connector, disconnect.

Volume and attachment ids are chosen by the caller. A service whose volumes are tied to hosts says so by `Volume.host` of its records:
a server with such a volume is built there and nowhere else. Where any host reaches any volume, as with Cinder, it stays None.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from typing import Protocol

from hullwright.objects.hosts import HostRef
from hullwright.objects.images import Image
from hullwright.objects.volumes import Attachment, BlockDeviceRequest, Connection, Volume

ReportProgress = Callable[[int, int], None]  # (bytes done, bytes in all so far); may raise to stop the transfer


def no_report(_done: int, _total: int) -> None:
    """Nobody wants to know."""


class VolumeStore(Protocol):
    """The record of volumes and attachments that the embedded volume service keeps. The caller hands one to the local driver."""

    def volume(self, volume_id: str) -> Volume:
        """Raises: VolumeNotFound."""
        ...

    def reserve(self, instance_uuid: str, project_id: str, user_id: str, devices: Sequence[BlockDeviceRequest]) -> list[Attachment]:
        """Have an attachment for each device, and rows for the volumes that the build makes, in one transaction.

        Raises: VolumeNotFound, VolumeInvalidState.
        """
        ...

    def attachments_of(self, instance_uuid: str) -> list[Attachment]:
        """The attachments of an instance, in boot order, then that of the request."""
        ...

    def mark_attached(self, attachment_ids: Sequence[str], host: str) -> None:
        """Record where attachments are connected; their volumes are in use."""
        ...

    def mark_detached(self, instance_uuid: str, host: str) -> None:
        """Record that an instance's attachments are connected on this host no more; those that are elsewhere meanwhile stay so."""
        ...

    def mark_unmade(self, instance_uuid: str) -> None:
        """Have the volumes that a build makes count as not made yet if they are nowhere. One that is connected meanwhile stays in use."""
        ...

    def begin_cleaning(self, volume_id: str, host: str, *, instance_uuid: str | None, shared: bool) -> bool:
        """Mark that a volume's bytes on a host are being deleted, if they are left over there: it is nowhere, and nobody but
        `instance_uuid` is about to use it; or it is elsewhere, and bytes are not `shared`. Nobody may begin to use it in between.

        Raises: VolumeNotFound; VolumeError while they are being deleted on another host.
        """
        ...

    def end_cleaning(self, volume_id: str, host: str) -> None:
        """Take the mark away."""
        ...

    def place(self, volume_id: str, host: str | None, attachment_id: str | None) -> None:
        """Record on which host a volume's bytes are, and the attachment for which they were made; None: nowhere."""
        ...

    def home(self, volume_id: str) -> HostRef | None:
        """The host where a volume's bytes are; None when they are nowhere, or on a host that is no longer registered."""
        ...

    def release(self, instance_uuid: str, *, undo: bool = False) -> list[Volume]:
        """Delete the instance's attachments, free its volumes; answer those that are to be deleted with it.

        `undo`: a build is undone: those that it made, and none that the user gave, however it is marked.
        """
        ...

    def forget_volume(self, volume_id: str) -> None:
        """Delete a volume's row; gone is done."""
        ...


class ImageReader(Protocol):
    """Where the bytes of a volume made from an image come from: an image driver, seen from a volume service."""

    def show(self, image_id: str) -> Image:
        """Raises: ImageNotFound."""
        ...

    def read(self, image: Image, offset: int = 0) -> Iterator[bytes]:
        """Yield the bytes from `offset` on, in chunks.

        Raises: ImageUnavailable.
        """
        ...


class VolumeDriver(ABC):
    """A volume service."""

    @abstractmethod
    def reserve(self, instance_uuid: str, project_id: str, user_id: str, devices: Sequence[BlockDeviceRequest]) -> list[Attachment]:
        """Reserve existing volumes for the instance, make new ones. Survives a reschedule.

        Raises: VolumeNotFound, VolumeInvalidState, VolumeError.
        """

    @abstractmethod
    def release(self, instance_uuid: str, *, undo: bool = False) -> None:
        """Leave no attachment of the instance; delete volumes marked so; the others become available. Gone is done.

        `undo`: a build is undone: volumes that it made are deleted, those that the user gave become available, however they are marked.

        Raises: VolumeError when a host refuses to delete bytes, HypervisorUnavailable when it is silent: all else is done by then, and a
        later call goes on with them.
        """

    @abstractmethod
    def connect(self, host: HostRef, instance_uuid: str, progress: ReportProgress = no_report) -> list[tuple[Attachment, Connection]]:
        """Make the instance's volumes reachable from the host. `progress` is told of bytes that are sent there.

        Raises: VolumeConnectError, VolumeError, HypervisorUnavailable, HostDiskFull, ImageUnacceptable, ImageUnavailable, ImageCorrupt.
        """

    @abstractmethod
    def disconnect(self, host: HostRef, instance_uuid: str, *, discard: bool = False) -> None:
        """Undo `connect`; the reservation stays.

        `discard`: the build is undone, so bytes that `connect` made for it on this host go too, and the next host makes its own.
        Without it no byte is lost.

        Raises: VolumeError, HypervisorUnavailable.
        """

    @abstractmethod
    def clean(self, host: HostRef, volume_ids: Sequence[str], *, instance_uuid: str | None = None, lives_elsewhere: bool = False) -> None:
        """Leave no bytes on the host of those of the volumes that are on record as deleted, as elsewhere, or as made nowhere yet.

        These are of a `connect` that was cut off before it could say that it had made them. What another instance than `instance_uuid` is
        about to use is left alone. `lives_elsewhere`: the instance is, or is about to be, on another host: shared bytes stay.

        Raises: VolumeError, HypervisorUnavailable.
        """

    @abstractmethod
    def on_host(self, host: HostRef) -> Sequence[str]:
        """Ids of the volumes that have bytes on the host.

        Raises: VolumeError, HypervisorUnavailable.
        """

    @abstractmethod
    def create(self, volume: Volume) -> Volume:
        """Make an empty or image-filled volume whose row is there with status creating.

        Raises: VolumeError, ImageUnavailable.
        """

    @abstractmethod
    def delete(self, volume_id: str) -> None:
        """Leave nothing of the volume's bytes.

        Raises: VolumeError, HypervisorUnavailable.
        """

    @abstractmethod
    def close(self) -> None:
        """Give connections back."""
