"""What is done in each scenario, and how it must end, whatever befell a process on the way.

A scenario is furnished once; each case runs on a copy of what was made. The work is posted before a conductor starts, so that the
boundaries come in the same order in every run. Over 400 lines: a list of scenarios, each of which can be read alone.
"""

from __future__ import annotations

import base64
import json
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import sqlalchemy as sa

from hullwright.conf import image as image_options
from hullwright.drivers.image.local.store import ImageDirectory
from hullwright.objects.images import Image
from hullwright.objects.networks import Network, NetworkRequest, Port, Subnet
from hullwright.objects.states import AttemptState, VmState
from hullwright.objects.volumes import BlockDeviceRequest, Volume
from hullwright.persistence import attempts, faults, flavors, hosts, images, jobs, networks, ports, volumes
from hullwright.persistence.database import now
from hullwright.persistence.models.jobs import jobs as jobs_table
from support.house import ASKER, FLAVOR, House

Facts = dict[str, Any]  # ids of what was furnished, as JSON
MARKER = base64.b64encode(b"#cloud-config that nobody else may read").decode()
_NETWORK, _SUBNET, _IMAGE = (f"0000000{n}-0000-4000-8000-000000000000" for n in (1, 2, 3))
_IMAGE_BYTES = b"\0" * ((1 << 20) + 512)  # two chunks: a transfer can be cut in the middle
_BROKEN = {"operation": "spawn", "when": "during", "error": "HypervisorError", "reason": "no QEMU here"}


@dataclass(frozen=True)
class Scenario:
    """One operation."""

    name: str
    title: str
    furnish: Callable[[House], Facts]
    expect: Callable[[House, Facts], None]  # asserts how it ended
    options: Mapping[str, Mapping[str, Any]] = field(default_factory=lambda: {"conductor": {"max_concurrent_jobs": 1}})
    deletes_at: str = ""  # the user deletes the instance at the first boundary told so in the trace of the plain run
    deletes_where_struck: bool = False  # the user deletes the instance at the very boundary at which the trouble is
    is_ordered: bool = (
        True  # whether a boundary has the same number in every run, which neither threads side by side nor retries by the clock keep
    )
    # What its user does when the first process has died, or stands still, and before another one takes its jobs over.
    meanwhile: Callable[[House, Facts], None] | None = None
    asks_api: bool = False  # the process that is killed is the API's; `request` in the facts is what it is asked
    # Asserts how it ended when a driver's call hung in a step, or (True) in its undo.
    expect_hung: Callable[[House, Facts, str, bool], None] | None = None

    @property
    def is_parallel(self) -> bool:
        """Whether steps of one job run side by side."""
        return self.options["conductor"].get("engine") == "parallel"


# --- Furnishing ------------------------------------------------------------------------------------------------------------


def _world(house: House, *names: str) -> None:
    """Hosts, the first of them with the most room, a network with a subnet, an image with its bytes, a flavor."""
    for number, name in enumerate(names):
        house.add_host(name, vcpus=1000 // (number + 1), memory_mb=2_000_000 // (number + 1), disk_gb=10_000 // (number + 1))
    directory = ImageDirectory(image_options.directory(house.conf))
    size_bytes, sha256, _ = directory.write(_IMAGE, [_IMAGE_BYTES], len(_IMAGE_BYTES))
    with house.db.write() as connection:
        flavors.create(connection, FLAVOR)
        networks.create(connection, Network(_NETWORK, "net", created_at=now()))
        pools = (("192.0.2.10", "192.0.2.200"),)
        networks.create_subnet(connection, Subnet(_SUBNET, _NETWORK, "sub", "192.0.2.0/24", created_at=now(), allocation_pools=pools))
        image = Image(_IMAGE, "image", disk_format="raw", size_bytes=size_bytes, virtual_size_bytes=size_bytes, checksum_sha256=sha256)
        images.create(connection, image)


def _full(house: House) -> dict[str, Any]:
    """A request with all that a build has to do: image, port, blank volume, config drive with user data."""
    return {
        "image_id": _IMAGE,
        "networks": (house.request_port(_NETWORK),),
        "block_devices": (house.request_volume(source_type="blank", size_gb=1, delete_on_termination=True),),
        "config_drive": True,
        "user_data": MARKER,
        "max_attempts": 3,
    }


def _post(house: House, count: int = 1, **changes: Any) -> Facts:
    batch = [house.new_instance(f"vm{n}", **(_full(house) | changes)) for n in range(count)]
    house.client.create_servers(batch, ASKER)
    return {"uuids": [instance.uuid for instance in batch]}


def _build(house: House) -> Facts:
    _world(house, "h1", "h2")
    return _post(house)


def _three_builds(house: House) -> Facts:
    _world(house, "h1", "h2")
    return _post(house, 3)


def _build_with_broken(house: House, *broken: str) -> Facts:
    _world(house, "h1", "h2", "h3", "h4")
    for name in broken:
        house.faults(name, _BROKEN)
    return _post(house)


def _build_with_silent_undo(house: House) -> Facts:
    facts = _build_with_broken(house, "h1")
    house.faults("h1", _BROKEN, {"operation": ["destroy", "unplug"], "first": 3, "error": "HypervisorUnavailable", "reason": "silent"})
    return facts


def _build_with_silent_volume(house: House) -> Facts:
    facts = _build_with_broken(house, "h1")
    what = ["destroy", "unplug", "disconnect", "delete_volume"]
    house.faults("h1", _BROKEN, {"operation": what, "first": 8, "error": "HypervisorUnavailable", "reason": "silent"})
    return facts


def _active(house: House) -> Facts:
    """An active server with a port and a volume that its user gave, besides those of the build."""
    _world(house, "h1", "h2")
    facts: Facts = {"user_port": "00000004-0000-4000-8000-000000000000", "user_volume": "00000005-0000-4000-8000-000000000000"}
    with house.db.write() as connection:
        pools = ports.lock_networks(connection, [_NETWORK])[_NETWORK]
        ports.create(connection, Port(facts["user_port"], _NETWORK, "", project_id="p", created_at=now()), pools)
        volumes.create(connection, Volume(facts["user_volume"], "mine", 1, project_id="p", user_id="u", created_at=now()))
    request = _full(house)
    request["networks"] += (NetworkRequest(facts["user_port"], _NETWORK, user_port=True),)
    request["block_devices"] += (BlockDeviceRequest("00000006-0000-4000-8000-000000000000", facts["user_volume"]),)
    facts |= _post(house, **request)
    with house.conductor():
        house.rest()
    assert house.get(facts["uuids"][0]).vm_state == VmState.ACTIVE
    return facts


def _delete(house: House) -> Facts:
    facts = _active(house)
    house.delete(facts["uuids"][0])
    return facts


def _delete_with_silent_host(house: House) -> Facts:
    facts = _delete(house)
    what = ["destroy", "unplug", "disconnect", "delete_volume"]
    house.faults("h1", {"operation": what, "first": 5, "error": "HypervisorUnavailable", "reason": "silent"})
    return facts


def _wait_for_room(house: House) -> Facts:
    """The one host is full, and the delete that makes room is leased after the build that wants it."""
    _world(house)
    house.add_host("h1", vcpus=1)
    (first,) = _post(house)["uuids"]
    with house.conductor():
        house.rest()
    facts = _post(house, wait_seconds=3600)
    house.delete(first)
    with house.db.write() as connection:
        connection.execute(sa.update(jobs_table).where(jobs_table.c.kind == "delete_instance").values(rank=jobs.RANK_DEFAULT + 1))
    return facts | {"first": first}


def _stop(house: House) -> Facts:
    facts = _active(house)
    house.client.stop_server(facts["uuids"][0], ASKER)
    return facts


def _start(house: House) -> Facts:
    facts = _stop(house)
    with house.conductor():
        house.rest()
    house.client.start_server(facts["uuids"][0], ASKER)
    return facts


def _reboot(house: House) -> Facts:
    facts = _active(house)
    house.client.reboot_server(facts["uuids"][0], ASKER, hard=True)
    return facts


def _create_volume(house: House) -> Facts:
    _world(house, "h1")
    volume = Volume("00000007-0000-4000-8000-000000000000", "v", 1, status="creating", image_id=_IMAGE, created_at=now())
    house.client.create_volume(volume, "req-v")
    return {"volume": volume.id, "uuids": []}


def _use_volume(house: House, facts: Facts) -> None:
    """As soon as it is available its user boots a server from it, and deletes the image, which nobody needs any more."""
    with house.db.read() as connection:
        if volumes.get(connection, facts["volume"]).status != "available":
            return
    root = BlockDeviceRequest("00000008-0000-4000-8000-000000000000", facts["volume"], boot_index=0)
    facts["uuids"] = house.create(block_devices=(root,))
    with house.conductor(takes_over=False):
        house.wait(lambda: house.get(facts["uuids"][0]).vm_state == VmState.ACTIVE)
    with house.db.write() as connection:
        images.delete(connection, _IMAGE)


def _delete_volume(house: House) -> Facts:
    """A volume that was in use, so that its bytes are on a host."""
    facts = _delete(house)
    with house.conductor():
        house.rest()
    house.client.delete_volume(facts["user_volume"], "req-v")
    return facts | {"volume": facts["user_volume"]}


def _ask_create(house: House) -> Facts:
    _world(house, "h1", "h2")
    server = {"name": "vm", "flavorRef": FLAVOR.id, "imageRef": _IMAGE, "networks": [{"uuid": _NETWORK}], "user_data": MARKER}
    return {"request": {"method": "POST", "path": "/v2.1/servers", "json": {"server": server}}, "uuids": []}


def _ask_delete(house: House) -> Facts:
    facts = _active(house)
    return facts | {"request": {"method": "DELETE", "path": f"/v2.1/servers/{facts['uuids'][0]}"}}


# --- How it must end -------------------------------------------------------------------------------------------------------


def effects(house: House, host: str) -> Counter[str]:
    """How often each effect took place on a fake host."""
    path = house.directory / "fake" / host / "journal"
    lines = path.read_text().splitlines() if path.exists() else []
    return Counter(line["operation"] for line in map(json.loads, lines) if line["operation"])


def tried(house: House, uuid: str) -> list[tuple[str | None, str]]:
    """The attempts of an instance's build: host and how each ended."""
    with house.db.read() as connection:
        job = jobs.latest(connection, uuid, "build_instance")
        assert job is not None
        return [(attempt.host, str(attempt.state)) for attempt in attempts.list_for(connection, job.uuid)]


def _failed_builds(house: House) -> dict[str, int]:
    with house.db.read() as connection:
        return {host.name: host.failed_builds for host in hosts.list_all(connection) if host.failed_builds}


def _expect_active(house: House, facts: Facts) -> None:
    """Active on the first host, each thing made once, one attempt each."""
    count = len(facts["uuids"])
    for uuid in facts["uuids"]:
        instance = house.get(uuid)
        assert (instance.vm_state, instance.power_state) == (VmState.ACTIVE, 1)
        assert [state for _, state in tried(house, uuid)] == [AttemptState.SUCCEEDED]
        assert instance.launched_at is not None
    done = effects(house, "h1") + effects(house, "h2")
    once = dict.fromkeys(("define", "start", "plug", "create_volume"), count)
    assert dict(done) == once | {"image": done["image"]}, "each effect once, none undone"
    assert effects(house, "h1")["image"] <= 1
    assert _failed_builds(house) == {}


def _expect_active_on_second(house: House, facts: Facts) -> None:
    (uuid,) = facts["uuids"]
    instance = house.get(uuid)
    assert (instance.vm_state, instance.host) == (VmState.ACTIVE, "h2")
    assert tried(house, uuid) == [("h1", AttemptState.FAILED), ("h2", AttemptState.SUCCEEDED)]
    assert _failed_builds(house) == {"h1": 1}, "a failure counts once against its host"
    there = effects(house, "h2")
    assert all(there[name] == 1 for name in ("define", "start", "plug", "create_volume", "image")), there


def _expect_active_after_a_wait(house: House, facts: Facts) -> None:
    (uuid,) = facts["uuids"]
    assert house.get(facts["first"]).vm_state == VmState.DELETED
    assert (house.get(uuid).vm_state, house.get(uuid).host) == (VmState.ACTIVE, "h1")
    assert tried(house, uuid) == [("h1", AttemptState.SUCCEEDED)]
    done = effects(house, "h1")
    assert (done["define"], done["start"], done["destroy"]) == (2, 2, 1), done
    with house.db.read() as connection:
        job = jobs.latest(connection, uuid, "build_instance")
        assert job is not None
        assert job.waits_for is None
        assert faults.latest(connection, uuid) is None
    assert _failed_builds(house) == {}


def _expect_error(house: House, facts: Facts) -> None:
    (uuid,) = facts["uuids"]
    assert house.get(uuid).vm_state == VmState.ERROR
    assert tried(house, uuid) == [(name, AttemptState.FAILED) for name in ("h1", "h2", "h3")]
    assert _failed_builds(house) == {"h1": 1, "h2": 1, "h3": 1}
    with house.db.read() as connection:
        fault = faults.latest(connection, uuid)
    assert fault is not None
    assert all(f"Attempt {n} on host h{n} failed at spawn" in fault.details for n in (1, 2, 3)), fault.details


def _expect_error_somewhere(house: House, facts: Facts) -> None:
    """The volume's bytes are on a host that is silent: no other will do, and all is taken back when it answers."""
    (uuid,) = facts["uuids"]
    assert house.get(uuid).vm_state == VmState.ERROR
    assert tried(house, uuid) == [(name, AttemptState.FAILED) for name in ("h1", "h2", "h3")]
    with house.db.read() as connection:
        assert volumes.list_all(connection) == []
        assert ports.list_all(connection) == []


def _expect_deleted(house: House, facts: Facts) -> None:
    """Gone, and nobody is blamed: the user asked for it."""
    _expect_gone(house, facts)
    with house.db.read() as connection:
        assert faults.latest(connection, facts["uuids"][0]) is None
    assert _failed_builds(house) == {}, "a delete is nobody's fault"


def _expect_deleted_in_undo(house: House, facts: Facts) -> None:
    """Gone; the hosts that failed before the delete came are to blame for that, and no others."""
    _expect_gone(house, facts)
    blamed = {host: 1 for host, state in tried(house, facts["uuids"][0]) if state == AttemptState.FAILED}
    assert _failed_builds(house) == blamed


def _expect_gone(house: House, facts: Facts) -> None:
    """Gone; what its user gave is his again."""
    (uuid,) = facts["uuids"]
    assert house.get(uuid).vm_state == VmState.DELETED
    with house.db.read() as connection:
        if "user_port" in facts:
            port = ports.get(connection, facts["user_port"])
            volume = volumes.get(connection, facts["user_volume"])
            assert (port.device_id, len(port.fixed_ips), volume.status, volume.host) == (None, 1, "available", "h1")
            assert len(volumes.list_all(connection)) == 1, "the build's own volume is gone"
            assert len(ports.list_all(connection)) == 1, "the build's own port is gone"
        else:
            assert volumes.list_all(connection) == []
            assert ports.list_all(connection) == []


def _expect_power(state: VmState, effect: str, at_most: int) -> Callable[[House, Facts], None]:
    def expect(house: House, facts: Facts) -> None:
        assert house.get(facts["uuids"][0]).vm_state == state
        assert 1 <= effects(house, "h1")[effect] <= at_most
        with house.db.read() as connection:
            assert faults.latest(connection, facts["uuids"][0]) is None

    return expect


def _expect_volume(house: House, facts: Facts) -> None:
    with house.db.read() as connection:
        assert volumes.get(connection, facts["volume"]).status == "available"


def _expect_volume_in_use(house: House, facts: Facts) -> None:
    """Whoever began to use it when it was available has it whole."""
    if not facts["uuids"]:
        _expect_volume(house, facts)
        return
    with house.db.read() as connection:
        volume = volumes.get(connection, facts["volume"])
    assert (volume.status, volume.host) == ("in-use", "h1")
    done = effects(house, "h1")
    assert (done["create_volume"], done["delete_volume"]) == (1, 0)


def _expect_no_volume(house: House, facts: Facts) -> None:
    with house.db.read() as connection:
        assert volumes.list_all(connection) == []


def _expect_posted(house: House, facts: Facts) -> None:
    """A server that the client heard of is built; one whose request died is whole too, or was never begun."""
    with house.db.read() as connection:
        posted = [job.instance_uuid for job in jobs.list_jobs(connection, kinds=["build_instance"])]
    heard = facts.get("answer")
    assert len(posted) <= 1
    if heard:
        assert heard["status"] == 202
        assert posted == [heard["json"]["server"]["id"]]
    for uuid in posted:
        assert house.get(str(uuid)).vm_state == VmState.ACTIVE


def _expect_asked_delete(house: House, facts: Facts) -> None:
    (uuid,) = facts["uuids"]
    with house.db.read() as connection:
        is_posted = jobs.latest(connection, uuid, "delete_instance") is not None
    assert is_posted or not facts.get("answer")
    if is_posted:
        _expect_deleted(house, facts)
    else:
        assert house.get(uuid).vm_state == VmState.ACTIVE


# --- How it must end when a driver's call hung ----------------------------------------------------------------------------


def _late(house: House, uuid: str) -> list[str | None]:
    """On which hosts an instance's attempts failed for a call that did not come back; each must say so."""
    with house.db.read() as connection:
        job = jobs.latest(connection, uuid, "build_instance")
        assert job is not None
        found = [attempt for attempt in attempts.list_for(connection, job.uuid) if attempt.error in ("HypervisorTimeout", "ServiceTimeout")]
    assert all("did not answer within" in (attempt.reason or "") for attempt in found)
    return [attempt.host for attempt in found]


def _expect_moved(house: House, facts: Facts, step: str, is_undo: bool) -> None:
    """The attempt whose call hung failed for it, and the next one went on elsewhere; a call before there is a host fails the build."""
    hung = {uuid: _late(house, uuid) for uuid in facts["uuids"]}
    if step == "reserve" and not is_undo:
        (failed,) = [uuid for uuid in facts["uuids"] if house.get(uuid).vm_state == VmState.ERROR]
        with house.db.read() as connection:
            fault = faults.latest(connection, failed)
        assert fault is not None
        assert "did not answer within" in fault.message
        return
    assert sum(map(len, hung.values())) == (0 if is_undo else 1)
    for uuid, hosts_hung in hung.items():
        instance, history = house.get(uuid), tried(house, uuid)
        if (step, is_undo, instance.vm_state) == ("connect_volumes", True, VmState.ERROR):
            _expect_error_somewhere(house, facts)  # the volume's bytes may still be on a host that did not answer
            return
        assert instance.vm_state == VmState.ACTIVE
        assert history[-1] == (instance.host, AttemptState.SUCCEEDED)
        assert [state for _, state in history[:-1]] == [AttemptState.FAILED] * (len(history) - 1)
        assert len({host for host, _ in history}) == len(history), "each on another host"
        assert instance.host not in hosts_hung


def _expect_moved_in_vain(house: House, facts: Facts, step: str, is_undo: bool) -> None:
    (uuid,) = facts["uuids"]
    assert house.get(uuid).vm_state == VmState.ERROR
    is_before_hosts = step == "reserve" and not is_undo
    assert len(tried(house, uuid)) == (0 if is_before_hosts else 3)
    assert len(_late(house, uuid)) == (0 if is_before_hosts or is_undo else 1)


def _expect_deleted_anyway(house: House, facts: Facts, step: str, is_undo: bool) -> None:
    """Its build may have failed before: then it has a fault, and a host is blamed."""
    _expect_gone(house, facts)


def _expect_volume_or_error(house: House, facts: Facts, step: str, is_undo: bool) -> None:
    with house.db.read() as connection:
        assert volumes.get(connection, facts["volume"]).status == "error"


def _expect_no_volume_anyway(house: House, facts: Facts, step: str, is_undo: bool) -> None:
    _expect_no_volume(house, facts)


def _side_by_side(jobs_at_a_time: int, engine: str = "serial") -> Mapping[str, Mapping[str, Any]]:
    return {"conductor": {"max_concurrent_jobs": jobs_at_a_time, "engine": engine}}


SCENARIOS = {
    scenario.name: scenario
    for scenario in (
        Scenario("build", "build", _build, _expect_active, expect_hung=_expect_moved),
        Scenario(
            "reschedule",
            "build, first host fails",
            lambda h: _build_with_broken(h, "h1"),
            _expect_active_on_second,
            expect_hung=_expect_moved,
        ),
        Scenario(
            "fail",
            "build, every host fails",
            lambda h: _build_with_broken(h, "h1", "h2", "h3"),
            _expect_error,
            expect_hung=_expect_moved_in_vain,
        ),
        Scenario(
            "silent-undo", "build, first host fails and falls silent", _build_with_silent_undo, _expect_active_on_second, is_ordered=False
        ),
        Scenario(
            "silent-volume", "build, first host silent with a volume", _build_with_silent_volume, _expect_error_somewhere, is_ordered=False
        ),
        Scenario("three", "three builds, one conductor thread", _three_builds, _expect_active, expect_hung=_expect_moved),
        Scenario("three-at-once", "three builds side by side", _three_builds, _expect_active, _side_by_side(3), is_ordered=False),
        Scenario(
            "parallel",
            "build, parallel engine",
            _build,
            _expect_active,
            _side_by_side(1, "parallel"),
            is_ordered=False,
            expect_hung=_expect_moved,
        ),
        Scenario(
            "delete-in-parallel",
            "delete at the very boundary, parallel engine",
            _build,
            _expect_deleted,
            _side_by_side(1, "parallel"),
            deletes_where_struck=True,
            is_ordered=False,
            expect_hung=_expect_deleted_anyway,
        ),
        Scenario(
            "wait",
            "build waits until a delete makes room",
            _wait_for_room,
            _expect_active_after_a_wait,
            {"conductor": {"max_concurrent_jobs": 1}, "compute": {"cpu_allocation_ratio": 1.0}},
            is_ordered=False,
        ),
        Scenario("delete", "delete", _delete, _expect_deleted, expect_hung=_expect_deleted_anyway),
        Scenario("silent-delete", "delete, host silent", _delete_with_silent_host, _expect_deleted, is_ordered=False),
        Scenario(
            "delete-in-build",
            "delete while the guest is made",
            _build,
            _expect_deleted,
            deletes_at="effect define",
            expect_hung=_expect_deleted_anyway,
        ),
        Scenario(
            "delete-anywhere",
            "delete at the very boundary",
            _build,
            _expect_deleted,
            deletes_where_struck=True,
            expect_hung=_expect_deleted_anyway,
        ),
        Scenario(
            "delete-in-undo",
            "delete at the very boundary, first host fails",
            lambda h: _build_with_broken(h, "h1"),
            _expect_deleted_in_undo,
            deletes_where_struck=True,
            expect_hung=_expect_deleted_anyway,
        ),
        Scenario(
            "delete-in-fail",
            "delete at the very boundary, every host fails",
            lambda h: _build_with_broken(h, "h1", "h2", "h3"),
            _expect_deleted_in_undo,
            deletes_where_struck=True,
            expect_hung=_expect_deleted_anyway,
        ),
        Scenario(
            "delete-in-wait",
            "delete at the very boundary, build waits for room",
            _wait_for_room,
            _expect_deleted,
            {"conductor": {"max_concurrent_jobs": 1}, "compute": {"cpu_allocation_ratio": 1.0}},
            deletes_where_struck=True,
            is_ordered=False,
        ),
        *(
            Scenario(f"delete-in-{name}", f"delete at the very boundary of a {title}", furnish, _expect_deleted, deletes_where_struck=True)
            for name, title, furnish in (("stop", "stop", _stop), ("start", "start", _start), ("reboot", "hard reboot", _reboot))
        ),
        Scenario("stop", "stop", _stop, _expect_power(VmState.STOPPED, "stop", 1)),
        Scenario("start", "start", _start, _expect_power(VmState.ACTIVE, "start", 2)),
        Scenario("reboot", "hard reboot", _reboot, _expect_power(VmState.ACTIVE, "reboot", 3)),
        Scenario("create-volume", "create volume", _create_volume, _expect_volume, expect_hung=_expect_volume_or_error),
        Scenario(
            "create-volume-used", "create volume, in use before the recovery", _create_volume, _expect_volume_in_use, meanwhile=_use_volume
        ),
        Scenario("delete-volume", "delete volume", _delete_volume, _expect_no_volume, expect_hung=_expect_no_volume_anyway),
        Scenario("post", "POST /servers, API killed", _ask_create, _expect_posted, asks_api=True),
        Scenario("post-delete", "DELETE /servers, API killed", _ask_delete, _expect_asked_delete, asks_api=True),
    )
}
