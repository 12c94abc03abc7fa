"""`make demo` is what a new user sees first: it must end well, leave nothing, and when it fails say why and leave nothing either.

What `KEEP=1` leaves running works as the demo says, and `tools/demo --stop` takes all of it down.
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


@pytest.fixture
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A directory for one demo; whatever is left in it is taken down."""
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


def test_a_failure_tells_the_evidence_and_leaves_nothing(home: Path) -> None:
    (home / "state").mkdir()
    (home / "state" / "hullwright.db").write_text("this is no database")
    done = demo(home)
    assert done.returncode == 1
    assert "demo: the service ended with exit code 1" in done.stderr
    assert "file is not a database" in done.stderr
    assert "Traceback" not in done.stderr
    assert running_with(home) == []


def test_what_is_kept_works_as_it_says_and_stop_takes_it_down(home: Path) -> None:
    try:
        done = demo(home, KEEP="1")
        assert done.returncode == 0, done.stdout + done.stderr
        (advice,) = re.findall(r"^  export (OS_CLIENT_CONFIG_FILE=.*)$", done.stdout, re.MULTILINE)
        exports = dict(re.findall(r"(\w+)=(\S+)", advice))
        client = [str(Path(sys.executable).with_name("openstack")), "--os-cloud", "hullwright"]
        shown = subprocess.run(
            [*client, "server", "list", "-f", "value", "-c", "Name", "-c", "Status"], env=os.environ | exports,
            capture_output=True, text=True, timeout=60, check=False,
        )  # fmt: skip
        assert (shown.returncode, shown.stdout.split()) == (0, ["demo", "ACTIVE"]), shown.stderr
        assert any(" conductor" in command for command in running_with(home))
        # What its user made besides goes too.
        made_by_hand = [*client, "port", "create", "mine", "--network", "demo"], [*client, "volume", "create", "mine", "--size", "1"]
        for command in made_by_hand:
            made = subprocess.run(command, env=os.environ | exports, capture_output=True, text=True, timeout=60, check=False)
            assert made.returncode == 0, made.stderr
    finally:
        stopped = demo(home, "--stop")
    assert stopped.returncode == 0, stopped.stdout + stopped.stderr
    assert running_with(home) == []
    assert not (home / "state").exists()
    assert not (home / "libvirt").exists()
