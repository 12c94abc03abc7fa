"""Builds per second through REST: one API and one conductor or more, on fake hosts; what each build costs in CPU time and memory.

    python benchmarks/builds.py -n 50,500,2000 -c 8

POSTs N servers with C at a time, until all are ACTIVE or ERROR: without a network while the list of all is polled once a
second, as an impatient user would, then without polls, then polled with a port for each server. CPU time is that of all
processes of the service; the time of a build is that on record, from the request to ACTIVE. Fake hosts keep records
instead of running guests, so that what is measured is Hullwright itself.
Not for: how long a real guest takes; see `make demo`.
"""

from __future__ import annotations

import argparse
import contextlib
import http.client
import json
import queue
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import measure
import sqlalchemy as sa

from hullwright.cli import http as client_module
from hullwright.conf import database as database_options
from hullwright.conf import opts
from hullwright.objects.states import JobState
from hullwright.persistence import hosts, jobs, schema
from hullwright.persistence.database import Database
from hullwright.persistence.models.instances import instances

RESULTS = Path(__file__).parent / "results"
PAGE = 1000


@dataclass
class Service:
    """The processes under test."""

    url: str
    processes: dict[str, subprocess.Popen[bytes]]
    database: Database
    log: Path

    def pids(self) -> dict[str, list[int]]:
        """Role -> processes, workers included."""
        return {role: measure.tree(process.pid) for role, process in self.processes.items()}


def free_port() -> int:
    """Any."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextlib.contextmanager
def service(options: argparse.Namespace) -> Iterator[Service]:
    """A fresh installation in a directory of its own, served until the end of the block."""
    with tempfile.TemporaryDirectory(prefix="hullwright-bench-") as directory:
        state = Path(directory)
        port = free_port()
        config = state / "hullwright.conf"
        connection = f"\n[database]\nconnection = {options.database}\n" if options.database else ""
        config.write_text(f"[DEFAULT]\nstate_path = {state}\nlog_level = WARNING\n\n[api]\nport = {port}\n{connection}")
        database = Database(database_options.url(opts.load([config])))
        schema.upgrade(database)
        with database.write() as writing:
            for number in range(options.hosts):
                uri = f"fake://host-{number}?vcpus=100000&memory_mb=100000000&disk_gb=10000000"
                hosts.register(writing, f"host-{number}", uri, "fake")
        log = state / "service.log"
        roles = {"api": ["api"]} | {f"conductor-{number}": ["conductor"] for number in range(1, options.conductors + 1)}
        with log.open("wb") as sink:
            processes = {
                role: subprocess.Popen(
                    [sys.executable, "-m", "hullwright.cli.main", "--config-file", str(config), *words], stdout=sink, stderr=sink
                )
                for role, words in roles.items()
            }
            try:
                running = Service(f"http://127.0.0.1:{port}", processes, database, log)
                await_ready(running, options.hosts)
                yield running
            finally:
                for process in processes.values():
                    process.send_signal(signal.SIGTERM)
                for process in processes.values():
                    with contextlib.suppress(subprocess.TimeoutExpired):
                        process.wait(30)
                    process.kill()
                database.close()


def await_ready(running: Service, wanted: int) -> None:
    """Until the API answers and every host has told its facts."""
    api = client_module.Client(running.url)
    until = time.monotonic() + 60
    while True:
        ended = [role for role, process in running.processes.items() if process.poll() is not None]
        if ended or time.monotonic() > until:
            sys.exit(f"{', '.join(ended) or 'the service'} did not come up:\n{running.log.read_text()[-3000:]}")
        with contextlib.suppress(client_module.ApiUnreachable):
            api.get("/healthz")
            with running.database.read() as reading:
                if sum(host.last_seen_at > 0 for host in hosts.list_all(reading)) == wanted:
                    return
        time.sleep(0.1)


def prepare(running: Service) -> dict[str, Any]:
    """An image of one MiB, a small flavor and a network; the body of a create request without its name."""
    api = client_module.Client(running.url)
    image = api.post("/image/v2/images", {"name": "bench", "disk_format": "raw", "container_format": "bare"})
    api.request("PUT", f"/image/v2/images/{image['id']}/file", data=bytes(1 << 20), headers={"Content-Type": "application/octet-stream"})
    flavor = api.post("/v2.1/flavors", {"flavor": {"name": "bench", "vcpus": 1, "ram": 64, "disk": 1}})["flavor"]
    network = api.post("/network/v2.0/networks", {"network": {"name": "bench"}})["network"]
    subnet = {"network_id": network["id"], "ip_version": 4, "cidr": "10.0.0.0/12"}
    api.post("/network/v2.0/subnets", {"subnet": subnet})
    return {"imageRef": image["id"], "flavorRef": flavor["id"], "networks": [{"uuid": network["id"]}]}


class Poster:
    """C connections that post what is in the queue; kept alive, one per thread, as a busy client's are."""

    def __init__(self, url: str, method: str, path: str, wanted: int) -> None:
        self.host, _, self.port = url.removeprefix("http://").partition(":")
        self.method, self.path, self.wanted = method, path, wanted
        self.latencies: list[float] = []
        self.failures: list[str] = []
        self.answers: list[Any] = []
        self._lock = threading.Lock()

    def send(self, requests: list[tuple[str, Any]], concurrency: int) -> None:
        """(what is added to the path, body), C at a time."""
        todo: queue.SimpleQueue[tuple[str, Any]] = queue.SimpleQueue()
        for request in requests:
            todo.put(request)
        threads = [threading.Thread(target=self._work, args=(todo,)) for _ in range(concurrency)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    def _work(self, todo: queue.SimpleQueue[tuple[str, Any]]) -> None:
        connection = http.client.HTTPConnection(self.host, int(self.port), timeout=120)
        headers = {"Content-Type": "application/json", "OpenStack-API-Version": "compute 2.87"}
        while True:
            try:
                suffix, body = todo.get_nowait()
            except queue.Empty:
                connection.close()
                return
            begun = time.perf_counter()
            connection.request(self.method, self.path + suffix, None if body is None else json.dumps(body), headers)
            answer = connection.getresponse()
            content = answer.read()
            with self._lock:
                self.latencies.append(time.perf_counter() - begun)
                if answer.status == self.wanted:
                    self.answers.append(json.loads(content) if content else None)
                else:
                    self.failures.append(f"{answer.status} {content[:200].decode(errors='replace')}")


def list_servers(api: client_module.Client) -> dict[str, str]:
    """Id -> status of all servers, page by page."""
    found: dict[str, str] = {}
    marker: dict[str, str] = {}
    while True:
        page = api.get("/v2.1/servers/detail", limit=PAGE, **marker)["servers"]
        found |= {server["id"]: server["status"] for server in page}
        if len(page) < PAGE:
            return found
        marker = {"marker": page[-1]["id"]}


def recorded_servers(running: Service) -> dict[str, str]:
    """The same from the record, at no cost to the service."""
    query = sa.select(instances.c.uuid, sa.func.upper(instances.c.vm_state)).where(instances.c.deleted_at.is_(None))
    with running.database.read() as reading:
        return {row[0]: row[1] for row in reading.execute(query)}


def measure_builds(
    running: Service, count: int, concurrency: int, timeout_seconds: float, *, is_polled: bool, has_port: bool
) -> dict[str, object]:
    """Build `count` servers, then delete them; one row of figures."""
    api = client_module.Client(running.url)
    body = prepare_once(running) | ({} if has_port else {"networks": "none"})
    poster = Poster(running.url, "POST", "/v2.1/servers", 202)
    requests = [("", {"server": body | {"name": f"bench-{number}"}}) for number in range(count)]
    roles = running.pids()
    before = {role: measure.cpu_seconds(pids) for role, pids in roles.items()}
    begun = time.time()
    sending = threading.Thread(target=poster.send, args=(requests, concurrency))
    sending.start()
    servers: dict[str, str] = {}
    while time.time() - begun < timeout_seconds:
        time.sleep(1.0)
        servers = list_servers(api) if is_polled else recorded_servers(running)
        ended = sum(status in ("ACTIVE", "ERROR") for status in servers.values())
        if not sending.is_alive() and ended >= count - len(poster.failures):
            break
    sending.join()
    cpu = {role: measure.cpu_seconds(pids) - before[role] for role, pids in roles.items()}
    memory = measure.memory_mib([pid for pids in roles.values() for pid in pids])
    active = [identity for identity, status in servers.items() if status == "ACTIVE"]
    with running.database.read() as reading:
        done = [
            job for job in jobs.list_jobs(reading, kinds=["build_instance"], states=[JobState.DONE], limit=count) if job.created_at >= begun
        ]
    # From the first request to the last guest, as recorded: the polls see it up to a second late.
    wall = max((job.finished_at or 0.0 for job in done), default=time.time()) - begun
    times = [(job.finished_at or 0.0) - job.created_at for job in done]
    deletes = measure_deletes(running, api, list(servers), concurrency, timeout_seconds)
    for failure in poster.failures[:3]:
        print(f"failed: {failure}", file=sys.stderr)
    builds = max(1, len(active))
    return {
        "N": count,
        "C": concurrency,
        "network": "one port" if has_port else "none",
        "polled": "yes" if is_polled else "no",
        "active": len(active),
        "not active": count - len(active),
        "builds/s": f"{len(active) / wall:.1f}",
        "CPU ms/build": f"{sum(cpu.values()) * 1000 / builds:.1f}",
        "of it API": f"{cpu['api'] * 1000 / builds:.1f}",
        "POST p50 ms": f"{measure.percentile(poster.latencies, 50) * 1000:.0f}",
        "POST p95 ms": f"{measure.percentile(poster.latencies, 95) * 1000:.0f}",
        "build p50 s": f"{measure.percentile(times, 50):.2f}",
        "build p95 s": f"{measure.percentile(times, 95):.2f}",
        "RSS peak MiB": f"{memory['hwm']:.0f}",
        "PSS MiB": f"{memory['pss']:.0f}",
        "deletes/s": deletes,
    }


_bodies: dict[str, dict[str, Any]] = {}


def prepare_once(running: Service) -> dict[str, Any]:
    """`prepare` for each service, and one build that warms its hosts' image caches."""
    if running.url not in _bodies:
        body = prepare(running)
        api = client_module.Client(running.url)
        api.post("/v2.1/servers", {"server": body | {"name": "warm", "min_count": 8, "max_count": 8}})
        until = time.monotonic() + 30
        while any(status == "BUILD" for status in list_servers(api).values()) and time.monotonic() < until:
            time.sleep(0.1)
        measure_deletes(running, api, list(list_servers(api)), 2, 30)
        _bodies[running.url] = body
    return _bodies[running.url]


def measure_deletes(running: Service, api: client_module.Client, servers: list[str], concurrency: int, timeout_seconds: float) -> str:
    """Delete all; deletes per second until the list is empty."""
    begun = time.time()
    Poster(running.url, "DELETE", "/v2.1/servers/", 204).send([(identity, None) for identity in servers], concurrency)
    while (left := list_servers(api)) and time.time() - begun < timeout_seconds:
        time.sleep(0.2)
    return f"{len(left)} left" if left else f"{len(servers) / (time.time() - begun):.0f}"


def main() -> int:
    """Measure each N in turn against one service, and write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-n", default="50,500", help="servers to build; several with commas (default 50,500)")
    parser.add_argument("-c", type=int, default=8, help="requests at a time (default 8)")
    parser.add_argument("--conductors", type=int, default=1)
    parser.add_argument("--hosts", type=int, default=10, help="fake hosts (default 10)")
    parser.add_argument("--database", help="SQLAlchemy URL of an empty database (default: SQLite)")
    parser.add_argument("--timeout", type=float, default=600.0, metavar="SECONDS", help="for each N")
    parser.add_argument("--write", action="store_true", help="replace benchmarks/results/builds.md by what this run measures")
    options = parser.parse_args()
    with service(options) as running:
        rows = []
        for count in [int(word) for word in options.n.split(",")]:
            for is_polled, has_port in ((True, False), (False, False), (True, True)):
                rows.append(measure_builds(running, count, options.c, options.timeout, is_polled=is_polled, has_port=has_port))
                print(measure.table(rows[-1:]), flush=True)
    kind = "SQLite" if not options.database else options.database.partition(":")[0]
    if options.write:
        method = (
            f"`make bench`: {options.hosts} fake hosts, {options.conductors} conductor(s), one API process, {kind}. N servers are posted "
            "with C at a time; where it says so, the list of all is polled once a second meanwhile. CPU time is of all processes of the "
            "service."
        )
        measure.write(RESULTS / "builds.md", "Builds through REST", method, rows)
    return 0 if all(row["not active"] == 0 for row in rows) else 1


if __name__ == "__main__":
    sys.exit(main())
