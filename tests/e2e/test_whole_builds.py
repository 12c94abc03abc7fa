"""From POST /servers to booted guests on a real libvirt, and back to nothing: what each guest says, and what its host has of it."""

from __future__ import annotations

import hashlib
import re
import xml.etree.ElementTree as ET
from dataclasses import dataclass
from typing import Any

import pytest

from support.cloud import Cloud
from support.libvirtd import GuestImage

pytestmark = [pytest.mark.slow, pytest.mark.libvirt]

GIB = 1024**3
NONCE = "5f1c77"
# Own address: the gateway answers. Another's: the host lets nothing out.
USER_DATA = f"""#!/bin/sh
echo "user data of $(hostname) says {NONCE}"
address=$(ip -4 -o addr show eth0 | awk '{{ print $4; exit }}')
gateway=$(ip route | sed -n 's/^default via \\([^ ]*\\).*/\\1/p')
say() {{ if ping -c 2 -w "$3" -I "$2" "$gateway" >/dev/null 2>&1; then echo "PING $1 answered"; else echo "PING $1 silent"; fi; }}
say own "${{address%/*}}" 20
ip addr add "${{gateway%.*}}.201/24" dev eth0
say stolen "${{gateway%.*}}.201" 3
"""


@dataclass(frozen=True)
class Built:
    """The servers that the tests of this file look at; built and booted side by side."""

    full: dict[str, Any]  # with a port, user data, metadata, and two volumes
    kept_volume: str
    own_volume: str
    raw: dict[str, Any]
    from_volume: dict[str, Any]
    direct: dict[str, Any]  # kernel and ramdisk


def _volume(cloud: Cloud, size_gb: int) -> str:
    volume_id: str = cloud.call("POST", "/volume/v3/volumes", {"volume": {"size": size_gb, "name": f"v{size_gb}"}})["volume"]["id"]
    cloud.wait(lambda: cloud.call("GET", f"/volume/v3/volumes/{volume_id}")["volume"]["status"] == "available")
    return volume_id


@pytest.fixture(scope="module")
def built(_service: Any, parts: dict[str, str], guest_image: GuestImage) -> Built:
    """All of them, active."""
    if _service.conductor is None:
        _service.start()
    cloud: Cloud = _service.cloud
    kernel = cloud.upload("kernel", guest_image.kernel, "aki")
    ramdisk = cloud.upload("ramdisk", guest_image.ramdisk, "ari")
    raw = cloud.upload("raw", guest_image.raw, "raw")
    bare = cloud.upload("bare", b"\0" * 1_048_576, "raw", kernel_id=kernel, ramdisk_id=ramdisk)
    volume = _volume(cloud, 2)
    devices = [
        {"source_type": "image", "destination_type": "local", "uuid": parts["image"], "boot_index": 0},
        {"source_type": "volume", "destination_type": "volume", "uuid": volume, "boot_index": -1},
        {"source_type": "blank", "destination_type": "volume", "volume_size": 1, "boot_index": -1, "delete_on_termination": True},
    ]
    root = {
        "source_type": "image", "destination_type": "volume", "uuid": parts["image"],
        "volume_size": 1, "boot_index": 0, "delete_on_termination": True,
    }  # fmt: skip
    ids = [
        cloud.create(
            "Full House", image=parts["image"], flavor=parts["flavor"], networks=[{"uuid": parts["network"]}], user_data=USER_DATA,
            metadata={"purpose": "test"}, block_device_mapping_v2=devices,
        ),
        cloud.create("raw", image=raw, flavor=parts["flavor"]),
        cloud.create("root-volume", image=None, flavor=parts["flavor"], block_device_mapping_v2=[root]),
        cloud.create("direct", image=bare, flavor=parts["flavor"]),
    ]  # fmt: skip
    full, *others = [cloud.await_status(server_id, "ACTIVE") for server_id in ids]
    attached = {each["id"] for each in full["os-extended-volumes:volumes_attached"]}
    (own,) = attached - {volume}
    return Built(full, volume, own, *others)


def test_the_guest_has_its_name_and_user_data_and_the_address_that_the_api_tells(cloud: Cloud, built: Built) -> None:
    server = built.full
    ready = cloud.await_console(server["id"], r"^GUEST-READY hostname=(\S+)")
    said = cloud.console(server["id"])
    assert ready[1] == "full-house"
    assert f"GUEST-DATASOURCE configdrive uuid={server['id']} hostname=full-house" in said
    assert f"GUEST-USERDATA bytes={len(USER_DATA)} md5={hashlib.md5(USER_DATA.encode()).hexdigest()}" in said
    assert f"user data of full-house says {NONCE}" in said
    assert "GUEST-USERDATA-EXIT 0" in said
    (card,) = server["addresses"]["net"]
    assert f"GUEST-DHCP eth0 mac={card['OS-EXT-IPS-MAC:mac_addr']} ip={card['addr']}/24 gw=10.222.1.1" in said
    assert cloud.hosts["hull-c"].answers_ping(card["addr"])


def test_the_server_is_shown_as_it_was_asked_for(cloud: Cloud, built: Built, parts: dict[str, str]) -> None:
    server = cloud.server(built.full["id"])
    assert (server["status"], server["OS-EXT-STS:power_state"], server["OS-EXT-SRV-ATTR:host"]) == ("ACTIVE", 1, "hull-c")
    assert server["metadata"] == {"purpose": "test"}
    assert server["image"]["id"] == parts["image"]
    assert server["config_drive"] == "True"
    assert {each["id"] for each in server["os-extended-volumes:volumes_attached"]} == {built.kept_volume, built.own_volume}
    (port,) = cloud.call("GET", "/network/v2.0/ports", params={"device_id": server["id"]})["ports"]
    (card,) = server["addresses"]["net"]
    assert port["fixed_ips"][0]["ip_address"] == card["addr"]
    assert port["status"] == "ACTIVE"


def test_the_guest_sees_its_volumes_by_serial_and_size(cloud: Cloud, built: Built) -> None:
    blocks = cloud.await_console(built.full["id"], r"^GUEST-BLOCK(.*)$")[1].split()
    seen = {serial: int(sectors) * 512 for _, sectors, serial in (each.split(":") for each in blocks) if serial}
    # A virtio disk's serial has 20 characters.
    assert seen[built.kept_volume[:20]] == 2 * GIB
    assert seen[built.own_volume[:20]] == 1 * GIB
    assert blocks[0].split(":")[:2] == ["vda", str(GIB // 512)], "the root disk is first and as large as the flavor says"
    shown = cloud.call("GET", f"/volume/v3/volumes/{built.kept_volume}")["volume"]
    assert (shown["status"], shown["attachments"][0]["server_id"]) == ("in-use", built.full["id"])


def test_the_guest_cannot_speak_from_an_address_that_is_not_its_own(cloud: Cloud, built: Built) -> None:
    said = cloud.await_console(built.full["id"], r"^PING stolen (\S+)$")
    assert said[1] == "silent"
    assert "PING own answered" in cloud.console(built.full["id"])
    interface = ET.fromstring(cloud.virsh("hull-c", "dumpxml", built.full["id"])).find(".//interface")
    assert interface is not None
    (card,) = built.full["addresses"]["net"]
    assert [each.get("value") for each in interface.findall("filterref/parameter[@name='IP']")] == [card["addr"]]


@pytest.mark.parametrize("kind", ["raw", "from_volume", "direct"])
def test_a_guest_boots_from_a_raw_image_a_volume_and_a_kernel(cloud: Cloud, built: Built, kind: str) -> None:
    server = getattr(built, kind)
    assert cloud.await_console(server["id"], r"^GUEST-READY hostname=(\S+)")[1] == server["name"]
    devices = cloud.await_console(server["id"], r"^GUEST-BLOCK(.*)$")[1].split()
    name, sectors, serial = devices[0].split(":")
    assert (name, int(sectors) * 512) == ("vda", GIB)
    if kind == "from_volume":
        assert server["image"] == ""
        assert serial == server["os-extended-volumes:volumes_attached"][0]["id"][:20]


def test_the_build_tells_every_step_once_and_no_attempt_twice(cloud: Cloud, built: Built) -> None:
    for server in (built.full, built.raw, built.from_volume, built.direct):
        build = cloud.build(server["id"])
        assert (build["state"], [attempt["state"] for attempt in build["attempts"]]) == ("done", ["succeeded"])
        steps = [step["name"] for step in build["steps"] + build["attempts"][0]["steps"]]
        assert len(steps) == len(set(steps))
        assert {"guard", "reserve", "claim", "plug_network", "connect_volumes", "fetch_image", "spawn", "activate"} <= set(steps)


def test_power_follows_the_actions(cloud: Cloud, built: Built) -> None:
    server_id = built.raw["id"]
    cloud.await_console(server_id, "^GUEST-READY")
    cloud.call("POST", f"/servers/{server_id}/action", {"os-stop": None})
    cloud.wait(lambda: cloud.server(server_id)["status"] == "SHUTOFF")
    assert "shut off" in cloud.virsh("hull-c", "domstate", server_id)
    assert "GUEST-POWEROFF" in cloud.console(server_id), "the guest was asked, not pulled"
    cloud.call("POST", f"/servers/{server_id}/action", {"os-start": None})
    cloud.wait(lambda: cloud.server(server_id)["status"] == "ACTIVE")
    assert "running" in cloud.virsh("hull-c", "domstate", server_id)


def test_delete_leaves_nothing_but_the_volume_that_was_the_users(cloud: Cloud, built: Built) -> None:
    """Last in this file: it takes all the servers down."""
    servers = [built.full, built.raw, built.from_volume, built.direct]
    guests = [server["OS-EXT-SRV-ATTR:instance_name"] for server in servers]
    ids = [server["id"] for server in servers]
    root_volume = built.from_volume["os-extended-volumes:volumes_attached"][0]["id"]
    assert all(cloud.files_about(server_id) for server_id in ids), "there is something to be cleaned"
    (card,) = built.full["addresses"]["net"]
    cloud.delete(*ids)
    cloud.rest()
    assert cloud.files_about(*ids, *guests, built.own_volume, root_volume) == []
    assert len(cloud.files_about(built.kept_volume)) == 1
    assert not set(ids) & set(cloud.virsh("hull-c", "list", "--all", "--uuid").split())
    networks = cloud.virsh("hull-c", "net-list", "--all", "--name").split()
    assert not any(re.search(rf"ip='{re.escape(card['addr'])}'", cloud.virsh("hull-c", "net-dumpxml", name)) for name in networks)
    assert cloud.call("GET", "/network/v2.0/ports")["ports"] == []
    volumes = {each["id"]: each["status"] for each in cloud.call("GET", "/volume/v3/volumes/detail")["volumes"]}
    assert volumes == {built.kept_volume: "available"}
    cloud.check()
