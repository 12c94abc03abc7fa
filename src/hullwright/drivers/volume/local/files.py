"""A volume's file in the storage pool of a libvirt host: made blank or from an image, found, deleted.

The file's name tells its format. It is never guessed from the bytes of a file that a guest may write: a guest could make its raw
disk look like an image that names a file of the host.
Not for: which host a volume belongs to (`driver`).
"""

from __future__ import annotations

import hashlib
import itertools
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from hullwright.drivers import image_format
from hullwright.drivers import libvirt_storage as storage
from hullwright.drivers.libvirt_binding import load_libvirt
from hullwright.drivers.libvirt_pool import LibvirtPool
from hullwright.drivers.volume.contract import ImageReader, ReportProgress, no_report
from hullwright.objects import fence
from hullwright.objects.errors import HostDiskFull, ImageCorrupt, VolumeError
from hullwright.objects.hosts import HostRef
from hullwright.objects.images import Image
from hullwright.objects.volumes import Volume

GIB = 1 << 30
FORMATS = ("qcow2", "raw")
_OURS = re.compile(rf"^volume-([0-9a-f]{{8}}(?:-[0-9a-f]{{4}}){{3}}-[0-9a-f]{{12}})\.(?:{'|'.join(FORMATS)})$")


@dataclass(frozen=True, slots=True)
class VolumeFile:
    """Where a volume's bytes are on its host."""

    path: str
    disk_format: str


def file_name(volume_id: str, disk_format: str) -> str:
    """Name of the volume's file."""
    return f"volume-{volume_id}.{disk_format}"


class VolumeFiles:
    """The files of one host's pool. Errors of libvirt arrive translated by `libvirt_pool`."""

    def __init__(self, host: HostRef, pool: storage.HostPool) -> None:
        self._host = host
        self._pool = pool

    def find(self, volume_id: str) -> VolumeFile | None:
        """The volume's file, or None.

        Raises: HypervisorError, HypervisorUnavailable.
        """
        with LibvirtPool.shared().connection(self._host, f"look for volume {volume_id}") as connection:
            pool = self._pool.ensure(connection)
            found = _find(pool, volume_id)
            if found is None:  # on a shared file system another host's libvirt may have made it
                storage.refresh(pool)
                found = _find(pool, volume_id)
            return found

    def make_blank(self, volume: Volume, disk_format: str) -> VolumeFile:
        """Have an empty file of the volume's size; one of that name that is there counts as made.

        Raises: HypervisorError, HypervisorUnavailable, HostDiskFull.
        """
        with LibvirtPool.shared().connection(self._host, f"make volume {volume.id}") as connection:
            pool = self._pool.ensure(connection)
            name = file_name(volume.id, disk_format)
            made = storage.make_volume(pool, name, volume.size_gb * GIB, disk_format) or pool.storageVolLookupByName(name)
            return VolumeFile(made.path(), disk_format)

    def make_from_image(self, volume: Volume, image: Image, source: ImageReader, progress: ReportProgress = no_report) -> VolumeFile:
        """Fill a new file with the image, verified, and grow it to the volume's size. What an earlier try left is replaced.

        Raises: VolumeError, ImageUnacceptable, ImageUnavailable, ImageCorrupt, HypervisorError, HypervisorUnavailable, HostDiskFull.
        """
        chunks, head = _with_head(source.read(image))
        facts = image_format.inspect(image.id, image.disk_format, head, image.size_bytes)
        size_bytes = volume.size_gb * GIB
        if facts.virtual_size_bytes > size_bytes:
            wanted_gb = -(-facts.virtual_size_bytes // GIB)
            raise VolumeError(volume=volume.id, reason=f"image {image.id} needs {wanted_gb} GB, the volume has {volume.size_gb}")
        name = file_name(volume.id, facts.disk_format)
        with LibvirtPool.shared().connection(self._host, f"fill volume {volume.id}") as connection:
            pool = self._pool.ensure(connection)
            storage.delete_volume(pool, name)
            free_bytes = int(pool.info()[3])
            if free_bytes < image.size_bytes:
                reason = f"volume {volume.id} needs {image.size_bytes} bytes, {free_bytes} are free"
                raise HostDiskFull(host=self._host.name, reason=reason)
            made = storage.make_volume(pool, name, image.size_bytes) or pool.storageVolLookupByName(name)
            try:
                self._send(connection, made, image, chunks, progress)
                fence.check()
                storage.refresh(pool)  # libvirt learns that a qcow2 came into what it made as raw
                made = pool.storageVolLookupByName(name)
                if int(made.info()[1]) < size_bytes:
                    fence.check()
                    made.resize(size_bytes, 0)
            except BaseException:
                fence.check()  # who has lost the job leaves the name alone: a new owner may have filled it anew
                _delete_quietly(pool, name)
                raise
            return VolumeFile(made.path(), facts.disk_format)

    def _send(self, connection: Any, made: Any, image: Image, chunks: Iterator[bytes], progress: ReportProgress) -> None:
        wanted = [(hashlib.sha256(), image.checksum_sha256)] if image.checksum_sha256 else []
        wanted = wanted or ([(hashlib.md5(usedforsecurity=False), image.checksum_md5)] if image.checksum_md5 else [])
        upload = storage.Upload(connection, made, 0)
        try:
            for chunk in chunks:
                if upload.sent_bytes + len(chunk) > image.size_bytes:
                    raise ImageCorrupt(image=image.id, host=self._host.name, reason=f"it is longer than its {image.size_bytes} bytes")
                upload.send(chunk)
                for digest, _ in wanted:
                    digest.update(chunk)
                progress(upload.sent_bytes, image.size_bytes)
        except BaseException:
            upload.abort()
            raise
        upload.finish()
        reason = None
        if upload.sent_bytes != image.size_bytes:
            reason = f"it ended after {upload.sent_bytes} of {image.size_bytes} bytes"
        for digest, value in wanted:
            if digest.hexdigest() != value:
                reason = f"its {digest.name} is {digest.hexdigest()}, not {value}"
        if reason:
            raise ImageCorrupt(image=image.id, host=self._host.name, reason=reason)

    def all(self) -> list[str]:
        """Ids of the volumes that have a file in the pool.

        Raises: HypervisorError, HypervisorUnavailable.
        """
        with LibvirtPool.shared().connection(self._host, "list volumes") as connection:
            pool = self._pool.find(connection)
            if pool is None:
                return []
            storage.refresh(pool)
            return sorted({match.group(1) for name in pool.listVolumes() if (match := _OURS.match(name))})

    def delete(self, volume_id: str) -> None:
        """Have no file of the volume; gone is done.

        Raises: HypervisorError, HypervisorUnavailable.
        """
        with LibvirtPool.shared().connection(self._host, f"delete volume {volume_id}") as connection:
            pool = self._pool.find(connection)
            if pool is None:
                return
            if _find(pool, volume_id) is None:
                storage.refresh(pool)
            for disk_format in FORMATS:
                storage.delete_volume(pool, file_name(volume_id, disk_format))


def _find(pool: Any, volume_id: str) -> VolumeFile | None:
    for disk_format in FORMATS:
        found = storage.find_volume(pool, file_name(volume_id, disk_format))
        if found is not None:
            return VolumeFile(found.path(), disk_format)
    return None


def _with_head(chunks: Iterator[bytes]) -> tuple[Iterator[bytes], bytes]:
    """The chunks again, and the first bytes that they hold."""
    head = b""
    while len(head) < image_format.HEAD_BYTES and (chunk := next(chunks, None)) is not None:
        head += chunk
    return itertools.chain([head], chunks), head[: image_format.HEAD_BYTES]


def _delete_quietly(pool: Any, name: str) -> None:
    """Delete what a failure left; the failure itself is what is told."""
    try:
        storage.delete_volume(pool, name)
    except load_libvirt().libvirtError:
        pass
