"""Conductors are up for as long as the database says: a process whose own clock is wrong tells the same of them."""

from __future__ import annotations

import time

import pytest

from hullwright.conductor.reconcile.doctor import Doctor
from hullwright.conf import opts
from hullwright.drivers.registry import Drivers
from hullwright.persistence import conductors
from hullwright.persistence.images import SqlImageStore
from hullwright.persistence.ports import SqlPortStore
from hullwright.persistence.volumes import SqlVolumeStore

from .conftest import Api

HOUR_SECONDS = 3600.0


@pytest.fixture
def two_conductors(api: Api) -> Api:
    """One whose lease holds, and one whose lease ended."""
    with api.db.write() as connection:
        for name, lease_seconds in (("living", 60.0), ("gone", -60.0)):
            conductors.enlist(connection, id=name, hostname=name, pid=1, version="0", lease_seconds=lease_seconds)
    return api


@pytest.fixture(params=[-HOUR_SECONDS, 0.0, HOUR_SECONDS], ids=["slow", "right", "fast"])
def clock(request: pytest.FixtureRequest, two_conductors: Api, monkeypatch: pytest.MonkeyPatch) -> float:
    """This process's clock, an hour off or right."""
    true = time.time
    monkeypatch.setattr(time, "time", lambda: true() + request.param)
    return float(request.param)


def test_the_list_of_services_goes_by_the_databases_clock(two_conductors: Api, clock: float) -> None:
    shown = two_conductors.get("/os-services?binary=nova-conductor").json["services"]
    assert {service["host"]: service["state"] for service in shown} == {"living": "up", "gone": "down"}


def test_the_zones_go_by_the_databases_clock(two_conductors: Api, clock: float) -> None:
    zones = two_conductors.get("/os-availability-zone/detail").json["availabilityZoneInfo"]
    (internal,) = (zone["hosts"] for zone in zones if zone["zoneName"] == "internal")
    assert {name: services["nova-conductor"]["available"] for name, services in internal.items()} == {"living": True, "gone": False}


def test_a_conductor_is_updated_when_it_beats(api: Api) -> None:
    def updated() -> tuple[str, str]:
        [service] = api.get("/os-services?binary=nova-conductor").json["services"]
        zones = api.get("/os-availability-zone/detail").json["availabilityZoneInfo"]
        [internal] = [zone["hosts"] for zone in zones if zone["zoneName"] == "internal"]
        return service["updated_at"], internal["c"]["nova-conductor"]["updated_at"]

    lease_seconds = api.conf.conductor.lease_seconds
    with api.db.write() as connection:
        conductors.enlist(connection, id="c", hostname="c", pid=1, version="0", lease_seconds=lease_seconds)
    first = updated()
    time.sleep(0.01)
    with api.db.write() as connection:
        assert conductors.beat(connection, "c", lease_seconds)
    second = updated()
    assert (first[0], second[0]) == (first[1], second[1])
    assert first[0] < second[0]


def test_the_doctor_forgets_only_whom_the_database_calls_gone(two_conductors: Api, clock: float) -> None:
    db, conf = two_conductors.db, opts.load([])
    drivers = Drivers(conf, ports=SqlPortStore(db), volumes=SqlVolumeStore(db), images=SqlImageStore(db))
    doctor = Doctor(db, drivers, conf)
    look = doctor.look(kinds=["conductor_stale"])
    assert [finding.subject for finding in look.findings] == ["gone"]
    assert [outcome.state for outcome in doctor.mend(look, kinds=["conductor_stale"], request_id="r")] == ["mended"]
    with db.read() as connection:
        assert [row["id"] for row in conductors.list_all(connection)] == ["living"]


def test_a_conductor_that_renews_its_lease_just_then_is_not_forgotten(two_conductors: Api) -> None:
    with two_conductors.db.write() as connection:
        assert conductors.retire_lapsed(connection, "living") is False
        assert conductors.retire_lapsed(connection, "gone") is True
        assert [row["id"] for row in conductors.list_all(connection)] == ["living"]
