"""kill -9 of a real conductor at work on a real libvirt: the next one ends what was begun, once, and sends no byte more than it must."""

from __future__ import annotations

import hashlib
import os
import random
import signal
import time
from pathlib import Path

import pytest

from hullwright.persistence import allocations, hosts
from support.cloud import Service
from support.host_troubles import no_display_ports

pytestmark = [pytest.mark.slow, pytest.mark.libvirt]
FIRST, SECOND = "hull-c", "hull-d"
MIB = 1024**2

KILL = "import os, signal\ndef kill(*_, **__): os.kill(os.getpid(), signal.SIGKILL)\n"
# Each dies inside the driver, between two calls of libvirt.
BETWEEN_DEFINE_AND_START = f"{KILL}from hullwright.drivers.virt.libvirt import domains\ndomains.start = kill\n"
BETWEEN_START_AND_RESUME = f"{KILL}import libvirt\nlibvirt.virDomain.resume = kill\n"
BEFORE_THE_DOMAIN_IS_REMOVED = f"{KILL}from hullwright.drivers.virt.libvirt import domains\ndomains.remove = kill\n"
BETWEEN_DOMAIN_AND_DISKS = f"{KILL}from hullwright.drivers.virt.libvirt import disks\ndisks.delete_all = kill\n"

# Counts the bytes that leave the store.
COUNTED = """
import time
from hullwright.drivers.image.local.driver import LocalImageDriver
_read = LocalImageDriver.read
def read(self, image, offset=0):
    with open({path!r}, "a", buffering=1) as counted:
        for chunk in _read(self, image, offset):
            print(len(chunk), file=counted)
            yield chunk
            offset += len(chunk)
            pause(offset)
LocalImageDriver.read = read
"""
# Half of them leave quickly; then there is a second for each piece, until somebody ends it.
HALF = "def pause(sent): time.sleep(0.01 if sent < {bytes} else 1.0)\n"
WHOLE = "def pause(sent): pass\n"


def _guests(service: Service) -> dict[str, list[str]]:
    return {host: service.cloud.virsh(host, "list", "--all", "--uuid").split() for host in (FIRST, SECOND)}


def _holds_one_of_each(service: Service, server_id: str, host: str, parts: dict[str, str]) -> None:
    """Active on that host with one running domain, one port, one allocation; then deleted without a trace."""
    cloud = service.cloud
    server = cloud.await_status(server_id, "ACTIVE")
    assert server["OS-EXT-SRV-ATTR:host"] == host
    assert _guests(service) == {FIRST: [], SECOND: []} | {host: [server_id]}
    assert "running" in cloud.virsh(host, "domstate", server_id)
    (port,) = cloud.call("GET", "/network/v2.0/ports", params={"network_id": parts["network"]})["ports"]
    assert port["device_id"] == server_id
    with cloud.db.read() as connection:
        held = allocations.held_by(connection, server_id)
        assert held is not None
        assert held.host_id == hosts.get(connection, host).id
    cloud.check()
    cloud.delete(server_id)
    cloud.check()
    assert [path for path in cloud.files_about(server_id) if "/hosts/" in path] == []


@pytest.mark.parametrize("preamble", [BETWEEN_DEFINE_AND_START, BETWEEN_START_AND_RESUME], ids=["define-start", "start-resume"])
def test_a_guest_that_was_defined_and_not_let_go_runs_after_the_next_start(service: Service, parts: dict[str, str], preamble: str) -> None:
    cloud = service.cloud
    service.start(preamble)
    server_id = cloud.create("cut", image=parts["image"], flavor=parts["flavor"], networks=[{"uuid": parts["network"]}])
    service.await_death()
    assert _guests(service)[FIRST] == [server_id], "it died after define"
    assert "running" not in cloud.virsh(FIRST, "domstate", server_id)
    service.start()
    _holds_one_of_each(service, server_id, FIRST, parts)


@pytest.mark.parametrize("preamble", [BEFORE_THE_DOMAIN_IS_REMOVED, BETWEEN_DOMAIN_AND_DISKS], ids=["domain", "disks"])
def test_an_undo_that_was_cut_is_ended_and_the_build_goes_on_elsewhere(service: Service, parts: dict[str, str], preamble: str) -> None:
    cloud = service.cloud
    with no_display_ports(cloud.hosts[FIRST]):
        service.start(preamble)
        server_id = cloud.create("cut", image=parts["image"], flavor=parts["flavor"], networks=[{"uuid": parts["network"]}])
        service.await_death()
        assert cloud.files_about(server_id), "it died before all was undone"
        service.start()
        cloud.await_status(server_id, "ACTIVE")
    first, second = cloud.build(server_id)["attempts"]
    assert (first["host"], second["host"]) == (FIRST, SECOND)
    assert {step["undo"]["state"] for step in first["steps"] if step["undo"]} == {"REVERTED"}
    _holds_one_of_each(service, server_id, SECOND, parts)


def test_an_upload_that_was_cut_goes_on_where_it_stood(service: Service, parts: dict[str, str], tmp_path: Path) -> None:
    cloud = service.cloud
    data = os.urandom(256 * MIB)
    image = cloud.upload("large", data, "raw")
    counted = tmp_path / "counted"
    service.start(COUNTED.format(path=str(counted)) + HALF.format(bytes=len(data) // 2))
    server_id = cloud.create("large", image=image, flavor=parts["flavor"], networks=[{"uuid": parts["network"]}])

    def percent() -> int:
        told = [each["percent"] or 0 for each in cloud.build(server_id)["step_progress"] if each["step"] == "fetch_image"]
        return max(told, default=0)

    at = cloud.wait(lambda: percent() >= 40 and percent())
    service.stop(signal.SIGKILL)
    assert at < 90, "it was cut in the middle"
    assert cloud.server(server_id)["status"] == "BUILD"
    service.start(COUNTED.format(path=str(counted)) + WHOLE)
    cloud.await_status(server_id, "ACTIVE")
    sent = sum(map(int, counted.read_text().split())) / len(data)
    assert 1.0 <= sent < 1.3, f"{sent:.2f} times the image was sent, cut at {at} %"
    (base,) = (path for path in cloud.files_about(image) if f"/{FIRST}/" in path and path.endswith(image))
    assert hashlib.sha256(Path(base).read_bytes()).digest() == hashlib.sha256(data).digest()
    (fetch,) = (step for step in cloud.build(server_id)["attempts"][0]["steps"] if step["name"] == "fetch_image")
    assert (fetch["state"], fetch["resumed"]) == ("SUCCESS", 1)
    _holds_one_of_each(service, server_id, FIRST, parts)


def test_kills_at_any_moment_of_builds_and_deletes_lose_nothing(service: Service, parts: dict[str, str]) -> None:
    """HULLWRIGHT_KILLS says how many, HULLWRIGHT_SEED which moments: others each day, if it does not; a failure prints it."""
    kills, cloud = int(os.environ.get("HULLWRIGHT_KILLS", "4")), service.cloud
    seed = os.environ.get("HULLWRIGHT_SEED") or time.strftime("%Y%m%d")
    print(f"HULLWRIGHT_SEED={seed}")
    moments = random.Random(int(seed))
    living: list[str] = []
    service.start()
    for _ in range(kills):
        if len(living) == 3:  # guests at a time are as many as the machine boots quickly
            going, living = living, []
            for server_id in going:
                cloud.call("DELETE", f"/servers/{server_id}")
            longest_seconds = 0.6
        else:
            going, longest_seconds = [], 2.0
            living.append(cloud.create("cut", image=parts["image"], flavor=parts["flavor"], networks=[{"uuid": parts["network"]}]))
        time.sleep(moments.uniform(0.0, longest_seconds))
        service.stop(signal.SIGKILL)
        service.start()
        for server_id in going:
            cloud.wait(lambda server_id=server_id: cloud.is_gone(server_id))
        for server_id in living:
            cloud.await_status(server_id, "ACTIVE")
        cloud.rest()
        assert sorted(_guests(service)[FIRST]) == sorted(living)
        cloud.check()
    for server_id in living:
        cloud.delete(server_id)
    cloud.check()
    assert _guests(service) == {FIRST: [], SECOND: []}
