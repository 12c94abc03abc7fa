"""The database goes away in the middle of builds: stopped and started again, locked, its connections cut, the answer to a commit lost.

Builds pause and go on: nothing fails and nothing is undone because of it, nothing is done twice. Meanwhile the API says 503.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import falcon.testing
import psycopg
import pytest
import sqlalchemy as sa

from crash.scenarios import _IMAGE, _NETWORK, _world
from hullwright.api.app import create_app
from hullwright.conductor.client import ConductorClient
from hullwright.objects.states import VmState
from hullwright.persistence import jobs
from hullwright.persistence.database import Database
from hullwright.persistence.models import metadata
from hullwright.persistence.models.jobs import step_events
from hullwright.persistence.wakeup import Wakeup
from support import invariants, outages
from support.house import House
from support.postgres import PostgresServer

OUTAGE_SECONDS = float(os.environ.get("HULLWRIGHT_DURABILITY_OUTAGE") or 30)
BUILDS = 30
_OPTIONS: dict[str, dict[str, Any]] = {
    "conductor": {"lease_seconds": 3.0, "poll_interval": 0.1, "max_leases": 1000},
    "compute": {"report_interval": 3600.0},
    "database": {"busy_timeout_seconds": 1.0},
}


@contextlib.contextmanager
def _house(directory: Path, url: str) -> Iterator[House]:
    options = {group: dict(values) for group, values in _OPTIONS.items()}
    options["database"]["connection"] = url
    made = House(directory, url, **options)
    try:
        _world(made, "h1", "h2")
        for host in ("h1", "h2"):
            made.faults(host, {"operation": ["spawn", "plug", "connect"], "delay": [0.05, 0.3]})
        yield made
    finally:
        made.close()


def _create(house: House, count: int = BUILDS) -> list[str]:
    """Builds with all that there is to do, so that the database is away in every kind of step."""
    made = []
    for _ in range(count):
        volume = house.request_volume(source_type="blank", size_gb=1, delete_on_termination=True)
        made += house.create(image_id=_IMAGE, networks=(house.request_port(_NETWORK),), block_devices=(volume,))
    return made


def _active(house: House, uuids: list[str]) -> int:
    return house.states(uuids).get(VmState.ACTIVE, 0)


def _check(house: House, uuids: list[str]) -> None:
    """All are built, nothing failed on the way, nothing was undone."""
    assert house.states(uuids) == {VmState.ACTIVE: len(uuids)}
    bad = ("FAILURE", "REVERTING", "REVERTED", "REVERT_FAILURE")
    with house.db.read() as connection:
        told = connection.execute(sa.select(step_events.c.step, step_events.c.to_state).where(step_events.c.to_state.in_(bad))).all()
    assert told == [], "undone because the database was away"
    invariants.check(house)


class Api:
    """The application in this process, with a database door of its own that soon gives up."""

    def __init__(self, house: House) -> None:
        self.db = Database(house.db.url, busy_timeout_seconds=0.3)
        self._wakeup = Wakeup(self.db, house.directory)
        self._client = falcon.testing.TestClient(create_app(self.db, house.conf, ConductorClient(self.db, house.conf, self._wakeup)))

    def ask(self, method: str, path: str, json: Any = None) -> tuple[int, Any]:
        """Status and body."""
        more = {} if json is None else {"json": json}
        answer = self._client.simulate_request(method, f"/v2.1{path}", headers={"OpenStack-API-Version": "compute 2.100"}, **more)
        return answer.status_code, answer.json if answer.content else None

    def create(self) -> tuple[int, Any]:
        """POST /servers."""
        server = {"name": "vm", "flavorRef": "1", "imageRef": _IMAGE, "networks": [{"uuid": _NETWORK}]}
        return self.ask("POST", "/servers", {"server": server})

    def close(self) -> None:
        """Close the doors."""
        self._wakeup.close()
        self.db.close()


def _live_through(directory: Path, url: str, away: Callable[[], AbstractContextManager[None]], *, can_read: bool) -> None:
    """Builds of two conductors and requests to the API, while the database is away for half a minute."""
    with _house(directory, url) as house:
        api = Api(house)
        assert api.ask("GET", "/servers/detail")[0] == 200
        uuids = _create(house)
        conductors = [house.start_conductor() for _ in range(2)]
        house.wait(lambda: _active(house, uuids) >= 3, 60)
        with away():
            until = time.monotonic() + OUTAGE_SECONDS
            status, body = api.create()
            assert (status, list(body)) == (503, ["serviceUnavailable"])
            assert api.ask("GET", "/servers")[0] == (200 if can_read else 503)
            time.sleep(max(0.0, until - time.monotonic()))
        time.sleep(1.2)  # its connections have been idle
        assert api.ask("GET", "/servers")[0] == 200, "the first request after the outage is answered"
        house.rest(90)
        assert all(process.poll() is None for process in conductors)
        assert api.create()[0] == 202
        house.rest(30)
        _check(house, uuids)
        api.close()


def _while_stopped(directory: Path) -> None:
    server = PostgresServer(synchronous_commit="on")  # what was committed is there again
    server.start()
    try:
        url = server.create_database()
        database = Database(url)
        metadata.create_all(database.engine)
        database.close()
        _live_through(directory, url, lambda: outages.stopped(server), can_read=False)
    finally:
        server.stop()


@pytest.mark.postgresql
@pytest.mark.slow
def test_builds_wait_for_a_database_that_is_gone_for_half_a_minute_and_the_api_says_so(
    tmp_path: Path, sqlite_url: str, postgres_tables_url: str, postgres_server: PostgresServer
) -> None:
    """SQLite locked, PostgreSQL cutting everybody off, PostgreSQL stopped and started: at the same time, because all of it is waiting."""
    for name in ("locked", "terminated", "stopped"):
        (tmp_path / name).mkdir()
    with ThreadPoolExecutor(3) as pool:
        stories = (
            pool.submit(_live_through, tmp_path / "locked", sqlite_url, lambda: outages.locked(sqlite_url), can_read=True),
            pool.submit(
                _live_through,
                tmp_path / "terminated",
                postgres_tables_url,
                lambda: outages.terminated(postgres_server, postgres_tables_url),
                can_read=False,
            ),
            pool.submit(_while_stopped, tmp_path / "stopped"),
        )
    assert [story.exception() for story in stories] == [None, None, None]


@pytest.mark.postgresql
@pytest.mark.slow
def test_builds_go_on_while_their_connections_are_terminated_again_and_again(tmp_path: Path, postgres_tables_url: str) -> None:
    with _house(tmp_path, postgres_tables_url) as house:
        uuids = _create(house)
        for _ in range(2):
            house.start_conductor()
        plain = postgres_tables_url.replace("postgresql+psycopg", "postgresql")
        others = "datname = current_database() AND pid <> pg_backend_pid()"
        kill = f"SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE {others}"
        killed, deadline = 0, time.monotonic() + 60
        with psycopg.connect(plain, autocommit=True) as killer:
            open_jobs = sa.select(sa.func.count()).select_from(jobs.jobs).where(jobs.jobs.c.state.in_(("queued", "running")))
            count = str(open_jobs.compile(compile_kwargs={"literal_binds": True}))
            while time.monotonic() < deadline and killer.execute(count).fetchone() != (0,):
                killed += killer.execute(kill).fetchone()[0]  # type: ignore[index]
                time.sleep(0.7)
        assert killed > 20
        time.sleep(1.2)
        house.rest(60)
        _check(house, uuids)


@pytest.mark.slow
def test_whatever_answer_of_the_database_is_lost_builds_go_on(tmp_path: Path, db_url: str) -> None:
    """Commits that took place and seem not to have, of leases, doors, stores, heartbeats and of the last word alike."""
    with _house(tmp_path, db_url) as house:
        uuids = _create(house)
        process = house.start_conductor("from durability.child import lose_answers; lose_answers(1, 0.04)")
        house.rest(90)
        _check(house, uuids)
        assert house.logs().count("the connection was cut") > 20
        assert process.poll() is None


def test_jobs_whose_lease_was_committed_without_an_answer_are_taken_up_by_the_same_conductor(tmp_path: Path, db_url: str) -> None:
    with _house(tmp_path, db_url) as house:
        uuids = _create(house, 3)
        process = house.start_conductor("from durability.child import lose_answer_to_lease; lose_answer_to_lease()")
        house.rest(60)
        _check(house, uuids)
        with house.db.read() as connection:
            fences = [job.fence for job in jobs.list_jobs(connection, kinds=["build_instance"])]
        assert fences == [2, 2, 2], "each was leased twice"
        assert process.poll() is None
