"""/os-aggregates: hosts that belong together, and the zones that they are in by it."""

from __future__ import annotations

from typing import Any

import pytest

from hullwright.objects.errors import HostZoneInUse
from hullwright.persistence import aggregates, hosts

from .conftest import Answer, Api, World, activate, create


def made(api: Api, name: str = "fast", zone: str | None = None, **more: Any) -> int:
    answer = api.post("/os-aggregates", {"aggregate": {"name": name, "availability_zone": zone}}, **more)
    assert answer.status == 200, answer.text
    return int(answer.json["aggregate"]["id"])


def act(api: Api, id: int, name: str, **arguments: Any) -> Answer:
    return api.post(f"/os-aggregates/{id}/action", {name: arguments})


def shown(api: Api, id: int) -> dict[str, Any]:
    found: dict[str, Any] = api.get(f"/os-aggregates/{id}").json["aggregate"]
    return found


def zone_of(api: Api, host: str = "host1") -> str:
    with api.db.read() as conn:
        return hosts.get(conn, host).availability_zone


def test_an_aggregate_is_made_shown_listed_renamed_and_deleted(api: Api, world: World) -> None:
    created = api.post("/os-aggregates", {"aggregate": {"name": "fast"}})
    assert created.status == 200
    answer = created.json["aggregate"]
    assert {"hosts", "metadata"}.isdisjoint(answer)
    assert (answer["name"], answer["availability_zone"], answer["deleted"], answer["updated_at"]) == ("fast", None, False, None)
    id = answer["id"]
    assert api.post("/os-aggregates", {"aggregate": {"name": "fast"}}).fault == ("conflictingRequest", "Aggregate fast already exists.")
    other = made(api, "slow")
    assert api.put(f"/os-aggregates/{other}", {"aggregate": {"name": "fast"}}).status == 409
    assert api.put(f"/os-aggregates/{id}", {"aggregate": {"name": "faster"}}).json["aggregate"]["name"] == "faster"
    assert [each["name"] for each in api.get("/os-aggregates").json["aggregates"]] == ["faster", "slow"]
    assert shown(api, id)["uuid"]
    assert "uuid" not in api.get(f"/os-aggregates/{id}", version="2.40").json["aggregate"]
    assert api.delete(f"/os-aggregates/{id}").status == 200
    assert api.get(f"/os-aggregates/{id}").fault == ("itemNotFound", f"Aggregate {id} could not be found.")


def test_hosts_come_and_go(api: Api, world: World) -> None:
    id = made(api)
    assert act(api, id, "add_host", host="host1").json["aggregate"]["hosts"] == ["host1"]
    assert act(api, id, "add_host", host="host1").fault == ("conflictingRequest", f"Aggregate {id} already has host host1.")
    assert act(api, id, "add_host", host="nowhere").fault == ("itemNotFound", "Compute host nowhere could not be found.")
    assert api.delete(f"/os-aggregates/{id}").fault[1].endswith("Reason: Host aggregate is not empty.")
    assert act(api, id, "remove_host", host="host1").json["aggregate"]["hosts"] == []
    assert act(api, id, "remove_host", host="host1").status == 404


def test_metadata_is_set_changed_and_removed(api: Api, world: World) -> None:
    id = made(api)
    act(api, id, "set_metadata", metadata={"ssd": "true", "rack": "7"})
    answer = act(api, id, "set_metadata", metadata={"ssd": None, "rack": "8"})
    assert answer.json["aggregate"]["metadata"] == {"rack": "8"}
    assert answer.json["aggregate"]["updated_at"] is not None
    assert act(api, id, "set_metadata", metadata={}).status == 400
    assert act(api, id, "set_metadata", metadata={"availability_zone": ""}).status == 400


def test_a_zone_moves_the_hosts_and_a_host_that_leaves_goes_home(api: Api, world: World) -> None:
    id = made(api, zone="west")
    assert shown(api, id)["metadata"] == {"availability_zone": "west"}
    act(api, id, "add_host", host="host1")
    assert zone_of(api) == "west"
    zones = api.get("/os-availability-zone").json["availabilityZoneInfo"]
    assert [zone["zoneName"] for zone in zones] == ["west"]
    act(api, id, "set_metadata", metadata={"availability_zone": "east"})
    assert (zone_of(api), shown(api, id)["availability_zone"]) == ("east", "east")
    api.put(f"/os-aggregates/{id}", {"aggregate": {"availability_zone": "north"}})
    assert zone_of(api) == "north"
    with api.db.write() as conn:
        aggregates.set_home_zone(conn, "host1", "home")
    assert zone_of(api) == "north"
    act(api, id, "remove_host", host="host1")
    assert zone_of(api) == "home"
    act(api, id, "add_host", host="host1")
    act(api, id, "set_metadata", metadata={"availability_zone": None})
    assert zone_of(api) == "home"


def test_no_host_is_in_two_zones(api: Api, world: World) -> None:
    west, east, plain = made(api, "a", "west"), made(api, "b", "east"), made(api, "c")
    act(api, west, "add_host", host="host1")
    refused = act(api, east, "add_host", host="host1")
    assert refused.status == 409
    assert "One or more hosts already in availability zone(s) west" in refused.fault[1]
    act(api, plain, "add_host", host="host1")
    assert act(api, plain, "set_metadata", metadata={"availability_zone": "east"}).status == 400
    assert api.put(f"/os-aggregates/{plain}", {"aggregate": {"availability_zone": "east"}}).status == 400
    assert act(api, plain, "set_metadata", metadata={"availability_zone": "west"}).status == 200
    act(api, west, "remove_host", host="host1")
    assert zone_of(api) == "west", "the other aggregate is the same zone"


def test_a_zone_does_not_move_away_under_instances(api: Api, world: World) -> None:
    id = made(api)
    act(api, id, "add_host", host="host1")
    activate(api, create(api, world))
    refused = act(api, id, "set_metadata", metadata={"availability_zone": "west"})
    assert refused.status == 400
    assert "One or more hosts contain instances in this zone" in refused.fault[1]
    assert (zone_of(api), shown(api, id)["availability_zone"]) == ("nova", None)
    west = made(api, "west", "west")
    assert act(api, west, "add_host", host="host1").status == 200, "an instance that asked for no zone is at home everywhere"


def test_a_host_with_an_instance_that_asked_for_its_zone_stays_in_it(api: Api, world: World) -> None:
    activate(api, create(api, world, availability_zone="nova"))
    west = made(api, "west", "west")
    assert "asked for another" in act(api, west, "add_host", host="host1").fault[1]
    nova = made(api, "nova", "nova")
    act(api, nova, "add_host", host="host1")
    assert act(api, nova, "remove_host", host="host1").status == 200, "its home is the same zone"
    with pytest.raises(HostZoneInUse, match="1 of its servers"), api.db.write() as conn:
        aggregates.set_home_zone(conn, "host1", "west")
    assert zone_of(api) == "nova"


@pytest.mark.parametrize(
    "body",
    [
        {"aggregate": {}},
        {"aggregate": {"name": ""}},
        {"aggregate": {"name": "a", "availability_zone": "a:b"}},
        {"aggregate": {"name": "a", "hosts": []}},
    ],
)
def test_a_body_that_is_wrong_is_refused(sqlite_api: Api, small_world: World, body: Any) -> None:
    assert sqlite_api.post("/os-aggregates", body).status == 400


def test_an_unknown_action_or_number_is_refused(sqlite_api: Api, small_world: World) -> None:
    id = made(sqlite_api)
    assert act(sqlite_api, id, "explode").fault[1] == "There is no such action: explode"
    assert sqlite_api.get("/os-aggregates/x1").status == 404
    assert sqlite_api.get(f"/os-aggregates/{10**30}").status == 404


def test_a_host_that_is_removed_leaves_its_aggregates(api: Api, world: World) -> None:
    id = made(api)
    act(api, id, "add_host", host="host1")
    with api.db.write() as conn:
        hosts.remove(conn, "host1")
    assert shown(api, id)["hosts"] == []
