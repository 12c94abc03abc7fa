"""Hosts that fail builds in a row: put into quarantine, probed, taken out again; and what does not count against them."""

import json
import logging
import time
import uuid
from pathlib import Path
from typing import Any

import pytest

from hullwright.cli.main import main
from hullwright.drivers.virt.fake.driver import FakeDriver
from hullwright.flows.build import build_instance_v1
from hullwright.flows.host_failures import STEPS_ON_HOST
from hullwright.objects.guests import GuestSpec
from hullwright.objects.hosts import Host
from hullwright.objects.networks import Network, Subnet
from hullwright.objects.states import VmState
from hullwright.persistence import hosts, networks
from hullwright.persistence.database import now
from hullwright.persistence.models.hosts import hosts as hosts_table
from support.house import House

THRESHOLD = 3
BROKEN = {"operation": "spawn", "error": "HypervisorError", "reason": "no QEMU here"}


def _house(directory: Path, url: str | None = None) -> House:
    """Two hosts: `bad`, which is larger and therefore chosen first however often it fails, and `good`."""
    made = House(
        directory,
        url,
        compute={"consecutive_build_service_disable_threshold": THRESHOLD, "quarantine_probe_interval": 300.0},
        scheduler={"build_failure_weight_multiplier": 0.0, "snapshot_max_age_seconds": 0.0},
    )
    made.add_host("bad", memory_mb=8_000_000, vcpus=4000, disk_gb=40_000)
    made.add_host("good")
    return made


@pytest.fixture
def house(tmp_path: Path) -> Any:
    made = _house(tmp_path)
    yield made
    made.close()


def _host(house: House, name: str = "bad") -> Host:
    with house.db.read() as connection:
        return hosts.get(connection, name)


def _tried(house: House, instance: str) -> list[str]:
    return [attempt.host for attempt in house.attempts_of(instance)]


def _build(house: House, **fields: Any) -> str:
    (instance,) = house.create(**fields)
    house.rest()
    return instance


def _break(house: House) -> None:
    """Have `bad` fail builds until it is in quarantine."""
    house.faults("bad", BROKEN)
    for _ in range(THRESHOLD):
        _build(house)
    assert _host(house).quarantined_at is not None


def test_a_host_that_always_fails_is_quarantined_and_gets_no_more_builds_while_others_work(
    tmp_path: Path, db_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    house = _house(tmp_path, db_url)
    house.faults("bad", BROKEN)
    with caplog.at_level(logging.WARNING), house.conductor():
        built = [_build(house) for _ in range(THRESHOLD + 3)]
    assert {house.get(each).host for each in built} == {"good"}
    assert [_tried(house, each) for each in built] == [["bad", "good"]] * THRESHOLD + [["good"]] * 3
    host = _host(house)
    assert host.enabled, "no operator disabled it"
    assert (host.failed_builds, host.failed_step, host.failed_in_step) == (THRESHOLD, "spawn", THRESHOLD)
    assert host.quarantine_reason is not None
    assert host.quarantine_reason.startswith("3 builds in a row failed at spawn; the last one: ")
    assert "no QEMU here" in host.quarantine_reason
    assert len([record for record in caplog.records if "goes into quarantine" in record.getMessage()]) == 1
    (rejection,) = house.attempts_of(built[-1])[0].report["rejections"]
    assert (rejection["reason"], rejection["count"]) == ("in quarantine after failed builds", 1)
    assert "no QEMU here" not in rejection["reason"]
    assert "no QEMU here" in rejection["details"][0], "an administrator reads why"
    assert _host(house, "good").quarantined_at is None
    house.close()


def test_with_the_threshold_0_no_host_is_ever_quarantined(house: House) -> None:
    house.conf.set_override("consecutive_build_service_disable_threshold", 0, "compute")
    house.faults("bad", BROKEN)
    with house.conductor():
        for _ in range(THRESHOLD + 2):
            _build(house)
    assert (_host(house).failed_in_step, _host(house).quarantined_at) == (THRESHOLD + 2, None)


def test_builds_that_fail_at_different_steps_do_not_quarantine(house: House) -> None:
    network = str(uuid.uuid4())
    with house.db.write() as connection:
        networks.create(connection, Network(network, "private", created_at=now()))
        pools = (("192.0.2.2", "192.0.2.254"),)
        subnet = Subnet(str(uuid.uuid4()), network, "four", "192.0.2.0/24", 4, allocation_pools=pools, created_at=now())
        networks.create_subnet(connection, subnet)
    with house.conductor():
        for number in range(2 * THRESHOLD):
            house.faults("bad", BROKEN if number % 2 else BROKEN | {"operation": "plug"})
            _build(house, networks=(house.request_port(network),))
    host = _host(house)
    assert (host.failed_builds, host.failed_step, host.failed_in_step) == (2 * THRESHOLD, "spawn", 1)
    assert host.quarantined_at is None


@pytest.mark.parametrize(
    "error",
    [
        "ImageUnacceptable",
        "NoMoreFixedIps",
        "VolumeError",
        "ImageCorrupt",
        "PortNotFound",
        "ImageNotFound",
        "GuestRefused",
        "NetworkRefused",
    ],
)
def test_what_is_the_builds_own_fault_never_counts(house: House, error: str) -> None:
    house.faults("bad", BROKEN | {"error": error})
    with house.conductor():
        built = [_build(house) for _ in range(THRESHOLD + 1)]
    assert [_tried(house, each)[0] for each in built] == ["bad"] * (THRESHOLD + 1)
    assert (_host(house).failed_builds, _host(house).quarantined_at) == (0, None)


def test_an_error_of_our_own_code_is_rescheduled_and_never_counts(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    really_spawn = FakeDriver.spawn

    def spawn(driver: FakeDriver, guest: GuestSpec, *told: Any) -> None:
        if driver.host.name == "bad":
            raise KeyError("no such thing")
        really_spawn(driver, guest, *told)

    monkeypatch.setattr(FakeDriver, "spawn", spawn)
    with house.conductor():
        built = [_build(house) for _ in range(THRESHOLD + 1)]
    assert [_tried(house, each) for each in built] == [["bad", "good"]] * (THRESHOLD + 1)
    assert (_host(house).failed_builds, _host(house).quarantined_at) == (0, None)


def test_builds_that_their_user_deletes_never_count(house: House) -> None:
    house.faults("bad", {"operation": "spawn", "hang": True})
    with house.conductor():
        built = house.create(THRESHOLD + 1)
        house.wait(lambda: all(house.get(each).task_state == "spawning" for each in built))
        for each in built:
            house.delete(each)
        house.faults("bad")
        house.rest()
    assert house.states(built) == {VmState.DELETED: THRESHOLD + 1}
    assert (_host(house).failed_builds, _host(house).quarantined_at) == (0, None)


def test_only_steps_that_the_build_has_are_held_against_a_host() -> None:
    names = {step.name for step, _ in build_instance_v1().iter_nodes()}
    inner = {step.name for flow, _ in build_instance_v1().iter_nodes() if hasattr(flow, "iter_nodes") for step, _ in flow.iter_nodes()}
    assert STEPS_ON_HOST.issubset(names | inner)
    assert not STEPS_ON_HOST & {"guard", "reserve", "select_host", "claim", "activate"}


def test_a_probe_that_fails_keeps_the_host_out_and_the_build_goes_elsewhere(house: House) -> None:
    with house.conductor():
        _break(house)
        before = _host(house)
        assert _tried(house, _build(house)) == ["good"]
        house.conf.set_override("quarantine_probe_interval", 0.1, "compute")
        time.sleep(0.15)
        probe = _build(house)
        house.conf.set_override("quarantine_probe_interval", 300.0, "compute")
        after = _build(house)
    assert (_tried(house, probe), house.get(probe).host) == (["bad", "good"], "good")
    assert _tried(house, after) == ["good"]
    host = _host(house)
    assert host.quarantined_at == before.quarantined_at, "since when it is in quarantine does not change"
    assert host.probed_at is not None
    assert before.probed_at is not None
    assert host.probed_at > before.probed_at


@pytest.mark.parametrize("multiplier", [0.0, 1_000_000.0])
def test_a_probe_that_succeeds_readmits_a_mended_host(tmp_path: Path, multiplier: float, caplog: pytest.LogCaptureFixture) -> None:
    house = _house(tmp_path)
    with house.conductor():
        _break(house)
    house.conf.set_override("quarantine_probe_interval", 0.1, "compute")
    house.conf.set_override("build_failure_weight_multiplier", multiplier, "scheduler")
    house.faults("bad")
    time.sleep(0.15)
    with caplog.at_level(logging.WARNING), house.conductor():
        probe, after = _build(house), _build(house)
    assert (_tried(house, probe), _tried(house, after)) == (["bad"], ["bad"])
    host = _host(house)
    assert (host.quarantined_at, host.quarantine_reason, host.probed_at, host.failed_builds, host.failed_step) == (
        None,
        None,
        None,
        0,
        None,
    )
    assert any("out of quarantine" in record.getMessage() for record in caplog.records)
    house.close()


def test_of_many_builds_at_once_one_is_the_probe(tmp_path: Path, db_url: str) -> None:
    house = _house(tmp_path, db_url)
    with house.conductor():
        _break(house)
    house.faults("bad", BROKEN | {"delay": 0.3})
    long_ago = now() - 301
    with house.db.write() as connection:
        connection.execute(hosts_table.update().values(probed_at=long_ago).where(hosts_table.c.name == "bad"))
    with house.conductor(), house.conductor():
        built = house.create(12)
        house.rest()
    assert house.states(built) == {VmState.ACTIVE: 12}
    tried = sorted(_tried(house, each) for each in built)
    assert tried == [["bad", "good"]] + [["good"]] * 11
    house.close()


def test_with_every_host_in_quarantine_the_user_is_told_without_names(house: House) -> None:
    house.faults("good", BROKEN)
    with house.conductor():
        _break(house)
        failed = _build(house)
    assert house.get(failed).vm_state == VmState.ERROR
    report = house.attempts_of(failed)[-1].report
    assert {rejection["reason"] for rejection in report["rejections"]} == {"in quarantine after failed builds"}


def test_an_operator_readmits_by_enabling(house: House, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    def run(*arguments: str) -> Any:
        assert main(["--config-file", str(config), *arguments]) == 0
        return capsys.readouterr().out

    config = house.directory / "hullwright.conf"
    config.write_text(f"[DEFAULT]\nstate_path = {house.directory}\n")
    with house.conductor():
        _break(house)
    monkeypatch.setattr("hullwright.persistence.schema.check", lambda _database: None)  # the house has no revisions
    listed = {row["Name"]: row for row in json.loads(run("host", "list", "-f", "json"))}
    assert (listed["bad"]["State"], listed["bad"]["Status"], listed["good"]["State"]) == ("quarantined", "enabled", "up")
    shown = json.loads(run("host", "show", "bad", "-f", "json"))
    assert shown["Quarantined since"].startswith("20")
    assert shown["Failed at"] == "spawn, 3 in a row"
    assert "no QEMU here" in shown["Quarantine reason"]
    run("host", "enable", "bad")
    host = _host(house)
    assert (host.quarantined_at, host.quarantine_reason, host.failed_builds, host.failed_in_step) == (None, None, 0, 0)
    house.faults("bad")
    with house.conductor():
        assert _tried(house, _build(house)) == ["bad"]


def test_a_build_that_is_forced_to_a_quarantined_host_goes_there_and_readmits_it(house: House) -> None:
    with house.conductor():
        _break(house)
        house.faults("bad")
        assert _tried(house, _build(house, force_host="bad")) == ["bad"]
    assert _host(house).quarantined_at is None
