"""Moves an image's bytes to a host, from where an earlier transfer stopped, and verifies them.

Not for: who may transfer, and what becomes of the result; that is image_cache.py.

The bytes go in segments. A segment counts when libvirt has confirmed it, and only then is it written in the record: what a crash
costs is the segment under way. Bytes of an earlier transfer are not believed: the whole is read back for the checksum then.
"""

from __future__ import annotations

import hashlib
import itertools
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from hullwright.drivers import image_format
from hullwright.drivers import libvirt_storage as storage
from hullwright.drivers.libvirt_binding import is_disk_full, load_libvirt
from hullwright.drivers.libvirt_pool import LibvirtPool
from hullwright.drivers.virt.contract import ImageSource, ReportProgress
from hullwright.drivers.virt.libvirt.image_cache import Entry, Watch, half_images
from hullwright.objects.errors import HostDiskFull, ImageCorrupt, ImageUnacceptable
from hullwright.objects.hosts import HostRef
from hullwright.objects.images import CachedImage, Image

# A segment ends when it has both, or has lasted the longest: each end makes libvirt look through the whole pool.
SEGMENT_BYTES = 64 * 1024 * 1024
SEGMENT_SECONDS = 1.0
SEGMENT_SECONDS_LONGEST = 5.0
# After a pause of this length somebody may have taken over, finished, and have guests on the image: look before writing on.
STALL_SECONDS = 0.5
WAIT_SECONDS = 0.25


class _Superseded(Exception):
    """Somebody else has the transfer now."""


@dataclass(frozen=True, slots=True)
class ImageCache:
    """The base images of one host."""

    host: HostRef
    pool: storage.HostPool
    connections: LibvirtPool
    stale_seconds: float

    def ensure(self, image: Image, source: ImageSource, progress: ReportProgress) -> CachedImage:
        """See VirtDriver.ensure_image."""
        watch = Watch()
        while True:
            with self.connections.connection(self.host, f"transfer of image {image.id}") as connection:
                entry = Entry(connection, self.pool.ensure(connection), image)
                cached = entry.whole()
                if cached is not None:
                    return cached
                if entry.take(watch, self.stale_seconds):
                    try:
                        _Transfer(self.host, entry, source, progress).run()
                    except _Superseded:
                        watch = Watch()
                    finally:
                        entry.forget()
                    continue
            progress(watch.done_bytes, image.size_bytes)
            time.sleep(WAIT_SECONDS)

    def half(self) -> dict[str, str]:
        """See VirtDriver.half_images."""
        with self.connections.connection(self.host, "look for half images") as connection:
            pool = self.pool.find(connection)
            return {} if pool is None else half_images(connection, pool)

    def discard_half(self, image_id: str) -> bool:
        """See VirtDriver.discard_half_image: take the transfer over as any other would, then leave nothing of it."""
        image = Image(id=image_id, name="")
        with self.connections.connection(self.host, f"discard of half image {image_id}") as connection:
            pool = self.pool.find(connection)
            if pool is None or image_id not in half_images(connection, pool):
                return False
            entry, watch = Entry(connection, pool, image), Watch()
            until = time.monotonic() + self.stale_seconds + 2 * WAIT_SECONDS
            while not entry.take(watch, self.stale_seconds):
                if time.monotonic() > until or entry.is_marked_whole():
                    return False
                time.sleep(WAIT_SECONDS)
            try:
                if entry.is_marked_whole():
                    entry.step_back()
                    return False
                entry.discard()
            finally:
                entry.forget()
            return True


class _Transfer:
    """One holder's work on one image."""

    def __init__(self, host: HostRef, entry: Entry, source: ImageSource, progress: ReportProgress) -> None:
        self.host = host
        self.entry = entry
        self.image = entry.image
        self.source = source
        self.progress = progress
        self.sums = _Sums(self.image)

    def run(self) -> None:
        """Make the image whole.

        Raises: _Superseded, and what VirtDriver.ensure_image raises.
        """
        libvirt = load_libvirt()
        try:
            if self.entry.whole() is not None:  # finished between our looking and our taking
                self.entry.step_back()
                return
            resumed = self.entry.record.done_bytes > 0
            self._fetch()
            checksum = self._check(resumed)
            if not self.entry.still_ours():
                raise _Superseded
            self.entry.complete(checksum)
        except (ImageUnacceptable, ImageCorrupt, HostDiskFull):
            self.entry.discard()
            raise
        except libvirt.libvirtError as error:
            if is_disk_full(error):
                self.entry.discard()
            else:
                self.entry.let_go()
            raise
        except _Superseded:
            raise
        except BaseException:
            self.entry.let_go()
            raise

    # --- bytes ------------------------------------------------------------------------------------------------------

    def _fetch(self) -> None:
        entry, size = self.entry, self.image.size_bytes
        chunks = self._open_source()
        base = entry.base()
        if base is not None and storage.physical_bytes(base) != size:
            # Of another image under this id, or cut off by a crash of the host.
            storage.delete_volume(entry.pool, entry.name)
            base = None
        if base is None:
            storage.refresh(entry.pool)
            if (free := int(entry.pool.info()[3])) < size:
                raise HostDiskFull(host=self.host.name, reason=f"image {self.image.id} has {size} bytes, {free} are free")
            base = storage.make_volume(entry.pool, entry.name, size) or entry.base()
        self.progress(entry.record.done_bytes, size)
        while entry.record.done_bytes < size:
            if not self._send_segment(base, chunks):
                raise ImageCorrupt(
                    image=self.image.id,
                    host=self.host.name,
                    reason=f"it ended after {entry.record.done_bytes} of {size} bytes",
                )
        if next(chunks, b""):
            raise ImageCorrupt(image=self.image.id, host=self.host.name, reason=f"it is longer than its {size} bytes")

    def _open_source(self) -> Iterator[bytes]:
        """The bytes that are missing; the first ones are looked at before any is sent."""
        record = self.entry.record
        if record.done_bytes == self.image.size_bytes:
            return iter(())
        if record.done_bytes:
            return iter(self.source.read(self.image, record.done_bytes))
        chunks = iter(self.source.read(self.image, 0))
        head = b""
        while len(head) < image_format.HEAD_BYTES and (chunk := next(chunks, None)) is not None:
            head += chunk
        if len(head) < min(image_format.HEAD_BYTES, self.image.size_bytes):
            reason = f"it ended after {len(head)} of {self.image.size_bytes} bytes"
            raise ImageCorrupt(image=self.image.id, host=self.host.name, reason=reason)
        facts = image_format.inspect(self.image.id, self.image.disk_format, head, self.image.size_bytes)
        self.entry.save(disk_format=facts.disk_format, virtual_size_bytes=facts.virtual_size_bytes, checked=True)
        return itertools.chain([head], chunks)

    def _send_segment(self, base: Any, chunks: Iterator[bytes]) -> bool:
        """Send some, have it confirmed and recorded; False when the source has no more."""
        entry, size = self.entry, self.image.size_bytes
        if not entry.still_ours():
            raise _Superseded
        start = entry.record.done_bytes
        began = moved = time.monotonic()
        upload = storage.Upload(entry.connection, base, start)
        ended = False
        try:
            while True:
                chunk = next(chunks, None)
                if chunk is None:
                    ended = True
                    break
                if start + upload.sent_bytes + len(chunk) > size:
                    reason = f"it is longer than its {size} bytes"
                    raise ImageCorrupt(image=self.image.id, host=self.host.name, reason=reason)
                if time.monotonic() - moved > STALL_SECONDS and not entry.still_ours():
                    raise _Superseded
                upload.send(chunk)
                moved = time.monotonic()
                self.sums.add(chunk)
                self.progress(start + upload.sent_bytes, size)
                lasted = time.monotonic() - began
                full = upload.sent_bytes >= SEGMENT_BYTES and lasted >= SEGMENT_SECONDS
                if full or lasted >= SEGMENT_SECONDS_LONGEST or start + upload.sent_bytes == size:
                    break
        except (load_libvirt().libvirtError, ImageCorrupt, _Superseded):
            upload.abort()
            raise
        except BaseException:
            # The source failed, or we are told to stop: what has been sent is good and need not be sent again.
            self._confirm(upload, start)
            raise
        self._confirm(upload, start)
        return not ended

    def _confirm(self, upload: storage.Upload, start: int) -> None:
        upload.finish()
        self.entry.save(done_bytes=start + upload.sent_bytes)

    # --- verifying --------------------------------------------------------------------------------------------------

    def _check(self, resumed: bool) -> str:
        """Answers the checksum; empty for an image that has none to compare with and came in pieces."""
        if resumed and not self.sums.wanted:
            return ""
        if resumed:
            self.sums = _Sums(self.image)
            self._read_back(self.sums.add)
        reason = self.sums.complaint()
        if reason:
            raise ImageCorrupt(image=self.image.id, host=self.host.name, reason=reason)
        return self.sums.told()

    def _read_back(self, sink: Callable[[bytes], None]) -> None:
        """Read the whole from the host, with signs of life for those who wait for us."""
        entry = self.entry
        told = time.monotonic()
        for chunk in storage.read_chunks(entry.connection, entry.base(), 0, self.image.size_bytes):
            sink(chunk)
            if time.monotonic() - told > SEGMENT_SECONDS_LONGEST:
                if not entry.still_ours():
                    raise _Superseded
                entry.save(beat=entry.record.beat + 1)
                self.progress(self.image.size_bytes, self.image.size_bytes)
                told = time.monotonic()


class _Sums:
    """Checksums over the bytes as they pass, of the kinds that the image has."""

    def __init__(self, image: Image) -> None:
        pairs = (("sha256", image.checksum_sha256), ("md5", image.checksum_md5))
        # The strongest is enough; md5 only where an image service has no better.
        self.wanted = [(name, value.lower()) for name, value in pairs if value][:1]
        # An image without any gets one, so that its copy on the host can be checked later.
        self._hashes = [(hashlib.new(name, usedforsecurity=False), value) for name, value in self.wanted or [("sha256", "")]]

    def add(self, chunk: bytes) -> None:
        for found, _ in self._hashes:
            found.update(chunk)

    def complaint(self) -> str | None:
        """What is wrong, or None."""
        for found, value in self._hashes:
            if value and found.hexdigest() != value:
                return f"its {found.name} is {found.hexdigest()}, not {value}"
        return None

    def told(self) -> str:
        """As records of images keep it."""
        return ", ".join(f"{found.name}:{found.hexdigest()}" for found, _ in self._hashes)
