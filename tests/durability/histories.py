"""Recorded histories of flows: the database and the fake hosts after each commit of an operation, as JSON, to be resumed by later code.

A history is of one scenario of the crash harness. Moments are kept as changes from the moment before. `record` makes one, `restored` puts a
house into one of its moments, `differences` says what the present graphs would not find in it.
Not for: kills in the middle of a call; see `crash`.
"""

from __future__ import annotations

import contextlib
import json
import tempfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from taskflow.engines.action_engine import compiler

from crash.cases import room
from crash.scenarios import _IMAGE, _IMAGE_BYTES, SCENARIOS, Facts, Scenario, _world
from hullwright.conductor.engine import Graph
from hullwright.conductor.intake import PassedOver
from hullwright.conductor.runner import Drive, Runner
from hullwright.conf import image as image_options
from hullwright.drivers.image.local.store import ImageDirectory
from hullwright.flows import catalog, leftovers
from hullwright.flows.context import Shared
from hullwright.objects.errors import JobUnloadable
from hullwright.objects.states import JobState
from hullwright.persistence import jobs, leases
from hullwright.persistence.database import Database
from hullwright.persistence.models.jobs import jobs as jobs_table
from hullwright.scheduler.select import Scheduler
from support import picture
from support.house import House
from support.picture import Rows

DIRECTORY = Path(__file__).resolve().parents[1] / "histories"
# Between them they run every factory; `test_histories` checks that.
RECORDED = ("build", "reschedule", "fail", "delete", "silent-delete", "stop", "create-volume", "delete-volume", "sweep")
_OPTIONS: dict[str, dict[str, Any]] = {"conductor": {"retry_interval": 0.1, "max_leases": 100}}


def _sweep(house: House) -> Facts:
    _world(house, "h1", "h2")
    with house.db.write() as connection:
        jobs.post(connection, kind="sweep_networks", instance_uuid=None, inputs={})
    return {"uuids": []}


def _expect_swept(house: House, _facts: Facts) -> None:
    with house.db.read() as connection:
        assert [job.state for job in jobs.list_jobs(connection, kinds=["sweep_networks"])] == [JobState.DONE]


STORIES = {**SCENARIOS, "sweep": Scenario("sweep", "sweep networks", _sweep, _expect_swept)}


# --- Driving ---------------------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def _runner(house: House, *, hesitant: bool = False) -> Iterator[Runner]:
    """Runs jobs in this thread; what would be tried after a while is tried at once. `hesitant`: hands each job on after one step."""
    drivers, pause = house.drivers(), leftovers.FIRST_TRY_SECONDS
    leftovers.FIRST_TRY_SECONDS = 0.02
    shared = Shared(house.db, drivers, Scheduler(house.db, house.conf), house.conf)
    try:
        yield Runner(shared, lease_good=lambda _job: True, draining=lambda: hesitant, passed_over=PassedOver(0.0))
    finally:
        leftovers.FIRST_TRY_SECONDS = pause
        drivers.close()


def resume(house: House, *, hesitant: bool = False, seconds: float = 60.0) -> None:
    """Drive all jobs to rest, first those that were being driven; as by one conductor, or by one after the other that is told to stop."""
    deadline = time.monotonic() + seconds
    with _runner(house, hesitant=hesitant) as runner:
        while house.open_jobs():
            assert time.monotonic() < deadline, "it does not come to rest"
            with house.db.write() as connection:
                batch = leases.take(connection, "nobody", 1, orphans=True) or leases.take(connection, "nobody", 1)
            for job in batch:
                runner.run(Drive(job))
            if not batch:
                with house.db.write() as connection:  # what waits for a while waits no more
                    connection.execute(sa.update(jobs_table).values(not_before=0.0))


# --- Recording -------------------------------------------------------------------------------------------------------------


def _changes(before: Rows, after: Rows) -> dict[str, Any]:
    """What was written and what was deleted."""
    put = {table: {key: row for key, row in rows.items() if before.get(table, {}).get(key) != row} for table, rows in after.items()}
    gone = {table: [key for key in rows if key not in after[table]] for table, rows in before.items()}
    return {"put": {table: rows for table, rows in put.items() if rows}, "gone": {table: keys for table, keys in gone.items() if keys}}


def _hosts(house: House) -> dict[str, Any]:
    """Of each fake host: how many lines its journal has, and how often each rule of its faults was counted."""
    found = {}
    for directory in sorted((house.directory / "fake").glob("*")):
        journal = directory / "journal"
        counters = {path.name: path.stat().st_size for path in sorted((directory / "counters").glob("*"))}
        found[directory.name] = {"lines": len(journal.read_text().splitlines()) if journal.exists() else 0, "counters": counters}
    return found


def _last_word(rows: Rows) -> str:
    """The newest event of a job that is under way."""
    running = {row["uuid"] for row in rows["jobs"].values() if row["state"] == "running"}
    told = [row for row in rows["step_events"].values() if row["job_uuid"] in running]
    if not told:
        return "at rest" if not running else "leased"
    last = max(told, key=lambda row: (row["at"], row["seq"]))
    return f"{last['step'] or 'flow'} {last['to_state']}"


def record(name: str, directory: Path) -> dict[str, Any]:
    """Run a scenario in an empty directory and answer its history."""
    scenario = STORIES[name]
    house = House(directory, **_OPTIONS)
    write, moments, last = Database.write, [], [Rows()]

    @contextlib.contextmanager
    def recorded(database: Database) -> Iterator[Any]:
        with write(database) as connection:
            yield connection
        rows = picture.rows(house)
        changes = _changes(last[0], rows)
        if changes["put"] or changes["gone"]:
            moments.append({"after": _last_word(rows), **changes, "hosts": _hosts(house)})
            last[0] = rows

    try:
        facts = scenario.furnish(house)
        Database.write = recorded  # type: ignore[method-assign]
        try:
            resume(house)
        finally:
            Database.write = write  # type: ignore[method-assign]
        scenario.expect(house, facts)
        factories = sorted({row["meta"]["factory"]["name"] for row in _all_flows(moments)})
        fake = sorted((directory / "fake").glob("*"))
        return {
            "scenario": name,
            "facts": facts,
            "graphs": {path: describe(path) for path in factories},
            "faults": {path.name: json.loads((path / "faults.json").read_text()) for path in fake if (path / "faults.json").exists()},
            "journals": {path.name: (path / "journal").read_text().splitlines() for path in fake if (path / "journal").exists()},
            "moments": moments,
        }
    finally:
        house.close()


def _all_flows(moments: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    for moment in moments:
        yield from moment["put"].get("flows", {}).values()


def path_of(history: Mapping[str, Any]) -> Path:
    """Where a history is kept: named by the factory of its first flow, and the scenario."""
    first = next(_all_flows(history["moments"][1:]))["meta"]["factory"]["name"]
    return DIRECTORY / f"{first}.{history['scenario']}.json"


def save(history: Mapping[str, Any]) -> Path:
    """Write a history to its place, a moment to a line."""
    head = {key: value for key, value in history.items() if key != "moments"}
    lines = ",\n".join(json.dumps(moment, sort_keys=True) for moment in history["moments"])
    path = path_of(history)
    text = json.dumps(head, sort_keys=True, indent=1)[:-2] + f',\n "moments": [\n{lines}\n]}}\n'
    # Tracebacks name where this checkout lies, which is nobody's business.
    path.write_text(text.replace(f"{Path(__file__).parents[2]}/", ""))
    return path


# --- Restoring -------------------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def restored(history: Mapping[str, Any], number: int) -> Iterator[House]:
    """A house as it was after the history's commit of that number, from 0; gone afterwards."""
    with tempfile.TemporaryDirectory(prefix="history-", dir=room()) as directory:
        house = _restore(history, number, Path(directory))
        try:
            yield house
        finally:
            house.close()


def _restore(history: Mapping[str, Any], number: int, directory: Path) -> House:
    rows: Rows = {}
    for moment in history["moments"][: number + 1]:
        for table, keys in moment["gone"].items():
            for key in keys:
                del rows[table][key]
        for table, put in moment["put"].items():
            rows.setdefault(table, {}).update(put)
    age = time.time() - max(row["created_at"] for row in rows["jobs"].values())
    house = House(directory, **_OPTIONS)
    with house.db.write() as connection:
        for table in picture.TABLES:
            if found := rows.get(table.name):
                connection.execute(sa.insert(table), [_later(table, row, age) for row in found.values()])
    hosts = history["moments"][number]["hosts"]
    journals = {host: [json.loads(line) for line in history["journals"].get(host, [])[: state["lines"]]] for host, state in hosts.items()}
    # The last effect was just now: those that follow come after it.
    passed = time.time() - max((line["at"] for lines in journals.values() for line in lines), default=0.0)
    for host, state in hosts.items():
        place = directory / "fake" / host
        (place / "counters").mkdir(parents=True)
        (place / "journal").write_text("".join(json.dumps(line | {"at": line["at"] + passed}) + "\n" for line in journals[host]))
        for key, count in state["counters"].items():
            (place / "counters" / key).write_bytes(b"." * count)
        if host in history["faults"]:
            (place / "faults.json").write_text(json.dumps(history["faults"][host]))
    ImageDirectory(image_options.directory(house.conf)).write(_IMAGE, [_IMAGE_BYTES], len(_IMAGE_BYTES))
    return house


def _later(table: sa.Table, row: Mapping[str, Any], seconds: float) -> dict[str, Any]:
    """The row as if it had been written that much later; histories lie for years, and deadlines must not pass meanwhile.

    Columns that the table had then and has no more are left out, as the revision that dropped them did.
    """
    times = {column.name for column in table.columns if column.info.get("epoch")}
    return {name: value + seconds if name in times and value else value for name, value in row.items() if name in table.columns}


# --- Graphs ----------------------------------------------------------------------------------------------------------------


def describe(path: str) -> dict[str, Any]:
    """A factory's steps by name: what each provides, under which numbers of its result, and what each argument is taken from."""
    graph = Graph(catalog.find(path, "")())
    nodes = graph.compilation.execution_graph.nodes(data=True)
    atoms = [node for node, data in nodes if data["kind"] in compiler.ATOMS]
    atoms.sort(key=lambda atom: atom.name)
    return {atom.name: {"provides": dict(atom.save_as), "requires": dict(atom.rebind)} for atom in atoms}


def differences(path: str, recorded: Mapping[str, Any]) -> list[str]:
    """Why open flows of a factory could not go on with the present code; empty: they can."""
    try:
        present = describe(path)
    except JobUnloadable:
        return [f"there is no {path} any more"]
    found = [f"step {name} is gone or was renamed" for name in recorded if name not in present]
    found += [f"step {name} is new in a graph that flows were begun with" for name in present if name not in recorded]
    for name in sorted(set(recorded) & set(present)):
        for what in ("provides", "requires"):
            before, now = recorded[name][what], present[name][what]
            if before != now:
                found.append(f"step {name} {what} {now}, it was {before}")
    return found
