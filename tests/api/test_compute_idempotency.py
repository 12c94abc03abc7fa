"""POST /servers with an Idempotency-Key: sent twice it makes nothing twice, whatever happened to the first."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import sqlalchemy as sa

from hullwright.conductor.client import ConductorClient
from hullwright.objects.errors import Unavailable
from hullwright.persistence.models.idempotency_keys import idempotency_keys
from hullwright.persistence.models.instances import instance_actions, instances
from hullwright.persistence.models.jobs import jobs

from .conftest import Answer, Api, World, server_body


def post(api: Api, body: Any, key: str | None = "k1", **more: Any) -> Answer:
    """A create request."""
    return api.post("/servers", body, headers={} if key is None else {"Idempotency-Key": key}, **more)


def count(api: Api) -> tuple[int, int, int]:
    """Instances, jobs, actions."""
    with api.db.read() as conn:
        found = [conn.scalar(sa.select(sa.func.count()).select_from(table)) for table in (instances, jobs, instance_actions)]
    return tuple(map(int, found))  # type: ignore[return-value]


def keys(api: Api) -> list[Any]:
    """All rows of keys."""
    with api.db.read() as conn:
        return [dict(row) for row in conn.execute(sa.select(idempotency_keys)).mappings()]


def age(api: Api, hours: float) -> None:
    """Make all keys older."""
    with api.db.write() as conn:
        conn.execute(sa.update(idempotency_keys).values(created_at=idempotency_keys.c.created_at - hours * 3600))


def test_the_same_request_again_answers_the_same_server(api: Api, world: World) -> None:
    first, second = post(api, server_body(world)), post(api, server_body(world))
    assert (first.status, second.status) == (202, 202)
    assert second.json == first.json
    assert second.headers["location"] == first.headers["location"]
    assert "idempotent-replayed" not in first.headers
    assert second.headers["idempotent-replayed"] == "true"
    assert count(api) == (1, 1, 1)


def test_the_order_of_the_names_in_a_body_makes_no_other_request(api: Api, world: World) -> None:
    body = server_body(world)
    first = post(api, body)
    turned = {"server": dict(reversed(body["server"].items()))}
    assert post(api, turned).json == first.json


def test_the_same_key_with_another_body_is_refused_as_a_conflict(api: Api, world: World) -> None:
    post(api, server_body(world))
    answer = post(api, server_body(world, name="other"))
    assert answer.status == 409
    assert answer.fault[0] == "conflictingRequest"
    assert count(api) == (1, 1, 1)


def test_another_key_and_no_key_make_another_server(api: Api, world: World) -> None:
    ids = [post(api, server_body(world), key).json["server"]["id"] for key in ("k1", "k2", None, None)]
    assert len(set(ids)) == 4


def test_keys_belong_to_their_project(api: Api, world: World) -> None:
    first = post(api, server_body(world))
    api.conf.set_override("project_id", "other", "api")
    other = Api(api.db, api.conf, api.conductor)
    second = post(other, server_body(world))
    assert second.status == 202
    assert second.json["server"]["id"] != first.json["server"]["id"]


def test_many_servers_at_once_are_made_once(api: Api, world: World) -> None:
    body = server_body(world, min_count=3, return_reservation_id=True)
    first, second = post(api, body), post(api, body)
    assert second.json == first.json
    assert set(first.json) == {"reservation_id"}
    assert second.headers["location"] == first.headers["location"]
    assert count(api) == (3, 3, 3)
    assert len(keys(api)[0]["server_ids"]) == 3


def test_a_refused_request_may_be_mended_and_sent_with_the_same_key(api: Api, world: World) -> None:
    assert post(api, server_body(world, flavorRef="nothing")).status == 400
    assert post(api, {"server": {"name": 5}}).status == 400
    assert keys(api) == []
    assert post(api, server_body(world)).status == 202


def test_an_answer_stays_when_what_it_named_is_gone(api: Api, world: World) -> None:
    first = post(api, server_body(world))
    assert api.delete("/flavors/1").status == 202
    assert post(api, server_body(world)).json == first.json
    assert api.delete(f"/servers/{first.json['server']['id']}").status == 204
    assert post(api, server_body(world)).json == first.json


def test_a_password_is_told_once_and_is_no_part_of_the_fingerprint(sqlite_api: Api, small_world: World) -> None:
    sqlite_api.conf.set_override("enable_instance_password", True, "api")
    first = post(sqlite_api, server_body(small_world, adminPass="correct horse"))
    assert first.json["server"].pop("adminPass") == "correct horse"
    second = post(sqlite_api, server_body(small_world, adminPass="another"))
    assert second.json == first.json


def test_the_row_of_a_key_holds_nothing_of_the_request(sqlite_api: Api, small_world: World) -> None:
    answer = post(sqlite_api, server_body(small_world, user_data="U0VDUkVU", metadata={"a": "zebra"}))
    (row,) = keys(sqlite_api)
    assert row["server_ids"] == [answer.json["server"]["id"]]
    assert len(row["fingerprint"]) == 64
    assert "U0VDUkVU" not in str(row)
    assert "zebra" not in str(row)


@pytest.mark.parametrize("key", ["", "x" * 256, "a\x7fb", "schl\u00fcssel"])
def test_a_key_that_is_none_is_refused(sqlite_api: Api, small_world: World, key: str) -> None:
    assert post(sqlite_api, server_body(small_world), key).status == 400
    assert count(sqlite_api) == (0, 0, 0)


def test_a_key_of_255_characters_is_kept_whole(api: Api, world: World) -> None:
    key = "~ " * 127 + "!"
    assert post(api, server_body(world), key).json == post(api, server_body(world), key).json
    assert keys(api)[0]["key"] == key


def test_twins_at_the_same_moment_make_one_server(api: Api, world: World) -> None:
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda _: post(api, server_body(world)), range(8)))
    assert [answer.status for answer in answers] == [202] * 8
    assert len({answer.json["server"]["id"] for answer in answers}) == 1
    assert sum("idempotent-replayed" not in answer.headers for answer in answers) == 1
    assert count(api) == (1, 1, 1)


def test_of_two_bodies_with_one_key_at_the_same_moment_one_is_refused(api: Api, world: World) -> None:
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda number: post(api, server_body(world, name=f"vm{number % 2}")), range(8)))
    assert {answer.status for answer in answers} == {202, 409}
    assert len({answer.json["server"]["id"] for answer in answers if answer.status == 202}) == 1
    assert count(api) == (1, 1, 1)


def test_a_request_that_failed_inside_may_be_sent_again(api: Api, world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Before the commit nothing is kept; after it the answer is what was made."""
    create = ConductorClient.create_servers
    monkeypatch.setattr("hullwright.persistence.jobs.post_rows", _raise)
    assert post(api, server_body(world)).status == 503
    assert (keys(api), count(api)) == ([], (0, 0, 0))
    monkeypatch.undo()

    def create_and_fail(self: ConductorClient, *arguments: Any) -> Any:
        create(self, *arguments)
        _raise()

    monkeypatch.setattr(ConductorClient, "create_servers", create_and_fail)
    assert post(api, server_body(world)).status == 202
    monkeypatch.undo()
    assert post(api, server_body(world)).status == 202
    assert count(api) == (1, 1, 1)


def _raise(*_: Any) -> None:
    raise Unavailable(reason="gone for a while")


def test_a_key_is_kept_for_its_hours_and_then_counts_for_nothing(api: Api, world: World) -> None:
    first = post(api, server_body(world))
    age(api, 47.9)
    assert post(api, server_body(world)).json == first.json
    age(api, 0.2)
    second = post(api, server_body(world, name="other"))
    assert second.status == 202
    assert second.json["server"]["id"] != first.json["server"]["id"]
    assert len(keys(api)) == 1


def test_old_keys_do_not_pile_up(api: Api, world: World) -> None:
    for number in range(5):
        post(api, server_body(world), f"old{number}")
    age(api, 49)
    post(api, server_body(world), "new")
    assert [row["key"] for row in keys(api)] == ["new"]


def test_keys_that_are_used_again_after_their_time_by_many_at_once_make_one_each(api: Api, world: World) -> None:
    for number in range(6):
        post(api, server_body(world), f"k{number}")
    age(api, 49)
    with ThreadPoolExecutor(12) as pool:
        answers = list(pool.map(lambda number: post(api, server_body(world), f"k{number % 6}"), range(24)))
    assert [answer.status for answer in answers] == [202] * 24
    assert len({answer.json["server"]["id"] for answer in answers}) == 6
    assert count(api) == (12, 12, 12)
