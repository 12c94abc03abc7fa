"""The units for systemd: what they start is what the runbook installs, and no outage ends them for good."""

from __future__ import annotations

import configparser
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
UNITS = sorted((ROOT / "etc" / "systemd").iterdir())
RUNBOOK = (ROOT / "docs" / "runbook.md").read_text()


def read(unit: Path) -> configparser.ConfigParser:
    """The unit's sections; no directive of ours is given twice."""
    parser = configparser.ConfigParser(interpolation=None, delimiters=("=",))
    parser.optionxform = str  # type: ignore[assignment,method-assign]  # names keep their case
    parser.read(unit)
    return parser


@pytest.fixture(params=UNITS, ids=lambda unit: unit.name)
def unit(request: pytest.FixtureRequest) -> Path:
    """Each unit."""
    path: Path = request.param
    return path


def test_a_unit_starts_what_the_runbook_installs(unit: Path) -> None:
    service = read(unit)["Service"]
    for directive in ("ExecStartPre", "ExecStart"):
        command, _, config = service[directive].split()[:3]
        assert f"{Path(command).parent}/pip install" in RUNBOOK
        assert f"etc/hullwright.conf.sample {config}" in RUNBOOK


def test_a_units_user_and_directory_are_made_by_what_the_runbook_tells(unit: Path) -> None:
    service = read(unit)["Service"]
    users = re.findall(r'^u (\S+) - "[^"]*" (\S+)$', (ROOT / "etc" / "sysusers.d" / "hullwright.conf").read_text(), re.MULTILINE)
    assert users == [(service["User"], service["WorkingDirectory"])]
    assert service["WorkingDirectory"] == f"/var/lib/{service['StateDirectory']}"
    assert "systemd-sysusers" in RUNBOOK
    assert f"state_path = {service['WorkingDirectory']}" in RUNBOOK


def test_a_unit_names_no_group_that_a_machine_may_not_have(unit: Path) -> None:
    assert "SupplementaryGroups" not in read(unit)["Service"]


def test_no_outage_of_the_database_ends_a_unit_for_good(unit: Path) -> None:
    parsed = read(unit)
    assert parsed["Unit"]["StartLimitIntervalSec"] == "0"
    assert parsed["Service"]["Restart"] == "on-failure"
    assert int(parsed["Service"]["RestartSec"]) >= 5


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="there is no systemd-analyze")
def test_systemd_understands_a_unit(unit: Path, tmp_path: Path) -> None:
    text = unit.read_text()
    for command in re.findall(r"^Exec\w+=(\S+)", text, re.MULTILINE):  # it asks whether the file is there
        text = text.replace(command, sys.executable)
    made = tmp_path / unit.name.replace("@.", "@1.")
    made.write_text(text)
    done = subprocess.run(["systemd-analyze", "verify", "--man=no", made], capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, [line for line in done.stderr.splitlines() if unit.stem.rstrip("@") in line]) == (0, [])
