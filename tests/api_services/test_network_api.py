"""The Network API: what Neutron's clients send and read, arithmetic of subnets, what is in use, who may see what."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from falcon import testing

from hullwright.objects.networks import NetworkRequest
from hullwright.persistence.database import Database
from hullwright.persistence.ports import SqlPortStore
from support.effort import scans

V2 = "/network/v2.0"


def post(api: testing.TestClient, kind: str, **body: Any) -> testing.Result:
    return api.simulate_post(f"{V2}/{kind}s", json={kind: body})


def create(api: testing.TestClient, kind: str, **body: Any) -> Any:
    result = post(api, kind, **body)
    assert result.status_code == 201, result.text
    return result.json[kind]


def subnet(api: testing.TestClient, network_id: str, cidr: str = "192.0.2.0/24", **more: Any) -> Any:
    return create(api, "subnet", network_id=network_id, cidr=cidr, ip_version=6 if ":" in cidr else 4, **more)


def refused(result: testing.Result, status: int) -> str:
    """The message of a refusal in Neutron's form."""
    assert result.status_code == status, result.text
    assert set(result.json["NeutronError"]) == {"type", "message", "detail"}
    return str(result.json["NeutronError"]["message"])


def names(api: testing.TestClient, path: str, query: str = "") -> list[str]:
    result = api.simulate_get(f"{V2}/{path}", query_string=query)
    assert result.status_code == 200, result.text
    return [item["name"] for item in result.json[path.replace("-", "_")]]


def test_a_network_is_made_shown_changed_and_deleted(api: testing.TestClient) -> None:
    made = create(api, "network", name="private", mtu="1400", admin_state_up=True)
    assert (made["mtu"], made["shared"], made["hullwright:mode"], made["status"]) == (1400, False, "nat", "ACTIVE")
    path = f"{V2}/networks/{made['id']}"
    changed = api.simulate_put(path, json={"network": {"name": "renamed", "shared": True}})
    assert (changed.status_code, changed.json["network"]["name"], changed.json["network"]["shared"]) == (200, "renamed", True)
    assert api.simulate_get(path, query_string="fields=id&fields=name").json == {"network": {"id": made["id"], "name": "renamed"}}
    assert api.simulate_delete(path).status_code == 204
    assert made["id"] in refused(api.simulate_get(path), 404)


def test_a_flat_network_is_a_bridge_of_the_hosts(api: testing.TestClient) -> None:
    made = create(api, "network", **{"provider:network_type": "flat", "provider:physical_network": "br-ext"})
    assert (made["hullwright:mode"], made["hullwright:bridge"], made["provider:network_type"]) == ("bridge", "br-ext", "flat")
    for wrong in ({"provider:network_type": "flat"}, {"hullwright:mode": "bridge", "hullwright:bridge": "much-too-long-a-name"}):
        refused(post(api, "network", **wrong), 400)


@pytest.mark.parametrize(
    "body", [{"name": 5}, {"mtu": 20}, {"mtu": "x"}, {"router:external": True}, {"no_such": 1}, {"admin_state_up": False}]
)
def test_a_network_that_cannot_be_is_refused(api: testing.TestClient, body: dict[str, Any]) -> None:
    refused(post(api, "network", **body), 400)
    assert names(api, "networks") == []


def test_a_subnet_gets_gateway_and_pools_by_default(api: testing.TestClient) -> None:
    network = create(api, "network")
    made = subnet(api, network["id"], "192.0.2.7/24")
    assert (made["cidr"], made["gateway_ip"]) == ("192.0.2.0/24", "192.0.2.1")
    assert made["allocation_pools"] == [{"start": "192.0.2.2", "end": "192.0.2.254"}]
    middle = subnet(api, network["id"], "198.51.100.0/24", gateway_ip="198.51.100.100")
    assert middle["allocation_pools"] == [
        {"start": "198.51.100.1", "end": "198.51.100.99"},
        {"start": "198.51.100.101", "end": "198.51.100.254"},
    ]
    without = subnet(api, network["id"], "203.0.113.0/29", gateway_ip=None)
    assert (without["gateway_ip"], without["allocation_pools"]) == (None, [{"start": "203.0.113.1", "end": "203.0.113.6"}])
    six = subnet(api, network["id"], "2001:db8::/64")
    assert six["allocation_pools"] == [{"start": "2001:db8::2", "end": "2001:db8::ffff:ffff:ffff:ffff"}]
    found = api.simulate_get(f"{V2}/networks/{network['id']}").json["network"]["subnets"]
    assert found == [made["id"], middle["id"], without["id"], six["id"]]


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ({"cidr": "nonsense"}, 400),
        ({"cidr": "192.0.2.0/31"}, 400),
        ({"cidr": "224.0.0.0/24"}, 400),
        ({"cidr": "2001:db8::/64"}, 400),
        ({"cidr": "192.0.2.0/24", "gateway_ip": "198.51.100.1"}, 400),
        ({"cidr": "192.0.2.0/24", "gateway_ip": "192.0.2.255"}, 400),
        ({"cidr": "192.0.2.0/24", "allocation_pools": [{"start": "192.0.2.9", "end": "192.0.2.2"}]}, 400),
        ({"cidr": "192.0.2.0/24", "allocation_pools": [{"start": "192.0.2.9", "end": "192.0.3.2"}]}, 400),
        ({"cidr": "192.0.2.0/24", "allocation_pools": [{"start": "192.0.2.1", "end": "192.0.2.9"}]}, 409),
        (
            {
                "cidr": "192.0.2.0/24",
                "allocation_pools": [{"start": "192.0.2.5", "end": "192.0.2.9"}, {"start": "192.0.2.9", "end": "192.0.2.12"}],
            },
            409,
        ),
        ({"cidr": "192.0.2.0/24", "dns_nameservers": ["dns.example.org"]}, 400),
        ({"cidr": "192.0.2.0/24", "ipv6_ra_mode": "slaac"}, 400),
        ({"cidr": "192.0.2.0/24", "gateway_ip": "fe80::1%eth0"}, 400),
    ],
)
def test_a_subnet_that_cannot_be_is_refused(api: testing.TestClient, body: dict[str, Any], status: int) -> None:
    network = create(api, "network")
    refused(post(api, "subnet", network_id=network["id"], ip_version=4, **body), status)
    assert names(api, "subnets") == []


def test_ranges_that_a_host_could_not_tell_apart_are_refused(api: testing.TestClient) -> None:
    one, two = create(api, "network"), create(api, "network")
    bridged = create(api, "network", **{"hullwright:mode": "bridge", "hullwright:bridge": "br0"})
    subnet(api, one["id"])
    for network in (one, two):
        assert "overlaps" in refused(post(api, "subnet", network_id=network["id"], cidr="192.0.2.128/25"), 400)
    subnet(api, bridged["id"], "192.0.2.128/25")


def test_of_many_that_want_one_range_at_once_one_gets_it(api: testing.TestClient) -> None:
    ids = [create(api, "network")["id"] for _ in range(6)]
    with ThreadPoolExecutor(6) as pool:
        statuses = list(pool.map(lambda id: post(api, "subnet", network_id=id, cidr="192.0.2.0/24").status_code, ids))
    assert sorted(statuses) == [201, *([400] * 5)]


def test_a_subnet_is_changed_without_harm_to_what_is_in_use(api: testing.TestClient) -> None:
    network = create(api, "network")
    made = subnet(api, network["id"], allocation_pools=[{"start": "192.0.2.10", "end": "192.0.2.20"}])
    port = create(api, "port", network_id=network["id"])
    path = f"{V2}/subnets/{made['id']}"
    body = {"name": "new", "dns_nameservers": ["192.0.2.53"], "enable_dhcp": False}
    changed = api.simulate_put(path, json={"subnet": body}).json["subnet"]
    assert {name: changed[name] for name in body} == body
    refused(api.simulate_put(path, json={"subnet": {"gateway_ip": port["fixed_ips"][0]["ip_address"]}}), 409)
    refused(api.simulate_put(path, json={"subnet": {"gateway_ip": "192.0.2.15"}}), 409)
    pools = [{"start": "192.0.2.100", "end": "192.0.2.110"}]
    assert api.simulate_put(path, json={"subnet": {"allocation_pools": pools}}).status_code == 200
    assert create(api, "port", network_id=network["id"])["fixed_ips"][0]["ip_address"] == "192.0.2.100"
    refused(api.simulate_delete(path), 409)


def test_a_port_gets_the_addresses_asked_for_or_the_usual_ones_or_none(api: testing.TestClient) -> None:
    network = create(api, "network")
    first, second = subnet(api, network["id"]), subnet(api, network["id"], "198.51.100.0/24")

    def addresses(**body: Any) -> list[str]:
        return [fixed["ip_address"] for fixed in create(api, "port", network_id=network["id"], **body)["fixed_ips"]]

    assert addresses() == ["192.0.2.2"]
    assert addresses(fixed_ips=[]) == []
    assert addresses(fixed_ips=[{"ip_address": "192.0.2.77"}]) == ["192.0.2.77"]
    assert addresses(fixed_ips=[{"subnet_id": second["id"]}]) == ["198.51.100.2"]
    assert addresses(fixed_ips=[{"subnet_id": first["id"]}, {"subnet_id": second["id"], "ip_address": "198.51.100.9"}]) == [
        "192.0.2.3",
        "198.51.100.9",
    ]
    taken = post(api, "port", network_id=network["id"], fixed_ips=[{"ip_address": "192.0.2.77"}])
    assert refused(taken, 409).startswith("Fixed IP address 192.0.2.77")
    assert taken.json["NeutronError"]["type"] == "IpAddressAlreadyAllocated"
    refused(post(api, "port", network_id=network["id"], fixed_ips=[{"ip_address": "203.0.113.1"}]), 400)
    refused(post(api, "port", network_id=network["id"], fixed_ips=[{"subnet_id": network["id"]}]), 404)


def test_a_mac_asked_for_is_given_once(api: testing.TestClient) -> None:
    network = create(api, "network")
    assert create(api, "port", network_id=network["id"], mac_address="FA:16:3E:00:00:01")["mac_address"] == "fa:16:3e:00:00:01"
    refused(post(api, "port", network_id=network["id"], mac_address="fa:16:3e:00:00:01"), 409)
    for wrong in ("nonsense", "01:00:5e:00:00:01", "00:00:00:00:00:00"):
        refused(post(api, "port", network_id=network["id"], mac_address=wrong), 400)


def test_a_ports_addresses_are_replaced_and_those_that_stay_are_kept(api: testing.TestClient) -> None:
    network = create(api, "network")
    first = subnet(api, network["id"])
    port = create(api, "port", network_id=network["id"])
    wanted = [{"subnet_id": first["id"], "ip_address": "192.0.2.2"}, {"ip_address": "192.0.2.50"}]
    changed = api.simulate_put(f"{V2}/ports/{port['id']}", json={"port": {"fixed_ips": wanted, "name": "two"}}).json["port"]
    assert [fixed["ip_address"] for fixed in changed["fixed_ips"]] == ["192.0.2.2", "192.0.2.50"]
    changed = api.simulate_put(f"{V2}/ports/{port['id']}", json={"port": {"fixed_ips": wanted[1:]}}).json["port"]
    assert [fixed["ip_address"] for fixed in changed["fixed_ips"]] == ["192.0.2.50"]


def test_a_servers_port_is_shown_with_it_and_cannot_be_taken_away(api: testing.TestClient, db: Database) -> None:
    network = create(api, "network")
    subnet(api, network["id"])
    mine = create(api, "port", network_id=network["id"], name="mine")
    store = SqlPortStore(db)
    store.ensure_ports("server-1", "hullwright", [NetworkRequest(mine["id"], network["id"], user_port=True)])
    store.bind([mine["id"]], "host-1")
    shown = api.simulate_get(f"{V2}/ports", query_string="device_id=server-1").json["ports"]
    assert [(port["id"], port["status"], port["device_owner"], port["binding:host_id"]) for port in shown] == [
        (mine["id"], "ACTIVE", "compute:nova", "host-1")
    ]
    path = f"{V2}/ports/{mine['id']}"
    assert "server-1" in refused(api.simulate_delete(path), 409)
    refused(api.simulate_put(path, json={"port": {"fixed_ips": []}}), 409)
    refused(api.simulate_delete(f"{V2}/networks/{network['id']}"), 409)
    store.release("server-1")
    assert api.simulate_delete(path).status_code == 204
    assert api.simulate_delete(f"{V2}/networks/{network['id']}").status_code == 204


def test_lists_are_filtered_sorted_and_paged(api: testing.TestClient) -> None:
    for name in ("b", "a", "c"):
        create(api, "network", name=name, shared=name == "a")
    assert names(api, "networks") == ["b", "a", "c"]
    assert names(api, "networks", "sort_key=name&sort_dir=desc") == ["c", "b", "a"]
    assert names(api, "networks", "name=a&name=c") == ["a", "c"]
    assert names(api, "networks", "shared=true") == ["a"]
    assert names(api, "networks", "status=ACTIVE&router:external=False") == ["b", "a", "c"]
    assert names(api, "networks", "status=DOWN") == []
    assert names(api, "networks", "name=none") == []
    assert names(api, "networks", "mtu=99999999999") == []
    first = api.simulate_get(f"{V2}/networks", query_string="sort_key=name&sort_dir=asc&limit=2").json
    assert [item["name"] for item in first["networks"]] == ["a", "b"]
    link = first["networks_links"][0]
    assert link["rel"] == "next"
    assert names(api, "networks", link["href"].partition("?")[2]) == ["c"]
    for wrong in ("limit=x", "marker=none", "sort_key=colour", "no_such=1"):
        refused(api.simulate_get(f"{V2}/networks", query_string=wrong), 400)


def test_ports_are_found_by_address(api: testing.TestClient) -> None:
    network = create(api, "network")
    made = subnet(api, network["id"])
    for name, address in (("one", "192.0.2.10"), ("two", "192.0.2.110")):
        create(api, "port", network_id=network["id"], name=name, fixed_ips=[{"ip_address": address}])
    assert names(api, "ports", "fixed_ips=ip_address=192.0.2.10") == ["one"]
    assert names(api, "ports", "fixed_ips=ip_address_substr=2.110") == ["two"]
    assert sorted(names(api, "ports", f"fixed_ips=subnet_id={made['id']}")) == ["one", "two"]
    subnet(api, network["id"], "2001:db8::/64")
    create(api, "port", network_id=network["id"], name="six", fixed_ips=[{"ip_address": "2001:0db8:0::00aB"}])
    assert names(api, "ports", "fixed_ips=ip_address=2001:db8:0:0::ab") == ["six"]
    refused(api.simulate_get(f"{V2}/ports", query_string="fixed_ips=colour=red"), 400)


def test_there_is_one_security_group_and_it_says_that_everything_passes(api: testing.TestClient) -> None:
    [group] = api.simulate_get(f"{V2}/security-groups").json["security_groups"]
    assert (group["name"], len(group["security_group_rules"])) == ("default", 4)
    assert names(api, "security-groups", "name=default") == ["default"]
    assert names(api, "security-groups", "name=other") == []
    assert api.simulate_get(f"{V2}/security-groups/{group['id']}").json["security_group"] == group
    assert api.simulate_get(f"{V2}/security-groups/other").status_code == 404
    assert len(api.simulate_get(f"{V2}/security-group-rules").json["security_group_rules"]) == 4
    assert "security groups other than default" in refused(post(api, "security-group", name="mine"), 501)
    network = create(api, "network")
    refused(post(api, "port", network_id=network["id"], security_groups=["other"]), 400)


def test_a_member_sees_shared_networks_and_its_own_and_no_hosts(
    api: testing.TestClient, member_api: testing.TestClient, db: Database
) -> None:
    shared = create(api, "network", name="shared", shared=True, project_id="other")
    hidden = create(api, "network", name="hidden", project_id="other")
    subnet(api, hidden["id"])
    own = create(member_api, "network", name="own")
    assert names(member_api, "networks") == ["shared", "own"]
    assert names(member_api, "subnets") == []
    assert "hullwright:mode" not in own
    refused(member_api.simulate_get(f"{V2}/networks/{hidden['id']}"), 404)
    refused(member_api.simulate_delete(f"{V2}/networks/{shared['id']}"), 403)
    refused(post(member_api, "network", shared=True), 403)
    refused(post(member_api, "network", **{"hullwright:mode": "route"}), 403)
    refused(post(member_api, "port", network_id=hidden["id"]), 404)
    port = create(member_api, "port", network_id=shared["id"])
    assert "binding:host_id" not in port
    theirs = create(api, "port", network_id=shared["id"], project_id="other")
    refused(member_api.simulate_get(f"{V2}/ports/{theirs['id']}"), 404)
    assert [item["id"] for item in member_api.simulate_get(f"{V2}/ports").json["ports"]] == [port["id"]]


def test_versions_and_extensions_are_told(api: testing.TestClient) -> None:
    assert api.simulate_get("/network").json["versions"][0]["id"] == "v2.0"
    aliases = [each["alias"] for each in api.simulate_get(f"{V2}/extensions").json["extensions"]]
    assert "port-security" in aliases
    assert api.simulate_get(f"{V2}/extensions/port-security").json["extension"]["alias"] == "port-security"
    refused(api.simulate_get(f"{V2}/extensions/trunk"), 404)


def test_descriptions_are_kept_and_changed(api: testing.TestClient) -> None:
    of_lab = {"description": "of the lab"}
    network = create(api, "network", **of_lab)
    made = [network, subnet(api, network["id"], **of_lab), create(api, "port", network_id=network["id"], **of_lab)]
    for kind, item in zip(("network", "subnet", "port"), made, strict=True):
        assert item["description"] == "of the lab"
        path = f"{V2}/{kind}s/{item['id']}"
        changed = api.simulate_put(path, json={kind: {"description": "of the office"}})
        assert (changed.status_code, changed.json[kind]["description"]) == (200, "of the office")
        assert api.simulate_get(path).json[kind] == changed.json[kind]
        found = api.simulate_get(f"{V2}/{kind}s", query_string="description=of the office").json[f"{kind}s"]
        assert [each["id"] for each in found] == [item["id"]]
        assert "too long" in refused(api.simulate_put(path, json={kind: {"description": "x" * 256}}), 400)


@pytest.mark.parametrize(
    ("kind", "attribute", "value", "always"),
    [
        ("network", "admin_state_up", False, "true"),
        ("network", "router:external", True, "false"),
        ("subnet", "host_routes", [{"destination": "192.0.2.0/24", "nexthop": "192.0.2.1"}], "[]"),
        ("subnet", "subnetpool_id", "default", "null"),
        ("port", "admin_state_up", False, "true"),
        ("port", "binding:vnic_type", "direct", '"normal"'),
        ("port", "allowed_address_pairs", [{"ip_address": "192.0.2.9"}], "[]"),
    ],
)
def test_what_is_not_supported_is_said_so(api: testing.TestClient, kind: str, attribute: str, value: Any, always: str) -> None:
    more = {} if kind == "network" else {"network_id": create(api, "network")["id"]}
    more |= {"cidr": "192.0.2.0/24"} if kind == "subnet" else {}
    told = refused(post(api, kind, **more, **{attribute: value}), 400)
    assert told == f"Hullwright does not support another '{attribute}' than {always}."
    assert refused(post(api, kind, **more, dns_name="a"), 400) == f"Invalid input for '{kind}': Hullwright does not support 'dns_name'."


@pytest.mark.parametrize("path", ["ports", "subnets", "ports?fixed_ips=ip_address=192.0.2.9"])
def test_a_page_reads_the_networks_on_it_and_no_others(sqlite_api: testing.TestClient, sqlite_db: Database, path: str) -> None:
    network = create(sqlite_api, "network", name="n")["id"]
    subnet(sqlite_api, network)
    create(sqlite_api, "port", network_id=network, fixed_ips=[{"ip_address": "192.0.2.9"}])
    answers = []
    _, found = scans(sqlite_db, lambda: answers.append(sqlite_api.simulate_get(f"{V2}/{path}")))
    assert [len(items) for answer in answers for items in answer.json.values()] == [1]
    assert [(table, text) for table, _, text in found if table == "networks"] == []
