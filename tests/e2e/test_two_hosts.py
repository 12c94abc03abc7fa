"""Two real libvirts as two hosts: the first refuses, is full, or is down; the build lands on the second and nothing is left."""

from __future__ import annotations

import pytest

from support.cloud import Cloud
from support.host_troubles import full_disk, no_display_ports

pytestmark = [pytest.mark.slow, pytest.mark.libvirt]
FIRST, SECOND = "hull-c", "hull-d"


def _port(cloud: Cloud, server_id: str) -> dict[str, object]:
    def reserved() -> dict[str, object] | None:
        ports = cloud.call("GET", "/network/v2.0/ports", params={"device_id": server_id})["ports"]
        return {key: ports[0][key] for key in ("id", "mac_address", "fixed_ips")} if ports else None

    found: dict[str, object] = cloud.wait(reserved)
    return found


def _guests(cloud: Cloud, host: str) -> set[str]:
    return set(cloud.virsh(host, "list", "--all", "--uuid").split())


def _disks(cloud: Cloud, host: str) -> str:
    cloud.virsh(host, "pool-refresh", cloud.conf.libvirt.pool_name)
    return cloud.virsh(host, "vol-list", cloud.conf.libvirt.pool_name)


def test_a_build_that_the_first_host_refuses_to_start_boots_on_the_second_with_its_address(cloud: Cloud, parts: dict[str, str]) -> None:
    with no_display_ports(cloud.hosts[FIRST]):
        server_id = cloud.create("mover", image=parts["image"], flavor=parts["flavor"], networks=[{"uuid": parts["network"]}])
        port = _port(cloud, server_id)
        server = cloud.await_status(server_id, "ACTIVE")
    assert server["OS-EXT-SRV-ATTR:host"] == SECOND
    assert _port(cloud, server_id) == port, "what was reserved before the first attempt is what it has now"
    (card,) = server["addresses"]["net"]
    assert [ip["ip_address"] for ip in port["fixed_ips"]] == [card["addr"]]  # type: ignore[attr-defined]

    build = cloud.build(server_id)
    first, second = build["attempts"]
    assert (first["host"], first["state"], first["step"], first["error"]) == (FIRST, "failed", "spawn", "HypervisorError")
    assert "Unable to find an unused port in range" in first["reason"]
    assert (second["host"], second["state"]) == (SECOND, "succeeded")
    undone = {step["name"]: step["undo"] and step["undo"]["state"] for step in first["steps"] if step["name"] != "reschedule"}
    assert undone == dict.fromkeys(("select_host", "claim", "fetch_image", "connect_volumes", "plug_network", "spawn"), "REVERTED")
    assert [check["hosts"] for check in second["placement"]["rejections"]] == [[FIRST]]
    timeline = cloud.command("--url", cloud.url, "server", "timeline", server_id)
    for words in ("undo spawn", "undo plug_network", "undo claim", "Unable to find an unused port", FIRST, SECOND):
        assert words in timeline

    assert (_guests(cloud, FIRST), _guests(cloud, SECOND)) == (set(), {server_id})
    assert server_id not in _disks(cloud, FIRST)
    assert not [path for path in cloud.files_about(server_id) if f"/{FIRST}/" in path]
    assert not any(card["addr"] in cloud.virsh(FIRST, "net-dumpxml", name) for name in cloud.virsh(FIRST, "net-list", "--name").split())
    cloud.await_console(server_id, "^GUEST-READY hostname=")
    assert cloud.hosts[SECOND].answers_ping(card["addr"])
    cloud.check()
    cloud.delete(server_id)
    cloud.check()


def test_a_host_whose_disk_is_full_is_left_for_another(cloud: Cloud, parts: dict[str, str]) -> None:
    flavor = cloud.flavor("diskless", disk_gb=0)
    with full_disk(cloud, FIRST):
        server_id = cloud.create("roomy", image=parts["image"], flavor=flavor)
        server = cloud.await_status(server_id, "ACTIVE")
        first, second = cloud.build(server_id)["attempts"]
        assert (first["host"], first["step"], first["error"]) == (FIRST, "fetch_image", "HostDiskFull"), first["reason"]
        assert "No space left" in first["reason"]
        assert "Free space on the host" in first["hint"]
        assert (second["host"], server["OS-EXT-SRV-ATTR:host"]) == (SECOND, SECOND)
        assert _disks(cloud, FIRST).strip() == "", "no half of an image is left"
    cloud.check()
    cloud.delete(server_id)
    cloud.check()


def test_when_every_disk_is_full_the_fault_says_so_for_each_host_and_nothing_is_held(cloud: Cloud, parts: dict[str, str]) -> None:
    flavor = cloud.flavor("diskless-2", disk_gb=0)
    with full_disk(cloud, FIRST), full_disk(cloud, SECOND):
        server_id = cloud.create("nowhere", image=parts["image"], flavor=flavor, networks=[{"uuid": parts["network"]}])
        server = cloud.await_status(server_id, "ERROR")
        assert [_disks(cloud, host).strip() for host in (FIRST, SECOND)] == ["", ""]
    told = server["fault"]["details"]
    places = [told.index(f"Attempt {n} on host {host} failed at fetch_image: HostDiskFull") for n, host in ((1, FIRST), (2, SECOND))]
    assert places == sorted(places)
    assert server["OS-EXT-SRV-ATTR:host"] is None
    assert cloud.call("GET", "/network/v2.0/ports", params={"device_id": server_id})["ports"] == []
    cloud.check()
    cloud.delete(server_id)


def test_a_host_that_is_down_is_named_with_a_hint_shows_down_and_comes_back(cloud: Cloud, parts: dict[str, str]) -> None:
    def state() -> str:
        services = cloud.call("GET", "/os-services", params={"host": FIRST, "binary": "nova-compute"})["services"]
        return str(services[0]["state"])

    daemon = cloud.hosts[FIRST]
    assert state() == "up"
    daemon.kill()
    try:
        server_id = cloud.create("stranded", image=parts["image"], flavor=parts["flavor"], availability_zone=f"nova:{FIRST}")
        fault = cloud.await_status(server_id, "ERROR")["fault"]
        assert f"Attempt 1 on host {FIRST} failed at" in fault["details"]
        assert "HypervisorUnavailable" in fault["details"]
        assert FIRST in fault["details"]
        build = cloud.build(server_id)
        assert build["attempts"][0]["hint"] == "Check that libvirtd runs there and that the host's URI is right."
        other = cloud.create("elsewhere", image=parts["image"], flavor=parts["flavor"])
        assert cloud.await_status(other, "ACTIVE")["OS-EXT-SRV-ATTR:host"] == SECOND
        cloud.wait(lambda: state() == "down", 20)
        cloud.delete(server_id, other)
    finally:
        daemon.start()
    cloud.wait(lambda: state() == "up", 20)
    back = cloud.create("back", image=parts["image"], flavor=parts["flavor"])
    assert cloud.await_status(back, "ACTIVE")["OS-EXT-SRV-ATTR:host"] == FIRST
    cloud.delete(back)
    cloud.check()
