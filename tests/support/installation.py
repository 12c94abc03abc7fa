"""A whole installation as processes, for tests: `hullwright up` on a fake host, in a temporary directory, on a free port."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from .ports import free_port

START_SECONDS = 30.0


@dataclass
class Installation:
    """A running service and the command that speaks to it."""

    directory: Path
    config: Path
    url: str
    up: subprocess.Popen[bytes]
    log: Path

    def run(self, *arguments: str, timeout_seconds: float = 60) -> subprocess.CompletedProcess[str]:
        """Run the command."""
        return subprocess.run(
            [*COMMAND, "--config-file", str(self.config), "--url", self.url, *arguments],
            capture_output=True,
            text=True,
            timeout=timeout_seconds,
            check=False,
            stdin=subprocess.DEVNULL,
        )

    def ok(self, *arguments: str) -> str:
        """Run a command that must succeed; its output."""
        done = self.run(*arguments)
        assert done.returncode == 0, f"{arguments}: {done.stderr}{done.stdout}\n{self.log_end()}"
        return done.stdout

    def json(self, *arguments: str) -> Any:
        """Run a command that must succeed; its output as JSON."""
        return json.loads(self.ok(*arguments, "-f", "json"))

    def log_end(self) -> str:
        """The last lines that the services wrote."""
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-30:])

    def await_in_log(self, text: str, times: int = 1) -> None:
        """Until the services have written it so often."""
        until = time.monotonic() + START_SECONDS
        while self.log.read_text(errors="replace").count(text) < times:
            assert self.up.poll() is None, f"it ended:\n{self.log_end()}"
            assert time.monotonic() < until, f"no {text!r}:\n{self.log_end()}"
            time.sleep(0.05)

    def stop(self) -> int:
        """Drain; the exit code."""
        if self.up.poll() is None:
            self.up.send_signal(signal.SIGTERM)
        try:
            return self.up.wait(30)
        except subprocess.TimeoutExpired:
            self.up.send_signal(signal.SIGTERM)
            return self.up.wait(30)


COMMAND = [sys.executable, "-m", "hullwright.cli.main"]


@contextlib.contextmanager
def installed(directory: Path, *, conductors: int = 1) -> Iterator[Installation]:
    """Run a fresh installation with one fake host until the end of the block."""
    port = free_port()
    config = directory / "hullwright.conf"
    config.write_text(f"[DEFAULT]\nstate_path = {directory}\n\n[api]\nport = {port}\n\n[conductor]\nlease_seconds = 2\n")
    log = directory / "up.log"
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("OS_", "HULLWRIGHT_"))}
    for words in (["db", "upgrade"], ["host", "add", "h1", "--uri", "fake://h1"]):
        done = subprocess.run([*COMMAND, "--config-file", str(config), *words], capture_output=True, text=True, timeout=60, check=False)
        assert done.returncode == 0, done.stderr
    with log.open("wb") as sink:
        up = subprocess.Popen(
            [*COMMAND, "--config-file", str(config), "up", "--conductors", str(conductors)],
            stdin=subprocess.DEVNULL,
            stdout=sink,
            stderr=sink,
            env=environment,
        )
    running = Installation(directory, config, f"http://127.0.0.1:{port}", up, log)
    try:
        running.await_in_log("Compute API answers")
        yield running
    finally:
        running.stop()


@pytest.fixture(scope="module")
def installation(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installation]:
    """One installation for the tests of a file."""
    with installed(tmp_path_factory.mktemp("installation")) as running:
        yield running
