"""`hullwright up` as its user meets it: the real `openstack` client from the first image to the last delete, Ctrl-C, a locked database."""

from __future__ import annotations

import os
import re
import sqlite3
import time

import pytest

from support.libvirtd import GuestImage
from support.up import Up

pytestmark = [pytest.mark.slow, pytest.mark.libvirt]
MIB = 1024**2


def test_the_openstack_client_does_all_of_it(up: Up, guest_image: GuestImage) -> None:
    key = up.openstack("keypair", "create", "mine")
    assert "PRIVATE KEY" in key
    up.openstack("image", "create", "--file", str(guest_image.qcow2), "--disk-format", "qcow2", "--public", "guest")
    up.openstack("flavor", "create", "--ram", "160", "--disk", "1", "--vcpus", "1", "tiny")
    up.openstack("network", "create", "net")
    up.openstack("subnet", "create", "--network", "net", "--subnet-range", "10.223.1.0/24", "sub")

    made = up.answer(
        "server", "create", "--image", "guest", "--flavor", "tiny", "--network", "net", "--key-name", "mine",
        "--property", "a=b", "--wait", "vm1",
    )  # fmt: skip
    assert (made["status"], made["name"]) == ("ACTIVE", "vm1")

    lists = {
        "server list": ("Name", "vm1"), "image list": ("Name", "guest"), "flavor list": ("Name", "tiny"), "network list": ("Name", "net"),
        "keypair list": ("Name", "mine"), "hypervisor list": ("State", "up"), "compute service list": ("State", "up"),
        "availability zone list": ("Zone Status", "available"), "volume list": ("", ""), "server event list vm1": ("Action", "create"),
    }  # fmt: skip
    answers = dict(zip(lists, up.answers(*lists), strict=True))
    assert answers.pop("volume list") == []
    for words, rows in answers.items():
        column, value = lists[words]
        assert value in [row[column] for row in rows], words

    (event,) = answers["server event list vm1"]
    shown, server = up.answers(f"server event show vm1 {event['Request ID']}", "server show vm1")
    assert any("spawn" in each["event"] for each in shown["events"])
    assert (server["status"], server["key_name"], server["properties"]) == ("ACTIVE", "mine", {"a": "b"})
    (address,) = server["addresses"]["net"]
    up.cloud.await_console(made["id"], "^GUEST-READY hostname=vm1")
    assert f"ip={address}/24" in up.openstack("console", "log", "show", "vm1")
    assert up.cloud.hosts["hull-e"].answers_ping(address)

    up.openstack("server", "stop", "vm1")
    up.cloud.wait(lambda: up.cloud.server(made["id"])["status"] == "SHUTOFF")
    up.openstack("server", "start", "vm1")
    up.cloud.wait(lambda: up.cloud.server(made["id"])["status"] == "ACTIVE")
    up.openstack("server", "reboot", "--hard", "--wait", "vm1")
    assert up.cloud.server(made["id"])["status"] == "ACTIVE"

    up.openstack("server", "delete", "--wait", "vm1")
    assert up.answer("server", "list") == []
    up.cloud.check()
    assert [path for path in up.cloud.files_about(made["id"]) if "/hosts/" in path] == []


def test_ctrl_c_in_a_build_drains_and_the_next_start_ends_it(up: Up) -> None:
    cloud = up.cloud
    flavor = cloud.flavor("for-ctrl-c")
    image = cloud.upload("large", os.urandom(192 * MIB), "raw")
    server_id = cloud.create("drained", image=image, flavor=flavor)
    cloud.wait(lambda: any(each["step"] == "fetch_image" for each in cloud.build(server_id)["step_progress"]), pause_seconds=0.02)
    up.interrupt()
    assert up.await_end() == 0
    assert "draining: steps under way end, the rest resumes at the next start" in cloud.log.read_text()
    with sqlite3.connect(f"file:{cloud.directory}/hullwright.db?mode=ro", uri=True) as database:
        states = database.execute("SELECT vm_state, task_state FROM instances WHERE uuid = ?", (server_id,)).fetchall()
    database.close()
    assert [state for state, _ in states] == ["building"], "the step under way ended and no other began"
    up.start()
    cloud.await_status(server_id, "ACTIVE")
    build = cloud.build(server_id)
    (attempt,) = build["attempts"]
    (fetch,) = (step for step in attempt["steps"] if step["name"] == "fetch_image")
    assert (build["state"], fetch["state"], fetch["resumed"]) == ("done", "SUCCESS", 0), "nothing was cut, nothing done twice"
    cloud.check()
    cloud.delete(server_id)
    cloud.check()


def test_a_locked_database_is_503_in_the_apis_form_and_builds_go_on_afterwards(up: Up, guest_image: GuestImage) -> None:
    cloud = up.cloud
    flavor, image = cloud.flavor("for-lock"), cloud.upload("for-lock", guest_image.qcow2)
    body = {"name": "locked", "flavorRef": flavor, "imageRef": image, "networks": "none"}
    under_way = cloud.create("under-way", image=image, flavor=flavor)
    lock = sqlite3.connect(cloud.directory / "hullwright.db", isolation_level=None, timeout=20)
    try:
        lock.execute("BEGIN EXCLUSIVE")
        began = time.monotonic()
        answer = cloud.ask("POST", "/servers", {"server": body})
        assert 0.9 < time.monotonic() - began < 10
        assert answer.status_code == 503
        (told,) = answer.json().values()
        assert told["code"] == 503
        assert re.search(r"database", told["message"], re.IGNORECASE)
        time.sleep(3)  # longer than the conductor's lease
    finally:
        lock.rollback()
        lock.close()
    cloud.await_status(under_way, "ACTIVE")
    assert "locked" not in [server["name"] for server in cloud.call("GET", "/servers")["servers"]], "what was refused was not written"
    after = cloud.call("POST", "/servers", {"server": body})["server"]["id"]
    cloud.await_status(after, "ACTIVE")
    cloud.check()
    cloud.delete(under_way, after)
    cloud.check()
