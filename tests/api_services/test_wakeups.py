"""Whatever the API posts for conductors, one that sleeps hears of it at once."""

from __future__ import annotations

import contextlib
from typing import Any

import pytest
from falcon import testing

from hullwright.persistence import volumes
from hullwright.persistence.database import Database
from hullwright.persistence.wakeup import Wakeup


def make_network(api: testing.TestClient) -> str:
    return "/network/v2.0/networks/" + str(api.simulate_post("/network/v2.0/networks", json={"network": {}}).json["network"]["id"])


def make_volume(api: testing.TestClient, db: Database) -> str:
    volume_id = str(api.simulate_post("/volume/v3/volumes", json={"volume": {"size": 1}}).json["volume"]["id"])
    with db.write() as conn:
        volumes.update(conn, volume_id, status="available")
    return f"/volume/v3/volumes/{volume_id}"


@pytest.mark.parametrize("asked", ["create a volume", "delete a volume", "delete a network"])
def test_a_sleeping_conductor_is_woken(api: testing.TestClient, db: Database, conf: Any, asked: str) -> None:
    path = make_network(api) if "network" in asked else make_volume(api, db) if "delete" in asked else ""
    with contextlib.closing(Wakeup(db, conf.state_path)) as sleeper:
        sleeper.listen()
        while sleeper.wait(0.0):  # what is old
            pass
        result = api.simulate_delete(path) if path else api.simulate_post("/volume/v3/volumes", json={"volume": {"size": 1}})
        assert result.status_code in (202, 204)
        assert sleeper.wait(30.0)
