"""`hullwright up` on one real host, as its user meets it, with the real `openstack` client. Fixture `up`.

Not for: one process at a time; see cloud.py.
"""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from .cloud import Cloud
from .libvirtd import session_host

OPENSTACK = Path(sys.executable).with_name("openstack")


class Up:
    """`hullwright up`, and the real `openstack` command with the clouds.yaml that it writes."""

    def __init__(self, cloud: Cloud) -> None:
        self.cloud = cloud
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it and wait until it answers."""
        if self.process is None:
            self.process = self.cloud.start("up")
            self.cloud.await_api()

    def interrupt(self) -> None:
        """Ctrl-C, without waiting for the end."""
        assert self.process is not None
        self.process.send_signal(signal.SIGINT)

    def await_end(self) -> int:
        """Wait until it has drained; its exit code."""
        assert self.process is not None
        code = self.process.wait(90)
        self.cloud.processes.remove(self.process)
        self.process = None
        return code

    def _run(self, *words: str, typed: str = "") -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [str(OPENSTACK), *words], capture_output=True, text=True, timeout=120, check=False, input=typed,
            env=self.cloud.environment() | {"OS_CLOUD": "hullwright"}, cwd=self.cloud.directory,
        )  # fmt: skip

    def openstack(self, *words: str) -> str:
        """Run `openstack` as a user does; it must succeed. Its output."""
        done = self._run(*words)
        assert done.returncode == 0, f"{words}: {done.stderr}\n{self.cloud.log_end()}"
        return done.stdout

    def answer(self, *words: str) -> Any:
        """Its output as JSON."""
        told = self.openstack(*words, "-f", "json")
        start = min((at for at in (told.find("{"), told.find("[")) if at >= 0), default=0)  # --wait tells its progress on the same channel
        return json.loads(told[start:])

    def answers(self, *commands: str) -> list[Any]:
        """The outputs of several commands as JSON, typed one after the other into one `openstack`: each alone takes seconds to start."""
        done = self._run(typed="".join(f"{command} -f json\n" for command in commands))  # its exit code says nothing in this mode
        assert not done.stderr, f"{commands}: {done.stderr}\n{self.cloud.log_end()}"
        output = done.stdout
        found: list[Any] = []
        while output.strip():
            value, end = json.JSONDecoder().raw_decode(output.lstrip())
            found.append(value)
            output = output.lstrip()[end:]
        assert len(found) == len(commands), output
        return found


@pytest.fixture(scope="session")
def _up(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Up]:
    with session_host("hull-e") as host:
        cloud = Cloud(tmp_path_factory.mktemp("up"), host, busy_timeout_seconds=1.0)
        try:
            yield Up(cloud)
        finally:
            cloud.close()


@pytest.fixture
def up(_up: Up) -> Up:
    """The session's `hullwright up`, running."""
    _up.start()
    return _up
