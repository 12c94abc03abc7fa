"""Conductors away for long: nothing is lost, and hosts are what they were when somebody last asked them."""

import sqlalchemy as sa

from hullwright.objects.hosts import Host, is_up
from hullwright.objects.states import VmState
from hullwright.persistence import faults, hosts
from hullwright.persistence.database import now
from hullwright.persistence.models.hosts import hosts as hosts_table
from support.house import House

AWAY_SECONDS = 3600.0


def _pass_an_hour(house: House) -> None:
    """As if nobody had asked any host for an hour."""
    with house.db.write() as connection:
        moved = {name: hosts_table.c[name] - AWAY_SECONDS for name in ("checked_at", "last_seen_at", "silent_since")}
        connection.execute(sa.update(hosts_table).values(moved))


def _host(house: House) -> Host:
    with house.db.read() as connection:
        return hosts.get(connection, "h1")


def test_builds_queued_while_conductors_were_away_succeed_before_any_host_has_answered_again(house_on_each: House) -> None:
    house = house_on_each
    house.add_host("h1")
    _pass_an_hour(house)
    uuids = house.create(3)
    assert is_up(_host(house), house.conf.compute.service_down_time)
    house.faults("h1", {"operation": "facts", "hang": True})
    with house.conductor():
        house.rest()
        assert now() - _host(house).last_seen_at >= AWAY_SECONDS, "the builds did not wait for an answer"
        house.faults("h1")
        house.wait(lambda: now() - _host(house).last_seen_at < 60)
    assert house.states(uuids) == {VmState.ACTIVE: 3}


def test_one_question_without_an_answer_before_an_hour_without_questions_is_no_hour_of_silence(house: House) -> None:
    house.add_host("h1")
    with house.db.write() as connection:
        hosts.record_silence(connection, "h1", "libvirtd restarts")
    _pass_an_hour(house)
    (uuid,) = house.create()
    house.faults("h1", {"operation": "facts", "delay": 1.0})
    with house.conductor():
        house.rest()
        house.wait(lambda: _host(house).silent_since is None)
    assert house.get(uuid).vm_state == VmState.ACTIVE


def test_a_conductor_killed_again_and_again_while_it_asks_does_not_make_hosts_look_down(house: House) -> None:
    house.conf.set_override("service_down_time", 0.2, "compute")
    house.overrides["compute"] = {"report_interval": 0.1, "service_down_time": 0.2}
    house.add_host("h1")
    seen = _host(house).last_seen_at
    house.faults("h1", {"operation": "facts", "hang": True})
    for _ in range(2):
        checked = now()
        process = house.start_conductor()
        house.wait(lambda since=checked: _checked_at(house) > since)
        process.kill()
    assert _host(house).last_seen_at == seen
    assert is_up(_host(house), 0.2), "nobody found it silent"
    (uuid,) = house.create()
    with house.conductor():
        house.rest()
        house.faults("h1")
    assert house.get(uuid).vm_state == VmState.ACTIVE
    with house.db.read() as connection:
        assert faults.latest(connection, uuid) is None


def _checked_at(house: House) -> float:
    with house.db.read() as connection:
        return float(connection.execute(sa.select(hosts_table.c.checked_at)).scalar_one())
