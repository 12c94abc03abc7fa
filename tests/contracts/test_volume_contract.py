"""The contract of volume drivers, kept by every one of them."""

from __future__ import annotations

import hashlib
import uuid
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from hullwright.drivers.volume.contract import VolumeDriver
from hullwright.drivers.volume.local.driver import LocalVolumeDriver
from hullwright.objects.errors import HypervisorUnavailable, ImageNotFound, VolumeConnectError, VolumeError, VolumeInvalidState
from hullwright.objects.hosts import HostRef
from hullwright.objects.images import Image
from hullwright.objects.volumes import BlockDeviceRequest, Volume
from support.local_hosts import HostUnderTest
from support.memory_stores import MemoryVolumeStore

MakeDriver = Callable[[], VolumeDriver]
MIB = 1 << 20


class Images:
    """One raw image of 1 MiB."""

    def __init__(self) -> None:
        self.data = bytes(range(256)) * (MIB // 256)
        digest = hashlib.sha256(self.data).hexdigest()
        self.image = Image("image", "image", disk_format="raw", size_bytes=MIB, virtual_size_bytes=MIB, checksum_sha256=digest)

    def show(self, image_id: str) -> Image:
        if image_id != self.image.id:
            raise ImageNotFound(id=image_id)
        return self.image

    def read(self, image: Image, offset: int = 0) -> Iterator[bytes]:
        yield self.data[offset:]


@pytest.fixture
def store(host: HostUnderTest) -> MemoryVolumeStore:
    return MemoryVolumeStore(host.ref)


@pytest.fixture
def make(conf: Any, store: MemoryVolumeStore) -> MakeDriver:
    """Makes driver objects that share nothing but the records and the hosts."""
    return lambda: LocalVolumeDriver(conf, store, Images())


def existing(store: MemoryVolumeStore, **changes: Any) -> Volume:
    volume = Volume(**{"id": str(uuid.uuid4()), "name": "data", "size_gb": 1, **changes})
    store.volumes[volume.id] = volume
    return volume


def device(volume_id: str | None = None, **changes: Any) -> BlockDeviceRequest:
    return BlockDeviceRequest(**{"attachment_id": str(uuid.uuid4()), "volume_id": volume_id or str(uuid.uuid4()), **changes})


def blank(**changes: Any) -> BlockDeviceRequest:
    return device(**{"source_type": "blank", "size_gb": 1, **changes})


def reserved(make: MakeDriver, *devices: BlockDeviceRequest) -> str:
    instance = str(uuid.uuid4())
    make().reserve(instance, "project", "user", devices)
    return instance


def files_of(host: HostUnderTest, volume_id: str) -> list[str]:
    return [name for name in host.volume_files() if volume_id in name]


def test_reserving_twice_gives_the_same_attachments(make: MakeDriver, store: MemoryVolumeStore) -> None:
    volume = existing(store)
    wanted = [device(volume.id), blank()]
    first = make().reserve("instance", "project", "user", wanted)
    assert [(one.id, one.volume_id) for one in first] == [(one.attachment_id, one.volume_id) for one in wanted]
    assert make().reserve("instance", "project", "user", wanted) == first
    assert store.volumes[volume.id].status == "reserved"


def test_a_volume_of_another_instance_is_refused(make: MakeDriver, store: MemoryVolumeStore) -> None:
    volume = existing(store)
    reserved(make, device(volume.id))
    with pytest.raises(VolumeInvalidState):
        make().reserve("another", "project", "user", [device(volume.id)])


def test_connecting_makes_the_bytes_and_records_the_attachment(host: HostUnderTest, make: MakeDriver, store: MemoryVolumeStore) -> None:
    volume = existing(store)
    wanted = [device(volume.id), blank(), device(source_type="image", image_id="image", size_gb=1)]
    pairs = make().connect(host.ref, reserved(make, *wanted))
    assert [attachment.volume_id for attachment, _ in pairs] == [one.volume_id for one in wanted]
    for attachment, connection in pairs:
        assert (attachment.host, attachment.state) == (host.ref.name, "attached")
        assert connection.kind == "file"
        assert connection.serial == connection.volume_id == attachment.volume_id
        assert connection.data["path"]
        assert len(files_of(host, attachment.volume_id)) == 1
        assert store.volumes[attachment.volume_id].status == "in-use"


def test_connecting_twice_is_connecting_once(host: HostUnderTest, make: MakeDriver) -> None:
    instance = reserved(make, blank(), device(source_type="image", image_id="image", size_gb=1))
    first = make().connect(host.ref, instance)
    assert make().connect(host.ref, instance) == first
    assert len(host.volume_files()) == 2


def test_connecting_by_several_at_once_makes_one_file(host: HostUnderTest, make: MakeDriver, at_once: Callable[..., list[Any]]) -> None:
    instance = reserved(make, blank())
    answers = at_once(*(lambda: make().connect(host.ref, instance) for _ in range(4)))
    assert all(answer == answers[0] for answer in answers)
    assert len(host.volume_files()) == 1


def test_disconnecting_keeps_the_bytes_and_may_be_repeated(host: HostUnderTest, make: MakeDriver, store: MemoryVolumeStore) -> None:
    wanted = blank()
    instance = reserved(make, wanted)
    before = make().connect(host.ref, instance)
    for _ in range(2):
        make().disconnect(host.ref, instance)
        assert [(one.host, one.state) for one in store.attachments_of(instance)] == [(None, "reserved")]
    assert len(host.volume_files()) == 1
    assert make().connect(host.ref, instance) == before


def test_disconnecting_what_was_never_connected_is_fine(host: HostUnderTest, make: MakeDriver, store: MemoryVolumeStore) -> None:
    instance = reserved(make, blank())
    make().disconnect(host.ref, instance)
    make().disconnect(host.ref, instance, discard=True)
    assert host.volume_files() == set()
    assert len(store.attachments_of(instance)) == 1


def test_releasing_frees_volumes_and_deletes_those_marked_so(host: HostUnderTest, make: MakeDriver, store: MemoryVolumeStore) -> None:
    kept, doomed = existing(store), existing(store)
    instance = reserved(make, device(kept.id), device(doomed.id, delete_on_termination=True))
    make().connect(host.ref, instance)
    make().disconnect(host.ref, instance)
    for _ in range(2):
        make().release(instance)
        assert [volume.id for volume in store.volumes.values()] == [kept.id]
        assert store.volumes[kept.id].status == "available"
        assert store.attachments == {}
        assert len(files_of(host, kept.id)) == 1
        assert files_of(host, doomed.id) == []


def test_a_freed_volume_keeps_its_bytes_for_the_next_instance(host: HostUnderTest, make: MakeDriver, store: MemoryVolumeStore) -> None:
    volume = existing(store)
    connections = []
    for _ in range(2):
        instance = reserved(make, device(volume.id))
        connections.append(make().connect(host.ref, instance)[0][1])
        make().disconnect(host.ref, instance)
        make().release(instance)
    assert connections[0] == connections[1]
    assert len(host.volume_files()) == 1


def test_an_undone_build_leaves_nothing_of_the_volumes_that_it_made(
    host: HostUnderTest, make: MakeDriver, store: MemoryVolumeStore
) -> None:
    instance = reserved(make, blank(), device(source_type="image", image_id="image", size_gb=1))
    make().connect(host.ref, instance)
    for _ in range(2):
        make().disconnect(host.ref, instance, discard=True)
        assert host.volume_files() == set()
    make().release(instance)
    assert store.volumes == {}
    assert store.attachments == {}


def test_a_build_takes_its_new_volumes_to_another_host(
    host: HostUnderTest, other_host: HostUnderTest, make: MakeDriver, store: MemoryVolumeStore
) -> None:
    volume = existing(store)  # the user's, and never used
    instance = reserved(make, blank(), device(volume.id))
    make().connect(host.ref, instance)
    make().disconnect(host.ref, instance, discard=True)
    pairs = make().connect(other_host.ref, instance)
    assert {attachment.host for attachment, _ in pairs} == {other_host.ref.name}
    assert host.volume_files() == set()
    assert len(other_host.volume_files()) == 2


def test_an_undone_build_keeps_the_bytes_of_a_volume_that_was_used_before(
    host: HostUnderTest, make: MakeDriver, store: MemoryVolumeStore
) -> None:
    volume = existing(store)
    used = reserved(make, device(volume.id))
    make().connect(host.ref, used)
    make().disconnect(host.ref, used)
    make().release(used)
    failed = reserved(make, device(volume.id))
    make().connect(host.ref, failed)
    make().disconnect(host.ref, failed, discard=True)
    make().release(failed)
    assert len(files_of(host, volume.id)) == 1
    assert store.volumes[volume.id].status == "available"


def test_a_volume_with_bytes_elsewhere_cannot_be_connected(
    host: HostUnderTest, other_host: HostUnderTest, make: MakeDriver, store: MemoryVolumeStore
) -> None:
    instance = reserved(make, blank())
    make().connect(host.ref, instance)
    make().disconnect(host.ref, instance)
    with pytest.raises(VolumeConnectError, match=f"its bytes are on host {host.ref.name}"):
        make().connect(other_host.ref, instance)
    assert other_host.volume_files() == set()


def test_a_lost_file_is_told_and_not_made_anew(host: HostUnderTest, make: MakeDriver, store: MemoryVolumeStore) -> None:
    volume = existing(store)
    instance = reserved(make, device(volume.id))
    make().connect(host.ref, instance)
    make().delete(volume.id)  # behind the record's back
    with pytest.raises(VolumeConnectError, match="not in the host's storage pool"):
        make().connect(host.ref, instance)
    assert host.volume_files() == set()


def test_making_checks_the_image_before_anybody_waits_for_it(host: HostUnderTest, make: MakeDriver) -> None:
    good = Volume("volume", "name", 1, "creating", image_id="image")
    assert make().create(good) == good
    with pytest.raises(VolumeError, match="gone could not be found"):
        make().create(Volume("volume", "name", 1, "creating", image_id="gone"))
    assert host.volume_files() == set()


def test_deleting_leaves_nothing_and_may_be_repeated(host: HostUnderTest, make: MakeDriver, store: MemoryVolumeStore) -> None:
    volume = existing(store)
    instance = reserved(make, device(volume.id))
    make().connect(host.ref, instance)
    make().disconnect(host.ref, instance)
    make().release(instance)
    for _ in range(2):
        make().delete(volume.id)
        assert host.volume_files() == set()
    make().delete("never heard of")


def test_releasing_goes_on_when_a_silent_host_answers_again(
    host: HostUnderTest, make: MakeDriver, store: MemoryVolumeStore, conf: Any
) -> None:
    instance = reserved(make, blank(delete_on_termination=True), blank(delete_on_termination=True))
    make().connect(host.ref, instance)
    make().disconnect(host.ref, instance)
    silent = HostRef(host.ref.name, "qemu+unix:///system?socket=/nonexistent/libvirt-sock")
    store.hosts[silent.name] = silent
    with pytest.raises(HypervisorUnavailable):
        make().release(instance)
    assert len(store.volumes) == 2
    store.hosts[silent.name] = host.ref
    make().release(instance)
    assert store.volumes == {}
    assert host.volume_files() == set()


@pytest.mark.parametrize("record", ["deleted", "elsewhere", "made nowhere", "shared", "here", "another's"])
def test_cleaning_takes_only_bytes_that_are_on_no_record_here(
    host: HostUnderTest, make: MakeDriver, store: MemoryVolumeStore, conf: Any, record: str
) -> None:
    wanted = blank()
    instance = reserved(make, wanted)
    make().connect(host.ref, instance)
    assert make().on_host(host.ref) == [wanted.volume_id]
    match record:
        case "deleted":
            store.volumes.clear()
            store.attachments.clear()
        case "elsewhere" | "shared":
            store.place(wanted.volume_id, "elsewhere", wanted.attachment_id)
            conf.set_override("shared", record == "shared", group="volume")
        case "made nowhere" | "another's":
            store.place(wanted.volume_id, None, None)
    whose = None if record == "another's" else instance
    make().clean(host.ref, [wanted.volume_id], instance_uuid=whose)
    assert make().on_host(host.ref) == ([] if record in ("deleted", "elsewhere", "made nowhere") else [wanted.volume_id])
