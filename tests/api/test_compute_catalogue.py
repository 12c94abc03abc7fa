"""What servers are made from and run on: flavors, key pairs, hosts, zones, services, limits."""

from __future__ import annotations

import base64
import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

from hullwright.objects.hosts import HostFacts, Inventory
from hullwright.persistence import conductors, hosts
from support.effort import count_calls, scans

from .conftest import Api, World, activate, create

FLAVOR = {"name": "m1.small", "ram": 2048, "vcpus": 2, "disk": 20}


def test_a_flavor_is_made_shown_described_and_removed(api: Api) -> None:
    made = api.post("/flavors", {"flavor": {**FLAVOR, "id": "7", "swap": "512", "OS-FLV-EXT-DATA:ephemeral": 3, "description": "d"}})
    assert made.status == 200
    shown = api.get("/flavors/7").json["flavor"]
    assert shown == made.json["flavor"]
    assert (shown["ram"], shown["vcpus"], shown["disk"], shown["swap"], shown["OS-FLV-EXT-DATA:ephemeral"]) == (2048, 2, 20, 512, 3)
    assert api.put("/flavors/7", {"flavor": {"description": None}}).json["flavor"]["description"] is None
    assert api.put("/flavors/7", {"flavor": {"description": "x"}}, version="2.54").status == 404
    assert api.post("/flavors", {"flavor": {**FLAVOR, "name": "other", "id": "7"}}).fault[1] == "Flavor with ID 7 already exists."
    assert api.post("/flavors", {"flavor": FLAVOR}).fault[1] == "Flavor with name m1.small already exists."
    assert api.delete("/flavors/7").status == 202
    assert (api.delete("/flavors/7").status, api.get("/flavors/7").status) == (404, 404)
    assert len(api.post("/flavors", {"flavor": FLAVOR}).json["flavor"]["id"]) == 36


@pytest.mark.parametrize(
    "wrong",
    [
        {"ram": 0},
        {"ram": "many"},
        {"vcpus": 2**31},
        {"disk": -1},
        {"name": ""},
        {"id": " 7"},
        {"id": "a/b"},
        {"rxtx_factor": "x"},
        {"unknown": 1},
        {"os-flavor-access:is_public": "perhaps"},
    ],
)
def test_a_wrong_flavor_is_refused(sqlite_api: Api, wrong: dict[str, Any]) -> None:
    assert sqlite_api.post("/flavors", {"flavor": FLAVOR | wrong}).status == 400
    assert sqlite_api.get("/flavors").json == {"flavors": []}


@pytest.mark.parametrize("minor", [1, 54, 55, 60, 61, 74, 75])
def test_a_flavor_has_the_fields_of_its_version(sqlite_api: Api, minor: int) -> None:
    sqlite_api.post("/flavors", {"flavor": {**FLAVOR, "id": "7"}})
    shown = sqlite_api.get("/flavors/7", version=f"2.{minor}").json["flavor"]
    assert ("description" in shown, "extra_specs" in shown) == (minor >= 55, minor >= 61)
    assert shown["swap"] == ("" if minor < 75 else 0)
    [brief] = sqlite_api.get("/flavors", version=f"2.{minor}").json["flavors"]
    assert set(brief) == {"id", "name", "links"} | ({"description"} if minor >= 55 else set())


def test_flavors_are_listed_filtered_sorted_and_in_pages(api: Api) -> None:
    for index, name in enumerate("cab", 1):
        body = {**FLAVOR, "name": name, "id": str(index), "ram": 100 * index, "os-flavor-access:is_public": name != "b"}
        api.post("/flavors", {"flavor": body})

    def ids(query: str) -> list[str]:
        return [flavor["id"] for flavor in api.get(f"/flavors/detail{query}").json["flavors"]]

    assert ids("") == ["1", "2"]
    assert ids("?is_public=none") == ["1", "2", "3"]
    assert ids("?is_public=False") == ["3"]
    assert ids("?minRam=150") == ["2"]
    assert ids("?minDisk=21") == []
    assert ids("?sort_key=name") == ["2", "1"]
    assert ids("?sort_key=memory_mb&sort_dir=desc") == ["2", "1"]
    answer = api.get("/flavors?limit=1").json
    assert "marker=1" in answer["flavors_links"][0]["href"]
    assert ids("?marker=1") == ["2"]
    for bad in ("?marker=9", "?sort_key=x", "?sort_dir=x", "?minRam=x", "?is_public=x"):
        assert api.get(f"/flavors{bad}").status == 400
    assert api.get("/flavors/1/os-flavor-access").status == 404
    assert api.get("/flavors/3/os-flavor-access").json == {"flavor_access": []}


def test_extra_specs_are_read_and_written(api: Api) -> None:
    api.post("/flavors", {"flavor": {**FLAVOR, "id": "7"}})
    path = "/flavors/7/os-extra_specs"
    assert api.post(path, {"extra_specs": {"a": "1", "hw:x": 2}}).json == {"extra_specs": {"a": "1", "hw:x": "2"}}
    assert api.put(f"{path}/b", {"b": "3"}).json == {"b": "3"}
    assert api.put(f"{path}/b", {"c": "3"}).status == 400
    assert api.get(f"{path}/a").json == {"a": "1"}
    assert (api.delete(f"{path}/a").status, api.delete(f"{path}/a").status) == (200, 404)
    assert api.get(path).json == {"extra_specs": {"hw:x": "2", "b": "3"}}
    assert api.get("/flavors/7").json["flavor"]["extra_specs"] == {"hw:x": "2", "b": "3"}


# --- Key pairs --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["ed25519", "rsa", "ecdsa"])
def test_a_key_is_imported_with_the_fingerprint_that_ssh_tells(sqlite_api: Api, tmp_path: Path, kind: str) -> None:
    path = tmp_path / "key"
    subprocess.run(["ssh-keygen", "-q", "-t", kind, "-N", "", "-C", "me at home", "-f", path], check=True, timeout=30)
    public = path.with_suffix(".pub").read_text()
    told = subprocess.run(["ssh-keygen", "-E", "md5", "-lf", path], check=True, capture_output=True, text=True, timeout=30).stdout
    answer = sqlite_api.post("/os-keypairs", {"keypair": {"name": "k@home", "public_key": public}})
    assert answer.status == 201
    assert f"MD5:{answer.json['keypair']['fingerprint']} " in told
    assert sqlite_api.get("/os-keypairs/k@home").json["keypair"]["public_key"] == public


def test_a_pair_is_generated_before_2_92_and_its_private_key_told_once(sqlite_api: Api, tmp_path: Path) -> None:
    answer = sqlite_api.post("/os-keypairs", {"keypair": {"name": "k"}}, version="2.1")
    pair = answer.json["keypair"]
    assert (answer.status, "type" in pair) == (200, False)
    private = tmp_path / "key"
    private.touch(mode=0o600)
    private.write_text(pair["private_key"])
    public = subprocess.run(["ssh-keygen", "-yf", private], check=True, capture_output=True, text=True, timeout=30).stdout
    assert public.split()[:2] == pair["public_key"].split()[:2]
    assert "private_key" not in sqlite_api.get("/os-keypairs/k").json["keypair"]
    assert sqlite_api.post("/os-keypairs", {"keypair": {"name": "l"}}, version="2.92").status == 400


def test_key_pairs_are_listed_by_user_and_removed(api: Api) -> None:
    key = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJ5rYvGbnyHtDnDgwvwbIyWmDGSTdvnKJEEHyRzoMQAn x"
    for name in ("b", "a", "c"):
        assert api.post("/os-keypairs", {"keypair": {"name": name, "public_key": key}}).status == 201
    api.post("/os-keypairs", {"keypair": {"name": "d", "public_key": key, "user_id": "other"}})
    assert [k["keypair"]["name"] for k in api.get("/os-keypairs").json["keypairs"]] == ["a", "b", "c"]
    assert [k["keypair"]["name"] for k in api.get("/os-keypairs?user_id=other").json["keypairs"]] == ["d"]
    answer = api.get("/os-keypairs?limit=2").json
    assert "marker=b" in answer["keypairs_links"][0]["href"]
    assert [k["keypair"]["name"] for k in api.get("/os-keypairs?marker=b").json["keypairs"]] == ["c"]
    assert api.post("/os-keypairs", {"keypair": {"name": "a", "public_key": key}}).fault[1] == "Key pair 'a' already exists."
    assert api.delete("/os-keypairs/a").status == 204
    assert api.delete("/os-keypairs/b", version="2.1").status == 202
    assert api.delete("/os-keypairs/a").status == 404
    assert api.get("/os-keypairs/d").status == 404


def _of_type(kind: str, *parts: bytes) -> str:
    """A public key of that type with these parts, right or wrong (RFC 4253, 6.6)."""
    blob = b"".join(len(part).to_bytes(4, "big") + part for part in (kind.encode(), *parts))
    return f"{kind} {base64.b64encode(blob).decode()}"


@pytest.mark.parametrize(
    "pair",
    [
        {"public_key": "nonsense"},
        {"public_key": "ssh-rsa AAAA"},
        {"public_key": "ssh-rsa AAAAC3NzaC1lZDI1NTE5AAAAIJ5rYvGbnyHtDnDgwvwbIyWmDGSTdvnKJEEHyRzoMQAn"},
        {"public_key": "ssh-rsa ☃"},
        {"public_key": _of_type("ssh-rsa")},
        {"public_key": _of_type("ssh-ed25519", b"\x00" * 31)},
        {"public_key": _of_type("ssh-rsa", b"\x01\x00\x01")},
        {"public_key": _of_type("ssh-nothing", b"\x00" * 32)},
        {"public_key": "x", "type": "x509"},
        {"public_key": ""},
        {"name": "a/b", "public_key": "x"},
    ],
)
def test_what_is_no_key_is_refused(sqlite_api: Api, pair: dict[str, Any]) -> None:
    assert sqlite_api.post("/os-keypairs", {"keypair": {"name": "k"} | pair}).status == 400


# --- Hosts ------------------------------------------------------------------------------------------------------------

FACTS = HostFacts("h", "QEMU", 7002022, vcpus=4, memory_mb=8192, disk_gb=100, disk_free_gb=90, cpu_model="qemu64", host_ip="192.0.2.250")


@pytest.fixture
def host_id(api: Api, world: World) -> str:
    """A host that answered, with one server on it."""
    with api.db.write() as conn:
        inventories = [Inventory("VCPU", 4, used=1), Inventory("MEMORY_MB", 8192, 512, used=512), Inventory("DISK_GB", 100, used=1)]
        hosts.record_facts(conn, "host1", FACTS, inventories)
    activate(api, create(api, world))
    with api.db.read() as conn:
        return hosts.get(conn, "host1").uuid


def test_hypervisors_have_the_shape_of_their_version(api: Api, host_id: str) -> None:
    [brief] = api.get("/os-hypervisors").json["hypervisors"]
    assert brief == {"id": host_id, "hypervisor_hostname": "host1", "state": "up", "status": "enabled"}
    [new] = api.get("/os-hypervisors/detail").json["hypervisors"]
    assert set(new) == {*brief, "service", "hypervisor_type", "hypervisor_version", "host_ip", "uptime"}
    [old] = api.get("/os-hypervisors/detail", version="2.87").json["hypervisors"]
    assert (old["vcpus"], old["memory_mb"], old["local_gb"], old["running_vms"]) == (4, 8192, 100, 1)
    assert old["cpu_info"]["model"] == "qemu64"
    [oldest] = api.get("/os-hypervisors/detail", version="2.1").json["hypervisors"]
    assert isinstance(oldest["id"], int)
    assert json.loads(oldest["cpu_info"])["arch"] == "x86_64"
    assert api.get(f"/os-hypervisors/{host_id}").json["hypervisor"] == new
    assert api.get(f"/os-hypervisors/{oldest['id']}", version="2.52").json["hypervisor"]["service"]["host"] == "host1"
    assert api.get("/os-hypervisors/nope").status == 404
    [with_servers] = api.get("/os-hypervisors?with_servers=true").json["hypervisors"]
    assert with_servers["servers"][0]["name"] == "instance-00000001"
    assert len(api.get("/os-hypervisors?hypervisor_hostname_pattern=ost1").json["hypervisors"]) == 1
    assert api.get("/os-hypervisors?hypervisor_hostname_pattern=nope").status == 404
    assert api.get(f"/os-hypervisors?marker={host_id}").json == {"hypervisors": []}
    sums = api.get("/os-hypervisors/statistics", version="2.87").json["hypervisor_statistics"]
    assert (sums["count"], sums["vcpus"], sums["running_vms"]) == (1, 4, 1)


def test_services_are_hosts_and_conductors(api: Api, host_id: str) -> None:
    with api.db.write() as conn:
        conductors.enlist(conn, id="c1", hostname="node1", pid=1, version="1", lease_seconds=30)
    compute, conductor = api.get("/os-services").json["services"]
    assert (compute["binary"], compute["id"], compute["state"], compute["status"]) == ("nova-compute", host_id, "up", "enabled")
    assert (conductor["binary"], conductor["host"], conductor["state"]) == ("nova-conductor", "node1", "up")
    assert api.get("/os-services?binary=nova-conductor").json["services"] == [conductor]
    assert "forced_down" not in api.get("/os-services", version="2.10").json["services"][0]
    path = f"/os-services/{host_id}"
    service = api.put(path, {"status": "disabled", "disabled_reason": "mending", "forced_down": True}).json["service"]
    assert (service["status"], service["disabled_reason"], service["state"]) == ("disabled", "mending", "down")
    service = api.put(path, {"status": "enabled", "forced_down": False}).json["service"]
    assert (service["status"], service["disabled_reason"], service["state"]) == ("enabled", None, "up")
    assert api.put(path, {"disabled_reason": "x"}).status == 400
    assert api.put(path, {}).status == 400
    assert api.put("/os-services/c1", {"status": "disabled"}).status == 400
    assert api.put("/os-services/nope", {"status": "disabled"}).status == 404


def test_older_clients_name_in_the_path_what_to_do_with_a_service(api: Api, host_id: str) -> None:
    whom = {"host": "host1", "binary": "nova-compute"}

    def put(action: str, version: str = "2.52", **more: Any) -> Any:
        return api.put(f"/os-services/{action}", whom | more, version=version)

    def now() -> tuple[str, str | None, str]:
        [shown] = api.get("/os-services?host=host1").json["services"]
        return shown["status"], shown["disabled_reason"], shown["state"]

    assert put("disable-log-reason", "2.1", disabled_reason="mending").json == {
        "service": whom | {"status": "disabled", "disabled_reason": "mending"}
    }
    assert now() == ("disabled", "mending", "up")
    assert put("disable").json["service"] == whom | {"status": "disabled"}
    assert put("enable", "2.1").json["service"] == whom | {"status": "enabled"}
    assert now() == ("enabled", None, "up")
    assert put("force-down", forced_down=True).json["service"] == whom | {"forced_down": True}
    assert now() == ("enabled", None, "down")
    assert put("force-down", forced_down=False).status == 200
    assert put("force-down", "2.10", forced_down=True).status == 404
    assert put("dance").status == 404
    assert put("disable-log-reason").status == 400
    assert api.put("/os-services/enable", {"host": "nobody", "binary": "nova-compute"}, version="2.1").status == 404
    assert api.put("/os-services/enable", {"host": "host1", "binary": "nova-conductor"}, version="2.1").status == 404
    assert api.put("/os-services/enable", whom).status in (400, 404), "from 2.53 on the path names the service"
    assert now() == ("enabled", None, "up")


def test_zones_are_those_of_hosts(api: Api, host_id: str) -> None:
    with api.db.write() as conn:
        hosts.register(conn, "host2", "fake:///host2", "fake", availability_zone="attic")
        hosts.disable(conn, "host2")
    zones = api.get("/os-availability-zone").json["availabilityZoneInfo"]
    assert [(z["zoneName"], z["zoneState"]["available"], z["hosts"]) for z in zones] == [("attic", False, None), ("nova", True, None)]
    detail = api.get("/os-availability-zone/detail").json["availabilityZoneInfo"]
    assert detail[1]["hosts"]["host1"]["nova-compute"]["available"] is True


@pytest.mark.parametrize(
    ("method", "path", "body", "version"),
    [
        ("GET", "/os-hypervisors/{uuid}", None, "2.100"),
        ("GET", "/os-hypervisors/1", None, "2.52"),
        ("PUT", "/os-services/{uuid}", {"status": "disabled"}, "2.100"),
        ("GET", "/os-services?host=host1", None, "2.100"),
    ],
)
def test_one_host_is_found_without_going_through_all(
    sqlite_api: Api, small_world: World, method: str, path: str, body: Any, version: str
) -> None:
    with sqlite_api.db.read() as conn:
        uuid = hosts.get(conn, small_world.host).uuid
    answers = []
    statements, found = scans(sqlite_api.db, lambda: answers.append(sqlite_api.ask(method, path.format(uuid=uuid), body, version)))
    assert [answer.status for answer in answers] == [200]
    assert statements >= 2
    assert [(table, text) for table, _, text in found if table in ("hosts", "inventories", "instances")] == []


def test_a_page_of_hypervisors_reads_those_on_it(sqlite_api: Api, small_world: World) -> None:
    with sqlite_api.db.write() as conn:
        for number in range(2, 60):
            hosts.register(conn, f"host{number:03}", "fake:///x", "fake")
    few = count_calls(lambda: sqlite_api.get("/os-hypervisors/detail?limit=5"))
    with sqlite_api.db.write() as conn:
        for number in range(60, 600):
            hosts.register(conn, f"host{number:03}", "fake:///x", "fake")
    assert count_calls(lambda: sqlite_api.get("/os-hypervisors/detail?limit=5")) < 1.2 * few
    names: list[str] = []
    path = "/os-hypervisors?limit=250&hypervisor_hostname_pattern=host"
    while path:
        answer = sqlite_api.get(path).json
        names += [each["hypervisor_hostname"] for each in answer["hypervisors"]]
        path = next((link["href"].partition("/v2.1")[2] for link in answer.get("hypervisors_links", ())), "")
    assert names == sorted(["host1", *(f"host{number:03}" for number in range(2, 600))])
    assert sqlite_api.get("/os-hypervisors?marker=nope").status == 400
    assert sqlite_api.get("/os-hypervisors?hypervisor_hostname_pattern=HOST").status == 404


def test_zones_are_told_with_the_same_work_however_many_hosts_are_in_them(sqlite_api: Api, small_world: World) -> None:
    def zones() -> Any:
        return sqlite_api.get("/os-availability-zone").json["availabilityZoneInfo"]

    assert zones() == [{"zoneName": "nova", "zoneState": {"available": True}, "hosts": None}]
    few = count_calls(zones)
    with sqlite_api.db.write() as conn:
        hosts.disable(conn, small_world.host)
        for number in range(2, 300):
            hosts.register(conn, f"host{number:03}", "fake:///x", "fake", availability_zone="east")
    assert count_calls(zones) < 1.2 * few
    assert [(zone["zoneName"], zone["zoneState"]["available"]) for zone in zones()] == [("east", True), ("nova", False)]


def test_limits_count_what_is_used(api: Api, host_id: str) -> None:
    absolute = api.get("/limits").json["limits"]["absolute"]
    assert (absolute["totalInstancesUsed"], absolute["totalCoresUsed"], absolute["totalRAMUsed"]) == (1, 1, 512)
    assert absolute["maxTotalInstances"] == -1
    assert "maxTotalFloatingIps" in api.get("/limits", version="2.1").json["limits"]["absolute"]
    quota = api.get("/os-quota-sets/hullwright").json["quota_set"]
    assert (quota["id"], quota["instances"], quota["key_pairs"]) == ("hullwright", -1, 100)
    assert api.get("/os-quota-sets/hullwright/defaults").json["quota_set"] == quota
    detail = api.get("/os-quota-sets/hullwright/detail").json["quota_set"]
    assert detail["instances"] == {"limit": -1, "in_use": 1, "reserved": 0}
    assert "injected_files" in api.get("/os-quota-sets/x", version="2.56").json["quota_set"]


def test_extensions_are_a_fixed_list(sqlite_api: Api) -> None:
    assert "os-keypairs" in [e["alias"] for e in sqlite_api.get("/extensions").json["extensions"]]
    assert sqlite_api.get("/extensions/os-keypairs").json["extension"]["name"] == "Keypairs"
    assert sqlite_api.get("/extensions/nope").status == 404
