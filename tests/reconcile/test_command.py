"""`hullwright doctor` as a process: its table, its exit codes, its history."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from hullwright.persistence import conductors, schema
from hullwright.persistence.database import Database
from reconcile import drift
from support.house import House


@pytest.fixture
def house(tmp_path: Path) -> Iterator[House]:
    """A house whose schema is that of an installation, with one host."""
    database = Database(f"sqlite:///{tmp_path}/hullwright.db")
    schema.upgrade(database)
    database.close()
    made = House(tmp_path)
    made.add_host("h1")
    (tmp_path / "hullwright.conf").write_text(f"[DEFAULT]\nstate_path = {tmp_path}\n[reconcile]\ngrace_seconds = 0.05\n")
    yield made
    made.close()


def doctor(house: House, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run it."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("HULLWRIGHT_", "OS_"))}
    config = ["--config-file", str(house.directory / "hullwright.conf")]
    return subprocess.run(
        [sys.executable, "-m", "hullwright.cli.main", *config, "doctor", *arguments],
        capture_output=True, text=True, timeout=100, check=False, stdin=subprocess.DEVNULL, env=clean,
    )  # fmt: skip


def test_a_clean_house_exits_0(house: House) -> None:
    done = doctor(house, "-f", "json")
    assert (done.returncode, json.loads(done.stdout), done.stderr) == (0, [], "")


def test_findings_are_told_with_evidence_and_exit_1_and_nothing_is_changed(house: House) -> None:
    volume_id = drift.volume_reserved(house)
    before = drift.dump(house)
    done = doctor(house, "-f", "json")
    assert done.returncode == 1, done.stderr
    (row,) = json.loads(done.stdout)
    assert (row["Kind"], row["Subject"]) == ("volume_stuck", volume_id)
    assert "no job is at it" in row["Evidence"]
    assert row["Repair"]
    assert drift.dump(house) == before


def test_fix_mends_and_the_second_fix_finds_nothing_and_the_history_tells(house: House) -> None:
    drift.volume_reserved(house)
    drift.allocation_without_instance(house)
    done = doctor(house, "--fix", "-f", "json")
    assert done.returncode == 0, done.stderr
    assert {row["Outcome"].partition(":")[0] for row in json.loads(done.stdout)} == {"mended"}
    again = doctor(house, "--fix", "-f", "json")
    assert (again.returncode, json.loads(again.stdout)) == (0, [])
    told = json.loads(doctor(house, "--history", "-f", "json").stdout)
    assert {row["Kind"] for row in told} == {"volume_stuck", "allocation_without_instance"}
    assert {row["By"] for row in told} == {"doctor"}


def _start_conductor(house: House) -> None:
    """One that is known to the database as such: without any, nobody would be waited for."""
    house.start_conductor()

    def is_enlisted() -> bool:
        with house.db.read() as connection:
            return bool(conductors.list_all(connection))

    house.wait(is_enlisted)


def test_fix_waits_for_the_conductors_that_do_the_rest(house: House) -> None:
    _start_conductor(house)
    instance_uuid = drift.guest_misplaced(house)
    done = doctor(house, "--fix", "-f", "json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)[0]["Outcome"].startswith("mended")
    assert drift.fake(house).things.get("guests", instance_uuid) is None


def test_without_conductors_fix_says_that_the_rest_waits(house: House) -> None:
    drift.guest_misplaced(house)
    done = doctor(house, "--fix", "-f", "json")
    assert done.returncode == 1
    assert "no conductor runs" in done.stderr
    assert json.loads(done.stdout)[0]["Outcome"].startswith("posted")


def test_what_might_be_somebodys_needs_force(house: House) -> None:
    _start_conductor(house)
    instance_uuid = drift.guest_unknown(house)
    refused = doctor(house, "--fix")
    assert refused.returncode == 1
    assert drift.fake(house).things.get("guests", instance_uuid) is not None
    assert doctor(house, "--fix", "--force").returncode == 0
    assert drift.fake(house).things.get("guests", instance_uuid) is None


def test_a_silent_host_is_named_and_is_not_clean(house: House) -> None:
    house.faults("h1", {"operation": "guests", "error": "HypervisorUnavailable", "reason": "cable"})
    done = doctor(house)
    assert done.returncode == 3
    assert "host h1 could not be asked" in done.stderr
    assert "cable" in done.stderr


def test_a_host_that_is_not_registered_is_an_error(house: House) -> None:
    done = doctor(house, "--host", "h9")
    assert done.returncode == 1
    assert "h9" in done.stderr


def test_the_kinds_can_be_listed() -> None:
    command = [sys.executable, "-m", "hullwright.cli.main", "doctor", "--kinds", "-f", "json"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False, stdin=subprocess.DEVNULL)
    assert done.returncode == 0, done.stderr
    assert {row["Mended"] for row in json.loads(done.stdout)} == {"periodically", "by --fix", "with --force", "by a person"}
