"""The local volume driver on real libvirts: what is in the files, and what becomes of them when something goes wrong."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import threading
import uuid
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from hullwright.drivers import libvirt_storage as storage
from hullwright.drivers.volume.local.driver import LocalVolumeDriver
from hullwright.objects import fence
from hullwright.objects.errors import (
    HostDiskFull,
    HypervisorUnavailable,
    ImageCorrupt,
    ImageNotFound,
    ImageUnacceptable,
    LeaseLost,
    VolumeError,
)
from hullwright.objects.guests import GuestVolume
from hullwright.objects.hosts import HostRef
from hullwright.objects.images import Image
from hullwright.objects.volumes import BlockDeviceRequest, Connection, Volume
from support.libvirtd import GuestImage
from support.local_hosts import LibvirtHostUnderTest
from support.memory_stores import MemoryVolumeStore
from support.virt_hosts import VirtHost, guest_spec

pytestmark = pytest.mark.libvirt
MIB = 1 << 20
GIB = 1 << 30


class Images:
    """One image, whose bytes can be made to differ from its record."""

    def __init__(self, path: Path, disk_format: str, virtual_size_bytes: int) -> None:
        self.path = path
        data = path.read_bytes()
        self.image = Image(
            "image",
            "image",
            disk_format=disk_format,
            size_bytes=len(data),
            virtual_size_bytes=virtual_size_bytes,
            checksum_sha256=hashlib.sha256(data).hexdigest(),
        )

    def show(self, image_id: str) -> Image:
        if image_id != self.image.id:
            raise ImageNotFound(id=image_id)
        return self.image

    def read(self, image: Image, offset: int = 0) -> Iterator[bytes]:
        with self.path.open("rb") as file:
            file.seek(offset)
            while chunk := file.read(MIB):
                yield chunk


def image_info(path: str) -> dict[str, Any]:
    """What qemu-img says of a file."""
    done = subprocess.run(["qemu-img", "info", "--output=json", path], capture_output=True, text=True, check=True)
    found: dict[str, Any] = json.loads(done.stdout)
    return found


@pytest.fixture
def raw_image(tmp_path: Path) -> Images:
    path = tmp_path / "image.raw"
    path.write_bytes(os.urandom(3 * MIB))
    return Images(path, "raw", 3 * MIB)


@pytest.fixture
def qcow2_image(tmp_path: Path, raw_image: Images) -> Images:
    path = tmp_path / "image.qcow2"
    subprocess.run(["qemu-img", "convert", "-f", "raw", "-O", "qcow2", raw_image.path, path], check=True)
    return Images(path, "qcow2", 3 * MIB)


@pytest.fixture
def store(real_host: LibvirtHostUnderTest) -> MemoryVolumeStore:
    return MemoryVolumeStore(real_host.ref)


def connect(conf: Any, store: MemoryVolumeStore, host: LibvirtHostUnderTest, images: Images | None, **device: Any) -> Connection:
    """Have an instance with one new volume of 1 GB connected."""
    wanted = BlockDeviceRequest(
        **{"attachment_id": str(uuid.uuid4()), "volume_id": str(uuid.uuid4()), "source_type": "blank", "size_gb": 1, **device}
    )
    driver = LocalVolumeDriver(conf, store, images)
    instance = str(uuid.uuid4())
    driver.reserve(instance, "project", "user", [wanted])
    [(_, connection)] = driver.connect(host.ref, instance)
    return connection


def from_image(**device: Any) -> dict[str, Any]:
    return {"source_type": "image", "image_id": "image", **device}


@pytest.mark.parametrize("disk_format", ["qcow2", "raw"])
def test_a_blank_volume_is_a_sparse_disk_of_its_size(
    conf: Any, store: MemoryVolumeStore, real_host: LibvirtHostUnderTest, disk_format: str
) -> None:
    conf.set_override("format", disk_format, group="volume")
    connection = connect(conf, store, real_host, None, size_gb=3)
    assert connection.data["format"] == disk_format
    info = image_info(connection.data["path"])
    assert (info["format"], info["virtual-size"]) == (disk_format, 3 * GIB)
    assert info["actual-size"] < MIB


@pytest.mark.parametrize("kind", ["raw_image", "qcow2_image"])
def test_a_volume_from_an_image_begins_with_it_and_has_its_own_size(
    conf: Any, store: MemoryVolumeStore, real_host: LibvirtHostUnderTest, request: pytest.FixtureRequest, raw_image: Images, kind: str
) -> None:
    images: Images = request.getfixturevalue(kind)
    connection = connect(conf, store, real_host, images, **from_image(size_gb=2))
    info = image_info(connection.data["path"])
    assert info["format"] == connection.data["format"] == images.image.disk_format
    assert info["virtual-size"] == 2 * GIB
    assert "backing-filename" not in info
    head = subprocess.run(
        ["qemu-img", "dd", "-f", info["format"], "-O", "raw", "bs=1M", "count=3", f"if={connection.data['path']}", "of=head"],
        cwd=raw_image.path.parent,
        check=False,
    )
    assert head.returncode == 0
    assert (raw_image.path.parent / "head").read_bytes() == raw_image.path.read_bytes()


def assert_nothing_made(store: MemoryVolumeStore, host: LibvirtHostUnderTest) -> None:
    assert host.volume_files() == set()
    [volume] = store.volumes.values()
    assert (volume.host, volume.status) == (None, "creating")


def test_an_image_that_does_not_fit_is_refused(
    conf: Any, store: MemoryVolumeStore, real_host: LibvirtHostUnderTest, tmp_path: Path
) -> None:
    path = tmp_path / "large.qcow2"
    subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", path, "2G"], check=True)
    with pytest.raises(VolumeError, match="needs 2 GB, the volume has 1"):
        connect(conf, store, real_host, Images(path, "qcow2", 2 * GIB), **from_image())
    assert_nothing_made(store, real_host)


def test_an_image_with_a_backing_file_is_refused(
    conf: Any, store: MemoryVolumeStore, real_host: LibvirtHostUnderTest, tmp_path: Path
) -> None:
    path = tmp_path / "thief.qcow2"
    subprocess.run(["qemu-img", "create", "-q", "-u", "-f", "qcow2", "-F", "raw", "-b", "/etc/shadow", path, "1M"], check=True)
    with pytest.raises(ImageUnacceptable, match="backing file"):
        connect(conf, store, real_host, Images(path, "qcow2", MIB), **from_image())
    assert_nothing_made(store, real_host)


@pytest.mark.parametrize("harm", ["flipped", "short", "long"])
def test_bytes_that_are_not_the_images_leave_nothing(
    conf: Any, store: MemoryVolumeStore, real_host: LibvirtHostUnderTest, raw_image: Images, harm: str
) -> None:
    data = raw_image.path.read_bytes()
    harmed = {"flipped": data[:-1] + bytes([data[-1] ^ 1]), "short": data[:-1], "long": data + b"x"}[harm]
    raw_image.path.write_bytes(harmed)
    with pytest.raises(ImageCorrupt):
        connect(conf, store, real_host, raw_image, **from_image())
    assert_nothing_made(store, real_host)


def test_a_host_without_room_is_told_before_a_byte_is_sent(
    conf: Any, store: MemoryVolumeStore, real_host: LibvirtHostUnderTest, raw_image: Images
) -> None:
    raw_image.image = replace(raw_image.image, size_bytes=1 << 60)
    with pytest.raises(HostDiskFull, match="are free"):
        connect(conf, store, real_host, raw_image, **from_image(size_gb=(1 << 30) + 1))
    assert_nothing_made(store, real_host)


def test_what_a_crash_left_half_filled_is_filled_anew(
    conf: Any, store: MemoryVolumeStore, real_host: LibvirtHostUnderTest, raw_image: Images
) -> None:
    volume_id = str(uuid.uuid4())
    half = Images(raw_image.path, "raw", 3 * MIB)

    def break_off(image: Image, offset: int = 0) -> Iterator[bytes]:
        yield raw_image.path.read_bytes()[:MIB]
        raise KeyboardInterrupt

    half.read = break_off  # type: ignore[method-assign]
    with pytest.raises(KeyboardInterrupt):
        connect(conf, store, real_host, half, **from_image(volume_id=volume_id))
    store.attachments.clear()
    connection = connect(conf, store, real_host, raw_image, **from_image(volume_id=volume_id))
    assert Path(connection.data["path"]).read_bytes()[: 3 * MIB] == raw_image.path.read_bytes()
    assert len(real_host.volume_files()) == 1


def test_a_shared_pools_volume_is_used_on_another_host(
    conf: Any, real_host: LibvirtHostUnderTest, other_real_host: LibvirtHostUnderTest
) -> None:
    conf.set_override("shared", True, group="volume")
    store = MemoryVolumeStore(real_host.ref, other_real_host.ref)
    driver = LocalVolumeDriver(conf, store, None)
    first = connect(conf, store, real_host, None)
    [attachment] = store.attachments.values()
    driver.disconnect(real_host.ref, attachment.instance_uuid)
    [(there, second)] = driver.connect(other_real_host.ref, attachment.instance_uuid)
    assert second == first
    assert there.host == other_real_host.ref.name
    assert real_host.volume_files() == other_real_host.volume_files() != set()


def test_hosts_on_one_machine_do_not_share_a_pool_unless_told(
    conf: Any, real_host: LibvirtHostUnderTest, other_real_host: LibvirtHostUnderTest
) -> None:
    store = MemoryVolumeStore(real_host.ref, other_real_host.ref)
    paths = [connect(conf, store, host, None).data["path"] for host in (real_host, other_real_host)]
    assert len({os.path.dirname(path) for path in paths}) == 2
    assert len(real_host.volume_files()) == len(other_real_host.volume_files()) == 1


def test_a_host_that_does_not_answer_is_told(conf: Any, store: MemoryVolumeStore, real_host: LibvirtHostUnderTest) -> None:
    silent = replace(real_host, ref=HostRef("silent", "qemu+unix:///system?socket=/nonexistent/libvirt-sock"))
    with pytest.raises(HypervisorUnavailable, match="silent"):
        connect(conf, store, silent, None)
    assert_nothing_made(store, real_host)


def test_a_volume_of_a_host_that_is_gone_can_be_deleted(
    conf: Any, store: MemoryVolumeStore, real_host: LibvirtHostUnderTest, caplog: pytest.LogCaptureFixture
) -> None:
    connection = connect(conf, store, real_host, None)
    hosts, store.hosts = store.hosts, {}
    LocalVolumeDriver(conf, store, None).delete(connection.volume_id)
    assert "is not registered any more" in caplog.text
    store.hosts = hosts
    LocalVolumeDriver(conf, store, None).delete(connection.volume_id)
    assert real_host.volume_files() == set()


def test_what_is_sent_is_told_as_it_goes_over_all_volumes(
    conf: Any, store: MemoryVolumeStore, real_host: LibvirtHostUnderTest, raw_image: Images
) -> None:
    told: list[tuple[int, int]] = []
    driver = LocalVolumeDriver(conf, store, raw_image)
    wanted = [
        BlockDeviceRequest(str(uuid.uuid4()), str(uuid.uuid4()), source_type="image", image_id="image", size_gb=1),
        BlockDeviceRequest(str(uuid.uuid4()), str(uuid.uuid4()), source_type="blank", size_gb=1),
        BlockDeviceRequest(str(uuid.uuid4()), str(uuid.uuid4()), source_type="image", image_id="image", size_gb=1),
    ]
    driver.reserve("instance", "project", "user", wanted)
    driver.connect(real_host.ref, "instance", lambda done, total: told.append((done, total)))
    assert told == [(MIB * n, 3 * MIB if n <= 3 else 6 * MIB) for n in range(1, 7)]


class Fence:
    """One that a test takes away."""

    is_lost = False

    def check(self) -> None:
        if self.is_lost:
            raise LeaseLost("taken")

    def prove(self, connection: object) -> None:
        self.check()


def test_who_lost_the_job_while_filling_a_volume_leaves_what_the_new_owner_made(
    conf: Any, store: MemoryVolumeStore, real_host: LibvirtHostUnderTest, raw_image: Images, monkeypatch: pytest.MonkeyPatch
) -> None:
    ours, volume = Fence(), Volume("00000000-0000-0000-0000-0000000000aa", "v", 1, image_id="image")
    files = LocalVolumeDriver(conf, store, raw_image)._files(real_host.ref)
    give_up = storage.Upload.abort

    def give_up_late(upload: storage.Upload) -> None:
        """Our stream ends; before we go on, another conductor has the job and makes the volume."""
        give_up(upload)
        ours.is_lost = True
        other = threading.Thread(target=files.make_from_image, args=(volume, raw_image.image, raw_image))
        other.start()
        other.join()

    monkeypatch.setattr(storage.Upload, "abort", give_up_late)
    cut = Images(raw_image.path, "raw", 3 * MIB)
    monkeypatch.setattr(cut, "read", lambda image, offset=0: iter([bytes(MIB), bytes(3 * MIB)]))  # longer than it says
    with fence.standing_behind(ours), pytest.raises(LeaseLost):
        files.make_from_image(volume, raw_image.image, cut)
    found = files.find(volume.id)
    assert found is not None
    assert Path(found.path).read_bytes()[: 3 * MIB] == raw_image.path.read_bytes()
    with fence.standing_behind(ours), pytest.raises(LeaseLost):
        files.delete(volume.id)
    assert files.find(volume.id) is not None


@pytest.mark.slow
def test_a_guest_boots_from_a_volume_and_sees_another(
    conf: Any, store: MemoryVolumeStore, real_host: LibvirtHostUnderTest, virt_host: VirtHost, guest_image: GuestImage
) -> None:
    images = Images(guest_image.qcow2, "qcow2", 32 * MIB)
    root = connect(conf, store, real_host, images, **from_image(boot_index=0))
    data = connect(conf, store, real_host, None, size_gb=2)
    guest = guest_spec(None, volumes=(GuestVolume(root, "vda", boot_index=0), GuestVolume(data, "vdb")))
    virt_host.driver.spawn(guest)
    log = virt_host.await_console(guest.uuid, b"GUEST-BLOCK", seconds=120).decode()
    assert f"vda:{GIB // 512}:{root.volume_id[:20]}" in log
    assert f"vdb:{2 * GIB // 512}:{data.volume_id[:20]}" in log
