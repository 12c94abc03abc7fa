"""Any story, made up by hypothesis: servers created, switched off and on and deleted, hosts that fail, fall silent, are disabled and
healed, conductors that are killed or stall for longer than their lease, a database that is away for a while.

After each step what must always be true is checked; at each rest all of `support.invariants`. Conductors are processes, their death is
a real SIGKILL. Which stories follows from a number, another one each day, that is printed when one fails; HULLWRIGHT_DURABILITY_SEED
repeats it, and HULLWRIGHT_DURABILITY_ROUNDS asks for so many times more stories.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import tempfile
import time
import uuid
from pathlib import Path
from typing import Any, ClassVar

import pytest
import sqlalchemy as sa
from hypothesis import HealthCheck, Phase, seed, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule, run_state_machine_as_test

from crash.cases import room
from crash.databases import Databases, InDirectory, OnServer
from crash.scenarios import _IMAGE, _NETWORK, _world
from hullwright.drivers import fake_journal
from hullwright.objects.errors import InstanceNotFound, UnexpectedTaskStateError
from hullwright.persistence import hosts
from hullwright.persistence.database import DatabaseUnavailable
from hullwright.persistence.models.hosts import allocations, inventories
from hullwright.persistence.models.jobs import jobs, step_events
from support import invariants
from support.house import ASKER, ChildProcess, House
from support.postgres import PostgresServer

SEED = int(os.environ.get("HULLWRIGHT_DURABILITY_SEED") or time.strftime("%Y%m%d"))
ROUNDS = int(os.environ.get("HULLWRIGHT_DURABILITY_ROUNDS") or 1)
STORIES, ON_POSTGRESQL, STEPS = 8, 3, 15
LEASE_SECONDS, PATIENCE_SECONDS = 3.0, 2.0
HOSTS = ("h1", "h2", "h3")
_OPTIONS: dict[str, dict[str, Any]] = {
    "conductor": {"lease_seconds": LEASE_SECONDS, "poll_interval": 0.05, "retry_interval": 0.1, "max_leases": 1000},
    "database": {"busy_timeout_seconds": PATIENCE_SECONDS},
    "compute": {"report_interval": 3600.0},
}
_QUICK = "from hullwright.flows import leftovers; leftovers.FIRST_TRY_SECONDS = 0.1"
_DELAY = {"operation": "*", "delay": [0.0, 0.02]}
_SILENT = {"operation": "*", "error": "HypervisorUnavailable", "reason": "silent"}
_any_host = st.sampled_from(HOSTS)


class Story(RuleBasedStateMachine):
    """A house to which things happen."""

    databases: ClassVar[Databases] = InDirectory()

    def __init__(self) -> None:
        super().__init__()
        self.told: list[str] = []
        self.uuids: list[str] = []
        self.silenced: set[str] = set()  # ever
        self.faults: dict[str, list[dict[str, Any]]] = {name: [_DELAY] for name in HOSTS}
        self.directory = Path(tempfile.mkdtemp(prefix="story-", dir=room()))
        url = self.databases.furnish(f"story_{uuid.uuid4().hex[:12]}")
        self.house = House(self.directory, url, **{group: dict(values) for group, values in _OPTIONS.items()})
        self.conductor: ChildProcess | None = None

    def _tell(self, *words: object) -> None:
        self.told.append(" ".join(str(word) for word in words))

    def _break(self, host: str, *rules: dict[str, Any]) -> None:
        self.faults[host] = [*rules, _DELAY]
        self.house.faults(host, *self.faults[host])

    @initialize()
    def furnish(self) -> None:
        """Three hosts that are not too quick, and a conductor."""
        _world(self.house, *HOSTS)
        for name in HOSTS:
            self._break(name)
        self.conductor = self.house.start_conductor(_QUICK)

    @rule(count=st.integers(1, 3))
    def create(self, count: int) -> None:
        """One to three servers, each with a port and a volume."""
        for _ in range(count):
            volume = self.house.request_volume(source_type="blank", size_gb=1, delete_on_termination=True)
            network = self.house.request_port(_NETWORK)
            self.uuids += self.house.create(image_id=_IMAGE, networks=(network,), block_devices=(volume,))
        self._tell("create", count)

    @precondition(lambda self: self.uuids)
    @rule(data=st.data(), pause=st.floats(0, 0.2))
    def delete(self, data: st.DataObject, pause: float) -> None:
        """One of the servers, in whatever state it is."""
        number = data.draw(st.integers(0, len(self.uuids) - 1))
        time.sleep(pause)
        self._tell("delete", number)
        with contextlib.suppress(InstanceNotFound):  # it is deleted already
            self.house.delete(self.uuids[number])

    @precondition(lambda self: self.uuids)
    @rule(data=st.data(), change=st.sampled_from(["stop_server", "start_server", "reboot_server"]))
    def switch(self, data: st.DataObject, change: str) -> None:
        """One of the servers off, on, or off and on, if it is such that this can be asked for."""
        number = data.draw(st.integers(0, len(self.uuids) - 1))
        self._tell(change, number)
        hard = {"hard": True} if change == "reboot_server" else {}
        with contextlib.suppress(UnexpectedTaskStateError, InstanceNotFound):
            getattr(self.house.client, change)(self.uuids[number], ASKER, **hard)

    @rule(host=_any_host, operation=st.sampled_from(["spawn", "plug", "create_volume", "connect", "destroy"]), times=st.integers(1, 3))
    def fail(self, host: str, operation: str, times: int) -> None:
        """A host fails at something, a few times."""
        self._tell("fail", host, operation, times)
        self._break(host, {"operation": operation, "first": times, "error": "HypervisorError", "reason": f"broken {len(self.told)}"})

    @rule(host=_any_host)
    def silence(self, host: str) -> None:
        """A host does not answer."""
        self._tell("silence", host)
        self.silenced.add(host)
        self._break(host, _SILENT)

    @rule(host=_any_host)
    def heal(self, host: str) -> None:
        """A host is well again."""
        self._tell("heal", host)
        self._break(host)

    @rule(host=_any_host, enable=st.booleans())
    def disable(self, host: str, enable: bool) -> None:
        """A host is closed for builds, or opened."""
        self._tell("enable" if enable else "disable", host)
        with self.house.db.write() as connection:
            if enable:
                hosts.enable(connection, host)
            else:
                hosts.disable(connection, host, "story")

    @rule(pause=st.floats(0, 0.3), restart=st.booleans())
    def kill(self, pause: float, restart: bool) -> None:
        """SIGKILL to the conductor, in the middle of whatever it does; another one comes, or comes later."""
        time.sleep(pause)
        self._tell("kill and restart" if restart else "kill")
        if self.conductor is not None:
            self.conductor.kill()
        self.conductor = self.house.start_conductor(_QUICK) if restart else None

    @precondition(lambda self: self.conductor is not None)
    @rule(pause=st.floats(0, 0.3))
    def stall(self, pause: float) -> None:
        """The conductor is stopped in whatever it does until its lease has lapsed; another one comes, then the first goes on."""
        assert self.conductor is not None
        time.sleep(pause)
        self._tell("stall")
        self.conductor.send_signal(signal.SIGSTOP)
        self.conductor, stalled = self.house.start_conductor(_QUICK), self.conductor
        time.sleep(LEASE_SECONDS + 0.5)
        stalled.send_signal(signal.SIGCONT)

    @rule(seconds=st.sampled_from([0.3, PATIENCE_SECONDS + 0.5]))
    def away(self, seconds: float) -> None:
        """The database is away: SQLite is locked by somebody else, PostgreSQL has cut all connections."""
        self._tell("away", seconds)
        with self.databases.away(self.house.db.url):
            time.sleep(seconds)
        self.house.wait(self._answers)

    def _answers(self) -> bool:
        with contextlib.suppress(DatabaseUnavailable):
            self.house.open_jobs()
            return True
        return False

    @rule()
    def rest(self) -> None:
        """All is healed and comes to rest."""
        self._tell("rest")
        for name in HOSTS:
            self._break(name)
        if self.conductor is None or self.conductor.poll() is not None:
            self.conductor = self.house.start_conductor(_QUICK)
        try:
            self.house.rest(60)
            invariants.check(self.house, twins_on=self.silenced)
        except AssertionError as error:
            raise AssertionError(f"{error}\nseed {SEED}, after: {'; '.join(self.told)}\n{self.house.logs()[-4000:]}") from error

    @invariant()
    def always(self) -> None:
        """What is true at any moment: rooms are counted right and not overdrawn, histories have no gap, fences only grow."""
        with self.house.db.snapshot() as connection:
            held = sa.select(sa.func.coalesce(sa.func.sum(allocations.c.amount), 0)).where(
                allocations.c.host_id == inventories.c.host_id, allocations.c.resource_class == inventories.c.resource_class
            )
            wrong = sa.select(inventories).where(sa.or_(inventories.c.used != held.scalar_subquery(), inventories.c.used < 0))
            told = (SEED, self.told)
            assert connection.execute(wrong).all() == [], told
            count = sa.select(sa.func.count()).where(step_events.c.job_uuid == jobs.c.uuid).scalar_subquery()
            assert connection.execute(sa.select(jobs.c.kind, jobs.c.seq).where(jobs.c.seq != count)).all() == [], told
            before = step_events.alias()
            back = sa.select(step_events.c.step).join(
                before, sa.and_(before.c.job_uuid == step_events.c.job_uuid, before.c.seq == step_events.c.seq - 1)
            )
            assert connection.execute(back.where(before.c.fence > step_events.c.fence)).all() == [], told

    def teardown(self) -> None:
        """Every story ends in a rest."""
        try:
            if self.conductor is not None or self.uuids:
                self.rest()
        finally:
            self.house.close()
            self.databases.drop(self.house.db.url)
            fake_journal.close_all(self.directory)
            shutil.rmtree(self.directory, ignore_errors=True)


def _tell_stories(kind: type[Story], count: int) -> None:
    run_state_machine_as_test(  # type: ignore[no-untyped-call]
        seed(SEED)(kind),
        settings=settings(
            max_examples=count * ROUNDS,
            stateful_step_count=STEPS,
            database=None,
            phases=[Phase.generate],  # processes are no functions of their input: the story as it was told is what helps
            suppress_health_check=list(HealthCheck),
        ),
    )


@pytest.mark.slow
def test_in_any_story_nothing_is_lost_and_nothing_leaks() -> None:
    _tell_stories(Story, STORIES)


@pytest.mark.slow
@pytest.mark.postgresql
def test_in_any_story_nothing_is_lost_and_nothing_leaks_on_postgresql(postgres_server: PostgresServer) -> None:
    class OnPostgresql(Story):
        databases = OnServer(postgres_server.port)

    _tell_stories(OnPostgresql, ON_POSTGRESQL)
