"""/os-server-groups, and servers that join one."""

from __future__ import annotations

from typing import Any

import pytest

from hullwright.objects.server_groups import GroupPolicy, ServerGroup
from hullwright.persistence import server_groups

from .conftest import Api, World, server_body, set_columns

NOWHERE = "00000000-0000-0000-0000-000000000000"


def made(api: Api, policy: str = "anti-affinity", **more: Any) -> dict[str, Any]:
    answer = api.post("/os-server-groups", {"server_group": {"name": "g", "policy": policy} | more})
    assert answer.status == 200, answer.text
    group: dict[str, Any] = answer.json["server_group"]
    return group


def joined(api: Api, world: World, group: str, **fields: Any) -> str:
    answer = api.post("/servers", server_body(world, **fields) | {"os:scheduler_hints": {"group": group}})
    assert answer.status == 202, answer.text
    return str(answer.json["server"]["id"])


def test_a_group_is_made_shown_listed_and_deleted(api: Api, world: World) -> None:
    group = made(api, rules={"max_server_per_host": "3"})
    assert set(group) == {"id", "name", "policy", "rules", "members", "project_id", "user_id"}
    assert (group["policy"], group["rules"], group["members"]) == ("anti-affinity", {"max_server_per_host": 3}, [])
    assert api.get(f"/os-server-groups/{group['id']}").json["server_group"] == group
    assert api.get("/os-server-groups").json["server_groups"] == [group]
    assert api.get("/limits").json["limits"]["absolute"]["totalServerGroupsUsed"] == 1
    assert api.delete(f"/os-server-groups/{group['id']}").status == 204
    gone = ("itemNotFound", f"Instance group {group['id']} could not be found.")
    assert api.get(f"/os-server-groups/{group['id']}").fault == gone
    assert api.delete(f"/os-server-groups/{group['id']}").fault == gone


def test_each_version_has_its_own_form(api: Api, world: World) -> None:
    body = {"server_group": {"name": "g", "policies": ["affinity"]}}
    oldest = api.post("/os-server-groups", body, version="2.1").json["server_group"]
    assert set(oldest) == {"id", "name", "policies", "members", "metadata"}
    assert oldest["policies"] == ["affinity"]
    path = f"/os-server-groups/{oldest['id']}"
    assert "project_id" not in api.get(path, version="2.12").json["server_group"]
    assert "project_id" in api.get(path, version="2.13").json["server_group"]
    assert api.get(path, version="2.64").json["server_group"]["rules"] == {}
    soft = {"server_group": {"name": "g", "policies": ["soft-affinity"]}}
    assert api.post("/os-server-groups", soft, version="2.14").status == 400
    assert api.post("/os-server-groups", soft, version="2.15").json["server_group"]["policies"] == ["soft-affinity"]
    assert api.post("/os-server-groups", soft, version="2.64").status == 400


@pytest.mark.parametrize(
    "group",
    [
        {"name": "g"},
        {"name": "g", "policy": "near"},
        {"name": "g", "policy": "affinity", "rules": {"max_server_per_host": 2}},
        {"name": "g", "policy": "anti-affinity", "rules": {"max_server_per_host": 0}},
        {"name": "g", "policy": "anti-affinity", "rules": {"other": 1}},
        {"policy": "affinity"},
    ],
)
def test_a_group_that_makes_no_sense_is_refused(sqlite_api: Api, group: Any) -> None:
    assert sqlite_api.post("/os-server-groups", {"server_group": group}).status == 400


def test_servers_join_by_the_hint_and_both_sides_show_it(api: Api, world: World) -> None:
    group = made(api)["id"]
    first, second = joined(api, world, group), joined(api, world, group.upper())
    assert api.get(f"/os-server-groups/{group}").json["server_group"]["members"] == [first, second]
    assert api.get(f"/servers/{first}").json["server"]["server_groups"] == [group]
    assert "server_groups" not in api.get(f"/servers/{first}", version="2.70").json["server"]
    set_columns(api, first, deleted_at=1.0, vm_state="deleted")
    assert api.get(f"/os-server-groups/{group}").json["server_group"]["members"] == [second]
    api.delete(f"/os-server-groups/{group}")
    assert api.get(f"/servers/{second}").json["server"]["server_groups"] == []


def test_all_servers_of_a_batch_join(api: Api, world: World) -> None:
    group = made(api, "affinity")["id"]
    joined(api, world, group, min_count=3)
    assert len(api.get(f"/os-server-groups/{group}").json["server_group"]["members"]) == 3


def test_groups_of_other_projects_are_seen_by_administrators_only_who_ask(sqlite_api: Api, small_world: World) -> None:
    foreign = ServerGroup("11111111-1111-1111-1111-111111111111", "theirs", "other", "u", GroupPolicy.AFFINITY)
    with sqlite_api.db.write() as conn:
        server_groups.create(conn, foreign)
    mine = made(sqlite_api)["id"]
    assert [g["id"] for g in sqlite_api.get("/os-server-groups").json["server_groups"]] == [mine]
    everybodys = sqlite_api.get("/os-server-groups?all_projects=true").json["server_groups"]
    assert {g["id"] for g in everybodys} == {mine, foreign.uuid}
    assert len(sqlite_api.get("/os-server-groups?all_projects=1&limit=1&offset=1").json["server_groups"]) == 1
    body = server_body(small_world) | {"os:scheduler_hints": {"group": foreign.uuid}}
    assert sqlite_api.post("/servers", body).fault == ("badRequest", f"Instance group {foreign.uuid} could not be found.")
