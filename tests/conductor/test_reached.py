"""How a conductor is reached: woken by whoever posts, wherever the sockets are; and by a database that comes back in an odd way."""

import time
from pathlib import Path
from typing import Any

import psycopg
import pytest

from hullwright.conductor.service import check_options
from hullwright.conf import opts
from hullwright.objects.errors import BadRequest
from hullwright.objects.states import VmState
from hullwright.persistence.database import Database, DatabaseUnavailable
from hullwright.persistence.wakeup import Wakeup
from support import invariants
from support.house import House

HOUR = 3600.0


def test_a_post_wakes_a_conductor_of_another_process_that_looks_once_an_hour(tmp_path: Path, db_url: str) -> None:
    house = House(tmp_path, db_url, conductor={"poll_interval": HOUR})
    try:
        house.add_host("h1")
        house.start_conductor()
        for _ in range(3):  # the first may be found by its first look
            made = house.create()
            house.rest()
            assert house.states(made) == {VmState.ACTIVE: 1}
    finally:
        house.close()


def test_a_state_directory_whose_name_is_too_long_for_a_socket_serves(tmp_path: Path, sqlite_url: str) -> None:
    state = tmp_path / ("long-" * 20) / ("longer-" * 20)
    db = Database(sqlite_url)
    sleeper, poster = Wakeup(db, state), Wakeup(db, state)
    try:
        sleeper.listen()
        assert not sleeper.wait(0.0)
        poster.poke()
        assert sleeper.wait(5.0)
    finally:
        for end in (sleeper, poster):
            end.close()
        db.close()


def _refusal(house: House) -> str:
    try:
        house.create()
    except DatabaseUnavailable as error:
        return error.text
    return ""


@pytest.mark.postgresql
def test_a_server_that_takes_no_writes_for_a_while_fails_no_step_and_ends_no_conductor(tmp_path: Path, postgres_tables_url: str) -> None:
    """As after a failover, until the address is the new primary's."""
    house = House(tmp_path, postgres_tables_url)
    name = postgres_tables_url.rpartition("/")[2]

    def switch(action: str) -> None:
        with psycopg.connect(postgres_tables_url.replace("+psycopg", ""), autocommit=True) as admin:
            statements: Any = (
                "SET default_transaction_read_only = off",
                f'ALTER DATABASE "{name}" {action}',
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()",
            )
            for statement in statements:
                admin.execute(statement)
        house.db.engine.dispose()  # ours; the conductor's are cut off

    try:
        house.add_host("h1")
        house.faults("h1", {"operation": "spawn", "hang": True})
        process = house.start_conductor()
        (uuid,) = house.create()
        house.wait(lambda: house.get(uuid).task_state == "spawning")
        switch("SET default_transaction_read_only = on")
        house.faults("h1")
        try:
            house.wait(lambda: "read-only" in _refusal(house))
            time.sleep(4.0)  # longer than the lease
            assert house.get(uuid).vm_state == VmState.BUILDING
        finally:
            switch("RESET default_transaction_read_only")
        house.wait(lambda: house.get(uuid).vm_state == VmState.ACTIVE, 30)
        house.rest()
        assert process.poll() is None, house.logs()
        assert [(it.number, it.state) for it in house.attempts_of(uuid)] == [(1, "succeeded")]
        invariants.check(house)
    finally:
        house.close()


@pytest.mark.parametrize(
    ("limits", "why"), [("spwan:3", "no step 'spwan'"), ("spawn:soon", "could not convert"), ("spawn:0", "[Ss]hould be greater")]
)
def test_a_limit_that_would_be_ignored_is_refused_at_the_start(tmp_path: Path, limits: str, why: str) -> None:
    check_options(opts.load([], {}))
    told = tmp_path / "hullwright.conf"
    told.write_text(f"[conductor]\nstep_timeouts = spawn:3,{limits}\n")
    with pytest.raises((BadRequest, ValueError), match=why):
        check_options(opts.load([told]))
