"""The embedded volume service: records from a store that the caller hands in, bytes in files on hosts.

A volume's bytes are made when it is first connected, on the host that it is connected to, and stay there: elsewhere it can be used
only if the hosts share their pool ([volume] shared). A build that is undone takes back the bytes that it made, so that it may go on
with another host. On a fake host it only records.
Not for: moving volumes between hosts, snapshots, quotas.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from hullwright.drivers import libvirt_storage as storage
from hullwright.drivers.fake_host import FakeHost, is_fake
from hullwright.drivers.volume.contract import ImageReader, ReportProgress, VolumeDriver, VolumeStore, no_report
from hullwright.drivers.volume.local.files import GIB, VolumeFile, VolumeFiles
from hullwright.objects.errors import (
    HypervisorError,
    HypervisorUnavailable,
    ImageNotFound,
    VolumeConnectError,
    VolumeElsewhere,
    VolumeError,
    VolumeNotFound,
)
from hullwright.objects.hosts import HostRef
from hullwright.objects.images import Image
from hullwright.objects.volumes import Attachment, BlockDeviceRequest, Connection, Volume

LOG = logging.getLogger(__name__)


class LocalVolumeDriver(VolumeDriver):
    """Volumes as files on hosts."""

    def __init__(self, conf: Any, volumes: VolumeStore, images: ImageReader | None) -> None:
        self._conf = conf
        self._volumes = volumes
        self._images = images

    # --- Records

    def reserve(self, instance_uuid: str, project_id: str, user_id: str, devices: Sequence[BlockDeviceRequest]) -> list[Attachment]:
        """Reserve existing volumes for the instance, write rows for new ones.

        Raises: VolumeNotFound, VolumeInvalidState.
        """
        return self._volumes.reserve(instance_uuid, project_id, user_id, devices) if devices else []

    def release(self, instance_uuid: str, *, undo: bool = False) -> None:
        """Free the instance's volumes; delete those marked so, or at the undo of a build those that it made.

        Raises: VolumeError when a host refuses, HypervisorUnavailable when it is silent: all else is done, and a later call goes on.
        """
        failed: VolumeError | HypervisorUnavailable | None = None
        for volume in self._volumes.release(instance_uuid, undo=undo):
            try:
                self.delete(volume.id)
            except (VolumeError, HypervisorUnavailable) as error:
                failed = error
            else:
                self._volumes.forget_volume(volume.id)
        if failed is not None:
            raise failed

    def create(self, volume: Volume) -> Volume:
        """Check that the volume can be made; its bytes come when it is first connected.

        Raises: VolumeError, ImageUnavailable.
        """
        if volume.image_id:
            image = self._image(volume)
            if (image.virtual_size_bytes or image.size_bytes) > volume.size_gb * GIB:
                raise VolumeError(volume=volume.id, reason=f"image {image.id} does not fit into {volume.size_gb} GB")
        return volume

    def delete(self, volume_id: str) -> None:
        """Leave nothing of the volume's bytes; a host that is no longer registered took them with it.

        Raises: VolumeError, HypervisorUnavailable.
        """
        try:
            volume = self._volumes.volume(volume_id)
        except VolumeNotFound:
            return
        if volume.host is None:
            return
        home = self._volumes.home(volume_id)
        if home is None:
            LOG.warning("Volume %s: its host %s is not registered any more; its file there is not deleted", volume_id, volume.host)
            return
        self._clean(home, volume_id)

    # --- On a host

    def connect(self, host: HostRef, instance_uuid: str, progress: ReportProgress = no_report) -> list[tuple[Attachment, Connection]]:
        """Have the bytes of the instance's volumes on the host and record the attachments.

        Raises: VolumeConnectError, VolumeError, HypervisorUnavailable, HostDiskFull, ImageUnacceptable, ImageUnavailable, ImageCorrupt.
        """
        attachments = self._volumes.attachments_of(instance_uuid)
        files: dict[str, VolumeFile] = {}
        told = _OneAfterTheOther(progress)
        with self._call(host, "connect", instance_uuid):
            for attachment in attachments:
                with _translated(host, attachment.volume_id):
                    files[attachment.volume_id] = self._have_bytes(host, attachment, told)
                told.next()
        pending = [attachment.id for attachment in attachments if (attachment.host, attachment.state) != (host.name, "attached")]
        if pending:
            self._volumes.mark_attached(pending, host.name)
            attachments = self._volumes.attachments_of(instance_uuid)
        return [(attachment, _connection(attachment.volume_id, files[attachment.volume_id])) for attachment in attachments]

    def disconnect(self, host: HostRef, instance_uuid: str, *, discard: bool = False) -> None:
        """Record that the volumes are attached nowhere. `discard`: also take back the bytes that `connect` made for this build.

        Raises: VolumeError, HypervisorUnavailable.
        """
        attachments = self._volumes.attachments_of(instance_uuid)
        with self._call(host, "disconnect", instance_uuid):
            if discard:
                for attachment in attachments:
                    self._discard(host, attachment)
            # Each of these holds for what is so at its own moment: a late cleaning of this host may meet a build that goes on with another.
            if any(attachment.host == host.name for attachment in attachments):
                self._volumes.mark_detached(instance_uuid, host.name)
            if discard and any(attachment.created_by_build for attachment in attachments):
                self._volumes.mark_unmade(instance_uuid)

    def _discard(self, host: HostRef, attachment: Attachment) -> None:
        if attachment.host not in (None, host.name):
            return  # the build went on there meanwhile; where hosts share files, these are its own
        volume = self._volumes.volume(attachment.volume_id)
        ours = volume.host == host.name and volume.placed_by == attachment.id
        # Without a host there may still be a file here, of a connect that was cut off before it could say so.
        if volume.host is None or ours:
            self._clean(host, volume.id)
            if ours:
                self._volumes.place(volume.id, None, None)

    def clean(self, host: HostRef, volume_ids: Sequence[str], *, instance_uuid: str | None = None, lives_elsewhere: bool = False) -> None:
        """Leave no bytes here of volumes that are on record as deleted, elsewhere, or made nowhere yet.

        Raises: VolumeError, HypervisorUnavailable.
        """
        if lives_elsewhere and self._conf.volume.shared:
            return
        for volume_id in volume_ids:
            try:
                is_marked = self._volumes.begin_cleaning(volume_id, host.name, instance_uuid=instance_uuid, shared=self._conf.volume.shared)
            except VolumeNotFound:
                self._clean(host, volume_id)
                continue
            if is_marked:
                try:
                    self._clean(host, volume_id)
                finally:
                    self._volumes.end_cleaning(volume_id, host.name)

    def _clean(self, host: HostRef, volume_id: str) -> None:
        try:
            self._delete_bytes(host, volume_id)
        except HypervisorError as error:
            raise VolumeError(volume=volume_id, reason=error.text) from error

    def on_host(self, host: HostRef) -> list[str]:
        """Ids of the volumes that have bytes on the host.

        Raises: VolumeError, HypervisorUnavailable.
        """
        if is_fake(host):
            return sorted(self._fake(host).things.all("volumes"))
        try:
            return self._files(host).all()
        except HypervisorError as error:
            raise VolumeError(volume="*", reason=error.text) from error

    def _have_bytes(self, host: HostRef, attachment: Attachment, progress: ReportProgress) -> VolumeFile:
        volume = self._volumes.volume(attachment.volume_id)
        if volume.host is None:
            if volume.cleaning_on == host.name:  # what it deletes there would be these
                raise VolumeConnectError(volume=volume.id, host=host.name, reason="what an earlier build left of it is being deleted there")
            made = self._make_bytes(host, volume, progress)
            self._volumes.place(volume.id, host.name, attachment.id)
            return made
        if volume.host != host.name and not self._conf.volume.shared:
            reason = f"its bytes are on host {volume.host}, and local volumes do not move"
            raise VolumeElsewhere(volume=volume.id, host=host.name, reason=reason)
        found = self._find_bytes(host, volume.id)
        if found is None:
            raise VolumeConnectError(volume=volume.id, host=host.name, reason="its file is not in the host's storage pool")
        return found

    def _make_bytes(self, host: HostRef, volume: Volume, progress: ReportProgress) -> VolumeFile:
        image = self._image(volume) if volume.image_id else None
        if is_fake(host):
            fake = self._fake(host)
            made = VolumeFile(f"{fake.directory}/volume-{volume.id}", self._conf.volume.format)
            with fake.call("create_volume", volume.id):
                thing = {"path": made.path, "format": made.disk_format, "size_gb": volume.size_gb, "image_id": volume.image_id}
                fake.things.make("volumes", volume.id, thing, "create_volume")
            return made
        files = self._files(host)
        if image is None or self._images is None:
            return files.make_blank(volume, self._conf.volume.format)
        return files.make_from_image(volume, image, self._images, progress)

    def _find_bytes(self, host: HostRef, volume_id: str) -> VolumeFile | None:
        if is_fake(host):
            thing = self._fake(host).things.get("volumes", volume_id)
            return None if thing is None else VolumeFile(thing["path"], thing["format"])
        return self._files(host).find(volume_id)

    def _delete_bytes(self, host: HostRef, volume_id: str) -> None:
        if is_fake(host):
            fake = self._fake(host)
            with fake.call("delete_volume", volume_id):
                fake.things.drop("volumes", volume_id, "delete_volume")
        else:
            self._files(host).delete(volume_id)

    def _image(self, volume: Volume) -> Image:
        if self._images is None:
            raise VolumeError(volume=volume.id, reason="there is no image service to fill it from")
        try:
            return self._images.show(str(volume.image_id))
        except ImageNotFound as error:
            raise VolumeError(volume=volume.id, reason=error.text) from error

    def _files(self, host: HostRef) -> VolumeFiles:
        state_path, configured = self._conf.state_path, self._conf.volume.pool_path
        if self._conf.volume.shared and not configured:
            configured = str(Path(state_path).resolve() / "volumes")
        path = storage.pool_path(host, configured, state_path, "volumes")
        return VolumeFiles(host, storage.HostPool(self._conf.volume.pool_name, path))

    def _fake(self, host: HostRef) -> FakeHost:
        return FakeHost(host, self._conf.state_path)

    @contextlib.contextmanager
    def _call(self, host: HostRef, operation: str, instance_uuid: str) -> Iterator[None]:
        """Where the faults of a fake host strike."""
        if is_fake(host):
            with self._fake(host).call(operation, instance_uuid):
                yield
        else:
            yield

    def close(self) -> None:
        """The pool of libvirt connections is the process's; nothing else is held open."""


class _OneAfterTheOther:
    """Progress of several volumes as one that only grows."""

    def __init__(self, progress: ReportProgress) -> None:
        self._progress = progress
        self._before = self._sent = 0

    def __call__(self, sent: int, total: int) -> None:
        """Of the present volume, in bytes."""
        self._sent = sent
        self._progress(self._before + sent, self._before + total)

    def next(self) -> None:
        """The present volume is done."""
        self._before, self._sent = self._before + self._sent, 0


def _connection(volume_id: str, file: VolumeFile) -> Connection:
    return Connection(volume_id, "file", {"path": file.path, "format": file.disk_format}, serial=volume_id)


@contextlib.contextmanager
def _translated(host: HostRef, volume_id: str) -> Iterator[None]:
    try:
        yield
    except HypervisorError as error:
        raise VolumeConnectError(volume=volume_id, host=host.name, reason=error.text) from error
