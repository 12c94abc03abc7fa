"""A host in quarantine as clients see it: as Nova shows what it disabled itself, and enabled again by the same call."""

from __future__ import annotations

from typing import Any

import pytest

from hullwright.objects.hosts import HostFacts, Inventory
from hullwright.persistence import hosts

from .conftest import Api

FACTS = HostFacts("h", "QEMU", 7002022, vcpus=4, memory_mb=8192, disk_gb=100, disk_free_gb=90)


@pytest.fixture
def service(sqlite_api: Api) -> dict[str, Any]:
    """The service of a host that failed ten builds."""
    with sqlite_api.db.write() as conn:
        hosts.register(conn, "broken", "fake:///broken", "fake")
        hosts.record_facts(conn, "broken", FACTS, [Inventory("VCPU", 4)])
        for _ in range(10):
            hosts.count_build(conn, "broken", True, "spawn", "x" * 500, threshold=10)
    [found] = sqlite_api.get("/os-services?host=broken").json["services"]
    return dict(found)


def test_it_is_a_disabled_service_that_is_up_and_says_why(service: dict[str, Any]) -> None:
    assert (service["state"], service["status"], service["forced_down"]) == ("up", "disabled", False)
    assert service["disabled_reason"].startswith("quarantined: 10 builds in a row failed at spawn; the last one: xxx")
    assert len(service["disabled_reason"]) == 255


def test_hypervisors_and_zones_tell_the_same(sqlite_api: Api, service: dict[str, Any]) -> None:
    hypervisor = sqlite_api.get(f"/os-hypervisors/{service['id']}").json["hypervisor"]
    assert (hypervisor["state"], hypervisor["status"]) == ("up", "disabled")
    assert hypervisor["service"]["disabled_reason"] == service["disabled_reason"]
    assert sqlite_api.get("/os-hypervisors/statistics", version="2.87").json["hypervisor_statistics"]["count"] == 0
    [zone] = sqlite_api.get("/os-availability-zone/detail").json["availabilityZoneInfo"]
    assert zone["zoneState"]["available"] is False
    assert zone["hosts"]["broken"]["nova-compute"] | {"updated_at": None} == {"available": True, "active": False, "updated_at": None}


def test_enabling_the_service_readmits_the_host(sqlite_api: Api, service: dict[str, Any]) -> None:
    enabled = sqlite_api.put(f"/os-services/{service['id']}", {"status": "enabled"}).json["service"]
    assert (enabled["status"], enabled["disabled_reason"]) == ("enabled", None)
    with sqlite_api.db.read() as conn:
        host = hosts.get(conn, "broken")
    assert (host.quarantined_at, host.quarantine_reason, host.failed_builds) == (None, None, 0)
