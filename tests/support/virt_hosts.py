"""What tests of the libvirt virt driver share: a driver on a real host with a pool of the test's own, images, guest specs.

Not for: starting a libvirtd; that is libvirtd.py.
"""

import hashlib
import json
import os
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from hullwright.conf import opts
from hullwright.drivers.libvirt_binding import is_gone, load_libvirt
from hullwright.drivers.libvirt_pool import LibvirtPool
from hullwright.drivers.virt.libvirt.driver import LibvirtDriver
from hullwright.objects.guests import GuestSpec
from hullwright.objects.hosts import HostRef
from hullwright.objects.images import CachedImage, Image

from .libvirtd import Libvirtd

CHUNK_BYTES = 64 * 1024


@dataclass
class Source:
    """An image driver in little: bytes in memory, and a count of those that were read."""

    data: bytes
    sent_bytes: int = 0

    def read(self, image: Image, offset: int = 0) -> Iterator[bytes]:
        for start in range(offset, len(self.data), CHUNK_BYTES):
            chunk = self.data[start : start + CHUNK_BYTES]
            self.sent_bytes += len(chunk)
            yield chunk


def image_of(data: bytes, disk_format: str = "raw", sha256: str | None = None) -> Image:
    """The record of an image with these bytes."""
    return Image(
        id=str(uuid.uuid4()),
        name="test",
        disk_format=disk_format,
        size_bytes=len(data),
        checksum_sha256=sha256 or hashlib.sha256(data).hexdigest(),
    )


def no_progress(_done: int, _total: int) -> None:
    """For transfers that nobody watches."""


@dataclass
class VirtHost:
    """A driver on a real host, its pool (made for one test, removed after it) and ways to look at both."""

    driver: LibvirtDriver
    ref: HostRef
    pool: str
    directory: Path
    options: dict[str, Any] = field(default_factory=dict)

    def volumes(self) -> list[str]:
        """Names of the volumes in the pool, after a look at the directory."""
        with LibvirtPool.shared().connection(self.ref, "list") as connection:
            try:
                pool = connection.storagePoolLookupByName(self.pool)
            except load_libvirt().libvirtError as error:
                if is_gone(error):
                    return []
                raise
            pool.refresh(0)
            return sorted(pool.listVolumes())

    def cache(self, data: bytes, disk_format: str) -> CachedImage:
        """Have an image on the host."""
        return self.driver.ensure_image(image_of(data, disk_format), Source(data), no_progress)

    def await_console(self, guest_uuid: str, text: bytes, seconds: float = 60.0, times: int = 1) -> bytes:
        """Wait until whole lines of the console log have the text that often; answers those lines."""
        until = time.monotonic() + seconds
        while True:
            log = self.driver.console_log(guest_uuid)
            log = log[: log.rfind(b"\n") + 1]  # the guest may be in the middle of the last one
            if log.count(text) >= times:
                return log
            assert time.monotonic() < until, f"{text!r} is not on the console: {log[-500:]!r}"
            time.sleep(0.1)

    def child(self, code: str, arguments: dict[str, Any], timeout_seconds: float = 60.0) -> "Child":
        """Run code in another process that has `driver` and `arguments` ready."""
        preface = (
            "import json, os, signal, sys, time\n"
            "from hullwright.conf import opts\n"
            "from hullwright.objects.hosts import HostRef\n"
            "from hullwright.drivers.virt.libvirt.driver import LibvirtDriver\n"
            "from support.virt_hosts import *\n"
            "given = json.loads(sys.argv[1])\n"
            "driver = LibvirtDriver(HostRef(**given['host']), opts.load([], {'libvirt': given['options']}))\n"
            "arguments = given['arguments']\n"
        )
        given = {"host": self.ref.to_dict(), "options": self.options, "arguments": arguments}
        process = subprocess.Popen(
            [sys.executable, "-c", preface + code, json.dumps(given)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd=Path(__file__).parents[1],
        )
        return Child(process, timeout_seconds)


@dataclass
class Child:
    """Another process at work."""

    process: subprocess.Popen[str]
    timeout_seconds: float

    def end(self) -> tuple[int, str]:
        """Wait for it; its return code and what it printed (the error output when it failed by itself)."""
        out, errors = self.process.communicate(timeout=self.timeout_seconds)
        return self.process.returncode, out if self.process.returncode <= 0 else errors


def guest_spec(image: CachedImage | None, **changes: Any) -> GuestSpec:
    """A small guest with a config drive; `changes` replace fields."""
    guest_uuid = str(uuid.uuid4())
    metadata = json.dumps({"uuid": guest_uuid, "hostname": "boat", "name": "boat"}).encode()
    facts: dict[str, Any] = {
        "uuid": guest_uuid,
        "name": f"instance-{guest_uuid[:8]}",
        "display_name": "boat",
        "hostname": "boat",
        "vcpus": 1,
        "memory_mb": 128,
        "root_gb": 1,
        "project_id": "project",
        "user_id": "user",
        "flavor_name": "small",
        "image": image,
        "config_drive_files": {"openstack/latest/meta_data.json": metadata},
        "created_at": time.time(),
    }
    return GuestSpec(**{**facts, **changes})


MakeVirtHost = Callable[..., VirtHost]


def _remove_pool(ref: HostRef, name: str) -> None:
    with LibvirtPool.shared().connection(ref, "clean up") as connection:
        try:
            pool = connection.storagePoolLookupByName(name)
        except load_libvirt().libvirtError:
            return
        if pool.isActive():
            pool.destroy()
        pool.undefine()


@pytest.fixture
def make_virt_host(libvirt_host: Libvirtd, tmp_path: Path) -> Iterator[MakeVirtHost]:
    """Makes drivers on the session's host, with [libvirt] options as keywords; guests and pools are removed afterwards."""
    made: list[VirtHost] = []

    def make(uri: str | None = None, **options: Any) -> VirtHost:
        name = f"test-{uuid.uuid4().hex[:8]}"
        options = {"pool_name": name, "pool_path": str(tmp_path / name), "soft_reboot_seconds": 60.0, **options}
        ref = HostRef(libvirt_host.name, uri or libvirt_host.uri)
        host = VirtHost(LibvirtDriver(ref, opts.load([], {"libvirt": options})), ref, name, Path(options["pool_path"]), options)
        made.append(host)
        return host

    yield make
    for host in made:
        # By the shortest way, whatever way the test took.
        ref = HostRef(libvirt_host.name, libvirt_host.uri)
        driver = LibvirtDriver(ref, opts.load([], {"libvirt": host.options}))
        for guest_uuid in driver.leftovers():
            driver.destroy(guest_uuid)
        _remove_pool(ref, host.pool)


@pytest.fixture
def virt_host(make_virt_host: MakeVirtHost) -> VirtHost:
    """A driver on the session's host with a pool of the test's own."""
    return make_virt_host()


@pytest.fixture
def small_directory(libvirt_host: Libvirtd, tmp_path: Path) -> Iterator[Path]:
    """A directory of 16 MiB, as the host sees it."""
    path = tmp_path / "small"
    path.mkdir()
    inside = [*([] if os.geteuid() == 0 else ["sudo", "-n"]), "nsenter", "-t", str(libvirt_host.pid), "-m"]
    subprocess.run([*inside, "mount", "-t", "tmpfs", "-o", "size=16m", "tmpfs", str(path)], check=True, timeout=10)
    yield path
    subprocess.run([*inside, "umount", "-l", str(path)], check=True, timeout=10)
