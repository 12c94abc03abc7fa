"""`KEEP=1 make demo`: what is left running works as the demo says, and `tools/demo --stop` takes all of it down.

The demo that ends by itself is tested in tests/cli/test_demo.py.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
pytestmark = [pytest.mark.slow, pytest.mark.libvirt]


def _demo(home: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("OS_", "HULLWRIGHT_", "KEEP"))}
    return subprocess.run(
        [sys.executable, ROOT / "tools" / "demo", *arguments], env=clean | {"DEMO_HOME": str(home)} | environment,
        stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=240, check=False,
    )  # fmt: skip


def _processes(home: Path) -> list[str]:
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


def test_what_is_kept_works_as_it_says_and_stop_takes_it_down(tmp_path_factory: pytest.TempPathFactory) -> None:
    home = tmp_path_factory.mktemp("kept")
    try:
        done = _demo(home, KEEP="1")
        assert done.returncode == 0, done.stdout + done.stderr
        (advice,) = re.findall(r"^  export (OS_CLIENT_CONFIG_FILE=.*)$", done.stdout, re.MULTILINE)
        exports = dict(re.findall(r"(\w+)=(\S+)", advice))
        client = [str(Path(sys.executable).with_name("openstack")), "--os-cloud", "hullwright"]
        shown = subprocess.run(
            [*client, "server", "list", "-f", "value", "-c", "Name", "-c", "Status"], env=os.environ | exports,
            capture_output=True, text=True, timeout=60, check=False,
        )  # fmt: skip
        assert (shown.returncode, shown.stdout.split()) == (0, ["demo", "ACTIVE"]), shown.stderr
        assert any(" conductor" in command for command in _processes(home))
    finally:
        stopped = _demo(home, "--stop")
    assert stopped.returncode == 0, stopped.stdout + stopped.stderr
    assert _processes(home) == []
    assert not (home / "state").exists()
    assert not (home / "libvirt").exists()
