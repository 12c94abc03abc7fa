"""The real `openstack` command against a whole installation with a fake host: images, networks, volumes, and the stream of a build."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sqlite3
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import requests

from support.installation import Installation
from support.openstack import openstack

pytestmark = pytest.mark.slow


def client(installation: Installation, *words: str) -> subprocess.CompletedProcess[str]:
    """Run the command as a user would, with the clouds.yaml that `hullwright up` wrote."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("OS_")}
    environment["OS_CLIENT_CONFIG_FILE"] = str(installation.directory / "clouds.yaml")
    return openstack("--os-cloud", "hullwright", *words, environment=environment, directory=installation.directory)


def ok(installation: Installation, *words: str) -> str:
    done = client(installation, *words)
    assert done.returncode == 0, f"{words}: {done.stderr}\n{installation.log_end()}"
    return done.stdout


def answer(installation: Installation, *words: str) -> Any:
    return json.loads(ok(installation, *words, "-f", "json"))


def refused(installation: Installation, *words: str) -> str:
    done = client(installation, *words)
    assert done.returncode != 0, done.stdout
    return done.stderr


def test_an_image_is_uploaded_listed_changed_saved_and_deleted(installation: Installation) -> None:
    disk = installation.directory / "disk.raw"
    disk.write_bytes(os.urandom(3_000_000))
    made = answer(
        installation, "image", "create", "--file", str(disk), "--disk-format", "raw", "--public", "--property", "os_type=linux", "one"
    )
    assert (made["status"], made["size"], made["properties"]["os_type"]) == ("active", 3_000_000, "linux")
    assert [image["Name"] for image in answer(installation, "image", "list")] == ["one"]
    ok(installation, "image", "set", "--name", "two", "--property", "hw_disk_bus=scsi", "--min-disk", "2", "one")
    ok(installation, "image", "unset", "--property", "os_type", "two")
    shown = answer(installation, "image", "show", "two")
    assert (shown["min_disk"], shown["properties"]["hw_disk_bus"], "os_type" in shown["properties"]) == (2, "scsi", False)
    ok(installation, "image", "save", "--file", "saved.raw", "two")
    assert (installation.directory / "saved.raw").read_bytes() == disk.read_bytes()
    assert "its bytes are raw" in refused(installation, "image", "create", "--file", str(disk), "--disk-format", "qcow2", "false")
    ok(installation, "image", "set", "--protected", "two")
    assert "protected" in refused(installation, "image", "delete", "two")
    ok(installation, "image", "set", "--unprotected", "two")
    ok(installation, "image", "delete", "two")
    assert answer(installation, "image", "list") == []


def test_a_large_upload_that_is_refused_early_tells_why(installation: Installation) -> None:
    disk = installation.directory / "false.qcow2"
    with disk.open("wb") as file:
        file.truncate(100 << 20)
    message = refused(installation, "image", "create", "--file", str(disk), "--disk-format", "qcow2", "false")
    assert "its bytes are raw" in message


def test_networks_subnets_and_ports_are_made_listed_and_deleted(installation: Installation) -> None:
    network = answer(installation, "network", "create", "--mtu", "1400", "net")
    assert network["mtu"] == 1400
    pool = "start=192.0.2.10,end=192.0.2.20"
    ok(installation, "subnet", "create", "--network", "net", "--subnet-range", "192.0.2.0/24", "--allocation-pool", pool, "sub")
    assert answer(installation, "network", "list")[0]["Subnets"] != []
    port = answer(installation, "port", "create", "--network", "net", "--fixed-ip", "subnet=sub,ip-address=192.0.2.15", "port")
    assert port["fixed_ips"][0]["ip_address"] == "192.0.2.15"
    found = answer(installation, "port", "list", "--network", "net", "--fixed-ip", "ip-address=192.0.2.15")
    assert [each["Name"] for each in found] == ["port"]
    assert "ports still in use" in refused(installation, "network", "delete", "net")
    ok(installation, "port", "delete", "port")
    ok(installation, "subnet", "delete", "sub")
    ok(installation, "network", "delete", "net")
    assert answer(installation, "network", "list") == []
    assert [group["Name"] for group in answer(installation, "security", "group", "list")] == ["default"]


def test_a_volume_is_made_by_the_conductor_and_deleted_by_it(installation: Installation) -> None:
    ok(installation, "volume", "create", "--size", "1", "--property", "a=b", "vol")
    deadline = time.monotonic() + 20
    while (status := answer(installation, "volume", "show", "vol")["status"]) != "available":
        assert status == "creating", installation.log_end()
        assert time.monotonic() < deadline, installation.log_end()
    assert [volume["Name"] for volume in answer(installation, "volume", "list")] == ["vol"]
    assert [kind["Name"] for kind in answer(installation, "volume", "type", "list")] == ["local"]
    ok(installation, "volume", "delete", "vol")
    while answer(installation, "volume", "list") != []:
        assert time.monotonic() < deadline + 20, installation.log_end()


def _events(response: requests.Response) -> list[tuple[str, str]]:
    """(id, event) of a stream, until it ends."""
    found: list[tuple[str, str]] = []
    id = ""
    for line in response.iter_lines(chunk_size=1, decode_unicode=True):
        if line.startswith("id: "):
            id = line[4:]
        elif line.startswith("event: "):
            found.append((id, line[7:]))
            id = ""
    return found


def test_a_build_is_followed_from_its_first_step_to_its_last(installation: Installation) -> None:
    disk = installation.directory / "boot.raw"
    disk.write_bytes(bytes(1 << 20))
    ok(installation, "image", "create", "--file", str(disk), "--disk-format", "raw", "--public", "boot")
    ok(installation, "network", "create", "inner")
    ok(installation, "subnet", "create", "--network", "inner", "--subnet-range", "198.51.100.0/24", "inner")
    ok(installation, "flavor", "create", "--ram", "64", "--disk", "1", "--vcpus", "1", "tiny")
    server = answer(installation, "server", "create", "--image", "boot", "--flavor", "tiny", "--network", "inner", "vm")["id"]
    with requests.get(f"{installation.url}/v1/builds/{server}/stream", stream=True, timeout=30) as response:
        events = _events(response)
    numbers = [int(id) for id, name in events if name == "step"]
    assert numbers == list(range(1, len(numbers) + 1))
    assert events[-1][1] == "end"
    build = requests.get(f"{installation.url}/v1/builds/{server}", timeout=30).json()["build"]
    assert (build["state"], build["progress"], build["server"]["vm_state"]) == ("done", 100, "active")
    [attempt] = build["attempts"]
    assert (attempt["state"], attempt["host"], attempt["placement"]["considered"]) == ("succeeded", "h1", 1)
    assert {"claim", "spawn", "fetch_image"} <= {step["name"] for step in attempt["steps"] if step["state"] == "SUCCESS"}
    ports = answer(installation, "port", "list", "--server", server)
    assert len(ports) == 1
    assert server in refused(installation, "port", "delete", ports[0]["ID"])
    assert "still in use" in refused(installation, "network", "delete", "inner")
    ok(installation, "server", "delete", "--wait", server)
    assert answer(installation, "port", "list") == []


def test_a_server_with_all_that_clients_name_and_what_they_are_told_of_it(installation: Installation) -> None:
    network = answer(installation, "network", "create", "--description", "of the lab", "lab")
    assert network["description"] == "of the lab"
    ok(installation, "network", "set", "--description", "of the office", "lab")
    assert answer(installation, "network", "show", "lab")["description"] == "of the office"
    assert "does not support another 'admin_state_up' than true" in refused(installation, "network", "set", "--disable", "lab")
    ok(installation, "subnet", "create", "--network", "lab", "--subnet-range", "203.0.113.0/24", "--description", "its range", "lab")
    ok(installation, "port", "create", "--network", "lab", "--description", "its card", "card")
    ok(installation, "port", "set", "--description", "her card", "card")
    assert answer(installation, "port", "show", "card")["description"] == "her card"

    disk = installation.directory / "named.raw"
    disk.write_bytes(bytes(1 << 20))
    ok(installation, "image", "create", "--file", str(disk), "--disk-format", "raw", "--public", "named")
    ok(installation, "flavor", "create", "--ram", "64", "--disk", "1", "--vcpus", "1", "named")
    ok(installation, "volume", "create", "--size", "1", "data")
    _until(installation, lambda: answer(installation, "volume", "show", "data")["status"] == "available")
    words = ["--image", "named", "--flavor", "named", "--port", "card", "--security-group", "default", "--availability-zone", "nova"]
    volume = answer(installation, "volume", "show", "data")["id"]
    ok(installation, "server", "create", *words, "--block-device", f"uuid={volume},source_type=volume,boot_index=-1", "--wait", "lab-vm")
    assert [each["Device"] for each in answer(installation, "server", "volume", "list", "lab-vm")] == ["/dev/vdb"]
    [attached] = answer(installation, "volume", "list", "--name", "data")[0]["Attached to"]
    assert attached["device"] == "/dev/vdb"
    assert [each["Name"] for each in answer(installation, "server", "list", "--availability-zone", "nova")] == ["lab-vm"]
    assert answer(installation, "server", "list", "--availability-zone", "elsewhere") == []

    for command, told in {
        "server resize --flavor named lab-vm": "does not resize servers",
        "server pause lab-vm": "does not pause or suspend",
        "server image create lab-vm": "does not make images",
        "server add volume lab-vm data": "does not attach, detach",
        "server add network lab-vm lab": "does not add or remove network cards",
        "console url show lab-vm": "does not give access to consoles",
        "server migration list --server lab-vm": "does not move servers",
        "router list": "does not have floating IPs or routers",
        "floating ip list": "does not have floating IPs or routers",
        "volume snapshot list": "does not make images, snapshots",
        "security group create web": "does not have security groups other than default",
    }.items():
        assert told in refused(installation, *command.split()), command
    ok(installation, "server", "delete", "--wait", "lab-vm")
    for words in (["volume", "delete", "data"], ["port", "delete", "card"], ["network", "delete", "lab"]):
        ok(installation, *words)


def _until(installation: Installation, condition: Callable[[], bool]) -> None:
    """Wait until it is so."""
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline, installation.log_end()


def test_an_open_stream_does_not_hold_up_the_end_of_the_service(installation: Installation) -> None:
    # The last test of the file: nothing builds, so the stream is of work that never begins.
    _stop_between_transactions(installation)
    try:
        made = requests.post(f"{installation.url}/volume/v3/volumes", json={"volume": {"size": 1}}, timeout=10)
        assert made.status_code == 202
        found = requests.get(f"{installation.url}/v1/builds?kind=all&state=queued", timeout=10).json()["builds"]
        with requests.get(f"{installation.url}/v1/builds/{found[0]['id']}/stream", stream=True, timeout=30) as response:
            assert response.status_code == 200
            chunks = response.iter_content(64)
            assert next(chunks)
            [api] = _children(installation.up.pid, "api")
            began = time.monotonic()
            os.kill(api, signal.SIGTERM)
            assert b"".join(chunks) is not None  # to its end
            assert time.monotonic() - began < 5
    finally:
        for process in _children(installation.up.pid, "conductor"):
            os.kill(process, signal.SIGCONT)


def _stop_between_transactions(installation: Installation) -> None:
    """SIGSTOP to the conductors, while none of them has the database for itself: then nobody else could write."""
    conductors, deadline = _children(installation.up.pid, "conductor"), time.monotonic() + 60
    while True:
        for process in conductors:
            os.kill(process, signal.SIGSTOP)
        try:
            with contextlib.closing(sqlite3.connect(installation.directory / "hullwright.db", isolation_level=None, timeout=1)) as database:
                database.execute("BEGIN IMMEDIATE")
            return
        except sqlite3.OperationalError:
            for process in conductors:
                os.kill(process, signal.SIGCONT)
            assert time.monotonic() < deadline, "they are always inside a transaction"


def _children(pid: int, word: str) -> list[int]:
    """Children of a process that have `word` on their command line."""
    found = []
    for directory in Path("/proc").glob("[0-9]*"):
        try:
            parent = int(directory.joinpath("stat").read_text().rpartition(")")[2].split()[1])
            command = directory.joinpath("cmdline").read_bytes().split(b"\0")
        except (OSError, ValueError):
            continue
        if parent == pid and word.encode() in command:
            found.append(int(directory.name))
    return found
