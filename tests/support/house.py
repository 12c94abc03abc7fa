"""A whole Hullwright in a directory, for tests: database, hosts, the conductor's client, conductors in this process or as real processes.

Hosts are fake unless a URI is given. Not for: HTTP; see the API's own helpers.
"""

from __future__ import annotations

import contextlib
import json
import math
import multiprocessing
import os
import signal
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from hullwright.conductor.client import Asker, ConductorClient
from hullwright.conductor.hosts import inventories_of
from hullwright.conductor.service import Conductor
from hullwright.conf import opts
from hullwright.drivers.image.local.store import ImageDirectory
from hullwright.drivers.registry import Drivers
from hullwright.objects.builds import Attempt, Job
from hullwright.objects.flavors import Flavor
from hullwright.objects.hosts import HostRef
from hullwright.objects.images import Image
from hullwright.objects.instances import Instance, RequestSpec
from hullwright.objects.networks import NetworkRequest
from hullwright.objects.states import OPEN_JOB_STATES, JobState, TaskState, VmState
from hullwright.objects.volumes import BlockDeviceRequest
from hullwright.persistence import attempts, hosts, images, instances, jobs
from hullwright.persistence.database import Database, now
from hullwright.persistence.images import SqlImageStore
from hullwright.persistence.models import metadata
from hullwright.persistence.models.jobs import flows as flows_table
from hullwright.persistence.ports import SqlPortStore
from hullwright.persistence.volumes import SqlVolumeStore
from hullwright.persistence.wakeup import Wakeup
from support.conductor_process import serve, words_of

FLAVOR = Flavor(id="1", name="small", vcpus=1, memory_mb=512, root_gb=1)
ASKER = Asker(request_id="req-1", project_id="p", user_id="u")


# Processes are forked from a server that has imported everything and holds no database: they start in milliseconds.
# Python 3.11 does not tell that server our sys.path (it fails to import, and says nothing), but the environment does.
os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, (str(Path(__file__).parents[1]), os.environ.get("PYTHONPATH"))))
_forks = multiprocessing.get_context("forkserver")
_forks.set_forkserver_preload(["support.conductor_process"])


class ChildProcess:
    """A process forked from that server: a conductor, or whatever runs `target`."""

    def __init__(self, target: Callable[..., None], *arguments: Any) -> None:
        self._process = _forks.Process(target=target, args=arguments)
        self._process.start()

    @property
    def pid(self) -> int:
        """The process's number."""
        assert self._process.pid is not None
        return self._process.pid

    def poll(self) -> int | None:
        """How it ended, -9 for SIGKILL; None while it runs."""
        return self._process.exitcode

    def wait(self, timeout_seconds: float | None = None) -> int | None:
        """Wait for its end; answers as `poll`."""
        self._process.join(timeout_seconds)
        return self._process.exitcode

    def send_signal(self, number: int) -> None:
        """Send a signal, if it still runs."""
        if self.poll() is None:
            with contextlib.suppress(ProcessLookupError):  # it ended just now; the server that forked it has not said so yet
                os.kill(self.pid, number)

    def terminate(self) -> None:
        """SIGTERM: drain."""
        self.send_signal(signal.SIGTERM)

    def is_stopped(self) -> bool:
        """Whether SIGSTOP has taken hold of it: a SIGCONT before that would be lost."""
        return Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()[0] == "T"

    def go_on(self) -> None:
        """SIGCONT, after a SIGSTOP."""
        self.send_signal(signal.SIGCONT)

    def kill(self) -> None:
        """SIGKILL, and wait for the end."""
        self.send_signal(signal.SIGKILL)
        self.wait()

    def last_words(self) -> str:
        """Why it never came to where it has a log."""
        path = words_of(self.pid)
        return path.read_text() if path.exists() else ""


class House:
    """One installation under `directory`."""

    def __init__(self, directory: Path, url: str | None = None, **overrides: dict[str, Any]) -> None:
        """`overrides`: group -> option -> value."""
        self.directory = directory
        self.overrides: dict[str, dict[str, Any]] = {
            "DEFAULT": {"state_path": str(directory)},
            "conductor": {"lease_seconds": 3.0, "poll_interval": 0.2, "retry_interval": 0.2, "max_leases": 30, "unknown_job_seconds": 0.5},
            "compute": {"report_interval": 5.0},
        }
        if url is not None:
            self.overrides["database"] = {"connection": url}
        for group, values in overrides.items():
            self.overrides.setdefault(group, {}).update(values)
        self.conf = opts.load([], self.overrides)
        self.db = Database(url or f"sqlite:///{directory}/hullwright.db")
        metadata.create_all(self.db.engine)
        self.wakeup = Wakeup(self.db, directory)
        self.client = ConductorClient(self.db, self.conf, self.wakeup)
        self.processes: list[ChildProcess] = []

    # --- Furnishing ------------------------------------------------------------------------------------------------------

    def add_host(
        self, name: str = "h1", uri: str | None = None, *, vcpus: int = 1000, memory_mb: int = 2_000_000, disk_gb: int = 10_000
    ) -> None:
        """Register a host and give it the room that its first answer to a conductor's monitor gives it, without waiting for one."""
        driver = "libvirt" if uri else "fake"
        uri = uri or f"fake://{name}?vcpus={vcpus}&memory_mb={memory_mb}&disk_gb={disk_gb}"
        drivers = self.drivers()
        with self.db.write() as connection:
            host = hosts.register(connection, name, uri, driver)
        facts = drivers.virt(HostRef(name, uri, driver)).facts()
        with self.db.write() as connection:
            hosts.record_facts(connection, host.name, facts, inventories_of(facts, self.conf))
        drivers.close()

    def add_image(self, size_bytes: int = 1 << 20) -> str:
        """Put a raw image of random bytes into the image service; answers its id."""
        image_id = str(uuid.uuid4())
        store = ImageDirectory(self.conf.image.path or self.directory / "images")
        chunks = (os.urandom(min(1 << 20, size_bytes - start)) for start in range(0, size_bytes, 1 << 20))
        size, sha256, md5 = store.write(image_id, chunks, size_bytes)
        image = Image(image_id, "random", disk_format="raw", size_bytes=size, checksum_sha256=sha256, checksum_md5=md5)
        with self.db.write() as connection:
            images.create(connection, image)
        return image_id

    def drivers(self) -> Drivers:
        """Drivers of this process, as the conductor makes them."""
        return Drivers(self.conf, ports=SqlPortStore(self.db), volumes=SqlVolumeStore(self.db), images=SqlImageStore(self.db))

    def faults(self, host: str, *rules: Mapping[str, Any]) -> None:
        """What goes wrong on a fake host; without rules nothing does."""
        path = self.directory / "fake" / host / "faults.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_suffix(".new")
        temporary.write_text(json.dumps({"rules": list(rules)}))
        temporary.rename(path)

    # --- Asking ------------------------------------------------------------------------------------------------------------

    def new_instance(self, name: str = "vm", **fields: Any) -> Instance:
        """An instance as the API would make it, not yet posted. Fields of `RequestSpec` go to the spec."""
        spec_fields = {key: fields.pop(key) for key in list(fields) if key in RequestSpec.__dataclass_fields__}
        instance_uuid = str(uuid.uuid4())
        spec = RequestSpec(**({"instance_uuid": instance_uuid, "project_id": "p", "user_id": "u", "flavor": FLAVOR} | spec_fields))
        return Instance(
            **(
                {
                    "uuid": instance_uuid,
                    "name": name,
                    "project_id": "p",
                    "user_id": "u",
                    "vm_state": VmState.BUILDING,
                    "task_state": TaskState.SCHEDULING,
                    "power_state": 0,
                    "flavor": spec.flavor,
                    "image_id": spec.image_id,
                    "hostname": name,
                    "created_at": now(),
                    "updated_at": now(),
                    "spec": spec,
                    "config_drive": spec.config_drive,
                }
                | fields
            )
        )

    def create(self, count: int = 1, **fields: Any) -> list[str]:
        """Post builds; answers the instances' uuids."""
        batch = [self.new_instance(f"vm{number}", **fields) for number in range(count)]
        self.client.create_servers(batch, ASKER)
        return [instance.uuid for instance in batch]

    def create_by_version(self, version: int) -> str:
        """A build that another version of the flow began on h1, which this adds, and that waits for a conductor."""
        self.add_host("h1")
        self.faults("h1", {"operation": "spawn", "hang": True})
        with self.conductor() as conductor:
            (instance_uuid,) = self.create()
            self.wait(lambda: self.get(instance_uuid).task_state == TaskState.SPAWNING)
            conductor.stop()
            self.faults("h1")
        factory = {"name": f"hullwright.flows.build.build_instance_v{version}", "args": [], "kwargs": {}}
        with self.db.write() as connection:
            connection.execute(flows_table.update().values(meta={"factory": factory}))
        return instance_uuid

    def delete(self, instance_uuid: str) -> None:
        """Post a delete."""
        self.client.delete_server(instance_uuid, ASKER)

    def get(self, instance_uuid: str) -> Instance:
        """The instance, deleted or not."""
        with self.db.read() as connection:
            return instances.get(connection, instance_uuid, deleted=True)

    def build_of(self, instance_uuid: str) -> Job:
        """The instance's newest build."""
        with self.db.read() as connection:
            found = jobs.latest(connection, instance_uuid, "build_instance")
        assert found is not None
        return found

    def attempts_of(self, instance_uuid: str) -> list[Attempt]:
        """The attempts of its newest build."""
        job = self.build_of(instance_uuid)
        with self.db.read() as connection:
            return attempts.list_for(connection, job.uuid)

    def waits(self, instance_uuid: str) -> bool:
        """Whether its build waits for room."""
        job = self.build_of(instance_uuid)
        return job.state == JobState.QUEUED and job.waits_for is not None

    def states(self, uuids: list[str]) -> dict[str, int]:
        """How many of the instances are in which vm_state."""
        found: dict[str, int] = {}
        for instance_uuid in uuids:
            state = self.get(instance_uuid).vm_state
            found[state] = found.get(state, 0) + 1
        return found

    def open_jobs(self) -> int:
        """Jobs that a conductor has still to do something with."""
        with self.db.read() as connection:
            return len(jobs.list_jobs(connection, states=OPEN_JOB_STATES, limit=10_000))

    def wait(self, condition: Callable[[], Any], timeout_seconds: float = 60.0) -> Any:
        """Wait until `condition` is true; fails with what the jobs say otherwise."""
        deadline = time.monotonic() + timeout_seconds
        while time.monotonic() < deadline:
            if found := condition():
                return found
            time.sleep(0.02)
        with self.db.read() as connection:
            told = [f"{job.kind} {job.state} {job.error}" for job in jobs.list_jobs(connection, limit=20)]
        raise AssertionError(f"waited {timeout_seconds} s in vain; jobs: {told}")

    def rest(self, timeout_seconds: float = 60.0) -> None:
        """Wait until no job is open."""
        self.wait(lambda: self.open_jobs() == 0, timeout_seconds)

    # --- Conductors --------------------------------------------------------------------------------------------------------

    @contextmanager
    def conductor(self, *, takes_over: bool = True) -> Iterator[Conductor]:
        """A conductor in a thread of this process, drained at the end. `takes_over`: also the jobs of conductors that died."""
        conductor = Conductor(self.db, self.conf)
        if not takes_over:
            conductor._intake.look_for_orphans_at = math.inf
        thread = threading.Thread(target=conductor.run)
        thread.start()
        try:
            yield conductor
        finally:
            conductor.stop()
            thread.join(timeout=30)
            assert not thread.is_alive(), "the conductor did not drain"

    def start_conductor(self, preamble: str = "") -> ChildProcess:
        """A conductor as a process of its own; `preamble` is Python that it runs first."""
        process = ChildProcess(serve, self.overrides, preamble, str(self.directory / f"conductor-{len(self.processes)}.log"))
        self.processes.append(process)
        return process

    def logs(self) -> str:
        """What the conductors' processes said."""
        told = [path.read_text(errors="replace") for path in sorted(self.directory.glob("conductor-*.log"))]
        return "\n".join([*told, *(process.last_words() for process in self.processes)])

    def request_port(self, network_id: str, **fields: Any) -> NetworkRequest:
        """A card asked for."""
        return NetworkRequest(port_id=str(uuid.uuid4()), network_id=network_id, **fields)

    def request_volume(self, **fields: Any) -> BlockDeviceRequest:
        """A block device asked for."""
        return BlockDeviceRequest(**({"attachment_id": str(uuid.uuid4()), "volume_id": str(uuid.uuid4())} | fields))

    def close(self) -> None:
        """Stop what is left and close the database."""
        for process in self.processes:
            process.terminate()
        for process in self.processes:
            if process.wait(30) is None:
                process.kill()
            words_of(process.pid).unlink(missing_ok=True)
        self.wakeup.close()
        self.db.close()


@pytest.fixture
def house(tmp_path: Path) -> Iterator[House]:
    """An empty house on SQLite."""
    made = House(tmp_path)
    yield made
    made.close()


@pytest.fixture
def house_on_each(tmp_path: Path, db_url: str) -> Iterator[House]:
    """An empty house on SQLite and on PostgreSQL in turn."""
    made = House(tmp_path, db_url)
    yield made
    made.close()
