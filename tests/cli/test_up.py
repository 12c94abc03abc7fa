"""`hullwright up` as a whole: addresses, clouds.yaml, a conductor that dies, draining, an address that is taken."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

from support.installation import COMMAND, Installation, installed


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Installation:
    """An installation with two conductors."""
    with installed(tmp_path_factory.mktemp("pair"), conductors=2) as running:
        yield running


def children_of(pid: int) -> dict[int, str]:
    """Pid -> command line."""
    found = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                stat = (entry / "stat").read_text()
                if int(stat.rpartition(")")[2].split()[1]) == pid:
                    found[int(entry.name)] = (entry / "cmdline").read_text().replace("\0", " ")
            except OSError:
                continue
    return found


def ends_within(pid: int, seconds: float) -> bool:
    """Whether a process, nobody's child of ours, ends in time."""
    try:
        fd = os.pidfd_open(pid)
    except ProcessLookupError:
        return True
    try:
        return bool(select.select([fd], [], [], seconds)[0])
    finally:
        os.close(fd)


def test_it_says_where_everything_is(pair: Installation) -> None:
    log = pair.log.read_text()
    assert f"{pair.url}/v2.1" in log
    assert f"export OS_CLIENT_CONFIG_FILE={pair.directory / 'clouds.yaml'}" in log
    until = time.monotonic() + 60  # the API answers before the last conductor has said its first word
    while "conductor-2 |" not in pair.log.read_text():
        assert time.monotonic() < until, pair.log.read_text()
        time.sleep(0.1)


def test_clouds_yaml_leads_to_every_service(pair: Installation) -> None:
    cloud = yaml.safe_load((pair.directory / "clouds.yaml").read_text())["clouds"]["hullwright"]
    assert cloud["auth_type"] == "none"
    assert cloud["compute_endpoint_override"] == f"{pair.url}/v2.1"
    assert cloud["image_endpoint_override"] == f"{pair.url}/image"


def test_the_openstack_client_works_with_it(pair: Installation) -> None:
    client = Path(sys.executable).with_name("openstack")
    for words in (["flavor", "list"], ["image", "list"], ["network", "list"], ["server", "list"], ["volume", "list"]):
        done = subprocess.run(
            [client, "--os-cloud", "hullwright", *words, "-f", "json"],
            env=os.environ | {"OS_CLIENT_CONFIG_FILE": str(pair.directory / "clouds.yaml")},
            capture_output=True, text=True, timeout=60, check=False,
        )  # fmt: skip
        assert (done.returncode, done.stdout.strip()) == (0, "[]"), f"{words}: {done.stderr}"


def test_a_conductor_that_is_killed_starts_again(pair: Installation) -> None:
    pair.await_in_log("serves, up to", times=2)
    victim = next(pid for pid, command in children_of(pair.up.pid).items() if " conductor" in command)
    os.kill(victim, signal.SIGKILL)
    pair.await_in_log("serves, up to", times=3)
    assert "was ended by SIGKILL; it starts again in 0.5 s" in pair.log.read_text()


def test_an_address_that_is_taken_is_one_line_and_exit_1(pair: Installation) -> None:
    done = subprocess.run([*COMMAND, "--config-file", str(pair.config), "up"], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert "cannot be listened at: somebody listens there" in line
    assert "--port" in line


def test_stopping_drains_and_leaves_no_process(tmp_path: Path) -> None:
    with installed(tmp_path) as running:
        children = list(children_of(running.up.pid))
        assert len(children) == 2
        assert running.stop() == 0
        assert [pid for pid in children if Path(f"/proc/{pid}").exists()] == []
        assert "api has stopped" in running.log.read_text()


def test_children_end_when_up_itself_is_killed(tmp_path: Path) -> None:
    with installed(tmp_path) as running:
        children = list(children_of(running.up.pid))
        running.up.kill()
        running.up.wait(10)
        left = [pid for pid in children if not ends_within(pid, 15)]
        assert left == []
