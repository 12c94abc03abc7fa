"""Builds through one conductor alone, without HTTP, in this process: CPU time, statements and commits per build, and where the time goes.

    python benchmarks/conductor.py -n 500

N builds are posted with one request each, as the API does, and run by a conductor in the same process on fake hosts.
Not for: comparing with services that are reached by HTTP; see `builds.py`.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import threading
import time
import uuid
from pathlib import Path
from typing import Any

import measure
import where

from hullwright.conductor.client import Asker, ConductorClient
from hullwright.conductor.service import Conductor
from hullwright.conf import database as database_options
from hullwright.conf import image as image_options
from hullwright.conf import opts
from hullwright.drivers.image.local.store import ImageDirectory
from hullwright.objects.flavors import Flavor
from hullwright.objects.images import Image
from hullwright.objects.instances import Instance, RequestSpec
from hullwright.objects.networks import Network, NetworkRequest, Subnet
from hullwright.objects.states import OPEN_JOB_STATES, JobState, PowerState, TaskState, VmState
from hullwright.persistence import hosts, images, jobs, networks, schema
from hullwright.persistence.database import Database, now
from hullwright.persistence.wakeup import Wakeup

RESULTS = Path(__file__).parent / "results"
IMAGE_BYTES = 1 << 20
FLAVOR = Flavor("bench", "bench", vcpus=1, memory_mb=64, root_gb=1)


def furnish(db: Database, conf: Any, host_count: int) -> tuple[Image, str]:
    """Hosts, an image with its bytes, a network; answers the image and the network's id."""
    directory = ImageDirectory(image_options.directory(conf))
    identity, network_id = str(uuid.uuid4()), str(uuid.uuid4())
    size, sha256, md5 = directory.write(identity, iter([bytes(IMAGE_BYTES)]), IMAGE_BYTES)
    image = Image(
        identity,
        "bench",
        disk_format="raw",
        size_bytes=size,
        virtual_size_bytes=size,
        checksum_sha256=sha256,
        checksum_md5=md5,
        created_at=now(),
    )
    with db.write() as writing:
        images.create(writing, image)
        networks.create(writing, Network(network_id, "bench", created_at=now()))
        networks.create_subnet(
            writing,
            Subnet(
                str(uuid.uuid4()), network_id, "bench", "10.0.0.0/12", gateway_ip="10.0.0.1", created_at=now(),
                allocation_pools=(("10.0.0.2", "10.15.255.254"),),
            ),
        )  # fmt: skip
        for number in range(host_count):
            hosts.register(writing, f"host-{number}", f"fake://host-{number}?vcpus=100000&memory_mb=100000000&disk_gb=10000000", "fake")
    return image, network_id


def instance(image: Image, network_id: str | None) -> Instance:
    """What a small request becomes."""
    identity = str(uuid.uuid4())
    cards = (NetworkRequest(str(uuid.uuid4()), network_id),) if network_id else ()
    spec = RequestSpec(identity, "bench", "bench", FLAVOR, image_id=image.id, networks=cards)
    return Instance(
        uuid=identity,
        name=f"bench-{identity[:8]}",
        project_id="bench",
        user_id="bench",
        vm_state=VmState.BUILDING,
        task_state=TaskState.SCHEDULING,
        power_state=PowerState.NOSTATE,
        flavor=FLAVOR,
        image_id=image.id,
        hostname="bench",
        created_at=now(),
        updated_at=now(),
        spec=spec,
    )


def await_hosts(db: Database, wanted: int) -> None:
    """Until every host has told its facts."""
    until = time.monotonic() + 30
    while time.monotonic() < until:
        with db.read() as reading:
            if sum(host.last_seen_at > 0 for host in hosts.list_all(reading)) == wanted:
                return
        time.sleep(0.05)
    sys.exit("the hosts did not answer")


def run_builds(db: Database, conf: Any, count: int, image: Image, network_id: str | None) -> dict[str, object]:
    """Post `count` builds and wait for all of them; one row of figures."""
    client = ConductorClient(db, conf, Wakeup(db, conf.state_path))
    asker = Asker("req-bench", "bench", "bench")
    batch = [instance(image, network_id) for _ in range(count)]
    statements, commits, cpu, begun = db.statements, db.commits, time.process_time(), time.time()
    for one in batch:
        client.create_servers([one], asker)
    posted = time.time()
    while time.time() - begun < 600:
        with db.read() as reading:
            if not jobs.list_jobs(reading, states=OPEN_JOB_STATES, limit=1):
                break
        time.sleep(0.05)
    used = time.process_time() - cpu
    with db.read() as reading:
        done = [job for job in jobs.list_jobs(reading, states=[JobState.DONE], limit=count) if job.created_at >= begun]
    wall = max((job.finished_at or 0.0 for job in done), default=time.time()) - begun
    memory = measure.memory_mib([os.getpid()])
    times = [(job.finished_at or 0.0) - (job.started_at or 0.0) for job in done]
    return {
        "N": count,
        "network": "one port" if network_id else "none",
        "done": len(done),
        "builds/s": f"{len(done) / wall:.1f}",
        "CPU ms/build": f"{used * 1000 / count:.1f}",
        "posts/s": f"{count / (posted - begun):.0f}",
        "statements/build": f"{(db.statements - statements) / count:.1f}",
        "commits/build": f"{(db.commits - commits) / count:.1f}",
        "leased to done p50 s": f"{measure.percentile(times, 50):.3f}",
        "p95 s": f"{measure.percentile(times, 95):.3f}",
        "RSS MiB": f"{memory['rss']:.0f}",
    }


def start_when_idle(db: Database, conf: Any, count: int, image: Image) -> dict[str, object]:
    """Post builds one at a time on an idle conductor; how long each waited to be leased, from the request's own time on."""
    client = ConductorClient(db, conf, Wakeup(db, conf.state_path))
    waits_ms = []
    for _ in range(count):
        time.sleep(0.2)
        (job_uuid,) = client.create_servers([instance(image, None)], Asker("req-bench", "bench", "bench"))
        while True:
            with db.read() as reading:
                job = jobs.get(reading, job_uuid)
            if job.state not in OPEN_JOB_STATES:
                break
            time.sleep(0.01)
        waits_ms.append(((job.started_at or 0.0) - job.created_at) * 1000)
    p50, p95 = (f"{measure.percentile(waits_ms, percent):.1f}" for percent in (50, 95))
    return {"builds": count, "posted to leased p50 ms": p50, "p95 ms": p95, "longest ms": f"{max(waits_ms):.1f}"}


def where_it_goes(db: Database, conf: Any, count: int, image: Image, network_id: str) -> list[dict[str, object]]:
    """What the CPU time of `count` builds with a port each was spent on; the code is marked from then on, and slower for it."""
    spent = where.Where(db)
    spent.reset()
    cpu = time.process_time()
    run_builds(db, conf, count, image, network_id)
    return spent.rows(time.process_time() - cpu, count)


def main() -> int:
    """Measure each N, without and with a network card, and write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-n", default="50,500", help="builds; several with commas (default 50,500)")
    parser.add_argument("--idle", type=int, default=50, help="builds that are posted one at a time on an idle conductor (default 50)")
    parser.add_argument("--where", type=int, default=300, help="builds of which it is told where their CPU time goes (default 300)")
    parser.add_argument("--hosts", type=int, default=10, help="fake hosts (default 10)")
    parser.add_argument("--database", help="SQLAlchemy URL of an empty database (default: SQLite)")
    parser.add_argument("--write", action="store_true", help="replace benchmarks/results/conductor.md by what this run measures")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="hullwright-bench-") as directory:
        overrides: dict[str, dict[str, Any]] = {"DEFAULT": {"state_path": directory}}
        if options.database:
            overrides["database"] = {"connection": options.database}
        conf = opts.load([], overrides)
        db = Database(database_options.url(conf), pool_size=conf.conductor.max_concurrent_jobs + 8)
        schema.upgrade(db)
        image, network_id = furnish(db, conf, options.hosts)
        conductor = Conductor(db, conf)
        serving = threading.Thread(target=conductor.run)
        serving.start()
        rows = []
        try:
            await_hosts(db, options.hosts)
            run_builds(db, conf, 2 * options.hosts, image, network_id)  # warms the image caches
            idle = [start_when_idle(db, conf, options.idle, image)]
            print(measure.table(idle), flush=True)
            for count in [int(word) for word in options.n.split(",")]:
                for network in (None, network_id):
                    rows.append(run_builds(db, conf, count, image, network))
                    print(measure.table(rows[-1:]), flush=True)
            shares = where_it_goes(db, conf, options.where, image, network_id)
            print(measure.table(shares), flush=True)
        finally:
            conductor.stop()
            serving.join()
            db.close()
    kind = "SQLite" if not options.database else options.database.partition(":")[0]
    if options.write:
        method = (
            f"`python benchmarks/conductor.py`: one conductor in the poster's process, {options.hosts} fake hosts, {kind}. The figures "
            "count posting too, and the heartbeats and questions to hosts that fall into the time."
        )
        measure.write(RESULTS / "conductor.md", "Builds through one conductor", method, rows)
        method = "`python benchmarks/conductor.py`: builds posted one at a time, 0.2 s after the one before has ended."
        measure.write(RESULTS / "idle.md", "How soon an idle conductor starts a build", method, idle)
        method = (
            f"`python benchmarks/conductor.py`: {options.where} builds with a port each, after all others. Reading the clocks takes time "
            "too: the shares count, the sums are in [conductor](conductor.md)."
        )
        measure.write(RESULTS / "where.md", "Where the CPU time of a build goes", method, shares)
    return 0 if all(row["done"] == row["N"] for row in rows) else 1


if __name__ == "__main__":
    sys.exit(main())
