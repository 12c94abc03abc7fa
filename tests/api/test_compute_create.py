"""POST /servers: what is accepted in which version, what is refused before anything is written, and what is written.

Over 400 lines: one request has all these fields, and whoever changes its schema finds what is said of it in one place.
"""

from __future__ import annotations

import base64
from typing import Any
from uuid import uuid4

import pytest
import sqlalchemy as sa

from hullwright.api.network.security_groups import default_group_id
from hullwright.objects.flavors import Flavor
from hullwright.objects.networks import NetworkRequest
from hullwright.objects.volumes import Volume
from hullwright.persistence import aggregates, flavors, hosts, instances, key_pairs, ports, volumes
from hullwright.persistence.database import now
from hullwright.persistence.models.instances import instance_actions
from hullwright.persistence.models.instances import instances as instance_table
from hullwright.persistence.models.jobs import jobs
from support.effort import scans

from .conftest import GIB, Api, World, add_image, add_network, create, server_body

NOWHERE = "00000000-0000-0000-0000-000000000001"


def rows(api: Api, table: sa.Table) -> list[Any]:
    with api.db.read() as conn:
        return list(conn.execute(sa.select(table).order_by(table.c.id)).mappings())


def test_a_server_is_written_with_its_action_and_its_build_in_one_transaction(api: Api, world: World) -> None:
    commits = api.db.commits
    answer = api.post("/servers", server_body(world))
    assert api.db.commits == commits + 1
    server = answer.json["server"]
    assert set(server) == {"id", "links", "security_groups", "OS-DCF:diskConfig"}
    assert answer.status == 202
    assert answer.headers["Location"] == server["links"][0]["href"]
    [row] = rows(api, instance_table)
    [job] = rows(api, jobs)
    [action] = rows(api, instance_actions)
    assert (row["uuid"], row["vm_state"], row["task_state"]) == (server["id"], "building", "scheduling")
    assert (job["kind"], job["inputs"], job["state"]) == ("build_instance", {"instance_uuid": row["uuid"]}, "queued")
    assert (action["action"], action["job_uuid"]) == ("create", job["uuid"])
    assert action["request_id"] == job["request_id"] == answer.headers["x-compute-request-id"]
    assert row["spec"]["networks"][0]["network_id"] == world.network
    assert len(row["spec"]["networks"][0]["port_id"]) == 36


def test_a_create_request_costs_few_statements(sqlite_api: Api, small_world: World) -> None:
    create(sqlite_api, small_world)
    before = sqlite_api.db.statements
    create(sqlite_api, small_world)
    assert sqlite_api.db.statements - before <= 9  # flavor, image, network, subnets; BEGIN, three INSERTs, COMMIT


@pytest.mark.parametrize("letter", ["n", "\u00fc"])
def test_the_longest_name_leaves_room_for_the_numbers_of_several(api: Api, world: World, letter: str) -> None:
    answer = api.post("/servers", server_body(world, name=letter * 255, max_count=10))
    assert answer.status == 202, answer.text
    found = [row["name"] for row in rows(api, instance_table)]
    assert found == [*(f"{letter * 253}-{n}" for n in range(1, 10)), f"{letter * 252}-10"]


@pytest.mark.parametrize(
    ("place", "status"),
    [
        ({"availability_zone": "east"}, 202),
        ({"availability_zone": "west"}, 400),
        ({"availability_zone": "east:host1"}, 202),
        ({"host": "host1"}, 202),
        ({"host": "host2"}, 400),
    ],
)
def test_a_place_that_is_asked_for_is_looked_up_without_going_through_all_hosts(
    sqlite_api: Api, small_world: World, place: dict[str, str], status: int
) -> None:
    with sqlite_api.db.write() as conn:
        aggregates.set_metadata(conn, aggregates.create(conn, "a").id, {"availability_zone": "east"})
        aggregates.add_host(conn, 1, "host1")
    answers = []
    body = server_body(small_world, **place)
    statements, found = scans(sqlite_api.db, lambda: answers.append(sqlite_api.post("/servers", body)))
    assert [answer.status for answer in answers] == [status]
    assert statements >= 4
    assert [(table, text) for table, _, text in found if table == "hosts"] == []


@pytest.mark.parametrize(
    ("version", "fields", "accepted"),
    [
        ("2.1", {"networks": None}, True),
        ("2.36", {"networks": None}, True),
        ("2.37", {"networks": None}, False),
        ("2.36", {"networks": "auto"}, False),
        ("2.37", {"networks": "auto"}, True),
        ("2.37", {"networks": "none"}, True),
        ("2.37", {"networks": "some"}, False),
        ("2.18", {"description": "text"}, False),
        ("2.19", {"description": "text"}, True),
        ("2.19", {"description": "a\x07b"}, False),
        ("2.100", {"description": "two\nlines"}, True),
        ("2.51", {"tags": ["a"]}, False),
        ("2.52", {"tags": ["a"]}, True),
        ("2.52", {"tags": ["a,b"]}, False),
        ("2.52", {"tags": ["a/b"]}, False),
        ("2.52", {"tags": ["x" * 61]}, False),
        ("2.52", {"tags": [f"t{i}" for i in range(51)]}, False),
        ("2.56", {"personality": []}, True),
        ("2.56", {"personality": [{"path": "/a", "contents": "YQ=="}]}, False),
        ("2.57", {"personality": []}, False),
        ("2.62", {"trusted_image_certificates": None}, True),
        ("2.63", {"trusted_image_certificates": ["a"]}, False),
        ("2.73", {"host": "host1"}, False),
        ("2.74", {"host": "host1"}, True),
        ("2.74", {"hypervisor_hostname": "host1"}, True),
        ("2.74", {"host": "nohost"}, False),
        ("2.74", {"host": "host1", "availability_zone": "nova:host1"}, False),
        ("2.74", {"host": "host1", "hypervisor_hostname": "host2"}, False),
        ("2.89", {"hostname": "box"}, False),
        ("2.90", {"hostname": "box"}, True),
        ("2.90", {"hostname": "box.example.org"}, False),
        ("2.94", {"hostname": "box.example.org"}, True),
        ("2.90", {"hostname": "b"}, False),
        ("2.100", {"name": " a"}, False),
        ("2.100", {"name": "a "}, False),
        ("2.100", {"name": ""}, False),
        ("2.100", {"name": "a\tb"}, False),
        ("2.100", {"name": "x" * 255}, True),
        ("2.100", {"name": "x" * 256}, False),
        ("2.100", {"name": "été ☃"}, True),
        ("2.100", {"name": 7}, False),
        ("2.100", {"flavorRef": 1}, True),
        ("2.100", {"flavorRef": "http://example.org/v2.1/flavors/1"}, True),
        ("2.100", {"flavorRef": "nope"}, False),
        ("2.100", {"flavorRef": ""}, False),
        ("2.100", {"imageRef": "nope"}, False),
        ("2.100", {"imageRef": NOWHERE}, False),
        ("2.100", {"imageRef": ""}, False),
        ("2.100", {"imageRef": None}, False),
        ("2.100", {"metadata": {"k": "v"}}, True),
        ("2.100", {"metadata": {"k": 1}}, False),
        ("2.100", {"metadata": {"": "v"}}, False),
        ("2.100", {"metadata": {"k": "v" * 256}}, False),
        ("2.100", {"config_drive": True}, True),
        ("2.100", {"config_drive": "yes"}, True),
        ("2.100", {"config_drive": "perhaps"}, False),
        ("2.100", {"user_data": base64.b64encode(b"x").decode()}, True),
        ("2.100", {"user_data": "not base64!"}, False),
        ("2.100", {"user_data": base64.b64encode(b"x" * 49149).decode()}, True),
        ("2.100", {"user_data": base64.b64encode(b"x" * 49153).decode()}, False),
        ("2.100", {"key_name": "nope"}, False),
        ("2.100", {"availability_zone": "nova"}, True),
        ("2.100", {"availability_zone": "mars"}, False),
        ("2.100", {"availability_zone": "nova:host1"}, True),
        ("2.100", {"availability_zone": "nova:host1:host1"}, True),
        ("2.100", {"availability_zone": "nova:nohost"}, False),
        ("2.100", {"min_count": 2, "max_count": "3"}, True),
        ("2.100", {"min_count": 3, "max_count": 2}, False),
        ("2.100", {"min_count": 0}, False),
        ("2.100", {"min_count": "many"}, False),
        ("2.100", {"min_count": 2, "hostname": "box"}, False),
        ("2.100", {"security_groups": [{"name": "default"}]}, True),
        ("2.100", {"security_groups": [{"name": default_group_id("hullwright")}]}, True),
        ("2.100", {"security_groups": [{"name": default_group_id("another")}]}, False),
        ("2.100", {"security_groups": [{"name": "web"}]}, False),
        ("2.100", {"adminPass": "secret"}, True),
        ("2.100", {"accessIPv4": "192.0.2.1"}, True),
        ("2.100", {"accessIPv4": "2001:db8::1"}, False),
        ("2.100", {"accessIPv6": "2001:db8::1"}, True),
        ("2.100", {"OS-DCF:diskConfig": "AUTO"}, True),
        ("2.100", {"OS-DCF:diskConfig": "SOME"}, False),
        ("2.100", {"unknown": 1}, False),
    ],
)
def test_fields_are_accepted_in_their_versions_only(
    sqlite_api: Api, small_world: World, version: str, fields: dict[str, Any], accepted: bool
) -> None:
    answer = sqlite_api.post("/servers", server_body(small_world, **fields), version=version)
    assert answer.status == (202 if accepted else 400), answer.text
    assert bool(rows(sqlite_api, instance_table)) == accepted
    assert bool(rows(sqlite_api, jobs)) == accepted
    if not accepted:
        assert answer.fault[0] == "badRequest"


def test_what_is_given_is_what_is_kept(api: Api, world: World) -> None:
    api.post("/flavors", {"flavor": {"name": "f", "ram": 1, "vcpus": 1, "disk": 1, "id": "f"}})
    with api.db.write() as conn:
        key_pairs.create(conn, user_id="hullwright", name="key", type="ssh", fingerprint="f", public_key="ssh-ed25519 AAAA")
    data = base64.b64encode(b"#!/bin/sh").decode()
    uuid = create(
        api,
        world,
        name="Web Server_1.x",
        description="d",
        metadata={"a": "b"},
        tags=["t", "t", "u"],
        key_name="key",
        user_data=data,
        config_drive="true",
        availability_zone="nova:host1",
        accessIPv4="192.0.2.7",
    )
    with api.db.read() as conn:
        instance = instances.get(conn, uuid)
    assert instance.hostname == "web-server-1-x"
    assert (instance.description, instance.metadata, instance.tags) == ("d", {"a": "b"}, ("t", "u"))
    assert (instance.key_name, instance.key_data, instance.user_data) == ("key", "ssh-ed25519 AAAA", data)
    assert (instance.config_drive, instance.spec.config_drive, instance.access_ip_v4) == (True, True, "192.0.2.7")
    assert (instance.spec.availability_zone, instance.spec.force_host) == ("nova", "host1")
    assert instance.spec.image_properties == {"os_type": "linux"}
    assert instance.spec.flavor.extra_specs == {"a": "b"}
    assert instance.spec.max_attempts == 1  # on a host that is forced


@pytest.mark.parametrize(
    ("name", "hostname"),
    [("A b", "a-b"), ("été", "t"), ("x" * 70, "x" * 63), ("--a--", "a"), ("a_b.c", "a-b-c")],
)
def test_a_host_name_is_made_from_the_name(sqlite_api: Api, small_world: World, name: str, hostname: str) -> None:
    uuid = create(sqlite_api, small_world, name=name)
    assert sqlite_api.get(f"/servers/{uuid}").json["server"]["OS-EXT-SRV-ATTR:hostname"] == hostname


def test_a_name_without_any_letter_becomes_server_and_id(sqlite_api: Api, small_world: World) -> None:
    uuid = create(sqlite_api, small_world, name="☃☃")
    assert sqlite_api.get(f"/servers/{uuid}").json["server"]["OS-EXT-SRV-ATTR:hostname"] == f"server-{uuid}"


def test_before_2_19_the_description_is_the_name(sqlite_api: Api, small_world: World) -> None:
    uuid = create(sqlite_api, small_world, version="2.1", name="old")
    assert sqlite_api.get(f"/servers/{uuid}").json["server"]["description"] == "old"


def test_several_servers_get_names_ids_and_ports_of_their_own(api: Api, world: World) -> None:
    answer = api.post("/servers", server_body(world, name="n", min_count=2, max_count=3, return_reservation_id=True))
    reservation = answer.json["reservation_id"]
    found = rows(api, instance_table)
    assert [row["name"] for row in found] == ["n-1", "n-2", "n-3"]
    assert {row["reservation_id"] for row in found} == {reservation}
    assert [row["launch_index"] for row in found] == [0, 1, 2]
    assert len({row["spec"]["networks"][0]["port_id"] for row in found}) == 3
    assert len(rows(api, jobs)) == len(rows(api, instance_actions)) == 3
    shown = api.get(f"/servers/detail?reservation_id={reservation}").json["servers"]
    assert len(shown) == 3


def test_too_many_servers_in_one_request_are_over_quota(sqlite_api: Api, small_world: World) -> None:
    answer = sqlite_api.post("/servers", server_body(small_world, min_count=1, max_count=10**9))
    assert (answer.status, answer.fault[0]) == (403, "forbidden")
    assert answer.fault[1].startswith("Quota exceeded")


def test_too_much_metadata_is_over_quota(sqlite_api: Api, small_world: World) -> None:
    answer = sqlite_api.post("/servers", server_body(small_world, metadata={str(i): "" for i in range(129)}))
    assert (answer.status, answer.fault) == (403, ("forbidden", "Maximum number of metadata items exceeds 128"))


def test_secrets_are_not_told_back(sqlite_api: Api, small_world: World) -> None:
    for fields in (
        {"user_data": "hunter2!"},
        {"adminPass": ["hunter2!"]},
        {"adminPass": "hunter2!", "user_data": "aHVudGVyMg==", "unknown": 1},
        {"user_data": "hunter2!" * 10000},
    ):
        answer = sqlite_api.post("/servers", server_body(small_world, **fields))
        assert answer.status == 400
        assert "hunter2" not in answer.text
        assert "aHVudGVyMg" not in answer.text


def test_a_password_is_told_only_when_configured_and_never_stored(sqlite_api: Api, small_world: World) -> None:
    answer = sqlite_api.post("/servers", server_body(small_world, adminPass="hunter2!"))
    assert "adminPass" not in answer.json["server"]
    sqlite_api.conf.set_override("enable_instance_password", True, group="api")
    answer = sqlite_api.post("/servers", server_body(small_world, adminPass="hunter2!"))
    assert answer.json["server"]["adminPass"] == "hunter2!"
    assert len(sqlite_api.post("/servers", server_body(small_world)).json["server"]["adminPass"]) == 12
    for table in (instance_table, jobs, instance_actions):
        assert "hunter2" not in str(rows(sqlite_api, table))


# --- Image and flavor -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("image", "message"),
    [
        ({"virtual_size_bytes": 2 * GIB}, "Flavor's disk is too small for requested image."),
        ({"min_disk_gb": 2}, "Flavor's disk is smaller than the minimum size specified in image metadata."),
        ({"min_ram_mb": 1024}, "Flavor's memory is too small for requested image"),
        ({"status": "queued"}, "is not active"),
        ({"status": "saving"}, "is not active"),
        ({"disk_format": "aki"}, "it is a kernel or ramdisk"),
        ({"properties": {"kernel_id": NOWHERE}}, "could not be found"),
        ({"properties": {"kernel_id": "nope"}}, "kernel_id is not an image's id"),
    ],
)
def test_an_image_that_cannot_be_built_is_refused_at_the_door(
    sqlite_api: Api, small_world: World, image: dict[str, Any], message: str
) -> None:
    image_id = add_image(sqlite_api.db, **image)
    answer = sqlite_api.post("/servers", server_body(small_world, imageRef=image_id))
    assert answer.status == 400
    assert message in answer.fault[1]
    assert rows(sqlite_api, instance_table) == []


def test_a_flavor_without_disk_takes_any_image(sqlite_api: Api, small_world: World) -> None:
    with sqlite_api.db.write() as conn:
        flavors.create(conn, Flavor("0", "zero", vcpus=1, memory_mb=512, root_gb=0))
    image = add_image(sqlite_api.db, virtual_size_bytes=20 * GIB)
    assert create(sqlite_api, small_world, flavorRef="0", imageRef=image)


# --- Networks ---------------------------------------------------------------------------------------------------------


def networks_of(api: Api, uuid: str) -> list[dict[str, Any]]:
    with api.db.read() as conn:
        return list(instances.get_row(conn, uuid)["spec"]["networks"])


def test_auto_takes_the_only_network_and_several_are_ambiguous(api: Api, world: World) -> None:
    [card] = networks_of(api, create(api, world, networks="auto"))
    assert card["network_id"] == world.network
    [card] = networks_of(api, create(api, world, networks=None, version="2.1"))
    assert card["network_id"] == world.network
    assert networks_of(api, create(api, world, networks="none")) == []
    add_network(api.db, "private", "198.51.100.0/24", shared=False, project_id="somebody")
    assert create(api, world, networks="auto")
    add_network(api.db, "net2", "203.0.113.0/24")
    answer = api.post("/servers", server_body(world, networks="auto"))
    assert (answer.status, answer.fault[0]) == (409, "conflictingRequest")
    assert answer.fault[1].startswith("Multiple possible networks found")


def test_without_any_network_auto_is_refused_and_absent_means_none(sqlite_api: Api) -> None:
    with sqlite_api.db.write() as conn:
        flavors.create(conn, Flavor("1", "m1.tiny", vcpus=1, memory_mb=512, root_gb=1))
    world = World(image=add_image(sqlite_api.db), network="", subnet="")
    answer = sqlite_api.post("/servers", server_body(world, networks="auto"))
    assert answer.fault[1].startswith("Unable to automatically allocate a network")
    assert networks_of(sqlite_api, create(sqlite_api, world, version="2.1", networks=None)) == []


def test_cards_are_kept_in_order_with_addresses_and_tags(api: Api, world: World) -> None:
    second, _ = add_network(api.db, "net2", "203.0.113.0/24")
    wanted = [{"uuid": second, "tag": "a"}, {"uuid": world.network, "fixed_ip": "192.0.2.77"}, {"uuid": world.network}]
    found = networks_of(api, create(api, world, networks=wanted))
    assert [(card["network_id"], card["fixed_ip"], card["tag"]) for card in found] == [
        (second, None, "a"),
        (world.network, "192.0.2.77", None),
        (world.network, None, None),
    ]


def test_networks_that_cannot_be_had_are_refused(api: Api, world: World) -> None:
    bare, _ = add_network(api.db, "bare", None)
    port = NetworkRequest(str(uuid4()), world.network, fixed_ip="192.0.2.99")
    with api.db.write() as conn:
        ports.ensure(conn, str(uuid4()), "p", [port])
    cases: list[tuple[list[dict[str, Any]], int, str]] = [
        ([{"uuid": NOWHERE}], 400, "could not be found"),
        ([{"port": NOWHERE}], 400, "could not be found"),
        ([{}], 400, "needs a network's uuid or a port"),
        ([{"uuid": bare}], 400, "requires a subnet"),
        ([{"uuid": world.network, "fixed_ip": "198.51.100.1"}], 400, "is not a valid ip address for network"),
        ([{"uuid": world.network, "fixed_ip": "192.0.2.99"}], 400, "is already in use"),
        ([{"uuid": world.network, "fixed_ip": "nonsense"}], 400, "Invalid input"),
        ([{"port": port.port_id}], 409, "is still in use"),
        ([{"port": port.port_id, "fixed_ip": "192.0.2.5"}], 400, "cannot be specified together"),
    ]
    for wanted, status, message in cases:
        answer = api.post("/servers", server_body(world, networks=wanted))
        assert (answer.status, message in answer.fault[1]) == (status, True), answer.text
    assert rows(api, instance_table) == []


def test_several_servers_cannot_share_an_address_or_a_port(sqlite_api: Api, small_world: World) -> None:
    for card in ({"uuid": small_world.network, "fixed_ip": "192.0.2.5"}, {"port": NOWHERE}):
        answer = sqlite_api.post("/servers", server_body(small_world, networks=[card], min_count=2))
        assert answer.status == 400


# --- Block devices ----------------------------------------------------------------------------------------------------


def add_volume(api: Api, **fields: Any) -> str:
    volume = Volume(**({"id": str(uuid4()), "name": "v", "size_gb": 1, "project_id": "hullwright", "created_at": now()} | fields))
    with api.db.write() as conn:
        volumes.create(conn, volume)
    return volume.id


def devices_of(api: Api, uuid: str) -> list[dict[str, Any]]:
    with api.db.read() as conn:
        return list(instances.get_row(conn, uuid)["spec"]["block_devices"])


def test_a_server_boots_from_a_volume_and_has_no_image(api: Api, world: World) -> None:
    volume = add_volume(api, bootable=True)
    device = {"uuid": volume, "source_type": "volume", "destination_type": "volume", "boot_index": 0}
    uuid = create(api, world, imageRef="", block_device_mapping_v2=[device])
    [kept] = devices_of(api, uuid)
    assert (kept["volume_id"], kept["boot_index"], kept["delete_on_termination"]) == (volume, 0, False)
    assert api.get(f"/servers/{uuid}").json["server"]["image"] == ""
    uuid = create(api, world, imageRef=None, block_device_mapping=[{"volume_id": volume, "device_name": "vda"}])
    assert devices_of(api, uuid)[0]["boot_index"] == 0


def test_volumes_are_made_by_the_build_from_images_and_blank(api: Api, world: World) -> None:
    wanted = [
        {"uuid": world.image, "source_type": "image", "destination_type": "volume", "boot_index": "0", "volume_size": 2},
        {"source_type": "blank", "destination_type": "volume", "volume_size": "5", "delete_on_termination": "true", "tag": "data"},
    ]
    root, data = devices_of(api, create(api, world, imageRef=None, block_device_mapping_v2=wanted))
    assert (root["source_type"], root["image_id"], root["size_gb"], root["boot_index"]) == ("image", world.image, 2, 0)
    assert (data["source_type"], data["size_gb"], data["delete_on_termination"], data["tag"]) == ("blank", 5, True, "data")
    assert len({root["volume_id"], data["volume_id"], root["attachment_id"], data["attachment_id"]}) == 4


def test_the_clients_way_of_naming_the_image_disk_is_the_plain_image(sqlite_api: Api, small_world: World) -> None:
    device = {
        "uuid": small_world.image,
        "source_type": "image",
        "destination_type": "local",
        "boot_index": 0,
        "delete_on_termination": True,
    }
    for image_ref in (small_world.image, None):
        uuid = create(sqlite_api, small_world, imageRef=image_ref, block_device_mapping_v2=[device])
        assert devices_of(sqlite_api, uuid) == []
        assert sqlite_api.get(f"/servers/{uuid}").json["server"]["image"]["id"] == small_world.image


def test_block_devices_that_make_no_sense_are_refused(sqlite_api: Api, small_world: World) -> None:
    api, image = sqlite_api, small_world.image
    free, used = add_volume(api), add_volume(api, status="in-use")
    foot = {"source_type": "volume", "destination_type": "volume"}
    blank = {"source_type": "blank", "destination_type": "volume"}
    cases: list[tuple[list[dict[str, Any]], str | None]] = [
        ([{**foot, "uuid": NOWHERE}], image),
        ([{**foot, "uuid": used}], image),
        ([{**foot, "uuid": "nope"}], image),
        ([{**foot, "uuid": free}], None),  # nothing to boot from
        ([{**foot, "uuid": free, "boot_index": 0}], None),  # not bootable
        ([{**foot, "uuid": free, "boot_index": 0}], image),  # two root disks
        ([{**foot, "uuid": free}, {**foot, "uuid": free}], image),
        ([{**foot, "uuid": free, "boot_index": 3}], image),
        ([blank], image),
        ([{**blank, "volume_size": 0}], image),
        ([{**blank, "volume_size": 1, "boot_index": 0}], None),
        ([{**blank, "volume_size": 1, "volume_type": "fast"}], image),
        ([{"source_type": "snapshot", "uuid": NOWHERE, "destination_type": "volume"}], image),
        ([{"source_type": "image", "uuid": image, "destination_type": "volume", "boot_index": 0}], None),  # no size
        ([{"source_type": "blank", "destination_type": "local", "volume_size": 9}], image),
        ([{"source_type": "odd"}], image),
    ]
    for devices, image_ref in cases:
        answer = api.post("/servers", server_body(small_world, imageRef=image_ref, block_device_mapping_v2=devices))
        assert (answer.status, answer.fault[0]) == (400, "badRequest"), (devices, answer.text)
    assert rows(api, instance_table) == []


@pytest.mark.parametrize(
    ("fields", "told"),
    [
        ({"device_name": "/dev/zzz"}, "/dev/zzz is not the name of a disk"),
        ({"device_name": "/dev/vd1"}, "/dev/vd1 is not the name of a disk"),
        ({"device_name": "/dev/hde"}, "/dev/hde is not the name of a disk"),
        ({"disk_bus": "fdc"}, "disk bus fdc is not one of virtio, scsi, sata, usb, ide"),
    ],
)
def test_a_device_that_no_guest_can_have_is_refused(sqlite_api: Api, small_world: World, fields: dict[str, Any], told: str) -> None:
    device = {"source_type": "blank", "destination_type": "volume", "volume_size": 1, **fields}
    answer = sqlite_api.post("/servers", server_body(small_world, block_device_mapping_v2=[device]))
    assert (answer.status, told in answer.fault[1]) == (400, True), answer.text
    assert rows(sqlite_api, jobs) == []


@pytest.mark.parametrize("fields", [{"disk_bus": "scsi"}, {"device_type": "cdrom"}, {"tag": "root"}])
def test_a_local_disk_is_as_image_and_flavor_say(sqlite_api: Api, small_world: World, fields: dict[str, Any]) -> None:
    root = {"uuid": small_world.image, "source_type": "image", "destination_type": "local", "boot_index": 0, "device_type": "disk"}
    assert sqlite_api.post("/servers", server_body(small_world, block_device_mapping_v2=[root])).status == 202
    answer = sqlite_api.post("/servers", server_body(small_world, block_device_mapping_v2=[root | fields]))
    assert (answer.status, "local disk" in answer.fault[1]) == (400, True)


def test_the_ide_bus_takes_four_disks_with_the_config_drive_and_the_others_take_many(sqlite_api: Api, small_world: World) -> None:
    def asked(count: int, bus: str) -> int:
        device = {"source_type": "blank", "destination_type": "volume", "volume_size": 1}
        image = add_image(sqlite_api.db, properties={"hw_disk_bus": bus})
        return sqlite_api.post("/servers", server_body(small_world, imageRef=image, block_device_mapping_v2=[device] * count)).status

    assert [asked(2, "ide"), asked(3, "ide"), asked(40, "virtio")] == [202, 400, 202]


def test_the_root_device_is_named_by_its_bus(sqlite_api: Api, small_world: World) -> None:
    def named(**fields: Any) -> str:
        uuid = create(sqlite_api, small_world, **fields)
        return str(sqlite_api.get(f"/servers/{uuid}").json["server"]["OS-EXT-SRV-ATTR:root_device_name"])

    scsi = add_image(sqlite_api.db, properties={"hw_disk_bus": "scsi"})
    root = {"source_type": "image", "destination_type": "volume", "volume_size": 2, "boot_index": 0, "uuid": scsi}
    assert named() == "/dev/vda"
    assert named(imageRef=scsi) == "/dev/sda"
    assert named(imageRef=None, block_device_mapping_v2=[root]) == "/dev/sda"
    assert named(imageRef=None, block_device_mapping_v2=[root | {"disk_bus": "virtio"}]) == "/dev/vda"


def test_a_server_goes_where_the_bytes_of_its_volumes_are(sqlite_api: Api, small_world: World) -> None:
    api, here, there, anywhere = sqlite_api, *(add_volume(sqlite_api, host=host) for host in ("host1", "host2", None))
    with api.db.write() as conn:
        hosts.register(conn, "host2", "fake:///host2", "fake")
        aggregates.set_home_zone(conn, "host2", "west")

    def ask(*ids: str, **fields: Any) -> Any:
        devices = [{"uuid": each, "source_type": "volume", "destination_type": "volume"} for each in ids]
        return api.post("/servers", server_body(small_world, block_device_mapping_v2=devices, **fields))

    def spec_of(answer: Any) -> Any:
        assert answer.status == 202, answer.text
        with api.db.read() as conn:
            return instances.get(conn, answer.json["server"]["id"]).spec

    spec = spec_of(ask(anywhere, there))
    assert (spec.volume_host, spec.max_attempts) == ("host2", 1)
    assert spec_of(ask(there, host="host2", availability_zone="west")).volume_host == "host2"
    spec = spec_of(ask(anywhere))
    assert (spec.volume_host, spec.max_attempts) == (None, 3)
    for refused in (ask(here, there), ask(here, host="host2"), ask(here, availability_zone=":host2"), ask(here, availability_zone="west")):
        assert refused.status == 400
        assert "local volumes do not move" in refused.fault[1]
    api.conf.set_override("shared", True, "volume")
    assert spec_of(ask(here, there)).volume_host is None


# --- Hints and places -------------------------------------------------------------------------------------------------


def test_hints_are_kept_whatever_they_are_but_a_group_must_exist(api: Api, world: World) -> None:
    body = server_body(world) | {"os:scheduler_hints": {"same_host": NOWHERE, "anything": [1]}}
    uuid = api.post("/servers", body).json["server"]["id"]
    assert api.get(f"/servers/{uuid}").json["server"]["scheduler_hints"] == {"same_host": NOWHERE, "anything": [1]}
    body = server_body(world) | {"OS-SCH-HNT:scheduler_hints": {"group": NOWHERE}}
    assert api.post("/servers", body).fault[1] == f"Instance group {NOWHERE} could not be found."
    body = server_body(world) | {"os:scheduler_hints": {"group": "nope"}}
    assert api.post("/servers", body).status == 400


def test_how_long_a_build_may_wait_for_room_is_a_hint_or_the_configurations_word(sqlite_api: Api, small_world: World) -> None:
    def wait_of(uuid: str) -> int:
        with sqlite_api.db.read() as conn:
            return instances.get(conn, uuid).spec.wait_seconds

    assert wait_of(create(sqlite_api, small_world)) == 0
    for hint in (90, "90"):
        body = server_body(small_world) | {"os:scheduler_hints": {"wait_for_capacity": hint}}
        assert wait_of(sqlite_api.post("/servers", body).json["server"]["id"]) == 90
    for hint in (-1, "soon", 1.5, True, 86_401, [60]):
        body = server_body(small_world) | {"os:scheduler_hints": {"wait_for_capacity": hint}}
        answer = sqlite_api.post("/servers", body)
        assert (answer.status, answer.fault[1].split("'")[0]) == (400, "Invalid scheduler hint wait_for_capacity "), hint


def test_a_requested_host_goes_through_filters_and_a_forced_one_does_not(sqlite_api: Api, small_world: World) -> None:
    with_host = create(sqlite_api, small_world, host="host1")
    forced = create(sqlite_api, small_world, availability_zone=":host1")
    with sqlite_api.db.read() as conn:
        first, second = instances.get(conn, with_host).spec, instances.get(conn, forced).spec
    assert (first.requested_host, first.force_host) == ("host1", None)
    assert (second.requested_host, second.force_host, second.availability_zone) == (None, "host1", None)


def _assert_unsupported(api: Api, answer: Any, told: str | None) -> None:
    """Refused with these words, and nothing was posted; None: taken."""
    if told is None:
        assert answer.status == 202, answer.text
    else:
        assert answer.status == 400
        assert told in answer.fault[1]
        assert rows(api, jobs) == []


@pytest.mark.parametrize(
    ("specs", "told"),
    [
        ({"hw:cpu_policy": "dedicated"}, "hw:cpu_policy=dedicated"),
        ({"hw:cpu_policy": "shared", "hw:mem_page_size": "large", "hw:numa_nodes": "2"}, "hw:mem_page_size=large, hw:numa_nodes=2"),
        ({"pci_passthrough:alias": "gpu:1"}, "pci_passthrough:alias=gpu:1"),
        ({"resources:CUSTOM_GOLD": "1"}, "resources:CUSTOM_GOLD=1"),
        ({"resources_NET:VGPU": "1", "group_policy": "none"}, "group_policy=none, resources_NET:VGPU=1"),
        ({"quota:cpu_shares": "10"}, "quota:cpu_shares=10"),
        ({"os:secure_boot": "required"}, "os:secure_boot=required"),
        ({"hw:cpu_policy": "shared", "hw:vif_multiqueue_enabled": "False", "hw_rng:allowed": "True"}, None),
        ({"ssd": "true", "aggregate_instance_extra_specs:ssd": "true", "trait:HW_CPU_X86_AVX2": "required", "mine:note": "x"}, None),
    ],
)
def test_an_extra_spec_that_no_guest_would_have_is_refused(
    sqlite_api: Api, small_world: World, specs: dict[str, str], told: str | None
) -> None:
    flavor = Flavor("9", "special", vcpus=1, memory_mb=512, root_gb=1, extra_specs=specs)
    with sqlite_api.db.write() as conn:
        flavors.create(conn, flavor)
    answer = sqlite_api.post("/servers", server_body(small_world, flavorRef="9"))
    _assert_unsupported(sqlite_api, answer, told and f"does not support these extra specs of the flavor: {told}. ")


@pytest.mark.parametrize(
    ("properties", "told"),
    [
        ({"hw_cpu_policy": "dedicated", "os_distro": "debian"}, "hw_cpu_policy=dedicated"),
        ({"hw_mem_encryption": "True", "hw_tpm_version": "2.0"}, "hw_mem_encryption=True, hw_tpm_version=2.0"),
        ({"os_secure_boot": "required"}, "os_secure_boot=required"),
        ({"hw_watchdog_action": "reset"}, "hw_watchdog_action=reset"),
        ({"hw_firmware_stateless": "true"}, "hw_firmware_stateless=true"),
        ({"hw_scsi_model": "lsilogic"}, "hw_scsi_model=lsilogic"),
        ({"hw_cpu_policy": "shared", "hw_firmware_stateless": "false", "hw_scsi_model": "virtio-scsi", "os_secure_boot": "optional"}, None),
        ({"hw_disk_bus": "virtio", "hw_vif_model": "e1000", "hw_qemu_guest_agent": "yes", "hw_pointer_model": "usbtablet"}, None),
    ],
)
def test_an_image_property_that_no_guest_would_have_is_refused(
    sqlite_api: Api, small_world: World, properties: dict[str, str], told: str | None
) -> None:
    answer = sqlite_api.post("/servers", server_body(small_world, imageRef=add_image(sqlite_api.db, properties=properties)))
    _assert_unsupported(sqlite_api, answer, told and f"does not support these properties of the image: {told}. ")


@pytest.mark.parametrize(
    ("name", "wrong", "right"),
    [
        ("hw_vif_model", "virtoi", "e1000e"),
        ("hw_video_model", "gop", "qxl"),
        ("hw_machine_type", "pc <q35>", "pc-q35-7.2"),
        ("hw_disk_bus", "fdc", "sata"),
        ("hw_cdrom_bus", "virtio", "sata"),
        ("hw_firmware_type", "UEFI", "uefi"),
    ],
)
def test_an_image_property_that_names_no_part_of_a_guest_is_refused(
    sqlite_api: Api, small_world: World, name: str, wrong: str, right: str
) -> None:
    answers = [
        sqlite_api.post("/servers", server_body(small_world, imageRef=add_image(sqlite_api.db, properties={name: value})))
        for value in (wrong, right)
    ]
    assert [answer.status for answer in answers] == [400, 202]
    assert f"Image property {name}={wrong} is not valid" in answers[0].fault[1]
    volume = add_volume(sqlite_api, bootable=True, image_id=add_image(sqlite_api.db, properties={name: wrong}))
    root = {"uuid": volume, "source_type": "volume", "destination_type": "volume", "boot_index": 0}
    assert sqlite_api.post("/servers", server_body(small_world, imageRef=None, block_device_mapping_v2=[root])).status == 400


@pytest.mark.parametrize(
    ("forced", "asked", "properties", "given"),
    [
        (True, None, {}, True),
        (True, False, {}, True),
        (False, None, {}, False),
        (False, "true", {}, True),
        (False, None, {"img_config_drive": "optional"}, False),
        (False, None, {"img_config_drive": "mandatory"}, True),
    ],
)
def test_a_config_drive_is_given_by_configuration_request_or_image(
    sqlite_api: Api, small_world: World, forced: bool, asked: Any, properties: dict[str, str], given: bool
) -> None:
    sqlite_api.conf.set_override("force_config_drive", forced)
    request = {} if asked is None else {"config_drive": asked}
    uuid = create(sqlite_api, small_world, imageRef=add_image(sqlite_api.db, properties=properties), **request)
    with sqlite_api.db.read() as conn:
        instance = instances.get(conn, uuid)
    assert (instance.config_drive, instance.spec.config_drive) == (given, given)
    assert sqlite_api.get(f"/servers/{uuid}").json["server"]["config_drive"] == ("True" if given else "")
