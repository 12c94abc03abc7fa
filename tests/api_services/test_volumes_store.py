"""Volumes and attachments on real databases: whose a volume is, and what a release leaves."""

from __future__ import annotations

import uuid
from concurrent.futures import ThreadPoolExecutor

import pytest

from hullwright.objects.errors import VolumeInvalidState, VolumeNotFound
from hullwright.objects.volumes import BlockDeviceRequest, Volume
from hullwright.persistence import volumes
from hullwright.persistence.database import Database, now
from hullwright.persistence.volumes import SqlVolumeStore


def new_id() -> str:
    return str(uuid.uuid4())


def make_volume(db: Database, status: str = "available") -> str:
    volume = Volume(new_id(), "data", 1, status, created_at=now())
    with db.write() as conn:
        volumes.create(conn, volume)
    return volume.id


def set_status(db: Database, volume_id: str, status: str) -> None:
    with db.write() as conn:
        volumes.set_status(conn, volume_id, status)


def existing(volume_id: str, **more: object) -> BlockDeviceRequest:
    return BlockDeviceRequest.from_dict({"attachment_id": new_id(), "volume_id": volume_id, **more})


def blank(**more: object) -> BlockDeviceRequest:
    return existing(new_id(), source_type="blank", size_gb=2, **more)


def test_a_volume_is_reserved_attached_and_available_again_after_release(db: Database) -> None:
    store, volume_id = SqlVolumeStore(db), make_volume(db)
    [attachment] = store.reserve("server", "p", "u", [existing(volume_id)])
    assert (store.volume(volume_id).status, attachment.state) == ("reserved", "reserved")
    store.mark_attached([attachment.id], "host-1")
    assert store.volume(volume_id).status == "in-use"
    assert [(found.host, found.state) for found in store.attachments_of("server")] == [("host-1", "attached")]
    store.mark_detached("server", "host-2")
    assert store.volume(volume_id).status == "in-use", "it is not there"
    store.mark_detached("server", "host-1")
    assert store.volume(volume_id).status == "reserved"
    for _ in range(2):
        assert store.release("server") == []
        assert store.volume(volume_id).status == "available"
        assert store.attachments_of("server") == []


def test_reserving_twice_finds_the_same_attachments(db: Database) -> None:
    store = SqlVolumeStore(db)
    devices = [existing(make_volume(db)), blank()]
    first = store.reserve("server", "p", "u", devices)
    assert store.reserve("server", "p", "u", devices) == first
    assert store.volume(devices[1].volume_id).status == "creating"


def test_a_volume_that_is_not_free_or_not_there_is_refused_and_nothing_is_kept(db: Database) -> None:
    store, free, taken = SqlVolumeStore(db), make_volume(db), make_volume(db)
    store.reserve("first", "p", "u", [existing(taken)])
    with pytest.raises(VolumeInvalidState):
        store.reserve("second", "p", "u", [existing(free), existing(taken)])
    assert store.volume(free).status == "available"
    with pytest.raises(VolumeNotFound):
        store.reserve("second", "p", "u", [existing(new_id())])
    assert store.attachments_of("second") == []


def test_of_many_that_want_one_volume_one_gets_it(db: Database) -> None:
    store, volume_id = SqlVolumeStore(db), make_volume(db)

    def build(number: int) -> bool:
        try:
            store.reserve(f"server-{number}", "p", "u", [existing(volume_id)])
        except VolumeInvalidState:
            return False
        return True

    with ThreadPoolExecutor(8) as pool:
        assert sum(pool.map(build, range(24))) == 1


def test_release_answers_the_volumes_to_delete_again_until_they_are_forgotten(db: Database) -> None:
    store = SqlVolumeStore(db)
    doomed, kept, unfinished = blank(delete_on_termination=True), blank(), blank()
    store.reserve("server", "p", "u", [doomed, kept, unfinished])
    for device in (doomed, kept):
        set_status(db, device.volume_id, "reserved")
    expected = {doomed.volume_id, unfinished.volume_id}
    for _ in range(2):  # a conductor that dies between the release and the deletion asks again
        assert {volume.id for volume in store.release("server")} == expected
        assert store.attachments_of("server") == []
    assert store.volume(kept.volume_id).status == "available"
    for volume_id in expected:
        store.forget_volume(volume_id)
        store.forget_volume(volume_id)
        with pytest.raises(VolumeNotFound):
            store.volume(volume_id)
    assert store.release("server") == []


def test_the_undo_of_a_build_deletes_what_it_made_and_never_what_the_user_gave(db: Database) -> None:
    store, given = SqlVolumeStore(db), make_volume(db)
    made = blank()
    store.reserve("server", "p", "u", [existing(given, delete_on_termination=True), made])
    set_status(db, made.volume_id, "reserved")
    for _ in range(2):
        assert [volume.id for volume in store.release("server", undo=True)] == [made.volume_id]
    assert store.volume(given).status == "available"


def test_attachments_come_in_boot_order_then_in_that_of_the_request(db: Database) -> None:
    store = SqlVolumeStore(db)
    devices = [blank(), blank(boot_index=1), blank(boot_index=-1), blank(boot_index=0)]
    store.reserve("server", "p", "u", devices)
    order = [found.id for found in store.attachments_of("server")]
    assert order[:2] == [devices[3].attachment_id, devices[1].attachment_id]
    assert set(order[2:]) == {devices[0].attachment_id, devices[2].attachment_id}
