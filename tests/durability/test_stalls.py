"""A conductor that stalls for longer than its lease, while others finish its work, acts no more when it wakes up. Real processes, SIGSTOP.

Where they stall is chosen by a number that is printed when a story fails; HULLWRIGHT_DURABILITY_SEED repeats it, and
HULLWRIGHT_DURABILITY_ROUNDS asks for more of them.
"""

from __future__ import annotations

import os
import random
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from crash.scenarios import _IMAGE, _NETWORK, _world
from hullwright.drivers.fake_host import FakeHost
from hullwright.objects.hosts import HostRef
from hullwright.objects.states import OPEN_JOB_STATES, JobState, VmState
from hullwright.persistence import conductors, hosts, jobs
from hullwright.persistence.models.jobs import step_events
from support import invariants
from support.house import ChildProcess, House

SEED = int(os.environ.get("HULLWRIGHT_DURABILITY_SEED") or time.strftime("%Y%m%d"))
ROUNDS = int(os.environ.get("HULLWRIGHT_DURABILITY_ROUNDS") or 1)
VICTIMS = 6
LEASE_SECONDS = 2.0
_OPTIONS: dict[str, dict[str, Any]] = {
    "conductor": {"lease_seconds": LEASE_SECONDS, "poll_interval": 0.05, "retry_interval": 0.1, "max_leases": 100},
    "compute": {"report_interval": 3600.0},
}
_SEEDED = "import random; random.seed({seed!r})\n"  # of faults that happen by chance
_STALL = "from durability.child import stall; stall({trace!r}, {at}, in_transactions={in_transactions})"
_BROKEN = {"operation": "spawn", "when": "during", "probability": 0.3, "error": "HypervisorError", "reason": "no QEMU here"}


@contextmanager
def _house(directory: Path, url: str | None, **more: Any) -> Iterator[House]:
    made = House(directory, url, **({group: dict(values) for group, values in _OPTIONS.items()} | more))
    try:
        yield made
    finally:
        for process in made.processes:
            process.send_signal(signal.SIGCONT)
        made.close()


def _full(house: House) -> dict[str, Any]:
    volume = house.request_volume(source_type="blank", size_gb=1, delete_on_termination=True)
    return {"image_id": _IMAGE, "networks": (house.request_port(_NETWORK),), "block_devices": (volume,), "max_attempts": 4}


def _create(house: House, count: int) -> list[str]:
    return [house.create(**_full(house))[0] for _ in range(count)]


def _victim(house: House, number: int, at: int, in_transactions: bool = False) -> ChildProcess:
    """A conductor of one job at a time, which stalls at its boundary number `at`."""
    trace = str(house.directory / f"victim-{number}.trace")
    before = dict(house.overrides["conductor"])
    house.overrides["conductor"]["max_concurrent_jobs"] = 1
    seeded = _SEEDED.format(seed=f"{SEED} {number}")
    process = house.start_conductor(seeded + _STALL.format(trace=trace, at=at, in_transactions=in_transactions))
    house.overrides["conductor"] = before
    return process


def _where(house: House, number: int) -> str:
    """Where a victim stands; empty while it runs."""
    trace = house.directory / f"victim-{number}.trace"
    return trace.read_text().splitlines()[-1] if trace.with_suffix(".halted").exists() else ""


def _stand_still(house: House, victims: dict[int, ChildProcess]) -> bool:
    """Whether no victim has anything to do any more: what is open is held by those that stall."""
    awake = {process.pid for number, process in victims.items() if not _where(house, number)}
    with house.db.read() as connection:
        owners = {each["id"] for each in conductors.list_all(connection) if each["pid"] in awake}
        open_jobs = jobs.list_jobs(connection, states=OPEN_JOB_STATES)
    return not awake or all(job.state == JobState.RUNNING and job.owner not in owners for job in open_jobs)


def _effects_since(house: House, pids: set[int], since: float) -> list[str]:
    """What these processes did to fake hosts since then."""
    with house.db.read() as connection:
        refs = [HostRef(host.name, host.uri, host.driver) for host in hosts.list_all(connection)]
    return [
        f"{line['operation'] or 'change'} of {line['key']} on {ref.name}"
        for ref in refs
        for line in FakeHost(ref, house.conf.state_path).things.lines()
        if line["pid"] in pids and line["at"] > since
    ]


def _events(house: House) -> int:
    with house.db.read() as connection:
        return int(connection.execute(sa.select(sa.func.count()).select_from(step_events)).scalar_one())


def _boundaries_of_a_build(house: House) -> int:
    """How many boundaries a build and a delete have, by a run without a stall."""
    (uuid,) = _create(house, 1)
    process = _victim(house, 0, at=0)
    house.rest(30)
    count = len((house.directory / "victim-0.trace").read_text().splitlines())
    house.delete(uuid)
    house.rest(30)
    process.terminate()
    process.wait(20)
    return count


@pytest.mark.slow
@pytest.mark.parametrize("round_", range(ROUNDS))
def test_conductors_that_stall_anywhere_act_no_more_when_they_wake(tmp_path: Path, db_url: str, round_: int) -> None:
    rng = random.Random(f"{SEED} {round_} {db_url.partition(':')[0]}")
    is_postgresql = db_url.startswith("postgresql")
    with _house(tmp_path, db_url) as house:
        _world(house, "h1", "h2")
        last = _boundaries_of_a_build(house)
        with house.conductor():
            old = _create(house, 2)
            house.rest(30)
        house.faults("h1", _BROKEN)
        chosen = [rng.randint(2, last) for _ in range(VICTIMS)]
        new = _create(house, VICTIMS)
        for uuid in old:
            house.delete(uuid)
        victims = {number: _victim(house, number, at) for number, at in enumerate(chosen, 1)}
        house.wait(lambda: _stand_still(house, victims), 40)
        stalled = {number: _where(house, number) for number in victims if _where(house, number)}
        told = f"seed {SEED}, round {round_}, {'PostgreSQL' if is_postgresql else 'SQLite'}: {stalled}"
        assert len(stalled) >= VICTIMS // 2, told
        for number in victims.keys() - stalled:  # these would come to their boundary later, with other work
            victims.pop(number).kill()

        finisher = house.start_conductor(_SEEDED.format(seed=SEED))
        house.rest(60)
        # What they would do when they wake must be wrong, not only late: half of what was built is gone by then.
        gone = rng.sample(new, VICTIMS // 2)
        for uuid in gone:
            house.delete(uuid)
        house.rest(60)
        finisher.terminate()
        finisher.wait(20)
        assert house.states(old + new)[VmState.DELETED] == len(old) + len(gone), told
        invariants.check(house)

        events, woken_at = _events(house), time.time()
        for process in victims.values():
            process.send_signal(signal.SIGCONT)
        logs = {number: house.directory / f"conductor-{number}.log" for number in stalled}
        house.wait(lambda: all("lapsed" in path.read_text() for path in logs.values()), 20)
        time.sleep(0.5)
        house.rest(30)
        for process in victims.values():
            process.terminate()
        for process in victims.values():
            assert process.wait(30) in (0, -signal.SIGTERM), told
        assert _effects_since(house, {process.pid for process in victims.values()}, woken_at) == [], told
        cleanings = _events(house) - events
        assert cleanings % 4 == 0, f"{told}: {cleanings} events more: they are of late cleanings only, four each"
        invariants.check(house)


@pytest.mark.postgresql
@pytest.mark.slow
def test_a_conductor_that_stalls_inside_a_transaction_holds_nobody_up_for_long(tmp_path: Path, postgres_tables_url: str) -> None:
    with _house(tmp_path, postgres_tables_url) as house:
        house.add_host("h1")
        (uuid,) = house.create()
        victim = _victim(house, 1, at=0, in_transactions=True)
        house.rest(30)
        victim.terminate()
        victim.wait(20)
        trace = (house.directory / "victim-1.trace").read_text().splitlines()
        claim = next(number for number, line in enumerate(trace, 1) if "before commit" in line and "claim.execute" in line)
        house.delete(uuid)
        (uuid,) = house.create()
        with house.conductor():
            house.wait(lambda: house.get(uuid).vm_state == VmState.ACTIVE, 20)
            house.rest()
        others = house.create(1)
        victim = _victim(house, 2, at=claim, in_transactions=True)
        house.wait(lambda: _where(house, 2), 20)
        # It holds the room of the only host, so nobody else gets on.
        others += house.create(2)
        began = time.monotonic()
        with house.conductor():
            house.rest(40)
        assert time.monotonic() - began < 30
        assert house.states(others) == {VmState.ACTIVE: 3}
        victim.send_signal(signal.SIGCONT)
        house.wait(lambda: "lapsed" in (house.directory / "conductor-1.log").read_text(), 20)
        house.rest(20)
        victim.terminate()
        assert victim.wait(30) == 0, house.logs()
        invariants.check(house)
