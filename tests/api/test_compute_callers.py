"""Who asks, and what that lets them do: with Keystone in front, as a member, as an administrator, as nobody."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from uuid import uuid4

import falcon.testing
import pytest

from hullwright.api.app import create_app, with_authentication
from hullwright.api.context import Caller
from hullwright.api.policies import Policy, list_rules
from hullwright.api.server import UnsafeBinding, check_binding
from hullwright.conf import opts
from hullwright.objects.instances import Fault
from hullwright.objects.networks import NetworkRequest
from hullwright.persistence import faults, ports

from .conftest import Answer, Api, World, server_body, set_columns

MEMBER = {"X-Identity-Status": "Confirmed", "X-Project-Id": "p1", "X-User-Id": "u1", "X-Roles": "member,reader"}
OTHER = MEMBER | {"X-Project-Id": "p2", "X-User-Id": "u2"}
ADMIN = MEMBER | {"X-Project-Id": "p0", "X-User-Id": "u0", "X-Roles": "admin"}


@pytest.fixture
def keystone_api(sqlite_api: Api) -> Api:
    """The application as it is behind keystonemiddleware, which sets the headers above."""
    sqlite_api.conf.set_override("auth_strategy", "keystone", group="api")
    return Api(sqlite_api.db, sqlite_api.conf, sqlite_api.conductor)


def create_as(api: Api, world: World, headers: dict[str, str], **fields: Any) -> Answer:
    return api.post("/servers", server_body(world, **fields), headers=headers)


def test_without_a_token_only_the_versions_are_told(keystone_api: Api) -> None:
    assert keystone_api.get("/", absolute=True).status == 200
    assert keystone_api.get("/v2.1/", absolute=True).status == 200
    assert keystone_api.get("/healthz", absolute=True).status == 200
    answer = keystone_api.get("/servers")
    assert (answer.status, answer.fault[0]) == (401, "unauthorized")
    assert keystone_api.get("/servers", headers={"X-Identity-Status": "Invalid"}).status == 401
    assert keystone_api.get("/identity/v3", absolute=True).status == 401


def test_a_forged_header_does_not_pass_the_real_middleware(sqlite_api: Api, tmp_path: Path) -> None:
    file = tmp_path / "hullwright.conf"
    file.write_text(
        "[api]\nauth_strategy = keystone\n[keystone_authtoken]\nauth_type = password\n"
        "auth_url = http://127.0.0.1:9/v3\nwww_authenticate_uri = http://keystone.example.org/v3\n"
    )
    conf = opts.load([file])
    app = create_app(sqlite_api.db, conf, sqlite_api.conductor, services=())
    wrapped = with_authentication(app, conf)
    assert wrapped is not app
    client = falcon.testing.TestClient(lambda environ, start_response: wrapped(environ, start_response))  # type: ignore[arg-type]
    result = client.simulate_get("/v2.1/servers", headers=ADMIN)
    assert result.status_code == 401
    assert result.headers["WWW-Authenticate"] == 'Keystone uri="http://keystone.example.org/v3"'
    assert client.simulate_get("/v2.1").status_code == 200


def test_an_unscoped_token_is_refused(keystone_api: Api) -> None:
    assert keystone_api.get("/servers", headers=MEMBER | {"X-Project-Id": ""}).status == 403


def test_a_member_sees_the_projects_servers_only_and_no_hosts(keystone_api: Api, small_world: World) -> None:
    mine = create_as(keystone_api, small_world, MEMBER).json["server"]["id"]
    assert [s["id"] for s in keystone_api.get("/servers", headers=MEMBER).json["servers"]] == [mine]
    assert keystone_api.get("/servers", headers=OTHER).json == {"servers": []}
    for ask in (keystone_api.get, keystone_api.delete):
        assert ask(f"/servers/{mine}", headers=OTHER).fault == ("itemNotFound", f"Instance {mine} could not be found.")
    assert keystone_api.post(f"/servers/{mine}/action", {"lock": None}, headers=OTHER).status == 404
    shown = keystone_api.get(f"/servers/{mine}", headers=MEMBER).json["server"]
    assert {name for name in shown if name.startswith("OS-EXT-SRV-ATTR")} == {"OS-EXT-SRV-ATTR:hostname"}
    assert "host_status" not in shown
    as_admin = keystone_api.get(f"/servers/{mine}", headers=ADMIN).json["server"]
    assert "OS-EXT-SRV-ATTR:host" in as_admin
    assert [s["id"] for s in keystone_api.get("/servers?all_tenants=1", headers=ADMIN).json["servers"]] == [mine]
    assert keystone_api.get("/servers?host=anything", headers=MEMBER).json["servers"] != []  # not a member's filter


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("GET", "/servers?all_tenants=1", None),
        ("GET", "/servers?status=deleted", None),
        ("POST", "/flavors", {"flavor": {"name": "f", "ram": 1, "vcpus": 1, "disk": 1}}),
        ("DELETE", "/flavors/1", None),
        ("GET", "/os-hypervisors", None),
        ("GET", "/os-services", None),
        ("GET", "/os-availability-zone/detail", None),
        ("GET", "/os-aggregates", None),
        ("GET", "/os-keypairs?user_id=somebody", None),
        ("GET", "/os-quota-sets/other", None),
        ("GET", "/limits?tenant_id=other", None),
    ],
)
def test_what_is_an_administrators_is_403_for_a_member(keystone_api: Api, small_world: World, method: str, path: str, body: Any) -> None:
    answer = keystone_api.ask(method, path, body, headers=MEMBER)
    assert (answer.status, answer.fault[0]) == (403, "forbidden")
    assert keystone_api.ask(method, path, body, headers=ADMIN).status < 300


@pytest.mark.parametrize("fields", [{"availability_zone": "nova:host1"}, {"host": "host1"}])
def test_only_an_administrator_chooses_the_host(keystone_api: Api, small_world: World, fields: dict[str, str]) -> None:
    answer = create_as(keystone_api, small_world, MEMBER, **fields)
    assert answer.fault == ("forbidden", "Policy doesn't allow os_compute_api:servers:create:forced_host to be performed.")
    assert create_as(keystone_api, small_world, ADMIN, **fields).status == 202


def test_a_lock_holds_against_members_and_not_against_administrators(keystone_api: Api, small_world: World) -> None:
    uuid = create_as(keystone_api, small_world, MEMBER).json["server"]["id"]
    keystone_api.post(f"/servers/{uuid}/action", {"lock": None}, headers=MEMBER)
    assert keystone_api.delete(f"/servers/{uuid}", headers=MEMBER).fault[1] == f"Instance {uuid} is locked"
    assert keystone_api.put(f"/servers/{uuid}", {"server": {"name": "x"}}, headers=MEMBER).status == 409
    assert keystone_api.delete(f"/servers/{uuid}", headers=ADMIN).status == 204


def test_a_members_fault_names_no_host(keystone_api: Api, small_world: World) -> None:
    uuid = create_as(keystone_api, small_world, MEMBER).json["server"]["id"]
    with keystone_api.db.write() as conn:
        faults.record(conn, Fault(uuid, 500, "No valid host was found.", "host1: spawn: refused"))
    set_columns(keystone_api, uuid, vm_state="error", task_state=None)
    assert "details" not in keystone_api.get(f"/servers/{uuid}", headers=MEMBER).json["server"]["fault"]
    assert keystone_api.get(f"/servers/{uuid}", headers=ADMIN).json["server"]["fault"]["details"] == "host1: spawn: refused"


def test_who_may_see_a_faults_details_is_a_rule_of_its_own(keystone_api: Api, small_world: World, tmp_path: Path) -> None:
    file = tmp_path / "policy.yaml"
    file.write_text('"os_compute_api:servers:show:fault_details": "rule:admin_or_owner"\n')
    keystone_api.conf.set_override("policy_file", str(file), group="oslo_policy")
    api = Api(keystone_api.db, keystone_api.conf, keystone_api.conductor)
    uuid = create_as(api, small_world, MEMBER).json["server"]["id"]
    with api.db.write() as conn:
        faults.record(conn, Fault(uuid, 500, "No valid host was found.", "host1: spawn: refused"))
    set_columns(api, uuid, vm_state="error", task_state=None)
    shown = api.get(f"/servers/{uuid}", headers=MEMBER).json["server"]
    assert shown["fault"]["details"] == "host1: spawn: refused"
    assert "OS-EXT-SRV-ATTR:host" not in shown


def test_private_images_networks_and_flavors_of_others_cannot_be_used(keystone_api: Api, small_world: World) -> None:
    from .conftest import add_image, add_network

    image = add_image(keystone_api.db, visibility="private", owner="p2")
    network, _ = add_network(keystone_api.db, "theirs", "198.51.100.0/24", shared=False, project_id="p2")
    port = NetworkRequest(str(uuid4()), small_world.network)
    with keystone_api.db.write() as conn:
        ports.ensure(conn, str(uuid4()), "p2", [port])
    flavor = {"flavor": {"name": "f", "id": "f", "ram": 1, "vcpus": 1, "disk": 1, "os-flavor-access:is_public": False}}
    keystone_api.post("/flavors", flavor, headers=ADMIN)
    for fields in ({"imageRef": image}, {"networks": [{"port": port.port_id}]}, {"networks": [{"uuid": network}]}, {"flavorRef": "f"}):
        answer = create_as(keystone_api, small_world, MEMBER, **fields)
        assert (answer.status, "could not be found" in answer.fault[1]) == (400, True)
    assert create_as(keystone_api, small_world, OTHER, imageRef=image, networks=[{"uuid": network}]).status == 202
    assert keystone_api.get("/flavors/f", headers=MEMBER).status == 404


def test_a_policy_file_changes_a_rule(sqlite_api: Api, tmp_path: Path) -> None:
    path = tmp_path / "policy.yaml"
    path.write_text('"os_compute_api:os-hypervisors": "role:reader"\n')
    Policy(sqlite_api.conf)  # registers the options
    sqlite_api.conf.set_override("policy_file", str(path), group="oslo_policy")
    reader = Caller("p", "u", is_admin=False, roles=("reader",))
    assert Policy(sqlite_api.conf).allows(reader, "os-hypervisors")
    assert not Policy(sqlite_api.conf).allows(reader, "os-services")
    assert len(list_rules()) > 30


@pytest.mark.parametrize(
    ("host", "options", "allowed"),
    [
        ("127.0.0.1", {}, True),
        ("localhost", {}, True),
        ("::1", {}, True),
        ("0.0.0.0", {}, False),
        ("", {}, False),
        ("192.0.2.1", {}, False),
        ("no-such-name.invalid", {}, False),
        ("0.0.0.0", {"allow_noauth_remote": True}, True),
        ("0.0.0.0", {"auth_strategy": "keystone"}, True),
    ],
)
def test_without_authentication_only_loopback_is_listened_on(conf: Any, host: str, options: dict[str, Any], allowed: bool) -> None:
    for name, value in {"host": host, **options}.items():
        conf.set_override(name, value, group="api")
    if allowed:
        check_binding(conf)
    else:
        with pytest.raises(UnsafeBinding, match="without authentication"):
            check_binding(conf)


def test_an_action_says_whose_it_was(keystone_api: Api, small_world: World) -> None:
    uuid = create_as(keystone_api, small_world, MEMBER).json["server"]["id"]
    [action] = keystone_api.get(f"/servers/{uuid}/os-instance-actions", headers=MEMBER).json["instanceActions"]
    assert (action["user_id"], action["project_id"]) == ("u1", "p1")
