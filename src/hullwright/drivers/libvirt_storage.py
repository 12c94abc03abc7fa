"""A storage pool of a host, and volumes in it: found, made, written, read and deleted through libvirt.

Not a driver: the virt and volume drivers for libvirt come here. Not for: what the volumes mean.
Functions take libvirt's own objects and let libvirt's errors pass; the driver's edge translates them.
Making a volume is libvirtd's test-and-set: of two who make the same name, on whatever machine, one gets `None`.
Whatever changes a volume asks the fence just before: a transfer takes hours, and the volume of that name may be another owner's by then.
"""

from __future__ import annotations

import threading
import time
import xml.etree.ElementTree as ET
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeout
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from hullwright.drivers.libvirt_binding import is_gone, load_libvirt, look_up
from hullwright.objects import fence
from hullwright.objects.hosts import HostRef

MESSAGE_BYTES = 256 * 1024 - 24  # the largest packet of a libvirt stream
REMOTE_PATH = "/var/lib/hullwright"
# How long to wait for a volume that libvirt is still filling, and that does not grow: less than a step may take without progress.
BUSY_SECONDS = 240.0
COPY_POLL_SECONDS = 1.0
_REFRESH_TRIES = 5
Chunk = bytes | memoryview
Progress = Callable[[int, int], None]
Lend = Callable[[], AbstractContextManager[Any]]  # a connection to the host, as LibvirtPool.connection does


class HostPool:
    """The pool of one host, by name; made where it is missing."""

    def __init__(self, name: str, path: str) -> None:
        """`path`: where a pool that must be made lies on the host."""
        self.name = name
        self.path = path

    def find(self, connection: Any) -> Any | None:
        """The active pool, or None when the host has none; one that is stopped is started."""
        libvirt = load_libvirt()
        pool = look_up(connection.storagePoolLookupByName, self.name)
        if pool is not None and not pool.isActive():
            try:
                # Its directory may have gone with a file system that was not mounted at boot.
                pool.create(libvirt.VIR_STORAGE_POOL_CREATE_WITH_BUILD)
            except libvirt.libvirtError:
                if not pool.isActive():
                    raise
        return pool

    def ensure(self, connection: Any) -> Any:
        """The active pool, made if need be."""
        libvirt = load_libvirt()
        pool = self.find(connection)
        if pool is not None:
            return pool
        definition = ET.Element("pool", type="dir")
        ET.SubElement(definition, "name").text = self.name
        ET.SubElement(ET.SubElement(definition, "target"), "path").text = self.path
        try:
            pool = connection.storagePoolDefineXML(ET.tostring(definition, encoding="unicode"), 0)
            pool.setAutostart(1)
        except libvirt.libvirtError:
            # Somebody else defined it meanwhile.
            pool = self.find(connection)
            if pool is None:
                raise
        return self.find(connection) or pool


def pool_path(host: HostRef, configured: str | None, state_path: str, content: str = "instances") -> str:
    """Where the pool of a host for some content goes when it must be made."""
    if configured:
        return configured.replace("{host}", host.name)
    url = urlsplit(host.uri)
    if url.hostname in (None, "localhost", "127.0.0.1", "::1"):
        # Several libvirtd on one machine are several hosts and must not share a directory.
        return str(Path(state_path).resolve() / "hosts" / host.name / content)
    return f"{REMOTE_PATH}/{content}"


def refresh(pool: Any) -> None:
    """Have libvirt look at the directory again; where it stays busy making volumes, its knowledge stays a little old."""
    libvirt = load_libvirt()
    for _ in range(_REFRESH_TRIES):
        try:
            pool.refresh(0)
        except libvirt.libvirtError:
            if not pool.isActive():
                raise
            time.sleep(0.05)
        else:
            return


def find_volume(pool: Any, name: str) -> Any | None:
    """The volume, or None."""
    return look_up(pool.storageVolLookupByName, name)


def volume_xml(name: str, capacity_bytes: int, disk_format: str, backing: tuple[str, str] | None = None) -> str:
    """A sparse volume; `backing`: path and format of the image below it."""
    volume = ET.Element("volume")
    ET.SubElement(volume, "name").text = name
    ET.SubElement(volume, "capacity", unit="bytes").text = str(capacity_bytes)
    ET.SubElement(volume, "allocation", unit="bytes").text = "0"
    ET.SubElement(ET.SubElement(volume, "target"), "format", type=disk_format)
    if backing is not None:
        below = ET.SubElement(volume, "backingStore")
        ET.SubElement(below, "path").text = backing[0]
        # Explicit, because a guest that may write the file below could choose what it is taken for.
        ET.SubElement(below, "format", type=backing[1])
    return ET.tostring(volume, encoding="unicode")


def make_volume(pool: Any, name: str, capacity_bytes: int, disk_format: str = "raw", backing: tuple[str, str] | None = None) -> Any | None:
    """Make the volume; None when there is one of that name."""
    libvirt = load_libvirt()
    fence.check()
    try:
        return pool.createXML(volume_xml(name, capacity_bytes, disk_format, backing), 0)
    except libvirt.libvirtError as error:
        if error.get_error_code() == libvirt.VIR_ERR_STORAGE_VOL_EXIST:
            return None
        if find_volume(pool, name) is None:
            # A file that libvirt had not noticed, or that was there before the pool: let it look, then there is one.
            refresh(pool)
            if find_volume(pool, name) is None:
                raise
        return None


def copy_volume(pool: Any, name: str, description: str, source: Any, lend: Lend, progress: Progress) -> Any:
    """Have the host copy `source` into a new volume, converted as `description` (XML) says; answers it when it is whole.

    libvirt copies in one call that tells nothing, so it has a thread and a connection (`lend`) of its own, and `progress` hears how much
    of the file there is (bytes, bytes in all). What `progress` raises leaves the copy to end by itself: whoever deletes the volume waits
    for that.
    """
    fence.check()
    copied: Future[None] = Future()
    pool_name, source_name = pool.name(), source.name()

    def copy() -> None:
        try:
            with lend() as connection:
                its_pool = connection.storagePoolLookupByName(pool_name)
                its_pool.createXMLFrom(description, its_pool.storageVolLookupByName(source_name), 0)
            copied.set_result(None)
        except BaseException as error:  # noqa: BLE001  handed to the one who waits
            copied.set_exception(error)

    threading.Thread(target=copy, name=f"copy-{name}", daemon=True).start()
    total_bytes = int(source.info()[1])
    while True:
        try:
            copied.result(COPY_POLL_SECONDS)
            return pool.storageVolLookupByName(name)
        except FutureTimeout:
            there = find_volume(pool, name)
            if there is not None:
                progress(min(_growing_bytes(there), total_bytes - 1), total_bytes)


def delete_volume(pool: Any, name: str) -> None:
    """Delete the volume; gone is done. Waits for one that libvirt is still filling."""
    libvirt = load_libvirt()
    until = time.monotonic() + BUSY_SECONDS
    while (volume := find_volume(pool, name)) is not None:
        fence.check()
        try:
            volume.delete(0)
            return  # whatever has the name from now on was made after this
        except libvirt.libvirtError as error:
            if is_gone(error):
                return
            busy = error.get_error_code() == libvirt.VIR_ERR_OPERATION_INVALID  # still being allocated, or in use
            if not busy or time.monotonic() > until:
                if find_volume(pool, name) is None:
                    return
                raise
            time.sleep(0.2)


def await_made(connection: Any, volume: Any, total_bytes: int, progress: Progress) -> None:
    """Wait while libvirt is still filling a volume that somebody asked for; until then what it says of it means nothing but that it grows,
    which `progress` hears (bytes, bytes in all).
    """
    libvirt = load_libvirt()
    until = time.monotonic() + BUSY_SECONDS
    before_bytes = 0
    while True:
        try:
            read(connection, volume, 0, 1)
            return
        except libvirt.libvirtError as error:
            # The one sign that libvirt gives: it refuses to read from it.
            if error.get_error_code() != libvirt.VIR_ERR_OPERATION_INVALID or time.monotonic() > until:
                raise
        there_bytes = _growing_bytes(volume)
        if there_bytes > before_bytes:
            before_bytes, until = there_bytes, time.monotonic() + BUSY_SECONDS
            progress(there_bytes, max(there_bytes + 1, total_bytes))
        time.sleep(0.1)


def physical_bytes(volume: Any) -> int:
    """The length of the volume's file right now."""
    libvirt = load_libvirt()
    return int(volume.infoFlags(libvirt.VIR_STORAGE_VOL_GET_PHYSICAL)[2])


def written_at(volume: Any) -> str:
    """When the volume's file was last written to, by its host's clock and as libvirt tells it; empty where it tells nothing."""
    return ET.fromstring(volume.XMLDesc(0)).findtext("target/timestamps/mtime") or ""


def backing_path(volume: Any) -> str | None:
    """The path of the file below the volume, if any."""
    return ET.fromstring(volume.XMLDesc(0)).findtext("backingStore/path")


def allocated_bytes(volume: Any) -> int:
    """How much of the volume's file is on disk right now."""
    return int(volume.info()[2])


def _growing_bytes(volume: Any) -> int:
    try:
        return allocated_bytes(volume)
    except load_libvirt().libvirtError as error:
        if is_gone(error):
            return 0  # it has a name, and no file yet
        raise


class Upload:
    """A stream into a volume from an offset on. Nothing is certain to be there before `finish` has returned."""

    def __init__(self, connection: Any, volume: Any, offset: int) -> None:
        fence.check()
        self._stream = connection.newStream(0)
        volume.upload(self._stream, offset, 0, 0)
        self.sent_bytes = 0

    def send(self, chunk: Chunk) -> None:
        """Send all of the chunk."""
        view = memoryview(chunk)
        while view:
            fence.check()
            sent = self._stream.send(bytes(view[:MESSAGE_BYTES]))
            view = view[sent:]
            self.sent_bytes += sent

    def finish(self) -> None:
        """Wait until libvirt has written everything."""
        self._stream.finish()

    def abort(self) -> None:
        """Give the stream up; it may be broken already."""
        try:
            self._stream.abort()
        except load_libvirt().libvirtError:
            pass


def write(connection: Any, volume: Any, data: bytes) -> None:
    """Write the data at the volume's beginning; somebody else who does is waited for."""
    libvirt = load_libvirt()
    until = time.monotonic() + BUSY_SECONDS
    while True:
        try:
            upload = Upload(connection, volume, 0)
            break
        except libvirt.libvirtError as error:
            if error.get_error_code() != libvirt.VIR_ERR_OPERATION_INVALID or time.monotonic() > until:
                raise
        time.sleep(0.1)
    try:
        upload.send(data)
    except BaseException:
        upload.abort()
        raise
    upload.finish()


def read_chunks(connection: Any, volume: Any, offset: int = 0, length: int = 0) -> Iterator[bytes]:
    """Yield the volume's file from `offset`, `length` bytes at most; 0: to its end."""
    stream = connection.newStream(0)
    volume.download(stream, offset, length, 0)
    try:
        while chunk := stream.recv(MESSAGE_BYTES):
            yield chunk
    except BaseException:
        try:
            stream.abort()
        except load_libvirt().libvirtError:
            pass
        raise
    stream.finish()


def read(connection: Any, volume: Any, offset: int = 0, length: int = 0) -> bytes:
    """Like `read_chunks`, at once."""
    return b"".join(read_chunks(connection, volume, offset, length))
