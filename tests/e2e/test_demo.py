"""`make demo` is what a new user sees first: it must end well, leave nothing, and when it fails say why and leave nothing either.

What `KEEP=1` leaves running works as the demo says; the next demo clears it away, and so does `tools/demo --stop`.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
pytestmark = [pytest.mark.libvirt, pytest.mark.slow]


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The directory of one demo after the other, as in a checkout; whatever is left in it is taken down."""
    path = tmp_path_factory.mktemp("demo")
    yield path
    demo(path, "--stop")


def demo(home: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run it as `make demo` does."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("OS_", "HULLWRIGHT_", "KEEP"))}
    return subprocess.run(
        [sys.executable, ROOT / "tools" / "demo", *arguments],
        env=clean | {"DEMO_HOME": str(home)} | environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )


def running_with(home: Path) -> list[str]:
    """Command lines of processes that know the demo's directory."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and int(entry.name) != os.getpid():
            try:
                command = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
            except OSError:
                continue
            if str(home) in command:
                found.append(command)
    return found


def test_it_builds_a_real_server_checks_it_and_leaves_nothing(home: Path) -> None:
    done = demo(home)
    assert done.returncode == 0, done.stdout + done.stderr
    kept = "\n".join(line for line in done.stdout.splitlines() if line.startswith("  yes  "))
    for promise in ("hostname", "user data", "by DHCP", "answers ping", "no domain", "no disk", "is free", "no allocation"):
        assert promise in kept
    assert "spawn" in done.stdout
    assert running_with(home) == []
    assert not (home / "state").exists()


def test_a_failure_tells_the_evidence_and_leaves_nothing(tmp_path: Path) -> None:
    home = tmp_path
    (home / "state").mkdir()
    (home / "state" / "hullwright.db").write_text("this is no database")
    done = demo(home)
    assert done.returncode == 1
    assert "demo: the service ended with exit code 1" in done.stderr
    assert "file is not a database" in done.stderr
    assert "Traceback" not in done.stderr
    assert running_with(home) == []


class Client:
    """The real client, led to what a demo has left running."""

    def __init__(self, done: subprocess.CompletedProcess[str]) -> None:
        """`done`: the demo."""
        assert done.returncode == 0, done.stdout + done.stderr
        (advice,) = re.findall(r"^  export (OS_CLIENT_CONFIG_FILE=.*)$", done.stdout, re.MULTILINE)
        self._environment = os.environ | dict(re.findall(r"(\w+)=(\S+)", advice))

    def run(self, *words: str) -> list[str]:
        """A command that must succeed; the lines of its output."""
        command = [str(Path(sys.executable).with_name("openstack")), "--os-cloud", "hullwright", *words]
        done = subprocess.run(command, env=self._environment, capture_output=True, text=True, timeout=60, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout.splitlines()

    def servers(self) -> list[str]:
        """Name and status of each."""
        return self.run("server", "list", "-f", "value", "-c", "Name", "-c", "Status")

    def make_by_hand(self) -> None:
        """What a user makes besides."""
        self.run("port", "create", "mine", "--network", "demo")
        self.run("volume", "create", "mine", "--size", "1")


def test_what_is_kept_works_as_it_says_and_the_next_demo_and_stop_take_it_down(home: Path) -> None:
    try:
        kept = Client(demo(home, KEEP="1"))
        assert kept.servers() == ["demo ACTIVE"]
        assert any(" conductor" in command for command in running_with(home))
        kept.make_by_hand()
        done = demo(home, KEEP="1")
        kept = Client(done)
        assert "an earlier run left server demo: deleting it" in done.stdout
        assert kept.servers() == ["demo ACTIVE"]
        assert kept.run("volume", "list", "-f", "value", "-c", "Name") == []
        assert "mine" not in kept.run("port", "list", "-f", "value", "-c", "Name")
        kept.make_by_hand()
    finally:
        stopped = demo(home, "--stop")
    assert stopped.returncode == 0, stopped.stdout + stopped.stderr
    assert running_with(home) == []
    assert not (home / "state").exists()
    assert not (home / "libvirt").exists()
