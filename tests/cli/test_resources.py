"""The commands against a real service on a fake host: flavors, images, networks, servers from create to delete."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path

import pytest

from support.installation import Installation

IMAGE_BYTES = 3 << 20


@pytest.fixture(scope="module")
def image_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Bytes of a raw image."""
    path = tmp_path_factory.mktemp("image") / "image.raw"
    path.write_bytes(os.urandom(IMAGE_BYTES))
    return path


@pytest.fixture(scope="module")
def furnished(installation: Installation, image_file: Path) -> Installation:
    """The service with a flavor, an image and a network."""
    installation.ok("flavor", "create", "tiny", "--memory-mb", "64", "--disk-gb", "1", "--property", "a:b=c")
    installation.ok("image", "create", "img", "--file", str(image_file), "--disk-format", "raw", "--property", "os_type=linux")
    installation.ok("network", "create", "net", "--subnet", "10.55.0.0/24", "--dns", "9.9.9.9")
    return installation


def test_a_flavor_is_listed_and_shown_with_its_extra_specs(furnished: Installation) -> None:
    assert [flavor["Name"] for flavor in furnished.json("flavor", "list")] == ["tiny"]
    shown = furnished.json("flavor", "show", "tiny")
    assert (shown["Memory MB"], shown["Disk GB"], shown["Extra specs"]) == (64, 1, {"a:b": "c"})


def test_an_image_is_uploaded_whole_and_saved_as_it_was(furnished: Installation, image_file: Path, tmp_path: Path) -> None:
    shown = furnished.json("image", "show", "img")
    assert (shown["Status"], shown["Size"], shown["Properties"]["os_type"]) == ("active", IMAGE_BYTES, "linux")
    furnished.ok("image", "save", "img", "--file", str(tmp_path / "copy"))
    assert (tmp_path / "copy").read_bytes() == image_file.read_bytes()
    assert not (tmp_path / "copy.part").exists()


def test_an_image_is_everybodys_unless_it_is_made_private(furnished: Installation, image_file: Path) -> None:
    assert furnished.json("image", "show", "img")["Visibility"] == "public"
    made = furnished.json("image", "create", "mine", "--file", str(image_file), "--disk-format", "raw", "--private")
    furnished.ok("image", "delete", "mine")
    assert made["Visibility"] == "private"


def test_an_image_file_that_is_not_there_leaves_no_image(furnished: Installation) -> None:
    done = furnished.run("image", "create", "ghost", "--file", "/nonexistent/file")
    assert (done.returncode, done.stderr) == (1, "hullwright: /nonexistent/file cannot be read: No such file or directory\n")
    assert "ghost" not in [image["Name"] for image in furnished.json("image", "list")]


def test_an_image_whose_bytes_are_refused_leaves_no_image(furnished: Installation, image_file: Path) -> None:
    done = furnished.run("image", "create", "liar", "--file", str(image_file), "--disk-format", "qcow2")
    assert done.returncode == 1
    assert "qcow2" in done.stderr
    assert "liar" not in [image["Name"] for image in furnished.json("image", "list")]


def test_a_network_has_its_subnet(furnished: Installation) -> None:
    (network,) = [network for network in furnished.json("network", "list") if network["Name"] == "net"]
    assert network["Subnets"] == ["10.55.0.0/24"]
    assert furnished.json("network", "show", "net")["Name servers"] == ["9.9.9.9"]


def test_a_network_whose_subnet_is_refused_is_not_kept(furnished: Installation) -> None:
    assert furnished.run("network", "create", "bad", "--subnet", "10.55.0.0/99").returncode == 1
    assert "bad" not in [network["Name"] for network in furnished.json("network", "list")]


def test_a_server_is_built_watched_shown_and_deleted(furnished: Installation, tmp_path: Path) -> None:
    (tmp_path / "user-data").write_text("#!/bin/sh\necho the-secret\n")
    output = furnished.ok(
        "server", "create", "vm1", "--image", "img", "--flavor", "tiny", "--network", "net",
        "--user-data", str(tmp_path / "user-data"), "--property", "purpose=test",
    )  # fmt: skip
    positions = [output.find(step) for step in ("reserve", "claim", "fetch_image", "spawn", "activate", "ACTIVE")]
    assert -1 not in positions
    assert positions == sorted(positions)
    shown = furnished.json("server", "show", "vm1")
    assert (shown["Status"], shown["Host"], shown["Metadata"]) == ("ACTIVE", "h1", {"purpose": "test"})
    assert shown["Addresses"][0].startswith("10.55.0.")
    assert [server["Name"] for server in furnished.json("server", "list")] == ["vm1"]

    rows = furnished.json("server", "timeline", "vm1")
    assert {"claim", "spawn", "activate"} <= {row["Step"] for row in rows if row["State"] == "SUCCESS"}
    assert any(row["Attempt"] == 1 and row["State"] == "succeeded" and row["Host"] == "h1" for row in rows)

    furnished.ok("server", "delete", "--wait", "vm1")
    assert furnished.json("server", "list") == []
    gone = furnished.run("server", "show", "vm1")
    assert (gone.returncode, gone.stderr) == (1, "hullwright: There is no server vm1.\n")
    again = furnished.json("server", "timeline", shown["ID"], "--all")
    assert {row["Job"] for row in again} == {"build", "delete"}
    (host,) = furnished.json("host", "list")
    assert host["VCPUs used"].startswith("0 of")
    assert "the-secret" not in furnished.log.read_text()


def test_a_server_that_fits_nowhere_says_why_and_exits_1(furnished: Installation) -> None:
    furnished.ok("flavor", "create", "huge", "--memory-mb", "99999999", "--disk-gb", "1")
    done = furnished.run("server", "create", "vm2", "--image", "img", "--flavor", "huge")
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert line.startswith("hullwright: Server vm2 could not be built: No valid host was found.")
    assert "server timeline" in line
    furnished.ok("server", "delete", "--wait", "vm2")


def test_a_server_that_waits_for_room_stands_in_the_queue_until_there_is_some(furnished: Installation) -> None:
    (host,) = furnished.json("host", "list")
    furnished.ok("host", "disable", host["Name"], "--reason", "no room today")
    arguments = ("--image", "img", "--flavor", "tiny", "--wait-for-capacity", "600", "--no-wait")
    made = [furnished.json("server", "create", name, *arguments)["ID"] for name in ("first", "second")]
    deadline = time.monotonic() + 60
    while len(queue := furnished.json("server", "queue")) < 2:
        assert time.monotonic() < deadline, queue
        time.sleep(0.2)
    assert [(entry["Place"], entry["ID"], entry["Name"]) for entry in queue] == [(1, made[0], "first"), (2, made[1], "second")]
    assert furnished.json("server", "show", "second")["Waits for room"].startswith("place 2 of 2, until 2")
    timeline = furnished.json("server", "timeline", "first")
    assert (timeline[-1]["Step"], timeline[-1]["State"]) == ("select_host", "WAITING")
    furnished.ok("host", "enable", host["Name"])
    deadline = time.monotonic() + 60
    while queue := furnished.json("server", "queue"):
        assert time.monotonic() < deadline, queue
        time.sleep(0.2)
    done = furnished.run("server", "delete", "--wait", "nobody", *made)
    assert (done.returncode, done.stderr) == (1, "hullwright: There is no server nobody.\n")
    assert furnished.json("server", "list") == []  # the others went


def test_a_host_is_set_apart_from_the_others_at_once(furnished: Installation) -> None:
    (host,) = furnished.json("host", "list")
    before = furnished.json("host", "show", host["Name"])["Resource VCPU"]
    shown = furnished.json("host", "set", host["Name"], "--cpu-allocation-ratio", "1.5", "--reserved-cpus", "1")
    assert (shown["Resource VCPU"]["ratio"], shown["Resource VCPU"]["reserved"]) == (1.5, 1)
    assert shown["Settings"] == {"cpu_allocation_ratio": 1.5, "reserved_host_cpus": 1}
    shown = furnished.json("host", "set", host["Name"], "--unset", "cpu_allocation_ratio", "--unset", "reserved_host_cpus")
    assert (shown["Resource VCPU"], shown["Settings"]) == (before, None)
    assert furnished.json("host", "set", host["Name"], "--availability-zone", "west")["Zone"] == "west"
    assert furnished.json("host", "set", host["Name"], "--availability-zone", "nova")["Zone"] == "nova"
    refused = furnished.run("host", "set", host["Name"], "--availability-zone", "west:h1")
    assert (refused.returncode, furnished.json("host", "show", host["Name"])["Zone"]) == (2, "nova")
    assert "has no colon" in refused.stderr
    refused = furnished.run("host", "set", host["Name"], "--ram-allocation-ratio", "0")
    assert refused.returncode == 1
    assert "a ratio is more than 0" in refused.stderr


def test_a_server_made_without_waiting_answers_at_once(furnished: Installation) -> None:
    made = furnished.json("server", "create", "vm3", "--image", "img", "--flavor", "tiny", "--no-wait")
    assert made["Status"] in ("BUILD", "ACTIVE")
    furnished.ok("server", "delete", "--wait", made["ID"])


def test_json_of_a_create_is_nothing_but_json(furnished: Installation) -> None:
    done = furnished.run("server", "create", "vm4", "--image", "img", "--flavor", "tiny", "-f", "json")
    assert json.loads(done.stdout)["Status"] == "ACTIVE"
    assert "spawn" in done.stderr
    furnished.ok("server", "delete", "--wait", "vm4")


@pytest.mark.parametrize("kind", ["flavor", "image", "network", "server"])
def test_what_is_not_there_is_told_by_name(furnished: Installation, kind: str) -> None:
    done = furnished.run(kind, "show", "nobody")
    assert (done.returncode, done.stderr) == (1, f"hullwright: There is no {kind} nobody.\n")


def test_two_of_one_name_must_be_told_apart_by_id(furnished: Installation) -> None:
    for subnet in ("10.56.0.0/24", "10.57.0.0/24"):
        furnished.ok("network", "create", "twin", "--subnet", subnet)
    done = furnished.run("network", "show", "twin")
    assert (done.returncode, done.stderr) == (1, "hullwright: 2 networks are named twin: give the id.\n")
    twins = [network["ID"] for network in furnished.json("network", "list") if network["Name"] == "twin"]
    furnished.ok("network", "delete", *twins)


def test_a_dry_run_says_where_a_server_would_go_and_builds_nothing(furnished: Installation) -> None:
    shown = furnished.json("server", "create", "ghost", "--image", "img", "--flavor", "tiny", "--network", "net", "--dry-run")
    assert shown["Summary"] == "1 of 1 host fit."
    assert shown["Chosen"] is not None
    assert "ghost" not in [server["Name"] for server in furnished.json("server", "list")]


def test_host_why_tells_the_choice_of_a_build_and_what_it_would_be_now(furnished: Installation) -> None:
    furnished.ok("server", "create", "asked", "--image", "img", "--flavor", "tiny")
    (chosen,) = furnished.json("host", "why", "asked")
    assert (chosen["Attempt"], chosen["Hosts"], chosen["What"], len(chosen["Which"])) == (1, 1, "chosen", 1)
    (now,) = furnished.json("host", "why", "asked", "--now")
    assert (now["Attempt"], now["Which"]) == ("now", chosen["Which"])
    (every,) = furnished.json("host", "why", "asked", "--full")
    assert (every["Host"], every["Fits"]) == (chosen["Which"][0], True)
    furnished.ok("server", "delete", "asked", "--wait")
    assert furnished.run("host", "why", "nobody").returncode == 1
