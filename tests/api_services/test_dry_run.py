"""The dry run of a create request: the same checks as the real one, an answer of a conductor, nothing left behind."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest
import sqlalchemy as sa
from falcon import testing

from hullwright.conductor import queries
from hullwright.conductor.client import EXPLAIN
from hullwright.drivers.registry import Drivers
from hullwright.flows.context import Shared
from hullwright.objects.flavors import Flavor
from hullwright.objects.hosts import HostFacts, Inventory
from hullwright.objects.images import Image
from hullwright.objects.states import JobState
from hullwright.persistence import conductors, flavors, hosts, images, leases
from hullwright.persistence.database import Database, now
from hullwright.persistence.images import SqlImageStore
from hullwright.persistence.models import metadata
from hullwright.persistence.ports import SqlPortStore
from hullwright.persistence.volumes import SqlVolumeStore
from hullwright.scheduler.select import Scheduler

PATH = "/v1/placement:explain"
IMAGE = "11111111-1111-1111-1111-111111111111"
FACTS = HostFacts("h", "QEMU", 7002022, vcpus=8, memory_mb=8192, disk_gb=100, disk_free_gb=100)
SERVER = {"name": "vm", "flavorRef": "1", "imageRef": IMAGE, "networks": "none"}
HEADERS = {"OpenStack-API-Version": "compute 2.96"}


@pytest.fixture
def world(sqlite_db: Database, conf: Any) -> Iterator[Database]:
    """Two hosts, a flavor, an image, and somebody who answers questions as a conductor does."""
    db = sqlite_db
    with db.write() as conn:
        for name, memory_mb in (("host-large", 8192), ("host-small", 256)):
            hosts.register(conn, name, f"fake:///{name}", "fake")
            hosts.record_facts(conn, name, FACTS, [Inventory("VCPU", 8), Inventory("MEMORY_MB", memory_mb), Inventory("DISK_GB", 100)])
        flavors.create(conn, Flavor("1", "small", 1, 512, 1))
        flavors.create(conn, Flavor("2", "huge", 1, 65536, 1))
        images.create(conn, Image(IMAGE, "img", status="active", visibility="public", disk_format="qcow2", size_bytes=1, created_at=now()))
        conductors.enlist(conn, id="c", hostname="h", pid=1, version="1", lease_seconds=60.0)
    drivers = Drivers(conf, ports=SqlPortStore(db), volumes=SqlVolumeStore(db), images=SqlImageStore(db))
    shared = Shared(db, drivers, Scheduler(db, conf), conf)
    stop = threading.Event()

    def answer() -> None:
        while not stop.is_set():
            with db.write() as conn:
                leased = leases.take(conn, "c", 5)
            for job in leased:
                assert job.kind == EXPLAIN
                result = queries.QUERIES[job.kind](shared, job.inputs)
                with db.write() as conn:
                    leases.end(conn, job, JobState.DONE, result=result)
            time.sleep(0.01)

    thread = threading.Thread(target=answer)
    thread.start()
    yield db
    stop.set()
    thread.join()
    drivers.close()


@pytest.fixture
def db(sqlite_db: Database) -> Database:
    """One kind of database is enough here."""
    return sqlite_db


def explain(api: testing.TestClient, body: Any, query: str = "", **headers: str) -> Any:
    return api.simulate_post(PATH + query, json=body, headers=HEADERS | headers)


def content(db: Database) -> dict[str, Any]:
    """Every row of every table."""
    with db.read() as conn:
        return {name: sorted(map(repr, conn.execute(sa.select(table)))) for name, table in metadata.tables.items()}


def test_a_dry_run_tells_the_host_the_weights_and_the_rejected_and_leaves_nothing(world: Database, api: testing.TestClient) -> None:
    before = content(world)
    found = explain(api, {"server": SERVER})
    assert found.status_code == 200
    placement = found.json["placement"]
    assert (placement["chosen"], placement["considered"], placement["fit"], placement["advice"]) == ("host-large", 2, 1, [])
    assert placement["summary"] == "1 of 2 hosts fit: 1 lack 512 MB memory."
    assert placement["candidates"] == [{"host": "host-large", "weight": 0.0, "parts": {}}]
    (rejection,) = placement["rejections"]
    assert rejection["details"] == ["host-small: 512 MB memory asked, 256 free of 256 (256 x 1)"]
    assert "hosts" not in placement
    assert content(world) == before


def test_a_request_that_no_host_can_hold_gets_advice(world: Database, api: testing.TestClient) -> None:
    placement = explain(api, {"server": SERVER | {"flavorRef": "2"}}).json["placement"]
    assert (placement["chosen"], placement["fit"]) == (None, 0)
    assert placement["advice"] == ["The largest of these hosts has 8192 MB memory: ask for less, or have a larger one added."]


def test_it_is_checked_as_the_real_request_is(world: Database, api: testing.TestClient) -> None:
    wrong = explain(api, {"server": SERVER | {"colour": "blue"}})
    assert (wrong.status_code, wrong.json["error"]["type"]) == (400, "BadRequest")
    assert "colour" in wrong.json["error"]["message"]
    assert explain(api, {"server": SERVER | {"flavorRef": "nothing"}}).status_code == 400
    assert explain(api, {"server": SERVER | {"min_count": 3, "max_count": 2}}).status_code == 400
    assert explain(api, {"server_id": "x", "server": SERVER}).status_code == 400
    assert explain(api, {"server_id": "22222222-2222-2222-2222-222222222222"}).status_code == 404
    assert explain(api, []).status_code == 400


def test_every_host_is_told_to_administrators_in_pages(world: Database, api: testing.TestClient) -> None:
    first = explain(api, {"server": SERVER}, "?detail=full&limit=1").json["placement"]
    assert first["hosts"] == [{"host": "host-large", "fits": True, "weight": 0.0, "check": "", "reason": "", "detail": ""}]
    assert first["next_marker"] == "host-large"
    last = explain(api, {"server": SERVER}, "?detail=full&limit=1&marker=host-large").json["placement"]
    assert (last["hosts"][0]["check"], last["hosts"][0]["reason"]) == ("capacity", "lack 512 MB memory")
    assert last["next_marker"] is None
    assert explain(api, {"server": SERVER}, "?detail=some").status_code == 400


def test_a_server_that_exists_is_explained_as_of_now(world: Database, api: testing.TestClient, make_instance: Any) -> None:
    placement = explain(api, {"server_id": make_instance()}).json["placement"]
    assert placement["chosen"] == "host-large"


def test_others_learn_counts_and_no_names(world: Database, member_api: testing.TestClient) -> None:
    found = explain(member_api, {"server": SERVER})
    assert found.status_code == 200
    assert "host-" not in found.text
    placement = found.json["placement"]
    assert (placement["chosen"], placement["candidates"], placement["fit"]) == (None, [], 1)
    assert placement["summary"] == "1 of 2 hosts fit: 1 lack 512 MB memory."
    assert explain(member_api, {"server": SERVER}, "?detail=full").status_code == 403


def test_without_a_conductor_it_says_so_and_leaves_nothing(db: Database, api: testing.TestClient, conf: Any) -> None:
    conf.set_override("query_timeout_seconds", 0.1, group="api")
    with db.write() as conn:
        flavors.create(conn, Flavor("1", "small", 1, 512, 1))
        images.create(conn, Image(IMAGE, "img", status="active", visibility="public", disk_format="qcow2", size_bytes=1, created_at=now()))
    before = content(db)
    found = explain(api, {"server": SERVER})
    assert (found.status_code, found.json["error"]["type"]) == (503, "QueryTimedOut")
    assert content(db) == before
