"""All services read bodies alike: what is no JSON of theirs, too long, or more than a database can hold, is refused by each in its form."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from falcon import testing

from hullwright.objects.flavors import Flavor
from hullwright.persistence import flavors, hosts
from hullwright.persistence.database import Database

COLLECTIONS = ["/v2.1/servers", "/image/v2/images", "/network/v2.0/networks", "/volume/v3/volumes", "/v1/placement:explain"]
JSON = {"Content-Type": "application/json"}
NEWEST = {"OpenStack-API-Version": "compute 2.100"}


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("POST", "/v2.1/servers", {"server": {"name": "vm", "flavorRef": "1\0", "networks": "none", "imageRef": ""}}),
        ("POST", "/v2.1/servers/{server}/action", {"lock": {"locked_reason": "a\0b"}}),
        ("PUT", "/v2.1/os-services/{host}", {"status": "disabled", "disabled_reason": "a\0b"}),
        ("POST", "/v2.1/os-keypairs", {"keypair": {"name": "k", "type": "ssh", "public_key": "ssh-rsa AAAA a\0b"}}),
        ("POST", "/v2.1/os-aggregates/1/action", {"set_metadata": {"metadata": {"a": "b\0c"}}}),
        ("POST", "/network/v2.0/networks", {"network": {"name": "a\0b"}}),
        ("POST", "/volume/v3/volumes", {"volume": {"size": 1, "name": "a\0b"}}),
        ("POST", "/image/v2/images", {"name": "a\0b"}),
        ("POST", "/v1/placement:explain", {"server_id": "a\0b"}),
    ],
)
def test_nul_is_refused_everywhere(
    api: testing.TestClient, db: Database, make_instance: Callable[..., str], method: str, path: str, body: Any
) -> None:
    with db.write() as conn:
        flavors.create(conn, Flavor("1", "small", 1, 512, 1))
        host = hosts.register(conn, "host1", "fake:///host1", "fake")
    result = api.simulate_request(method, path.format(server=make_instance(), host=host.uuid), json=body, headers=NEWEST)
    assert result.status_code == 400, result.text
    assert "NUL" in result.text


def test_a_backslash_before_u0000_is_a_text_like_others(api: testing.TestClient) -> None:
    name = "a\\u0000b"
    made = api.simulate_post("/network/v2.0/networks", json={"network": {"name": name}})
    assert made.json["network"]["name"] == name
    assert api.simulate_get("/network/v2.0/networks").json["networks"][0]["name"] == name


@pytest.mark.parametrize("path", COLLECTIONS)
@pytest.mark.parametrize(
    ("body", "headers", "status"),
    [
        ("{", JSON, 400),
        (json.dumps({"a": "x" * 300_000}), JSON, 413),
        ("a=b", {"Content-Type": "application/x-www-form-urlencoded"}, 415),
    ],
)
def test_a_body_that_cannot_be_read_is_refused(api: testing.TestClient, path: str, body: str, headers: dict[str, str], status: int) -> None:
    result = api.simulate_post(path, body=body, headers=headers)
    assert (result.status_code, "Retry-After" in result.headers) == (status, False)
