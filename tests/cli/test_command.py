"""The command itself, as a process: help, errors in one line, exit codes, no traceback."""

from __future__ import annotations

import importlib
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from hullwright.cli.main import COMMANDS

EMPTY_CONFIG = "[DEFAULT]\nstate_path = {}\n"


def hullwright(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run it."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("HULLWRIGHT_", "OS_"))}
    return subprocess.run(
        [sys.executable, "-m", "hullwright.cli.main", *arguments],
        capture_output=True, text=True, timeout=60, check=False, stdin=subprocess.DEVNULL, env=clean | environment,
    )  # fmt: skip


@pytest.fixture
def dead_url() -> str:
    """Where nobody listens."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{probe.getsockname()[1]}"


def test_without_arguments_it_lists_its_commands() -> None:
    done = hullwright()
    assert done.returncode == 0
    assert [name for name in COMMANDS if name not in done.stdout] == []


def test_it_tells_its_version() -> None:
    done = hullwright("--version")
    assert (done.returncode, done.stdout.split()[0]) == (0, "hullwright")


@pytest.mark.parametrize("arguments", [("server", "create", "--help"), ("help", "server", "create")])
def test_a_command_tells_its_own_arguments(arguments: tuple[str, ...]) -> None:
    done = hullwright(*arguments)
    assert done.returncode == 0
    assert "--wait-for-capacity" in done.stdout


def test_an_unknown_command_exits_2() -> None:
    done = hullwright("server", "explode")
    assert done.returncode == 2
    assert "Traceback" not in done.stderr + done.stdout


def test_a_missing_argument_exits_2_and_shows_the_usage() -> None:
    done = hullwright("server", "show")
    assert done.returncode == 2
    assert "usage: hullwright server show" in done.stderr


def test_an_api_that_is_away_is_one_line_and_exit_1(dead_url: str) -> None:
    done = hullwright("--url", dead_url, "server", "list")
    assert (done.returncode, done.stdout) == (1, "")
    (line,) = done.stderr.splitlines()
    assert line.startswith(f"hullwright: The API at {dead_url} does not answer: Connection refused. Start it with")


def test_the_url_may_come_from_the_environment(dead_url: str) -> None:
    assert dead_url in hullwright("flavor", "list", HULLWRIGHT_URL=dead_url).stderr


def test_debug_shows_the_traceback(dead_url: str) -> None:
    done = hullwright("--debug", "--url", dead_url, "flavor", "list")
    assert done.returncode == 1
    assert "Traceback" in done.stderr


def test_a_configuration_that_is_not_there_is_one_line(tmp_path: Path) -> None:
    done = hullwright("--config-file", str(tmp_path / "none.conf"), "db", "current")
    assert done.returncode == 1
    assert len(done.stderr.splitlines()) == 1
    assert "none.conf" in done.stderr


@pytest.mark.parametrize("url", ["mysql+pymysql://root:hunter2@host/name", "mariadb://root:hunter2@host/name", "root:hunter2@host/name"])
def test_a_database_that_is_neither_sqlite_nor_postgresql_is_one_line_and_exit_1(tmp_path: Path, url: str) -> None:
    (tmp_path / "c.conf").write_text(f"[database]\nconnection = {url}\n")
    done = hullwright("--config-file", str(tmp_path / "c.conf"), "db", "check")
    assert (done.returncode, done.stdout, len(done.stderr.splitlines())) == (1, "", 1)
    assert done.stderr.startswith("hullwright: [database] connection is a URL of ")
    assert "hunter2" not in done.stderr


@pytest.mark.parametrize("name", sorted(COMMANDS))
def test_every_command_loads_and_describes_itself(name: str) -> None:
    module, _, class_name = COMMANDS[name].partition(":")
    command = getattr(importlib.import_module(f"hullwright.cli.{module}"), class_name)
    assert command.__doc__
    assert not command.__doc__.rstrip().endswith(".")  # a title in the list of commands
