"""Fake hosts: shared by processes, never made twice, and broken exactly as told."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import textwrap
import threading
import uuid
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from hullwright.drivers import fake_faults
from hullwright.drivers.fake_faults import Rule
from hullwright.drivers.fake_host import FakeHost
from hullwright.drivers.virt.fake.driver import FakeDriver
from hullwright.objects.errors import HostDiskFull, HypervisorError, HypervisorUnavailable
from hullwright.objects.hosts import HostRef
from hullwright.objects.states import PowerState
from support.effort import count_calls
from support.virt_hosts import Source, guest_spec, image_of, no_progress


@pytest.fixture
def ref(tmp_path: Path) -> HostRef:
    return HostRef("fake", f"fake://{tmp_path}/host", "fake")


@pytest.fixture
def driver(ref: HostRef, conf: Any) -> FakeDriver:
    return FakeDriver(ref, conf)


def elsewhere(ref: HostRef, code: str, *arguments: str) -> subprocess.Popen[bytes]:
    """Run code in another process that has `driver` and `arguments` ready."""
    preface = """
        import sys
        from types import SimpleNamespace
        from hullwright.drivers.virt.fake.driver import FakeDriver
        from hullwright.objects.hosts import HostRef
        from support.virt_hosts import guest_spec
        driver = FakeDriver(HostRef("fake", sys.argv[1], "fake"), SimpleNamespace(state_path="var"))
        arguments = sys.argv[2:]
    """
    command = [sys.executable, "-c", textwrap.dedent(preface) + textwrap.dedent(code), ref.uri, *arguments]
    return subprocess.Popen(command, cwd=Path(__file__).parents[1])


SPAWN = "for u in arguments: driver.spawn(guest_spec(None, uuid=u))"


def test_processes_share_a_host_and_make_each_guest_once(ref: HostRef, driver: FakeDriver) -> None:
    uuids = [str(uuid.uuid4()) for _ in range(50)]
    processes = [elsewhere(ref, SPAWN, *uuids[:: 1 - 2 * (n % 2)]) for n in range(3)]
    assert [process.wait(60) for process in processes] == [0, 0, 0]
    assert sorted(info.uuid for info in driver.guests()) == sorted(uuids)
    assert sorted(effect["uuid"] for effect in driver.host.effects("define")) == sorted(uuids)
    assert {effect["pid"] for effect in driver.host.effects("define")} <= {process.pid for process in processes}


def test_a_name_is_a_host_under_the_state_path(tmp_path: Path) -> None:
    assert FakeHost(HostRef("h1", "fake://h1", "fake"), tmp_path).directory == tmp_path / "fake" / "h1"


@pytest.mark.parametrize("uri", ["qemu:///system", "fake:", "fake:///"])
def test_another_uri_is_refused(uri: str) -> None:
    with pytest.raises(ValueError, match="is not fake"):
        FakeHost(HostRef("h1", uri, "fake"))


def test_a_line_that_a_killed_process_tore_is_cut_off(driver: FakeDriver) -> None:
    first, second = guest_spec(None), guest_spec(None)
    driver.spawn(first)
    with driver.host.things.path.open("ab") as file:
        file.write(b'{"at": 1, "room": "gue')
    assert [info.uuid for info in driver.guests()] == [first.uuid]
    driver.spawn(second)
    assert [info.uuid for info in driver.guests()] == [first.uuid, second.uuid]
    assert len(driver.host.effects("define")) == 2


def test_a_host_whose_directory_was_removed_is_empty(driver: FakeDriver) -> None:
    driver.spawn(guest_spec(None))
    driver.host.things.path.unlink()
    assert driver.guests() == []


def test_the_config_drives_content_is_not_kept(driver: FakeDriver) -> None:
    driver.spawn(guest_spec(None, config_drive_files={"openstack/latest/user_data": b"password: geheim"}))
    assert "geheim" not in driver.host.things.path.read_text()


def test_facts_come_from_the_uri_and_from_a_file(tmp_path: Path, conf: Any) -> None:
    driver = FakeDriver(HostRef("fake", f"fake://{tmp_path}/host?vcpus=4&memory_mb=1000&disk_gb=7", "fake"), conf)
    facts = driver.facts()
    assert (facts.hostname, facts.vcpus, facts.memory_mb, facts.disk_gb, facts.disk_free_gb) == ("fake", 4, 1000, 7, 7)
    driver.host.directory.mkdir(exist_ok=True)
    (driver.host.directory / "facts.json").write_text(json.dumps({"vcpus": 8, "cpu_features": ["avx"]}))
    facts = driver.facts()
    assert (facts.vcpus, facts.memory_mb, facts.cpu_features) == (8, 1000, ("avx",))


def test_a_call_is_as_much_work_with_many_guests_as_with_few(driver: FakeDriver) -> None:
    def come_and_go() -> None:
        guest = guest_spec(None)
        driver.spawn(guest)
        driver.power_state(guest.uuid)
        driver.destroy(guest.uuid)

    come_and_go()
    few = count_calls(come_and_go)
    for _ in range(300):
        driver.spawn(guest_spec(None))
    assert count_calls(come_and_go) <= few + 10


# --- Faults


@pytest.mark.parametrize(("name", "kind"), [("HypervisorError", HypervisorError), ("HostDiskFull", HostDiskFull), ("OSError", OSError)])
def test_a_rule_raises_an_error_of_its_class(driver: FakeDriver, name: str, kind: type[Exception]) -> None:
    driver.host.faults.write([Rule("spawn", error=name, reason="because")])
    with pytest.raises(kind, match="because"):
        driver.spawn(guest_spec(None))
    assert driver.guests() == []


def test_after_means_that_the_effect_was_had(driver: FakeDriver) -> None:
    guest = guest_spec(None)
    driver.host.faults.write([Rule("spawn", when="after", error="HypervisorUnavailable")])
    with pytest.raises(HypervisorUnavailable):
        driver.spawn(guest)
    assert driver.power_state(guest.uuid) is PowerState.RUNNING


def test_during_means_half_of_the_effect(driver: FakeDriver) -> None:
    guest = guest_spec(None)
    driver.host.faults.write([Rule("spawn", when="during", error="HypervisorError")])
    with pytest.raises(HypervisorError):
        driver.spawn(guest)
    assert driver.power_state(guest.uuid) is PowerState.PAUSED
    driver.host.faults.write([])
    driver.spawn(guest)
    assert driver.power_state(guest.uuid) is PowerState.RUNNING
    assert len(driver.host.effects("define", guest.uuid)) == 1


def failures(driver: FakeDriver, calls: int) -> list[int]:
    failed = []
    for number in range(1, calls + 1):
        try:
            driver.facts()
        except HypervisorError:
            failed.append(number)
    return failed


def test_nth_and_first_choose_calls(driver: FakeDriver) -> None:
    driver.host.faults.write([Rule("facts", nth=3, error="HypervisorError")])
    assert failures(driver, 5) == [3]
    driver.host.faults.write([Rule("facts", first=2, error="HypervisorError")])
    assert failures(driver, 5) == [1, 2]
    driver.host.faults.write([Rule("facts", first=2, error="HypervisorError")])
    assert failures(driver, 3) == [1, 2], "writing begins the counts anew"


def test_probability_chooses_some_calls(driver: FakeDriver) -> None:
    driver.host.faults.write([Rule("facts", probability=0.5, error="HypervisorError")])
    assert 20 < len(failures(driver, 200)) < 180


def test_a_rule_for_one_uuid_leaves_others_alone(driver: FakeDriver) -> None:
    doomed, lucky = guest_spec(None), guest_spec(None)
    driver.host.faults.write([Rule("*", uuid=doomed.uuid, error="HypervisorError")])
    driver.spawn(lucky)
    with pytest.raises(HypervisorError):
        driver.spawn(doomed)
    assert [info.uuid for info in driver.guests()] == [lucky.uuid]


def test_a_delay_is_slept(driver: FakeDriver, monkeypatch: pytest.MonkeyPatch) -> None:
    slept: list[float] = []
    monkeypatch.setattr(fake_faults, "time", SimpleNamespace(sleep=slept.append))
    driver.host.faults.write([Rule(("facts", "guests"), delay=(0.05, 0.06))])
    driver.facts()
    assert [0.05 <= seconds <= 0.06 for seconds in slept] == [True]


def test_a_hang_lasts_until_the_rule_is_gone(driver: FakeDriver) -> None:
    driver.host.faults.write([Rule("facts", hang=True)])
    thread = threading.Thread(target=driver.facts)
    thread.start()
    thread.join(0.2)
    assert thread.is_alive()
    driver.host.faults.write([])
    thread.join(5)
    assert not thread.is_alive()


def test_a_kill_happens_once_in_all_processes(ref: HostRef, driver: FakeDriver) -> None:
    uuids = [str(uuid.uuid4()) for _ in range(4)]
    driver.host.faults.write([Rule("spawn", when="during", nth=2, kill=True)])
    assert elsewhere(ref, SPAWN, *uuids).wait(30) == -signal.SIGKILL
    assert [driver.power_state(u) for u in uuids] == [PowerState.RUNNING, PowerState.PAUSED, None, None]
    assert elsewhere(ref, SPAWN, *uuids).wait(30) == 0
    assert all(driver.power_state(u) is PowerState.RUNNING for u in uuids)
    assert len(driver.host.effects("define")) == len(driver.host.effects("start")) == 4


def test_a_killed_transfer_goes_on_at_its_offset(ref: HostRef, driver: FakeDriver) -> None:
    data = os.urandom(512 * 1024)
    image, source = image_of(data), Source(data)
    driver.host.faults.write([Rule("ensure_image", when="during", nth=3, error="HypervisorUnavailable")])
    with pytest.raises(HypervisorUnavailable):
        driver.ensure_image(image, source, no_progress)
    sent = source.sent_bytes
    driver.ensure_image(image, source, no_progress)
    assert source.sent_bytes == len(data)
    assert [effect["thing"]["resumed_at"] for effect in driver.host.effects("image")] == [sent]


@pytest.mark.parametrize(
    "rule", [{"operation": "spawn", "when": "later"}, {"operation": "spawn", "errror": "x"}, {"operation": "spawn", "error": "Nonsense"}]
)
def test_a_rule_that_makes_no_sense_is_told(driver: FakeDriver, rule: dict[str, Any]) -> None:
    driver.host.directory.mkdir(parents=True, exist_ok=True)
    driver.host.faults.file.write_text(json.dumps({"rules": [rule]}))
    with pytest.raises(ValueError, match="bad fault rule"):
        driver.facts()


def test_a_rule_reads_back_as_it_was_written() -> None:
    rule = Rule(("plug", "unplug"), when="after", delay=(0.1, 0.2), nth=4, kill=True)
    assert Rule.from_dict(json.loads(json.dumps(rule.to_dict()))) == rule
