"""The real `openstack` client against the served application: what needs no conductor."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from hullwright.conf.database import url
from hullwright.conf.opts import load
from hullwright.persistence.database import Database
from support.openstack import openstack
from support.ports import free_port

from .conftest import World, make_world

SERVE = """
import sys
from hullwright.api import server
from hullwright.conf import opts
server.serve(opts.load([], {"DEFAULT": {"state_path": sys.argv[1]}, "api": {"port": int(sys.argv[2])}}))
"""
CLOUDS = """
clouds:
  hullwright:
    auth_type: none
    auth: {{endpoint: "{url}"}}
    identity_api_version: "3"
    identity_endpoint_override: {url}/identity/v3
    compute_endpoint_override: {url}/v2.1
    image_endpoint_override: {url}/image
    network_endpoint_override: {url}/network
"""


def answers(address: str) -> bool:
    """Whether the API does."""
    try:
        urllib.request.urlopen(f"{address}/healthz", timeout=5).close()
    except OSError:
        return False
    return True


class Cloud:
    """A served installation and the client for it."""

    def __init__(self, directory: Path, address: str, world: World) -> None:
        self.directory = directory
        self.url = address
        self.world = world

    def run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """One command of the client."""
        environment = {**os.environ, "OS_CLIENT_CONFIG_FILE": str(self.directory / "clouds.yaml"), "OS_CLOUD": "hullwright"}
        return openstack(*arguments, environment=environment, directory=self.directory)

    def json(self, *arguments: str) -> Any:
        """A command's answer as JSON."""
        done = self.run(*arguments, "-f", "json")
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)


@pytest.fixture
def cloud(sqlite_template: Path, tmp_path: Path) -> Iterator[Cloud]:
    """An API process on a free port."""
    conf = load([], {"DEFAULT": {"state_path": str(tmp_path)}})
    (tmp_path / "hullwright.db").write_bytes(sqlite_template.read_bytes())
    db = Database(url(conf))
    world = make_world(db)
    db.close()
    port = free_port()
    address = f"http://127.0.0.1:{port}"
    (tmp_path / "clouds.yaml").write_text(CLOUDS.format(url=address))
    process = subprocess.Popen([sys.executable, "-c", SERVE, str(tmp_path), str(port)])
    try:
        deadline = time.monotonic() + 60
        while not answers(address):
            assert process.poll() is None
            assert time.monotonic() < deadline, "the API does not answer"
            time.sleep(0.1)
        yield Cloud(tmp_path, address, world)
    finally:
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=40) == 0


@pytest.mark.slow
def test_the_openstack_client_works_unmodified(cloud: Cloud) -> None:
    assert cloud.json("flavor", "create", "--id", "7", "--ram", "512", "--disk", "1", "m1.seven")["id"] == "7"
    assert {flavor["Name"] for flavor in cloud.json("flavor", "list")} == {"m1.tiny", "m1.seven"}
    key = cloud.directory / "key"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", key], check=True, timeout=30)
    assert cloud.json("keypair", "create", "--public-key", f"{key}.pub", "key1")["name"] == "key1"
    made = cloud.json(
        "server", "create", "--image", "cirros", "--flavor", "m1.seven", "--network", "net1", "--key-name", "key1",
        "--property", "a=b", "--tag", "t", "vm1",
    )  # fmt: skip
    assert (made["name"], made["status"], made["key_name"]) == ("vm1", "BUILD", "key1")
    [listed] = cloud.json("server", "list")
    assert (listed["ID"], listed["Status"], listed["Image"], listed["Flavor"]) == (made["id"], "BUILD", "cirros", "m1.seven")
    shown = cloud.json("server", "show", "vm1")
    assert (shown["properties"], shown["tags"], shown["OS-EXT-STS:task_state"]) == ({"a": "b"}, ["t"], "scheduling")
    [event] = cloud.json("server", "event", "list", "vm1")
    assert event["Action"] == "create"
    assert cloud.json("server", "event", "show", "vm1", event["Request ID"])["action"] == "create"
    assert cloud.run("server", "delete", "vm1").returncode == 0
    assert cloud.json("server", "show", made["id"])["OS-EXT-STS:task_state"] == "deleting"
    assert [h["Hypervisor Hostname"] for h in cloud.json("hypervisor", "list")] == ["host1"]
    assert [z["Zone Name"] for z in cloud.json("availability", "zone", "list", "--compute")] == ["nova"]
    assert [s["Binary"] for s in cloud.json("compute", "service", "list")] == ["nova-compute"]
    boot = ("--image", "cirros", "--flavor", "m1.tiny", "--network", "net1")
    refused = cloud.run("server", "create", *boot, "--availability-zone", "mars", "vm2")
    assert refused.returncode != 0
    assert "The requested availability zone is not available" in refused.stderr


@pytest.mark.slow
def test_the_openstack_client_knows_our_aggregates_and_server_groups(cloud: Cloud) -> None:
    made = cloud.json("aggregate", "create", "--zone", "west", "--property", "ssd=true", "fast")
    assert made["availability_zone"] == "west"
    assert cloud.json("aggregate", "add", "host", "fast", "host1")["hosts"] == ["host1"]
    assert cloud.run("aggregate", "set", "--property", "rack=7", "fast").returncode == 0
    shown = cloud.json("aggregate", "show", "fast")
    assert (shown["hosts"], shown["properties"]) == (["host1"], {"ssd": "true", "rack": "7"})
    assert [each["Name"] for each in cloud.json("aggregate", "list")] == ["fast"]
    assert [zone["Zone Name"] for zone in cloud.json("availability", "zone", "list", "--compute")] == ["west"]
    assert cloud.run("aggregate", "set", "--zone", "east", "fast").returncode == 0
    assert [zone["Zone Name"] for zone in cloud.json("availability", "zone", "list", "--compute")] == ["east"]
    group = cloud.json("server", "group", "create", "--policy", "anti-affinity", "--rule", "max_server_per_host=2", "apart")
    assert (group["policy"], group["rules"]) == ("anti-affinity", {"max_server_per_host": 2})
    boot = ("--image", "cirros", "--flavor", "m1.tiny", "--network", "net1", "--availability-zone", "east")
    server = cloud.json("server", "create", *boot, "--hint", f"group={group['id']}", "vm1")
    assert cloud.json("server", "show", server["id"])["server_groups"] == [group["id"]]
    assert cloud.json("server", "group", "show", "apart")["members"] == [server["id"]]
    assert [each["Name"] for each in cloud.json("server", "group", "list")] == ["apart"]
    assert cloud.run("server", "group", "delete", "apart").returncode == 0
    assert cloud.run("aggregate", "delete", "fast").returncode != 0
    assert cloud.run("aggregate", "remove", "host", "fast", "host1").returncode == 0
    assert cloud.run("aggregate", "delete", "fast").returncode == 0
    assert cloud.json("aggregate", "list") == []
