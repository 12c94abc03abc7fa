"""Drift on a real libvirt: guests, disks, half images and networks that nobody has a record of; and news of guests."""

from __future__ import annotations

import dataclasses
import os
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import sqlalchemy as sa

from hullwright.conductor.reconcile.doctor import Doctor
from hullwright.conductor.reconcile.findings import KINDS, Finding
from hullwright.drivers.libvirt_pool import LibvirtPool
from hullwright.drivers.network.local import plumbing
from hullwright.drivers.network.local.definition import HostEntry
from hullwright.drivers.virt.libvirt import domains
from hullwright.drivers.virt.libvirt.image_cache import Entry, Record, Watch
from hullwright.objects.images import Image
from hullwright.objects.states import PowerState, VmState
from hullwright.persistence import networks, ports
from hullwright.persistence.models.networks import networks as networks_table
from hullwright.persistence.models.networks import subnets as subnets_table
from reconcile import drift
from support.house import House
from support.libvirtd import Libvirtd
from support.local_hosts import new_network
from support.virt_hosts import MakeVirtHost, Source, VirtHost, guest_spec, image_of, no_progress

pytestmark = pytest.mark.libvirt
BYTES = b"\x5a" * 65536


@pytest.fixture
def host(make_virt_host: MakeVirtHost, request: pytest.FixtureRequest) -> VirtHost:
    """A real host with a pool of the test's own; the parameter, if any: seconds after which a transfer that stands still is taken over."""
    return make_virt_host(image_stale_seconds=getattr(request, "param", 1.0))


@pytest.fixture
def house(tmp_path: Path, host: VirtHost) -> Iterator[House]:
    """A house on the real host."""
    reconcile = {"event_delay_seconds": 0.2}
    made = House(tmp_path, libvirt=dict(host.options), reconcile=reconcile)
    made.add_host(host.ref.name, host.ref.uri)
    yield made
    made.close()


@pytest.fixture
def doctor(house: House) -> Doctor:
    """Its doctor."""
    return Doctor(house.db, house.drivers(), house.conf)


def about(doctor: Doctor, subject: str) -> list[Finding]:
    """What is found about one thing; the host may have others' things."""
    return [finding for finding in doctor.look().findings if finding.subject == subject]


def mend(house: House, doctor: Doctor, subject: str) -> list[str]:
    """Mend one thing only; answers the states of the outcomes."""
    look = doctor.examine(grace_seconds=0.1)
    only = tuple(finding for finding in look.findings if finding.subject == subject)
    outcomes = doctor.mend(dataclasses.replace(look, findings=only), kinds=tuple(KINDS), with_consent=True, request_id="r")
    if house.open_jobs():
        with house.conductor():
            house.rest(60)
    return [outcome.state for outcome in outcomes]


def spawn(host: VirtHost) -> str:
    """A running guest of ours."""
    spec = guest_spec(host.cache(BYTES, "raw"))
    host.driver.spawn(spec)
    return spec.uuid


def test_a_guest_of_ours_without_a_record_is_found_and_reaped_with_its_files(house: House, doctor: Doctor, host: VirtHost) -> None:
    instance_uuid = spawn(host)
    (finding,) = about(doctor, instance_uuid)
    assert (finding.kind, finding.host) == ("guest_unknown", host.ref.name)
    assert mend(house, doctor, instance_uuid) == ["posted"]
    assert about(doctor, instance_uuid) == []
    assert host.driver.power_state(instance_uuid) is None
    assert not [name for name in host.volumes() if name.startswith(instance_uuid)]


def test_disks_and_a_config_drive_of_a_deleted_instance_are_found_and_deleted(house: House, doctor: Doctor, host: VirtHost) -> None:
    instance_uuid = spawn(host)
    with LibvirtPool.shared().connection(host.ref, "lose the domain") as connection:
        domains.remove(domains.find(connection, instance_uuid))
    drift.insert_instance(house, uuid=instance_uuid, vm_state=VmState.DELETED, deleted_at=1.0)
    assert any(name.endswith("_disk.config") for name in host.volumes())
    assert [finding.kind for finding in about(doctor, instance_uuid)] == ["files_left"]
    assert mend(house, doctor, instance_uuid) == ["posted"]
    assert about(doctor, instance_uuid) == []
    assert not [name for name in host.volumes() if name.startswith(instance_uuid)]


def test_an_instance_whose_domain_is_gone_is_found_and_its_guest_is_not_made_anew(house: House, doctor: Doctor, host: VirtHost) -> None:
    instance_uuid = drift.insert_instance(house, vm_state=VmState.ACTIVE, host=host.ref.name, launched_at=1.0)
    kinds = {finding.kind for finding in about(doctor, instance_uuid)}
    assert kinds == {"guest_missing", "instance_without_allocation"}
    assert set(mend(house, doctor, instance_uuid)) == {"mended"}
    assert house.get(instance_uuid).vm_state == VmState.ERROR
    assert about(doctor, instance_uuid) == []
    assert host.driver.power_state(instance_uuid) is None


def half_sent(host: VirtHost) -> str:
    """An image of which a conductor that died has sent a part."""
    image = Image(id=str(uuid.uuid4()), name="", size_bytes=len(BYTES))
    with LibvirtPool.shared().connection(host.ref, "send a part") as connection:
        pool = connection.storagePoolLookupByName(host.pool)
        for name, size_bytes in ((f"base-{image.id}", len(BYTES)), (f"base-{image.id}.part-1", 1024)):
            xml = f"<volume><name>{name}</name><capacity>{size_bytes}</capacity></volume>"
            pool.createXML(xml, 0)
        entry = Entry(connection, pool, image)
        entry.generation, entry.record = 1, Record(size_bytes=len(BYTES), done_bytes=4096, owner="dead", held=True)
        entry.save()
    return image.id


def test_a_half_base_image_with_nobody_at_it_is_found_and_deleted(house: House, doctor: Doctor, host: VirtHost) -> None:
    whole = host.cache(BYTES, "raw")
    image_id = half_sent(host)
    assert [finding.kind for finding in about(doctor, image_id)] == ["base_image_half"]
    assert about(doctor, whole.image_id) == []
    assert mend(house, doctor, image_id) == ["mended"]
    assert about(doctor, image_id) == []
    assert host.volumes() == [f"base-{whole.image_id}", f"base-{whole.image_id}.ok"]


@pytest.mark.parametrize("host", [3.0], indirect=True)  # many times what there is between two pieces
def test_a_half_base_image_that_somebody_is_sending_is_left_alone(host: VirtHost) -> None:
    is_over = threading.Event()

    class Slow(Source):
        def read(self, image: Image, offset: int = 0) -> Iterator[bytes]:
            for start in range(offset, len(self.data), 256 * 1024):
                is_over.wait(0.2)
                yield self.data[start : start + 256 * 1024]

    data = b"\xa5" * (16 << 20)
    image = image_of(data)
    thread = threading.Thread(target=lambda: host.driver.ensure_image(image, Slow(data), no_progress))
    thread.start()
    until = time.monotonic() + 10
    while image.id not in host.driver.half_images() and time.monotonic() < until:
        time.sleep(0.05)
    assert host.driver.discard_half_image(image.id) is False
    is_over.set()
    thread.join(60)
    assert image.id not in host.driver.half_images()
    assert f"base-{image.id}.ok" in host.volumes()


# --- Base images ---------------------------------------------------------------------------------------------------------


def write_into(path: str, data: bytes = b"worm", *, mtime_ns: int | None = None) -> None:
    """Damage a file of the host, and have it look untouched if a time is given."""
    with open(path, "r+b") as file:
        file.seek(4096)
        file.write(data)
    if mtime_ns is not None:
        os.utime(path, ns=(mtime_ns, mtime_ns))


def test_a_base_image_that_was_written_into_is_found_put_away_and_fetched_anew(house: House, doctor: Doctor, host: VirtHost) -> None:
    image = image_of(BYTES)
    cached = host.driver.ensure_image(image, Source(BYTES), no_progress)
    other = host.cache(BYTES[::-1], "raw")
    assert doctor.look(deep=True).findings == ()
    write_into(cached.path)
    (finding,) = about(doctor, image.id)
    assert (finding.kind, finding.host) == ("base_image_damaged", host.ref.name)
    assert str(image.checksum_sha256) in finding.evidence
    assert mend(house, doctor, image.id) == ["mended"]
    assert host.volumes() == [f"base-{other.image_id}", f"base-{other.image_id}.ok"]
    again = Source(BYTES)
    assert host.driver.ensure_image(image, again, no_progress) == cached
    assert (again.sent_bytes, Path(cached.path).read_bytes()) == (len(BYTES), BYTES)
    assert doctor.look(deep=True).findings == ()


def test_a_base_image_that_guests_stand_on_is_told_and_left_until_they_are_gone(house: House, doctor: Doctor, host: VirtHost) -> None:
    cached = host.cache(BYTES, "raw")
    spec = guest_spec(cached)
    host.driver.spawn(spec)
    write_into(cached.path)
    look = doctor.examine(grace_seconds=0.1, kinds=["base_image_damaged"])
    (outcome,) = doctor.mend(look, kinds=tuple(KINDS), request_id="r")
    assert (outcome.state, outcome.finding.subject) == ("refused", cached.image_id)
    assert spec.name in outcome.text
    assert f"{spec.uuid}_disk" in outcome.text
    assert {f"base-{cached.image_id}", f"base-{cached.image_id}.ok"} <= set(host.volumes())
    host.driver.power_off(spec.uuid, 0)
    assert mend(house, doctor, cached.image_id) == ["refused"], "a guest that is off stands on it too"
    host.driver.destroy(spec.uuid)
    assert mend(house, doctor, cached.image_id) == ["mended"]
    assert host.volumes() == []


def test_a_base_image_that_is_rotten_without_having_been_written_to_is_found_by_a_deep_look(doctor: Doctor, host: VirtHost) -> None:
    cached = host.cache(BYTES, "raw")
    write_into(cached.path, mtime_ns=os.stat(cached.path).st_mtime_ns)
    assert about(doctor, cached.image_id) == []
    assert [finding.subject for finding in doctor.look(deep=True).findings] == [cached.image_id]


def test_a_base_image_that_was_only_touched_is_whole(doctor: Doctor, host: VirtHost) -> None:
    cached = host.cache(BYTES, "raw")
    os.utime(cached.path)
    assert about(doctor, cached.image_id) == []


@pytest.mark.parametrize(("damage", "told"), [(lambda path: os.truncate(path, 100), "100 bytes"), (os.unlink, "gone")], ids=["cut", "gone"])
def test_a_base_image_that_is_cut_or_gone_is_found_and_put_away(
    house: House, doctor: Doctor, host: VirtHost, damage: Callable[[str], None], told: str
) -> None:
    cached = host.cache(BYTES, "raw")
    damage(cached.path)
    (finding,) = about(doctor, cached.image_id)
    assert told in finding.evidence
    assert mend(house, doctor, cached.image_id) == ["mended"]
    assert host.volumes() == []


def test_an_image_that_came_without_a_checksum_is_checked_by_its_own(doctor: Doctor, host: VirtHost) -> None:
    image = dataclasses.replace(image_of(BYTES), checksum_sha256=None)
    cached = host.driver.ensure_image(image, Source(BYTES), no_progress)
    assert about(doctor, image.id) == []
    write_into(cached.path)
    assert [finding.kind for finding in about(doctor, image.id)] == ["base_image_damaged"]


@pytest.mark.parametrize("host", [30.0], indirect=True)  # nobody takes it from us meanwhile
def test_whoever_wants_a_damaged_image_meanwhile_has_it_fetched_anew(doctor: Doctor, host: VirtHost) -> None:
    image = image_of(BYTES)
    cached = host.driver.ensure_image(image, Source(BYTES), no_progress)
    write_into(cached.path)
    with LibvirtPool.shared().connection(host.ref, "stand in the doctor's place") as connection:
        pool = connection.storagePoolLookupByName(host.pool)
        entry = Entry(connection, pool, image)
        assert entry.take(Watch(), 15.0)
        entry.unmark()
        waiting = threading.Thread(target=lambda: host.driver.ensure_image(image, Source(BYTES), no_progress))
        waiting.start()
        time.sleep(0.6)
        assert waiting.is_alive(), "it waits while the image is put away"
        entry.discard()
    waiting.join(30)
    assert Path(cached.path).read_bytes() == BYTES
    assert doctor.look(deep=True).findings == ()


# --- Networks, and news of guests ----------------------------------------------------------------------------------------


def test_a_network_of_ours_without_a_record_is_found_and_swept(house: House, doctor: Doctor, host: VirtHost) -> None:
    network = new_network()
    with LibvirtPool.shared().connection(host.ref, "make a network") as connection:
        plumbing.ensure_network(connection, network, "test", 3600)
    assert [finding.kind for finding in about(doctor, network.id)] == ["network_left"]
    with house.db.read() as conn:
        assert conn.execute(sa.select(networks_table.c.id).union(sa.select(subnets_table.c.id))).all() == []
    assert mend(house, doctor, network.id) == ["posted"]
    assert about(doctor, network.id) == []


def test_the_entry_of_a_port_without_a_record_is_found_and_swept_and_that_of_a_port_is_left(
    house: House, doctor: Doctor, host: VirtHost
) -> None:
    port_id = drift.new_port(house, None, by_build=False)
    with house.db.read() as conn:
        port = ports.get(conn, port_id)
        bare = networks.get(conn, port.network_id)
    network = dataclasses.replace(bare, subnets=tuple(dataclasses.replace(subnet, gateway_ip="10.9.0.1") for subnet in bare.subnets))
    mine = HostEntry(port.mac_address, port.fixed_ips[0].address, "mine")
    stale = HostEntry("fa:16:3e:00:00:07", "10.9.0.77", "gone")
    with LibvirtPool.shared().connection(host.ref, "make a network") as connection:
        found = plumbing.ensure_network(connection, network, "test", 3600)
        try:
            plumbing.ensure_entries(found, [mine, stale], 3600)
            subject = f"{network.id} {stale.mac}"
            assert [finding.kind for finding in about(doctor, subject)] == ["network_entry_left"]
            assert mend(house, doctor, subject) == ["posted"]
            assert about(doctor, subject) == []
            assert plumbing.entries(connection, lambda id: id == network.id) == {network.id: {mine.mac}}
        finally:
            plumbing.remove_network(connection, network.id)


def test_news_of_guests_comes_and_comes_again_after_the_connection_was_lost(host: VirtHost, libvirt_host: Libvirtd) -> None:
    told: list[str] = []
    assert host.driver.watch(told.append) is True
    try:
        instance_uuid = spawn(host)
        _await(lambda: instance_uuid in told)
        libvirt_host.kill()
        libvirt_host.start()
        told.clear()
        host.driver.power_off(instance_uuid, 0)
        _await(lambda: instance_uuid in told)
    finally:
        host.driver.close()
    told.clear()
    host.driver.power_on(instance_uuid)
    time.sleep(0.5)
    assert told == []


def test_a_guest_that_is_shut_off_shows_by_libvirts_own_event(house: House, host: VirtHost) -> None:
    instance_uuid = spawn(host)
    drift.insert_instance(house, uuid=instance_uuid, vm_state=VmState.ACTIVE, host=host.ref.name, power_state=PowerState.RUNNING)
    slot = LibvirtPool.shared()._slot(host.ref.uri)
    with house.conductor():
        house.wait(lambda: any(link is not None and tell in link.told for tell, link in [*slot.watchers.items()]))
        with LibvirtPool.shared().connection(host.ref, "pull the plug") as connection:
            domains.stop(domains.find(connection, instance_uuid))
        house.wait(lambda: house.get(instance_uuid).vm_state == VmState.STOPPED, 30)
        house.rest()
    assert house.get(instance_uuid).power_state == PowerState.SHUTDOWN


def _await(condition: object, seconds: float = 15.0) -> None:
    until = time.monotonic() + seconds
    while not condition():  # type: ignore[operator]
        assert time.monotonic() < until
        time.sleep(0.05)
