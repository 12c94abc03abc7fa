"""What OpenStack's services do and Hullwright does not is refused by name, and nothing else is."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from falcon import testing

from hullwright.api import routes, unsupported
from hullwright.api.schemas.actions import ACTIONS

SERVER = "/v2.1/servers/b6c3f6a2-8f1c-4c9a-9e39-0d7bdb0c3a11"


def message(result: testing.Result) -> str:
    """The text, in whichever form the service has."""
    body = result.json
    if "NeutronError" in body:
        return str(body["NeutronError"]["message"])
    return str(body["message"] if "message" in body else next(iter(body.values()))["message"])


@pytest.mark.parametrize("name", sorted(unsupported.ACTIONS))
def test_an_action_of_nova_is_refused_by_name(api: testing.TestClient, make_instance: Callable[..., str], name: str) -> None:
    result = api.simulate_post(f"/v2.1/servers/{make_instance()}/action", json={name: None})
    assert (result.status_code, result.json["notImplemented"]["code"]) == (501, 501)
    assert message(result) == f"Hullwright does not {unsupported.ACTIONS[name]}."


def test_an_action_of_nobody_is_unknown(api: testing.TestClient, make_instance: Callable[..., str]) -> None:
    result = api.simulate_post(f"/v2.1/servers/{make_instance()}/action", json={"dance": None})
    assert (result.status_code, message(result)) == (400, "There is no such action: dance")


@pytest.mark.parametrize(
    ("method", "path", "told"),
    [
        ("GET", f"{SERVER}/diagnostics", "diagnostics"),
        ("GET", f"{SERVER}/migrations", "move servers"),
        ("POST", f"{SERVER}/remote-consoles", "consoles"),
        ("POST", f"{SERVER}/os-volume_attachments", "attach, detach"),
        ("DELETE", f"{SERVER}/os-volume_attachments/1", "attach, detach"),
        ("POST", f"{SERVER}/os-interface", "network cards"),
        ("DELETE", f"{SERVER}/os-interface/1", "network cards"),
        ("POST", "/v2.1/flavors/1/action", "private flavors"),
        ("GET", "/v2.1/os-migrations", "move servers"),
        ("GET", "/v2.1/hullwright/os-simple-tenant-usage/hullwright", "usage"),
        ("PUT", "/v2.1/os-quota-sets/hullwright", "quotas"),
        ("DELETE", "/v2.1/os-services/1", "host remove"),
        ("GET", "/network/v2.0/routers", "routers"),
        ("POST", "/network/v2.0/floatingips", "floating IPs"),
        ("PUT", "/network/v2.0/networks/1/tags", "tag"),
        ("DELETE", "/network/v2.0/security-groups/1", "security groups"),
        ("GET", "/volume/v3/snapshots/detail", "snapshots"),
        ("POST", "/volume/v3/hullwright/backups", "backups"),
        ("POST", "/volume/v3/types", "volume types"),
        ("POST", "/image/v2/images/1/import", "upload their bytes"),
        ("GET", "/image/v2/metadefs/namespaces", "metadata"),
    ],
)
def test_a_place_of_theirs_is_refused_by_name(api: testing.TestClient, method: str, path: str, told: str) -> None:
    result = api.simulate_request(method, path)
    assert result.status_code == 501, result.text
    assert message(result).startswith("Hullwright does not ")
    assert told in message(result)


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/os-agents"),
        ("GET", "/os-cells/detail"),
        ("POST", "/os-certificates"),
        ("GET", "/os-cloudpipe"),
        ("GET", f"/servers/{SERVER.rsplit('/', 1)[1]}/consoles/1"),
        ("GET", "/os-fixed-ips/192.0.2.1"),
        ("GET", "/os-floating-ip-dns"),
        ("GET", "/hullwright/os-floating-ips-bulk"),
        ("GET", "/os-fping/1"),
        ("POST", "/os-networks"),
        ("POST", "/os-networks/add"),
        ("DELETE", "/os-networks/1"),
        ("POST", "/os-networks/1/action"),
        ("GET", "/os-security-group-default-rules"),
        ("POST", "/os-tenant-networks"),
        ("DELETE", "/os-tenant-networks/1"),
        ("GET", f"/servers/{SERVER.rsplit('/', 1)[1]}/os-virtual-interfaces"),
    ],
)
def test_what_nova_has_removed_is_gone(api: testing.TestClient, method: str, path: str) -> None:
    result = api.simulate_request(method, f"/v2.1{path}")
    assert (result.status_code, result.json["computeFault"]["code"]) == (410, 410)
    assert message(result).startswith("This API was removed. Hullwright does not ")


@pytest.mark.parametrize("path", ["/os-networks", "/os-networks/1", "/os-tenant-networks"])
def test_what_is_left_of_it_in_nova_is_refused_by_name(api: testing.TestClient, path: str) -> None:
    assert api.simulate_get(f"/v2.1{path}").status_code == 501


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/v2.1/os-dances", 404),
        ("GET", f"{SERVER}/dances", 404),
        ("DELETE", "/v2.1/os-hypervisors", 405),
        ("GET", "/network/v2.0/dances", 404),
        ("PATCH", "/network/v2.0/networks", 405),
        ("GET", "/volume/v3/dances", 404),
        ("GET", "/image/v2/dances", 404),
    ],
)
def test_a_place_of_nobody_is_not_found(api: testing.TestClient, method: str, path: str, status: int) -> None:
    assert api.simulate_request(method, path).status_code == status


def test_a_volume_action_is_refused_by_name(api: testing.TestClient) -> None:
    made = api.simulate_post("/volume/v3/volumes", json={"volume": {"size": 1}}).json["volume"]["id"]

    def told(name: str) -> tuple[int, str]:
        result = api.simulate_post(f"/volume/v3/volumes/{made}/action", json={name: {}})
        return result.status_code, message(result)

    assert told("os-extend") == (501, "Hullwright does not extend volumes.")
    assert told("dance") == (400, "There is no such action: dance")


def test_nothing_that_is_served_is_called_unsupported() -> None:
    suffixes: dict[str | None, str] = {None: ""}
    for path, kind, suffix in routes.ROUTES:
        end = suffixes.setdefault(suffix, f"_{suffix}")
        served: list[Any] = [name for name in ("GET", "POST", "PUT", "DELETE") if hasattr(kind, f"on_{name.lower()}{end}")]
        assert served
        assert [name for name in served if unsupported.found(name, path.replace("{", "").replace("}", ""))] == []


def test_the_documentation_names_every_action_once() -> None:
    page = Path(__file__).parents[2].joinpath("docs", "compute-api.md").read_text()
    table = page.partition("### Server actions")[2].partition("###")[0]
    for name in (*ACTIONS, *unsupported.ACTIONS):
        assert table.count(f"`{name}`") == 1, name
    assert not set(ACTIONS) & set(unsupported.ACTIONS)
