"""The local drivers with the records that they have in a real installation: a whole life, on each database."""

from __future__ import annotations

import uuid
from typing import Any

import pytest

from hullwright.drivers.image.local.driver import LocalImageDriver
from hullwright.drivers.network.local.driver import LocalNetworkDriver
from hullwright.drivers.volume.local.driver import LocalVolumeDriver
from hullwright.objects.errors import ImageInUse, VolumeConnectError, VolumeNotFound
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
