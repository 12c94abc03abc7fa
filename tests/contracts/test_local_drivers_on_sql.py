"""The local drivers with the records that they have in a real installation: a whole life, on each database."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from typing import Any

import pytest

from hullwright.drivers.image.local.driver import LocalImageDriver
from hullwright.drivers.network.local.driver import LocalNetworkDriver
from hullwright.drivers.volume.local.driver import LocalVolumeDriver
from hullwright.objects.errors import ImageInUse, VolumeConnectError, VolumeError, VolumeNotFound
from hullwright.objects.images import Image
from hullwright.objects.networks import Network, NetworkRequest
from hullwright.objects.volumes import BlockDeviceRequest, Volume
from hullwright.persistence import hosts, images, networks, volumes
from hullwright.persistence.database import Database, now
from hullwright.persistence.images import SqlImageStore
from hullwright.persistence.ports import SqlPortStore
from hullwright.persistence.volumes import SqlVolumeStore
from support.local_hosts import FakeHostUnderTest, new_network


def new_id() -> str:
    return str(uuid.uuid4())


@pytest.fixture
def network(db: Database) -> Network:
    made = new_network()
    with db.write() as conn:
        networks.create(conn, made)
        for subnet in made.subnets:
            networks.create_subnet(conn, subnet)
    return made


@pytest.fixture
def registered(db: Database, fake_host: FakeHostUnderTest, other_fake_host: FakeHostUnderTest) -> FakeHostUnderTest:
    with db.write() as conn:
        for host in (fake_host, other_fake_host):
            hosts.register(conn, host.ref.name, host.ref.uri, host.ref.driver)
    return fake_host


def test_ports_live_from_allocation_to_release(db: Database, conf: Any, network: Network, registered: FakeHostUnderTest) -> None:
    store, instance = SqlPortStore(db), new_id()
    driver = LocalNetworkDriver(conf, store)
    wanted = [NetworkRequest(new_id(), network.id) for _ in range(2)]
    ports = driver.allocate(instance, "project", wanted)
    assert driver.allocate(instance, "project", wanted) == ports
    vifs = driver.plug(registered.ref, instance, "boat")
    assert [vif.fixed_ips for vif in vifs] == [port.fixed_ips for port in ports]
    assert [port.host for port in store.ports_of(instance)] == [registered.ref.name] * 2
    driver.unplug(registered.ref, instance)
    assert [port.host for port in store.ports_of(instance)] == [None] * 2
    driver.deallocate(instance)
    assert store.ports_of(instance) == []
    assert registered.plugged(network) == set()


def test_volumes_live_from_reservation_to_release(
    db: Database, conf: Any, registered: FakeHostUnderTest, other_fake_host: FakeHostUnderTest
) -> None:
    store, instance = SqlVolumeStore(db), new_id()
    driver = LocalVolumeDriver(conf, store, None)
    mine = Volume(new_id(), "data", 1, created_at=now())
    with db.write() as conn:
        volumes.create(conn, mine)
    made = BlockDeviceRequest(new_id(), new_id(), "blank", size_gb=1)
    driver.reserve(instance, "project", "user", [BlockDeviceRequest(new_id(), mine.id), made])
    first = driver.connect(registered.ref, instance)
    assert driver.connect(registered.ref, instance) == first
    assert store.home(mine.id) == registered.ref
    with pytest.raises(VolumeConnectError):
        driver.connect(other_fake_host.ref, instance)

    driver.disconnect(registered.ref, instance, discard=True)
    assert store.home(mine.id) is None
    assert registered.volume_files() == set()
    driver.connect(other_fake_host.ref, instance)
    driver.disconnect(other_fake_host.ref, instance, discard=True)
    driver.release(instance)
    assert other_fake_host.volume_files() == set()
    assert store.volume(mine.id).status == "available"
    with pytest.raises(VolumeNotFound):
        store.volume(made.volume_id)


class Between(SqlVolumeStore):
    """A store that lets somebody else act between its answer number `nth` and what is made of that."""

    def __init__(self, db: Database, nth: int, act: Callable[[], object]) -> None:
        super().__init__(db)
        self._left, self._act = nth, act

    def __getattribute__(self, name: str) -> Any:
        found = super().__getattribute__(name)
        if name.startswith("_"):
            return found

        def answer(*args: Any, **kwargs: Any) -> Any:
            answered = found(*args, **kwargs)
            self._left -= 1
            if self._left == 0:
                self._act()
            return answered

        return answer


@pytest.mark.parametrize("nth", [1, 2])
def test_a_late_cleaning_does_not_delete_what_another_server_has_just_made(
    db: Database, conf: Any, registered: FakeHostUnderTest, nth: int
) -> None:
    volume, host = Volume(new_id(), "data", 1, created_at=now()), registered.ref
    with db.write() as conn:
        volumes.create(conn, volume)
    other = LocalVolumeDriver(conf, SqlVolumeStore(db), None)
    outcome: list[str] = []

    def begin_to_use() -> None:
        other.reserve("other", "project", "user", [BlockDeviceRequest(new_id(), volume.id)])
        try:
            other.connect(host, "other")
        except VolumeConnectError:
            outcome.append("refused")
        else:
            outcome.append("connected")

    LocalVolumeDriver(conf, Between(db, nth, begin_to_use), None).clean(host, [volume.id], instance_uuid="first")
    assert outcome in (["refused"], ["connected"])
    if outcome == ["refused"]:
        other.connect(host, "other")  # the cleaning is over
    found = SqlVolumeStore(db).volume(volume.id)
    assert (found.host, found.status) == (host.name, "in-use")
    assert len(registered.volume_files()) == 1, "its bytes are where its record says"


def test_what_two_cleanings_find_of_one_volume_is_deleted_by_one_after_the_other(
    db: Database, conf: Any, registered: FakeHostUnderTest, other_fake_host: FakeHostUnderTest
) -> None:
    volume, store = Volume(new_id(), "data", 1, created_at=now()), SqlVolumeStore(db)
    with db.write() as conn:
        volumes.create(conn, volume)
    driver = LocalVolumeDriver(conf, store, None)
    assert store.begin_cleaning(volume.id, other_fake_host.ref.name, instance_uuid=None, shared=False)
    with pytest.raises(VolumeError, match="being deleted"):
        driver.clean(registered.ref, [volume.id])
    driver.clean(other_fake_host.ref, [volume.id])  # the one that was cut off goes on, and takes its mark away
    driver.clean(registered.ref, [volume.id])
    assert store.volume(volume.id).cleaning_on is None


def test_a_host_that_is_removed_leaves_no_mark_of_a_cleaning(db: Database, registered: FakeHostUnderTest) -> None:
    volume, store = Volume(new_id(), "data", 1, created_at=now()), SqlVolumeStore(db)
    with db.write() as conn:
        volumes.create(conn, volume)
    assert store.begin_cleaning(volume.id, registered.ref.name, instance_uuid=None, shared=False)
    with db.write() as conn:
        hosts.remove(conn, registered.ref.name)
    assert store.volume(volume.id).cleaning_on is None


@pytest.mark.parametrize("nth", [1, 2, 3, 4])
def test_a_volume_that_the_next_host_connects_during_a_late_undo_is_in_use_there(
    db: Database, conf: Any, registered: FakeHostUnderTest, other_fake_host: FakeHostUnderTest, nth: int
) -> None:
    made, store = BlockDeviceRequest(new_id(), new_id(), "blank", size_gb=1), SqlVolumeStore(db)
    driver = LocalVolumeDriver(conf, store, None)
    driver.reserve("server", "project", "user", [made])
    driver.connect(registered.ref, "server")
    with db.write() as conn:  # the first host's undo was cut off when the bytes were gone
        volumes.place(conn, made.volume_id, None, None)
    late = LocalVolumeDriver(conf, Between(db, nth, lambda: driver.connect(other_fake_host.ref, "server")), None)
    late.disconnect(registered.ref, "server", discard=True)
    found = store.volume(made.volume_id)
    assert (found.host, found.status) == (other_fake_host.ref.name, "in-use")
    assert [(bond.host, bond.state) for bond in store.attachments_of("server")] == [(other_fake_host.ref.name, "attached")]
    assert other_fake_host.volume_files() != set()


def test_an_image_stays_until_a_volume_made_from_it_has_its_bytes(db: Database, conf: Any, registered: FakeHostUnderTest) -> None:
    image_driver = LocalImageDriver(conf, SqlImageStore(db))
    image_id = new_id()
    size, sha256, md5 = image_driver.directory.write(image_id, [b"x" * 512], max_bytes=512)
    image = Image(image_id, "image", disk_format="raw", size_bytes=size, checksum_sha256=sha256, checksum_md5=md5)
    volume = Volume(new_id(), "data", 1, "creating", image_id=image_id)
    with db.write() as conn:
        images.create(conn, image)
        volumes.create(conn, volume)
    driver = LocalVolumeDriver(conf, SqlVolumeStore(db), image_driver)
    driver.create(volume)
    with db.write() as conn:
        volumes.set_status(conn, volume.id, "available")
    with pytest.raises(ImageInUse), db.write() as conn:
        images.delete(conn, image_id)
    driver.reserve("instance", "project", "user", [BlockDeviceRequest(new_id(), volume.id)])
    driver.connect(registered.ref, "instance")
    with db.write() as conn:
        images.delete(conn, image_id)
        assert not images.exists(conn, image_id)
