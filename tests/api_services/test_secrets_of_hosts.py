"""What hosts are called, and what they say, is for administrators: faults as a real conductor writes them, read through HTTP by both."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from falcon import testing

from hullwright.api.app import create_app
from hullwright.objects import errors
from hullwright.objects.errors import HullwrightError
from hullwright.objects.states import VmState
from support.house import House

HOSTS = ("compute17", "compute18")
SECRETS = (*HOSTS, "/var/lib/pool")  # the path stands for whatever a hypervisor says
ROLES = {"X-Identity-Status": "Confirmed", "X-Project-Id": "p", "X-User-Id": "u"}
# What another host may not have is about a host.
KINDS = [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, HullwrightError)]
ABOUT_HOSTS = sorted(kind.__name__ for kind in KINDS if issubclass(kind, errors.Reschedulable) and kind is not errors.Reschedulable)


@pytest.fixture
def house(tmp_path: Path) -> Iterator[House]:
    """A house with two hosts."""
    made = House(tmp_path, api={"auth_strategy": "keystone"})
    for name in HOSTS:
        made.add_host(name)
    yield made
    made.close()


def _ask(house: House, roles: str) -> testing.TestClient:
    return testing.TestClient(create_app(house.db, house.conf, house.client), headers=ROLES | {"X-Roles": roles})


def _break(house: House, operation: str, error: str) -> None:
    for name in HOSTS:
        house.faults(name, {"operation": operation, "error": error, "reason": f"{name}: no such file /var/lib/pool"})


def _fail(house: House, error: str, **fields: Any) -> str:
    _break(house, "spawn", error)
    with house.conductor():
        (uuid,) = house.create(**fields)
        house.rest()
    assert house.get(uuid).vm_state == VmState.ERROR
    return uuid


def _texts(client: testing.TestClient, server: str) -> str:
    """All that is told of a failed server, wherever."""
    paths = [f"/v2.1/servers/{server}", f"/v2.1/servers/{server}/os-instance-actions"]
    paths += [f"/v1/builds/{server}", f"/v1/builds/{server}/events"]
    newest = {"OpenStack-API-Version": "compute 2.100"}
    answers = [client.simulate_get(path, headers=newest) for path in paths]
    action = answers[1].json["instanceActions"][0]["request_id"]
    answers.append(client.simulate_get(f"{paths[1]}/{action}", headers=newest))
    assert [answer.status_code for answer in answers] == [200] * len(answers)
    return "\n".join(answer.text for answer in answers)


@pytest.mark.parametrize("error", ABOUT_HOSTS)
@pytest.mark.parametrize("max_attempts", [1, 3], ids=["one attempt", "until no host is left"])
def test_a_failed_build_names_its_hosts_to_administrators_only(house: House, error: str, max_attempts: int) -> None:
    server = _fail(house, error, max_attempts=max_attempts)
    told_member, told_admin = _texts(_ask(house, "member"), server), _texts(_ask(house, "admin"), server)
    assert [secret for secret in SECRETS if secret in told_member] == []
    explanation = getattr(errors, error).explanation()
    fault = _ask(house, "member").simulate_get(f"/v2.1/servers/{server}").json["server"]["fault"]
    assert error in fault["message"]
    assert explanation.rstrip(".") in fault["message"], "in its place stands what the error means"
    details = _ask(house, "admin").simulate_get(f"/v2.1/servers/{server}").json["server"]["fault"]["details"]
    where = HOSTS if max_attempts > 1 else HOSTS[:1]
    assert all(f"on host {name} failed at spawn" in details for name in where)
    assert all(name in told_admin for name in where)


def test_an_error_of_a_build_that_is_for_users_tells_them_what_to_mend(house: House) -> None:
    server = _fail(house, "ImageUnacceptable")
    build = _ask(house, "member").simulate_get(f"/v1/builds/{server}").json["build"]
    assert build["fault"]["message"].startswith("ImageUnacceptable: Image ")
    assert build["error"] == build["fault"]["message"]
    assert build["attempts"][0]["reason"].startswith("Image ")


def test_a_host_that_was_tried_is_counted_for_users_and_named_for_administrators(house: House) -> None:
    server = _fail(house, "HypervisorError")
    seen = {}
    for role in ("member", "admin"):
        build = _ask(house, role).simulate_get(f"/v1/builds/{server}").json["build"]
        seen[role] = build["attempts"][-1]["placement"]
    assert seen["member"]["summary"] == seen["admin"]["summary"] == "0 of 2 hosts fit: 2 already tried."
    assert seen["member"]["rejections"] == [{"check": "retry", "reason": "already tried", "count": 2, "hosts": []}]
    (told,) = seen["admin"]["rejections"]
    assert told["hosts"] == list(HOSTS)
    assert all(text.startswith(f"{name}: ") and "/var/lib/pool" in text for name, text in zip(HOSTS, told["details"], strict=True))


@pytest.mark.parametrize("error", ["HypervisorError", "HypervisorUnavailable", "KeyError"])
def test_a_console_log_and_a_reboot_that_fail_name_their_host_to_administrators_only(house: House, error: str) -> None:
    with house.conductor():
        (server,) = house.create(force_host=HOSTS[0])
        house.rest()
        _break(house, "console_log", error)
        asked = {
            role: _ask(house, role).simulate_post(f"/v2.1/servers/{server}/action", json={"os-getConsoleOutput": {}})
            for role in ("member", "admin")
        }
        assert [answer.status_code for answer in asked.values()] == [503, 503]
        assert [secret for secret in SECRETS if secret in asked["member"].text] == []
        assert "/var/lib/pool" in asked["admin"].text
        _break(house, "reboot", error)
        for role in ("member", "admin"):
            _ask(house, role).simulate_post(f"/v2.1/servers/{server}/action", json={"reboot": {"type": "HARD"}})
            house.rest()
    with house.db.write() as connection:
        connection.exec_driver_sql("UPDATE instances SET vm_state = 'error'")  # only then a fault is shown
    shown = {role: _ask(house, role).simulate_get(f"/v2.1/servers/{server}").json["server"]["fault"] for role in ("member", "admin")}
    assert [secret for secret in SECRETS if secret in str(shown["member"])] == []
    assert "/var/lib/pool" in shown["admin"]["details"]


def test_no_error_that_names_a_host_is_for_users_but_those_that_answer_an_administrators_own_request() -> None:
    told = {kind.__name__ for kind in KINDS if kind.is_for_users and "{host}" in kind.message}
    assert told == {"AggregateHostExists", "AggregateHostNotFound", "HostZoneInUse"}
    assert all(kind.explanation().endswith((".", "!")) for kind in KINDS)
    assert errors.text_for_users("KeyError", "compute17") == "Something unexpected went wrong."
