"""Whether the base images on a host are still what was verified when they came, and putting away one that is not.

Reading gigabytes back costs minutes, so that only files are read which were written to since they were verified: nothing ever writes to a
whole one. A deep check reads all of them.
Not for: transfers that are under way; those are image_transfer.py's.
"""

from __future__ import annotations

import hashlib
import time
import xml.etree.ElementTree as ET
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

from hullwright.drivers import libvirt_storage as storage
from hullwright.drivers.libvirt_binding import is_gone, load_libvirt
from hullwright.drivers.libvirt_pool import LibvirtPool
from hullwright.drivers.virt.libvirt.image_cache import Entry, Record, Watch, whole_images
from hullwright.objects.hosts import HostRef
from hullwright.objects.images import Image

WAIT_SECONDS = 0.25


@dataclass(frozen=True, slots=True)
class ImageCheck:
    """The base images of one host."""

    host: HostRef
    pool: storage.HostPool
    connections: LibvirtPool
    stale_seconds: float

    def damaged(self, *, deep: bool, only: Collection[str] | None) -> dict[str, str]:
        """See VirtDriver.damaged_images."""
        with self.connections.connection(self.host, "check base images") as connection:
            pool = self.pool.find(connection)
            if pool is None:
                return {}
            storage.refresh(pool)  # a file that is gone is still known to libvirt
            ids = [image_id for image_id in whole_images(pool) if only is None or image_id in only]
            found = {image_id: complaint(Entry(connection, pool, Image(id=image_id, name="")), deep=deep) for image_id in ids}
            return {image_id: what for image_id, what in found.items() if what}

    def evict(self, image_id: str) -> list[str] | None:
        """See VirtDriver.evict_image: hold the image as a transfer would, so that builds wait for us; then look, and look again."""
        with self.connections.connection(self.host, f"put away image {image_id}") as connection:
            pool = self.pool.find(connection)
            if pool is None:
                return None
            storage.refresh(pool)
            entry, watch = Entry(connection, pool, Image(id=image_id, name="")), Watch()
            until = time.monotonic() + self.stale_seconds + 2 * WAIT_SECONDS
            while not entry.take(watch, self.stale_seconds):
                if time.monotonic() > until:
                    return None
                time.sleep(WAIT_SECONDS)
            try:
                return _evict(connection, pool, entry)
            finally:
                entry.forget()


def complaint(entry: Entry, *, deep: bool) -> str | None:
    """What is wrong with an image that counts as whole, or None; an image that does not count as whole has nothing wrong with it."""
    record = entry.mark()
    if record is None:
        return None
    base = entry.base()
    if base is None:
        return "its file is gone"
    try:
        size_bytes = storage.physical_bytes(base)
        if size_bytes != record.size_bytes:
            return f"its file has {size_bytes} bytes, not {record.size_bytes}"
        is_as_it_was = bool(record.written) and storage.written_at(base) == record.written
        return None if is_as_it_was and not deep else _mismatch(entry, base, record)
    except load_libvirt().libvirtError as error:
        if is_gone(error):
            return "its file is gone"
        raise


def _mismatch(entry: Entry, base: Any, record: Record) -> str | None:
    name, _, wanted = record.checksum.partition(":")
    if not wanted:
        return None  # there is nothing to compare with
    sums = hashlib.new(name, usedforsecurity=False)
    for chunk in storage.read_chunks(entry.connection, base, 0, record.size_bytes):
        sums.update(chunk)
    found = sums.hexdigest()
    return None if found == wanted else f"its {name} is {found}, not {wanted}"


def _evict(connection: Any, pool: Any, entry: Entry) -> list[str] | None:
    record = entry.mark()
    if record is None or complaint(entry, deep=True) is None:
        entry.step_back()
        return None
    standing = _standing_on(connection, pool, entry)
    if not standing:
        entry.unmark()
        standing = _standing_on(connection, pool, entry)  # a build that had asked for it just before
        if not standing:
            entry.discard()
            return []
    entry.mark_whole(record)
    return standing


def _standing_on(connection: Any, pool: Any, entry: Entry) -> list[str]:
    """Names of the disks that have the image below them, and of the guests that boot from it."""
    path = f"{ET.fromstring(pool.XMLDesc(0)).findtext('target/path')}/{entry.name}"
    names = []
    for volume in pool.listAllVolumes(0):
        try:
            if storage.backing_path(volume) == path:
                names.append(volume.name())
        except load_libvirt().libvirtError as error:
            if not is_gone(error):
                raise
    for domain in connection.listAllDomains(0):
        try:
            if f"{path}<" in domain.XMLDesc(0) or f"'{path}'" in domain.XMLDesc(0):
                names.append(domain.name())
        except load_libvirt().libvirtError as error:
            if not is_gone(error):
                raise
    return sorted(names)
