"""The scheduler alone: choosing among many hosts, keeping the view of them current, spreading requests, claiming.

    python benchmarks/scheduler.py --hosts 100,1000,10000,100000

`select`: one request after the other on one thread, chosen and claimed, with the default filters and with all there are; the requests of
the latter ask for something of each filter, where that leaves them more than a few hosts. Beside it a plain loop that asks the same of each
host in turn, in the same process. `refresh`: the view while claims go on. `herding`: many requests
at once through several schedulers, each a process of its own as conductors are. `claim`: on a host that holds many instances already.
Not for: builds; see `conductor.py`. Over 400 lines in one file because each part needs hosts that are furnished alike.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import random
import sys
import tempfile
import time
import uuid
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import measure
import sqlalchemy as sa

from hullwright.conf import opts
from hullwright.objects.errors import ComputeResourcesUnavailable, NoValidHost
from hullwright.objects.flavors import Flavor
from hullwright.objects.hosts import HostFacts
from hullwright.objects.instances import Instance, RequestSpec
from hullwright.objects.server_groups import GroupPolicy, ServerGroup
from hullwright.objects.states import TaskState, VmState
from hullwright.persistence import aggregates, allocations, instances, schema, server_groups
from hullwright.persistence.database import Database, now
from hullwright.persistence.models.groups import aggregate_hosts
from hullwright.persistence.models.groups import aggregates as aggregate_rows
from hullwright.persistence.models.hosts import hosts, inventories
from hullwright.scheduler import filters
from hullwright.scheduler.claim import claim_first
from hullwright.scheduler.request import Request
from hullwright.scheduler.select import Scheduler

RESULTS = Path(__file__).parent / "results"
FLAVOR = Flavor("bench", "bench", vcpus=1, memory_mb=512, root_gb=1)
FEATURES = (
    *("3dnowprefetch", "abm", "adx", "aes", "apic", "arat", "avx", "avx2", "bmi1", "bmi2", "clflush", "cmov", "cx16", "cx8", "de", "f16c"),
    *("fma", "fpu", "fsgsbase", "fxsr", "lahf_lm", "lm", "mca", "mce", "mmx", "movbe", "msr", "mtrr", "nx", "osxsave", "pae", "pat"),
    *("pclmuldq", "pdpe1gb", "pge", "pni", "popcnt", "pse", "pse36", "rdrand", "rdseed", "rdtscp", "sep", "sha-ni", "smap", "smep", "sse"),
    *("sse2", "sse4.1", "sse4.2", "sse4a", "ssse3", "svm", "syscall", "tsc", "vme", "xsave", "xsaveopt"),
)
FACTS = HostFacts(
    "h",
    "QEMU",
    7002022,
    vcpus=64,
    memory_mb=262144,
    disk_gb=4000,
    disk_free_gb=4000,
    cpu_model="EPYC",
    cpu_features=FEATURES,
    virt_types=("kvm", "qemu"),
    machine_types=("pc", "pc-i440fx-7.2", "pc-q35-7.2", "q35"),
)
AGGREGATES = 20  # each host is in one of these by its number, and in a second one that has SSDs, or not
METRICS = {"cpu.percent": -0.1}
# What a request asks for so that filters have work to do.
EXTRA_SPECS = {
    "capabilities:hypervisor_type": "QEMU",
    "capabilities:cpu_info:features": "<in> avx2",
    "capabilities:free_ram_mb": ">= 1024",
    "trait:HW_CPU_X86_AVX2": "required",
    "trait:CUSTOM_SLOW": "forbidden",
    "aggregate_instance_extra_specs:ssd": "true",
}
HINTS = {
    "query": '["and", [">=", "$free_ram_mb", 1024], ["=", "$hypervisor_type", "QEMU"]]',
    "build_near_host_ip": "10.1.2.3",
    "cidr": "/8",
}
TRIED = {"host-000001": "it broke"}
IMAGE = {"hw_architecture": "x86_64", "img_hv_type": "qemu", "os_distro": "debian"}
CLAIMS_PER_SECOND = 1000


def spec(**more: Any) -> RequestSpec:
    """One request with an image that says what it needs; `more` of a request's fields."""
    fields = {"flavor": FLAVOR, "image_properties": IMAGE, **more}
    return RequestSpec(str(uuid.uuid4()), "bench", "bench", image_id="image", image_disk_format="qcow2", **fields)


def furnish(db: Database, count: int, *, equal: bool = False) -> None:
    """So many hosts, unequally full and busy, in aggregates, one in twenty disabled; or equal and empty ones. Written in bulk."""
    luck = random.Random(1)
    told = FACTS.to_dict()
    with db.write() as conn:
        for start in range(0, count, 1000):
            some = range(start, min(start + 1000, count))
            conn.execute(
                sa.insert(hosts),
                [
                    {
                        "id": number + 1,
                        "uuid": str(uuid.UUID(int=number)),
                        "name": f"host-{number:06}",
                        "uri": "fake:///bench",
                        "driver": "fake",
                        "enabled": equal or luck.random() > 0.05,
                        "facts": told if equal else {**told, "host_ip": _address(number), "metrics": {"cpu.percent": number % 100}},
                        "checked_at": now(),
                        "last_seen_at": now(),
                        "created_at": now(),
                    }
                    for number in some
                ],
            )
            conn.execute(
                sa.insert(inventories),
                [
                    {"host_id": number + 1, "resource_class": name, "total": total, "allocation_ratio": ratio, "used": used}
                    for number in some
                    for share in [0.0 if equal else luck.random()]
                    for name, total, ratio in (("VCPU", 64, 4.0), ("MEMORY_MB", 262144, 1.0), ("DISK_GB", 4000, 1.0))
                    for used in [int(total * share)]
                ],
            )
        if not equal:
            _put_into_aggregates(conn, count)


def _address(number: int) -> str:
    return f"10.{number >> 16}.{number >> 8 & 255}.{number & 255}"


def _put_into_aggregates(conn: Any, count: int) -> None:
    """Aggregates whose metadata the filters look at; they leave about half of the hosts to a request that asks for SSDs."""
    of_all = {"filter_tenant_id": "bench,other", "instance_type": "bench,small", "os_distro": "debian,fedora"}
    most = {"max_io_ops_per_host": "100000", "max_instances_per_host": "100000"}
    for number in range(AGGREGATES):
        slow = {"trait:CUSTOM_SLOW": "required"} if number == 0 else {}
        aggregates.set_metadata(conn, aggregates.create(conn, f"rack-{number}").id, {**of_all, **most, **slow})
    for ssd in ("true", "false"):
        aggregates.set_metadata(conn, aggregates.create(conn, f"ssd-{ssd}").id, {"ssd": ssd})
    rows = {row.name: row.id for row in conn.execute(sa.select(aggregate_rows.c.name, aggregate_rows.c.id))}
    belongs = (
        (number, name) for number in range(count) for name in (f"rack-{number % AGGREGATES}", f"ssd-{'true' if number % 2 else 'false'}")
    )
    members = [{"aggregate_id": rows[name], "host_id": number + 1, "created_at": now()} for number, name in belongs]
    for start in range(0, len(members), 1000):
        conn.execute(sa.insert(aggregate_hosts), members[start : start + 1000])


def demands(db: Database) -> dict[str, Any]:
    """What a request says for which nearly every filter has work: a group with ten members, servers to be kept away from, and so on."""
    group = ServerGroup(str(uuid.uuid4()), "bench", "bench", "bench", GroupPolicy.ANTI_AFFINITY, 100_000, created_at=now())
    others = [spec() for _ in range(10)]
    with db.write() as conn:
        server_groups.create(conn, group)
        for host_id, each in enumerate(others, 1):
            begin_build(conn, each, host_id, f"host-{host_id - 1:06}")
        server_groups.add_members(conn, {each.instance_uuid: group.uuid for each in others})
    return {
        "flavor": replace(FLAVOR, extra_specs=EXTRA_SPECS),
        "image_properties": {**IMAGE, "hw_machine_type": "q35"},
        "scheduler_hints": {**HINTS, "different_host": [others[0].instance_uuid], "group": group.uuid},
        "availability_zone": "nova",
        "ignore_hosts": ("host-000003",),
    }


def at_work(db: Database, conf: Any, asked: RequestSpec, tried: dict[str, str]) -> str:
    """How many of a scheduler's filters have something to say of a request, and of how many."""
    scheduler = Scheduler(db, conf)
    scheduler.refresh()
    hosts_now = scheduler._snapshot.columns
    request = Request(asked, asked.resources(), tried, now(), conf, scheduler._relations.read(asked))
    speaking = [each for each in scheduler._filters if list(each.verdicts(hosts_now, request, hosts_now.all()))]
    return f"{len(speaking)} of {len(scheduler._filters)}"


@contextmanager
def database(url: str | None) -> Iterator[Database]:
    """An empty one: a file for the time of the block, or what `url` names, emptied before."""
    with tempfile.TemporaryDirectory(prefix="hullwright-bench-") as directory:
        db = Database(url or f"sqlite:///{directory}/bench.db", pool_size=40)
        try:
            if url:
                with db.write() as conn:
                    conn.exec_driver_sql("DROP SCHEMA public CASCADE")
                    conn.exec_driver_sql("CREATE SCHEMA public")
            schema.upgrade(db)
            yield db
        finally:
            db.close()


def place(db: Database, scheduler: Scheduler, asked: RequestSpec, tally: Counter[str]) -> str | None:
    """Select and claim as the steps of a build do; None when it was refused."""
    try:
        selection = scheduler.select(asked, {})
        while True:
            try:
                with db.write() as conn:
                    host = claim_first(conn, selection, asked.resources(), asked.instance_uuid, None).host
            except ComputeResourcesUnavailable:
                tally["retries"] += 1
                selection = scheduler.select(asked, {}, fresh=True)
                continue
            tally["conflicts"] += host != selection.host
            return host
    except NoValidHost:
        return None


# --- Choosing ---------------------------------------------------------------------------------------------------------


def plain_select(rows: list[dict[str, Any]], asked: RequestSpec) -> str | None:
    """What the default filters and weighers do, one host at a time: the usual way to write it."""
    wanted = asked.resources()
    passing = []
    for row in rows:
        if not row["enabled"] or row["forced_down"] or row["last_seen_at"] == 0 or row["silent_seconds"] > 60:
            continue
        facts = row["facts"]
        rooms = row["rooms"]
        if any(
            amount > rooms[name][0] or rooms[name][2] + amount > rooms[name][0] * rooms[name][1]
            for name, amount in wanted.items()
        ):  # fmt: skip
            continue
        if facts.cpu_arch != "x86_64" or "qemu" not in facts.virt_types or "qcow2" not in facts.disk_formats:
            continue
        passing.append(row)
    if not passing:
        return None
    totals = [0.0] * len(passing)
    for name in wanted:
        raw = [row["rooms"][name][0] * row["rooms"][name][1] - row["rooms"][name][2] for row in passing]
        low, high = min(raw), max(raw)
        if high > low:
            totals = [total + (value - low) / (high - low) for total, value in zip(totals, raw, strict=True)]
    failed = [-row["failed_builds"] for row in passing]
    low, high = min(failed), max(failed)
    if high > low:
        totals = [total + 1e6 * (value - low) / (high - low) for total, value in zip(totals, failed, strict=True)]
    ordered = sorted(range(len(passing)), key=lambda at: -totals[at])
    return str(passing[ordered[0]]["name"])


def plain_rows(db: Database) -> list[dict[str, Any]]:
    """The hosts for `plain_select`, read once."""
    with db.read() as conn:
        rows = {row.id: dict(row._mapping) for row in conn.execute(sa.select(hosts))}
        for row in rows.values():
            row["facts"], row["rooms"] = HostFacts.from_dict(row["facts"]), {}
        for room in conn.execute(sa.select(inventories)):
            rows[room.host_id]["rooms"][room.resource_class] = (room.total - room.reserved, room.allocation_ratio, room.used)
    return list(rows.values())


def every_filter(conf: Any) -> list[str]:
    """The names of all filters of this package."""
    folder = Path(filters.__file__).parent
    found = sorted(path.stem for path in folder.glob("[!_]*.py") if path.stem != "destination" and "def check(" in path.read_text())
    return [name for name in found if name != "all_hosts"]


def configured(title: str) -> Any:
    """The options: the defaults, or with all filters on and with all weighers counting."""
    conf = opts.load([])
    if title == "all":
        conf.set_override("enabled_filters", every_filter(conf), "scheduler")
        conf.set_override("isolated_hosts", ["host-000005"], "scheduler")
        conf.set_override("max_io_ops_per_host", 100_000, "scheduler")
        conf.set_override("max_instances_per_host", 100_000, "scheduler")
        conf.set_override("weight_setting", METRICS, "metrics")
        conf.set_override("num_instances_weight_multiplier", -1.0, "scheduler")
        conf.set_override("image_props_weight_multiplier", 1.0, "scheduler")
    return conf


def measure_select(db: Database, count: int, rounds: int) -> list[dict[str, object]]:
    """Rows for `count` hosts: default filters, all filters, the plain loop."""
    rows: list[dict[str, object]] = []
    before = measure.memory_mib([os.getpid()])["rss"]
    for title in ("default", "all"):
        conf = configured(title)
        more, tried = (demands(db), TRIED) if title == "all" else ({}, {})
        scheduler = Scheduler(db, conf)
        begun = time.perf_counter()
        scheduler.select(spec(**more), tried)
        first = time.perf_counter() - begun
        memory = measure.memory_mib([os.getpid()])["rss"] - before
        chosen, whole, busy = [], [], []
        for _ in range(rounds):
            asked = spec(**more)
            begun, begun_cpu = time.perf_counter(), time.thread_time()
            selection = scheduler.select(asked, tried)
            middle = time.perf_counter()
            with db.write() as conn:
                claim_first(conn, selection, asked.resources(), asked.instance_uuid, None)
            busy.append(time.thread_time() - begun_cpu)
            whole.append(time.perf_counter() - begun)
            chosen.append(middle - begun)
        rows.append(
            {
                "hosts": count,
                "filters": title,
                "filters at work": at_work(db, conf, spec(**more), tried),
                "select p50 ms": _ms(chosen, 50),
                "select p99 ms": _ms(chosen, 99),
                "with claim p50 ms": _ms(whole, 50),
                "with claim p99 ms": _ms(whole, 99),
                "CPU of it p50 ms": _ms(busy, 50),
                "first reading s": f"{first:.2f}",
                "memory MiB": f"{memory:.0f}",
            }
        )
        print(measure.table(rows[-1:]), flush=True)
    plain, asked, times = plain_rows(db), spec(), []
    for _ in range(max(3, min(rounds, 200_000 // count))):
        begun = time.perf_counter()
        assert plain_select(plain, asked)
        times.append(time.perf_counter() - begun)
    rows.append(
        {"hosts": count, "filters": "a plain loop", "filters at work": "", "select p50 ms": _ms(times, 50), "select p99 ms": _ms(times, 99)}
    )
    print(measure.table(rows[-1:]), flush=True)
    return rows


def _ms(times: list[float], percent: float) -> str:
    return f"{measure.percentile(times, percent) * 1000:.2f}"


# --- Keeping current --------------------------------------------------------------------------------------------------


def measure_refresh(db: Database, count: int, rounds: int, title: str) -> dict[str, object]:
    """One refresh each tenth of a second's claims: an instance came to about a hundred hosts each time."""
    with db.write() as conn:
        conn.execute(sa.update(inventories).values(total=10**6, reserved=0, allocation_ratio=1000.0))  # never full
    scheduler = Scheduler(db, configured(title))
    scheduler.refresh()
    luck, times, idle = random.Random(2), [], []
    with db.read() as conn:
        known = [(row.id, row.name) for row in conn.execute(sa.select(hosts.c.id, hosts.c.name))]
    read = rows_read(scheduler)
    for _ in range(rounds):
        with db.write() as conn:
            for _ in range(CLAIMS_PER_SECOND // 10):
                begin_build(conn, spec(), *luck.choice(known))
        begun = time.perf_counter()
        scheduler.refresh()
        times.append(time.perf_counter() - begun)
        begun = time.perf_counter()
        scheduler.refresh()
        idle.append(time.perf_counter() - begun)
    return {
        "hosts": count,
        "filters and weighers": title,
        "100 claims since p50 ms": _ms(times, 50),
        "p99 ms": _ms(times, 99),
        "nothing since p50 ms": _ms(idle, 50),
        "rows read each": f"{(rows_read(scheduler) - read) / rounds:.0f}",
        "share of a core at 1,000 claims/s": f"{measure.percentile(times, 50) * 10:.1%}",
    }


def rows_read(scheduler: Scheduler) -> int:
    """By all that keeps its view current."""
    return scheduler._snapshot.rows_read + scheduler._surroundings.rows_read


def begin_build(conn: Any, asked: RequestSpec, host_id: int, host: str) -> None:
    """An instance that gets a host, as the claim step of a build gives it one."""
    uuid = asked.instance_uuid
    row = Instance(uuid, "vm", "bench", "bench", VmState.BUILDING, TaskState.SCHEDULING, 0, FLAVOR, "image", "vm", now(), now(), asked)
    instances.create(conn, row)
    allocations.claim(conn, instance_uuid=uuid, host_id=host_id, resources=asked.resources(), job_uuid=uuid)
    instances.transition(conn, uuid, expected_task_state=(TaskState.SCHEDULING,), task_state=TaskState.NETWORKING, host=host)


# --- Spreading --------------------------------------------------------------------------------------------------------


def _conductor(url: str, overrides: dict[str, Any], turn: tuple[int, int], requests: int, threads: int, gate: Any, answers: Any) -> None:
    """One scheduler and its requests, in a process of its own."""
    db = Database(url, pool_size=threads + 4)
    conf = opts.load([], {"scheduler": overrides})
    scheduler = Scheduler(db, conf)
    scheduler.turn = turn
    scheduler.refresh()
    tally: Counter[str] = Counter()
    gate.wait()
    with ThreadPoolExecutor(threads) as pool:
        placed = list(pool.map(lambda _: place(db, scheduler, spec(), tally), range(requests)))
    answers.put((placed, dict(tally)))
    db.close()


def measure_herding(
    url: str | None, host_count: int, conductors: int, requests: int, threads: int, overrides: dict[str, Any], own_turns: bool
) -> dict[str, object]:
    """`requests` at once through so many conductors on equal hosts."""
    with database(url) as db:
        furnish(db, host_count, equal=True)
        start = multiprocessing.get_context("spawn")
        gate, answers = start.Barrier(conductors), start.Queue()
        share = requests // conductors
        turns = [(number, conductors) if own_turns else (0, 1) for number in range(conductors)]
        processes = [start.Process(target=_conductor, args=(db.url, overrides, turn, share, threads, gate, answers)) for turn in turns]
        begun = time.perf_counter()
        for process in processes:
            process.start()
        found = [answers.get(timeout=300) for _ in processes]
        took = time.perf_counter() - begun
        for process in processes:
            process.join(30)
        placed = Counter(host for hosts_of, _ in found for host in hosts_of)
        refused = placed.pop(None, 0)
        counts = [*placed.values(), *[0] * (host_count - len(placed))]
        mean = requests / host_count
        return {
            "hosts": host_count,
            "conductors": conductors,
            **({"setting": json.dumps(overrides)} if overrides else {}),
            "max": max(counts),
            "min": min(counts),
            "max - min": max(counts) - min(counts),
            "over the mean": f"{max(counts) / mean - 1:.0%}",
            "went to an alternate": sum(tally.get("conflicts", 0) for _, tally in found),
            "chosen again": sum(tally.get("retries", 0) for _, tally in found),
            "refused": refused,
            "seconds": f"{took:.1f}",
        }


# --- Claiming ---------------------------------------------------------------------------------------------------------


def measure_claim(db: Database, rounds: int) -> list[dict[str, object]]:
    """Claim and release on one host that holds so many instances already."""
    rows: list[dict[str, object]] = []
    held = 0
    with db.write() as conn:
        conn.execute(sa.update(inventories).where(inventories.c.host_id == 1).values(total=10**9, used=0))
    for wanted in (0, 100, 1000):
        with db.write() as conn:
            while held < wanted:
                allocations.claim(conn, instance_uuid=str(uuid.uuid4()), host_id=1, resources=spec().resources())
                held += 1
        claims, releases = [], []
        for _ in range(rounds):
            asked = spec()
            begun = time.perf_counter()
            with db.write() as conn:
                allocations.claim(conn, instance_uuid=asked.instance_uuid, host_id=1, resources=asked.resources())
            claims.append(time.perf_counter() - begun)
            begun = time.perf_counter()
            with db.write() as conn:
                allocations.release(conn, asked.instance_uuid)
            releases.append(time.perf_counter() - begun)
        times: dict[str, object] = {"claim p50 ms": _ms(claims, 50), "claim p99 ms": _ms(claims, 99), "release p50 ms": _ms(releases, 50)}
        rows.append({"instances on the host": wanted, **times})
    return rows


def main() -> int:
    """Measure what is asked for, and write the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--parts", default="select,refresh,claim,herding", help="default: all of select,refresh,claim,herding")
    parser.add_argument("--hosts", default="100,1000,10000,100000", help="for select and refresh; default 100,1000,10000,100000")
    parser.add_argument("--rounds", type=int, default=200)
    parser.add_argument("--requests", type=int, default=1000, help="of herding; default 1000")
    parser.add_argument("--threads", type=int, default=16, help="of a conductor in herding; default 16")
    parser.add_argument("--herding-hosts", default="10,100")
    parser.add_argument("--conductors", default="1,2,4")
    parser.add_argument("--same-turn", action="store_true", help="in herding, let no conductor know of others")
    parser.add_argument("--set", action="append", default=[], metavar="OPTION=JSON", help="an option of [scheduler], for herding")
    parser.add_argument("--database", help="SQLAlchemy URL of a PostgreSQL database that may be emptied (default: SQLite)")
    parser.add_argument("--write", action="store_true", help="replace benchmarks/results/scheduler.md by what this run measures")
    options = parser.parse_args()
    parts = options.parts.split(",")
    tables: dict[str, list[dict[str, object]]] = {}
    for count in [int(word) for word in options.hosts.split(",")] if {"select", "refresh"} & set(parts) else []:
        with database(options.database) as db:
            furnish(db, count)
            if "select" in parts:
                tables.setdefault("Choosing and claiming", []).extend(measure_select(db, count, options.rounds))
            if "refresh" in parts:
                for title in ("default", "all"):
                    row = measure_refresh(db, count, max(10, options.rounds // 4), title)
                    tables.setdefault("Keeping the view current", []).append(row)
                    print(measure.table([row]), flush=True)
    if "claim" in parts:
        with database(options.database) as db:
            furnish(db, 10)
            tables["Claims on a host that holds instances"] = measure_claim(db, options.rounds)
            print(measure.table(tables["Claims on a host that holds instances"]), flush=True)
    overrides = {name: json.loads(value) for name, _, value in (word.partition("=") for word in options.set)}
    if "herding" in parts:
        rows = tables["Spreading"] = []
        for host_count in [int(word) for word in options.herding_hosts.split(",")]:
            for conductors in [int(word) for word in options.conductors.split(",")]:
                own_turns = not options.same_turn
                amounts = (host_count, conductors, options.requests, options.threads)
                rows.append(measure_herding(options.database, *amounts, overrides, own_turns))
                print(measure.table(rows[-1:]), flush=True)
    if options.write:
        kind = "SQLite" if not options.database else options.database.partition(":")[0]
        method = (
            f"`python benchmarks/scheduler.py` on {kind}, {options.rounds} rounds. Requests are chosen for and claimed one by one on one "
            f"thread. The plain loop asks the same of one host after the other, without claim. Spreading: {options.requests} requests, "
            f"{options.threads} threads in each conductor, each conductor a process; the seconds count its start."
        )
        text = "\n".join(f"## {title}\n\n{measure.table(rows)}" for title, rows in tables.items())
        path = RESULTS / "scheduler.md"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"# The scheduler\n\n{method}\n\nMeasured {time.strftime('%Y-%m-%d')} on {measure.machine()}.\n\n{text}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
