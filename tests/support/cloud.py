"""A whole Hullwright on real libvirts, for end-to-end tests: API and conductor as processes, driven over HTTP and by the commands.

Fixtures: `cloud`, one service on two hosts for the whole session; `service`, the same, whose conductor the test starts and ends.
Not for: fake hosts; see house.py and installation.py.
"""

from __future__ import annotations

import base64
import contextlib
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import requests

from hullwright.conf import opts
from hullwright.drivers.registry import Drivers
from hullwright.objects.states import OPEN_JOB_STATES
from hullwright.persistence import jobs
from hullwright.persistence.database import Database
from hullwright.persistence.images import SqlImageStore
from hullwright.persistence.ports import SqlPortStore
from hullwright.persistence.volumes import SqlVolumeStore

from . import invariants
from .installation import COMMAND
from .libvirtd import GuestImage, Libvirtd, session_host
from .ports import free_port

BUILD_SECONDS = 90.0
BOOT_SECONDS = 120.0
MICROVERSION = "2.96"
# Hosts are equal, so that the first in the list is always tried first; a host that is silent is soon known to be.
CONFIG = """\
[DEFAULT]
state_path = {directory}

[api]
port = {port}

[conductor]
lease_seconds = 3
retry_interval = 0.5

[compute]
report_interval = 1
service_down_time = 4

[scheduler]
weight_classes =

[database]
busy_timeout_seconds = {busy_timeout_seconds}

[libvirt]
pool_name = {directory.name}

[volume]
pool_name = {directory.name}-volumes
"""


class Cloud:
    """One installation in a directory. Its processes are started and ended one by one."""

    def __init__(self, directory: Path, *hosts: Libvirtd, busy_timeout_seconds: float = 20.0) -> None:
        """`hosts` are registered under their own names, in order. Pools on them are named by the directory."""
        self.directory = directory
        self.hosts = {host.name: host for host in hosts}
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.config = directory / "hullwright.conf"
        self.config.write_text(CONFIG.format(directory=directory, port=self.port, busy_timeout_seconds=busy_timeout_seconds))
        self.log = directory / "services.log"
        self.log.touch()
        self.conf = opts.load([self.config])
        self.command("db", "upgrade")
        for host in hosts:
            self.command("host", "add", host.name, "--uri", host.uri)
        self.db = Database(f"sqlite:///{directory}/hullwright.db")
        self.processes: list[subprocess.Popen[bytes]] = []
        self.session = requests.Session()
        self.session.trust_env = False
        self.session.headers["OpenStack-API-Version"] = f"compute {MICROVERSION}"

    # --- Processes ---------------------------------------------------------------------------------------------------------

    def environment(self) -> dict[str, str]:
        """A user's, with what leads to this installation."""
        clean = {name: value for name, value in os.environ.items() if not name.startswith(("OS_", "HULLWRIGHT_"))}
        return clean | {"OS_CLIENT_CONFIG_FILE": str(self.directory / "clouds.yaml"), "HULLWRIGHT_URL": self.url}

    def command(self, *words: str, timeout_seconds: float = 90) -> str:
        """Run a `hullwright` command that must succeed; its output."""
        done = subprocess.run(
            [*COMMAND, "--config-file", str(self.config), *words],
            capture_output=True, text=True, timeout=timeout_seconds, check=False, stdin=subprocess.DEVNULL, env=self.environment(),
        )  # fmt: skip
        assert done.returncode == 0, f"{words}: {done.stderr}{done.stdout}"
        return done.stdout

    def start(self, *words: str, preamble: str = "") -> subprocess.Popen[bytes]:
        """Start `hullwright api`, `conductor` or `up`; `preamble` is Python that the process runs first."""
        arguments = ["--config-file", str(self.config), *words]
        code = f"{preamble}\nimport sys\nfrom hullwright.cli.main import main\nsys.exit(main({arguments!r}))"
        with self.log.open("ab") as sink:
            process = subprocess.Popen(
                [sys.executable, "-c", code] if preamble else [*COMMAND, *arguments],
                stdin=subprocess.DEVNULL, stdout=sink, stderr=sink, env=self.environment(), start_new_session=True,
            )  # fmt: skip
        self.processes.append(process)
        return process

    def await_api(self) -> None:
        """Until it answers."""

        def answers() -> bool:
            with contextlib.suppress(requests.ConnectionError):
                return self.session.get(f"{self.url}/healthz", timeout=5).status_code == 200
            return False

        self.wait(answers, 60, pause_seconds=0.1)

    def stop(self, process: subprocess.Popen[bytes], number: signal.Signals = signal.SIGTERM, timeout_seconds: float = 90) -> int:
        """Send a signal and wait for the end; the exit code."""
        if process.poll() is None:
            process.send_signal(number)
        code = process.wait(timeout_seconds)
        self.processes.remove(process)
        return code

    def log_end(self) -> str:
        """The last lines that the services wrote."""
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-30:])

    def close(self) -> None:
        """End everything."""
        for process in self.processes[::-1]:
            with contextlib.suppress(ProcessLookupError):
                process.terminate()
        for process in self.processes:
            try:
                process.wait(60)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait(10)
        self.session.close()
        self.db.close()

    # --- HTTP --------------------------------------------------------------------------------------------------------------

    def ask(self, method: str, path: str, body: Any = None, **arguments: Any) -> requests.Response:
        """One request, whatever the answer. Paths without a service are Compute's."""
        if not path.startswith(("/image", "/network", "/volume", "/v1")):
            path = "/v2.1" + path
        return self.session.request(method, self.url + path, **({"json": body, "timeout": 60} | arguments))

    def call(self, method: str, path: str, body: Any = None, **arguments: Any) -> Any:
        """One request that must succeed; the answer's JSON."""
        answer = self.ask(method, path, body, **arguments)
        assert answer.status_code < 400, f"{method} {path}: {answer.status_code} {answer.text}\n{self.log_end()}"
        return answer.json() if answer.content else None

    def upload(self, name: str, data: bytes | Path, disk_format: str = "qcow2", **properties: Any) -> str:
        """Have an image in the store; its id."""
        image_id = self.begin_image(name, disk_format, **properties)
        with data.open("rb") if isinstance(data, Path) else contextlib.nullcontext(data) as source:
            self.call("PUT", f"/image/v2/images/{image_id}/file", data=source, headers={"Content-Type": "application/octet-stream"})
        return image_id

    def begin_image(self, name: str, disk_format: str, **properties: Any) -> str:
        """An image without bytes as yet; its id."""
        container = disk_format if disk_format in ("aki", "ari") else "bare"
        body = {"name": name, "disk_format": disk_format, "container_format": container, "visibility": "public", **properties}
        image_id: str = self.call("POST", "/image/v2/images", body)["id"]
        return image_id

    def flavor(self, name: str, disk_gb: int = 1, memory_mb: int = 160) -> str:
        """A flavor's id."""
        body = {"flavor": {"name": name, "ram": memory_mb, "vcpus": 1, "disk": disk_gb}}
        flavor_id: str = self.call("POST", "/flavors", body)["flavor"]["id"]
        return flavor_id

    def network(self, name: str, prefix: str) -> str:
        """The id of a network with one subnet; `prefix` such as 10.222.1."""
        network_id: str = self.call("POST", "/network/v2.0/networks", {"network": {"name": name}})["network"]["id"]
        subnet = {"network_id": network_id, "ip_version": 4, "cidr": f"{prefix}.0/24"}
        self.call("POST", "/network/v2.0/subnets", {"subnet": subnet})
        return network_id

    def create(self, name: str, *, image: str | None, flavor: str, networks: Any = "none", **fields: Any) -> str:
        """POST /servers; the server's id. `user_data` is text."""
        if "user_data" in fields:
            fields["user_data"] = base64.b64encode(fields["user_data"].encode()).decode()
        server = {"name": name, "flavorRef": flavor, "imageRef": image or "", "networks": networks, **fields}
        server_id: str = self.call("POST", "/servers", {"server": server})["server"]["id"]
        return server_id

    def server(self, server_id: str) -> dict[str, Any]:
        """As the API shows it."""
        shown: dict[str, Any] = self.call("GET", f"/servers/{server_id}")["server"]
        return shown

    def is_gone(self, server_id: str) -> bool:
        """Whether the API knows no such server."""
        return self.ask("GET", f"/servers/{server_id}").status_code == 404

    def build(self, server_id: str) -> dict[str, Any]:
        """The server's build as the Build API tells it."""
        found = self.call("GET", "/v1/builds", params={"server_id": server_id, "kind": "build_instance"})["builds"]
        told: dict[str, Any] = self.call("GET", f"/v1/builds/{found[0]['id']}")["build"]
        return told

    def console(self, server_id: str) -> str:
        """What the guest said."""
        output: str = self.call("POST", f"/servers/{server_id}/action", {"os-getConsoleOutput": {}})["output"]
        return output.replace("\r", "")

    # --- Waiting -----------------------------------------------------------------------------------------------------------

    def wait(self, condition: Callable[[], Any], timeout_seconds: float = BUILD_SECONDS, pause_seconds: float = 0.05) -> Any:
        """Wait until `condition` is true; its value."""
        deadline = time.monotonic() + timeout_seconds
        while True:
            if found := condition():
                return found
            dead = [process.args for process in self.processes if (process.poll() or 0) > 0]
            assert not dead, f"{dead} ended:\n{self.log_end()}"
            assert time.monotonic() < deadline, f"waited {timeout_seconds} s in vain; the services say:\n{self.log_end()}"
            time.sleep(pause_seconds)

    def await_status(self, server_id: str, wanted: str) -> dict[str, Any]:
        """Wait until the server rests, in that status; the server."""

        def at_rest() -> dict[str, Any] | None:
            server = self.server(server_id)
            assert "is stuck: " not in self.log_end(), self.log_end()
            return server if server["OS-EXT-STS:task_state"] is None and server["status"] in (wanted, "ACTIVE", "ERROR") else None

        server: dict[str, Any] = self.wait(at_rest, pause_seconds=0.1)
        assert server["status"] == wanted, f"{server.get('fault')}\n{self.log_end()}"
        return server

    def await_console(self, server_id: str, pattern: str, timeout_seconds: float = BOOT_SECONDS) -> re.Match[str]:
        """Wait until the guest has said it, in a line that it has ended."""

        def said() -> re.Match[str] | None:
            lines = self.console(server_id).rpartition("\n")[0]
            return re.search(pattern, lines, re.MULTILINE)

        found: re.Match[str] = self.wait(said, timeout_seconds, pause_seconds=0.5)
        return found

    def delete(self, *server_ids: str) -> None:
        """Delete servers and wait until they are gone."""
        for server_id in server_ids:
            self.call("DELETE", f"/servers/{server_id}")
        for server_id in server_ids:
            self.wait(lambda server_id=server_id: self.is_gone(server_id), pause_seconds=0.1)

    def rest(self, timeout_seconds: float = BUILD_SECONDS) -> None:
        """Wait until no job is open."""

        def open_jobs() -> int:
            with self.db.read() as connection:
                return len(jobs.list_jobs(connection, states=OPEN_JOB_STATES, limit=100))

        self.wait(lambda: open_jobs() == 0, timeout_seconds)

    # --- Looking ---------------------------------------------------------------------------------------------------------

    def drivers(self) -> Drivers:
        """Drivers of this process."""
        return Drivers(self.conf, ports=SqlPortStore(self.db), volumes=SqlVolumeStore(self.db), images=SqlImageStore(self.db))

    def check(self) -> None:
        """Assert what is true of an installation at rest: see invariants.py."""
        self.rest()
        invariants.check(self)  # type: ignore[arg-type]  # it has what is asked of a house

    def files_about(self, *ids: str) -> list[str]:
        """Files of this installation whose names tell of any of these, the database's own aside."""
        return sorted(str(path) for path in self.directory.rglob("*") if any(each in path.name for each in ids))

    def virsh(self, host: str, *words: str) -> str:
        """What virsh says of a host; empty when it fails."""
        done = subprocess.run(
            ["virsh", "-q", "-c", self.hosts[host].uri, *words],
            capture_output=True, text=True, timeout=30, check=False, stdin=subprocess.DEVNULL,
        )  # fmt: skip
        return done.stdout if done.returncode == 0 else ""


class Service:
    """A cloud whose API always runs, and whose conductor tests may end and start as they like."""

    def __init__(self, cloud: Cloud) -> None:
        self.cloud = cloud
        self.conductor: subprocess.Popen[bytes] | None = None

    def start(self, preamble: str = "") -> subprocess.Popen[bytes]:
        """Start the conductor, and wait until it serves."""
        served = self._served()
        self.conductor = self.cloud.start("conductor", preamble=preamble)
        self.cloud.wait(lambda: self._served() > served, 60)
        return self.conductor

    def await_death(self, timeout_seconds: float = 60) -> None:
        """Wait until the conductor has been killed from within."""
        assert self.conductor is not None
        assert self.conductor.wait(timeout_seconds) == -signal.SIGKILL, self.cloud.log_end()
        self.stop()

    def _served(self) -> int:
        return self.cloud.log.read_text(errors="replace").count("serves, up to")

    def stop(self, number: signal.Signals = signal.SIGTERM) -> int:
        """End the conductor, if it runs."""
        conductor, self.conductor = self.conductor, None
        return 0 if conductor is None else self.cloud.stop(conductor, number)


@pytest.fixture(scope="session")
def _service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    # Hosts of its own: what other tests have on theirs would be drift here.
    with session_host("hull-c") as first, session_host("hull-d") as second:
        cloud = Cloud(tmp_path_factory.mktemp("cloud"), first, second)
        try:
            cloud.start("api")
            cloud.await_api()
            yield Service(cloud)
        finally:
            cloud.close()


@pytest.fixture
def service(_service: Service) -> Iterator[Service]:
    """The session's service with its API and no conductor as yet."""
    _service.stop()
    yield _service
    _service.stop(signal.SIGKILL)


@pytest.fixture
def cloud(_service: Service) -> Cloud:
    """The session's service with its API and a conductor."""
    if _service.conductor is None or _service.conductor.poll() is not None:
        _service.start()
    return _service.cloud


@pytest.fixture(scope="session")
def parts(_service: Service, guest_image: GuestImage) -> dict[str, str]:
    """Ids of what builds need: image, flavor, network."""
    cloud = _service.cloud
    return {
        "image": cloud.upload("guest", guest_image.qcow2),
        "flavor": cloud.flavor("tiny"),
        "network": cloud.network("net", "10.222.1"),
    }
