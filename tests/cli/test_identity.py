"""Commands for an API behind Keystone: they get a token as the cloud of clouds.yaml says, and find the API in its catalog.

The identity service here answers as Keystone does, on a socket; keystoneauth itself speaks to it.
"""

from __future__ import annotations

import datetime
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from hullwright.cli import clouds
from hullwright.cli.http import Client
from hullwright.cli.identity import Identity


class Cloud(BaseHTTPRequestHandler):
    """An identity service that knows one password, and an API that takes its tokens only."""

    valid_seconds = 3600.0
    tokens: list[str] = []
    refused: list[str | None] = []

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if body["auth"]["identity"]["password"]["user"]["password"] != "right":
            self._send(401, {"error": {"code": 401, "message": "The request you have made requires authentication."}})
            return
        self.tokens.append(f"token-{len(self.tokens)}")
        expires_at = datetime.datetime.now(datetime.UTC) + datetime.timedelta(seconds=self.valid_seconds)
        endpoint = {"interface": "public", "region": "r", "region_id": "r", "id": "e", "url": f"http://{self.headers['Host']}/compute/v2.1"}
        token = {
            "methods": ["password"],
            "user": {"id": "u", "name": "u", "domain": {"id": "default", "name": "Default"}},
            "project": {"id": "p", "name": "p", "domain": {"id": "default", "name": "Default"}},
            "catalog": [{"type": "compute", "name": "hullwright", "id": "s", "endpoints": [endpoint]}],
            "expires_at": expires_at.isoformat().replace("+00:00", "Z"),
            "issued_at": "2026-01-01T00:00:00.000000Z",
            "roles": [],
        }
        self._send(201, {"token": token}, **{"X-Subject-Token": self.tokens[-1]})

    def do_GET(self) -> None:
        token = self.headers.get("X-Auth-Token")
        if token is None or token not in self.tokens:
            self.refused.append(token)
            self._send(401, {"error": {"code": 401, "message": "The request you have made requires authentication."}})
        else:
            self._send(200, {"flavors": [], "asked": self.path})

    def _send(self, status: int, body: Any, **headers: str) -> None:
        content = json.dumps(body).encode()
        self.send_response(status)
        for name, value in {"Content-Type": "application/json", "Content-Length": str(len(content)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, format: str, *args: Any) -> None:
        """Silence."""


@pytest.fixture
def url() -> Iterator[str]:
    """Where the cloud is."""
    Cloud.tokens, Cloud.refused = [], []
    server = ThreadingHTTPServer(("127.0.0.1", 0), Cloud)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()
    thread.join()


def hullwright(directory: Path, url: str, *arguments: str, password: str = "right", **environment: str) -> tuple[int, str, str]:
    """Run the command where a clouds.yaml names the cloud `here`."""
    cloud = {
        "auth_type": "v3password",
        "region_name": "r",
        "auth": {"auth_url": f"{url}/v3", "username": "u", "password": password, "project_name": "p", "user_domain_id": "default"}
        | {"project_domain_id": "default"},
    }
    (directory / "clouds.yaml").write_text(json.dumps({"clouds": {"here": cloud}}))
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("HULLWRIGHT_", "OS_"))}
    done = subprocess.run(
        [sys.executable, "-m", "hullwright.cli.main", *arguments],
        cwd=directory, capture_output=True, text=True, timeout=60, check=False, env=clean | environment,
    )  # fmt: skip
    return done.returncode, done.stdout, done.stderr


def test_the_cloud_says_who_asks_and_where_the_api_is(tmp_path: Path, url: str) -> None:
    code, out, err = hullwright(tmp_path, url, "--os-cloud", "here", "flavor", "list", "-f", "json")
    assert (code, json.loads(out), err) == (0, [], "")
    assert (Cloud.tokens, Cloud.refused) == (["token-0"], [])


def test_the_cloud_may_come_from_the_environment_and_a_url_is_stronger_than_its_catalog(tmp_path: Path, url: str) -> None:
    code, _, err = hullwright(tmp_path, url, "--url", f"{url}/elsewhere", "flavor", "list", OS_CLOUD="here")
    assert (code, err, Cloud.refused) == (0, "", [])


def test_the_variables_of_the_openstack_client_will_do(tmp_path: Path, url: str) -> None:
    account = {"OS_AUTH_URL": f"{url}/v3", "OS_AUTH_TYPE": "v3password", "OS_USERNAME": "u", "OS_PASSWORD": "right", "OS_REGION_NAME": "r"}
    domains = {"OS_PROJECT_NAME": "p", "OS_USER_DOMAIN_ID": "default", "OS_PROJECT_DOMAIN_ID": "default"}
    code, _, err = hullwright(tmp_path, url, "flavor", "list", **account, **domains)
    assert (code, err, Cloud.tokens, Cloud.refused) == (0, "", ["token-0"], [])


def test_without_a_cloud_a_refusal_says_how_to_name_one(tmp_path: Path, url: str) -> None:
    code, _, err = hullwright(tmp_path, url, "--url", url, "flavor", "list")
    assert (code, len(err.splitlines()), Cloud.refused) == (1, 1, [None])
    assert "--os-cloud" in err


def test_with_the_clouds_yaml_of_hullwright_up_nobody_is_asked_for_a_token(tmp_path: Path, url: str) -> None:
    clouds.write(tmp_path / "up.yaml", url)
    code, _, _ = hullwright(tmp_path, url, "flavor", "list", OS_CLIENT_CONFIG_FILE=str(tmp_path / "up.yaml"), OS_CLOUD="hullwright")
    assert (code, Cloud.tokens, len(Cloud.refused)) == (1, [], 1)  # this API wants one: it was found, and asked without


@pytest.mark.parametrize(("cloud", "password"), [("here", "wrong"), ("nowhere", "right")])
def test_no_token_is_one_line_and_exit_1(tmp_path: Path, url: str, cloud: str, password: str) -> None:
    code, _, err = hullwright(tmp_path, url, "--os-cloud", cloud, "flavor", "list", password=password)
    assert (code, len(err.splitlines()), Cloud.tokens) == (1, 1, [])
    assert err.startswith(f"hullwright: No token for cloud {cloud}: ")


@pytest.mark.filterwarnings("ignore:Support for InfluxDB")  # openstacksdk's own, about what nobody asked for
def test_a_token_that_runs_out_is_renewed(tmp_path: Path, url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    hullwright(tmp_path, url, "--version")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(Cloud, "valid_seconds", 1.0)  # less than keystoneauth's margin: each request needs another one
    identity = Identity("here")
    client = Client(identity.url(), identity=identity)
    assert client.get("/v2.1/flavors")["asked"] == "/compute/v2.1/flavors"
    assert client.get("/v2.1/flavors")
    assert len(Cloud.tokens) >= 3
    assert Cloud.refused == []
