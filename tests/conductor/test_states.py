"""docs/states.md tells the states that instances go through, and no others: its drawing and tables are held against what a database saw."""

from __future__ import annotations

import itertools
import re
from pathlib import Path

import pytest

from hullwright.api.server_states import status
from hullwright.conductor import parking
from hullwright.objects.states import JobState, PowerState, TaskState, VmState
from hullwright.persistence import instances
from hullwright.persistence.models.jobs import jobs
from support.house import ASKER, House

TEXT = (Path(__file__).parents[2] / "docs" / "states.md").read_text()
UNSET = {VmState.PAUSED, VmState.SUSPENDED}  # for the contract; nothing writes them
BUILDING = {TaskState.SCHEDULING, TaskState.NETWORKING, TaskState.SPAWNING}

_RECORD = """
CREATE TABLE changes (seq INTEGER PRIMARY KEY, uuid TEXT, vm_state TEXT, task_state TEXT);
CREATE TRIGGER born AFTER INSERT ON instances BEGIN
  INSERT INTO changes (uuid, vm_state, task_state) VALUES (NEW.uuid, NEW.vm_state, NEW.task_state); END;
CREATE TRIGGER changed AFTER UPDATE OF vm_state, task_state ON instances BEGIN
  INSERT INTO changes (uuid, vm_state, task_state) VALUES (NEW.uuid, NEW.vm_state, NEW.task_state); END;
"""


def seen(house: House) -> set[tuple[tuple[str, str | None], tuple[str, str | None]]]:
    """Each pair of (vm_state, task_state) that followed on another one."""
    with house.db.read() as connection:
        rows = connection.exec_driver_sql("SELECT uuid, vm_state, task_state FROM changes ORDER BY uuid, seq").all()
    states = [(row[0], (row[1], row[2])) for row in rows]
    return {(a, b) for (one, a), (other, b) in itertools.pairwise(states) if one == other and a != b}


def rows_of(table: str) -> list[list[str]]:
    """The cells of the table whose head begins so."""
    lines = TEXT[TEXT.index(f"| {table} |") :].split("\n\n")[0].splitlines()[2:]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


@pytest.fixture(name="house")
def house_that_records(house: House) -> House:
    """A house with two hosts, whose database keeps each state of each instance."""
    with house.db.write() as connection:
        for statement in re.findall(r"CREATE T.*?\);\n|CREATE TRIGGER.*?END;\n", _RECORD, re.DOTALL):
            connection.exec_driver_sql(statement)
    house.add_host("h1")
    house.add_host("h2")
    return house


def test_a_build_goes_the_way_that_is_drawn(house: House) -> None:
    with house.conductor():
        house.faults(
            "h1", {"operation": "ensure_image", "first": 1, "error": "HypervisorError"}, {"operation": "spawn", "error": "HypervisorError"}
        )
        house.faults("h2", {"operation": "ensure_image", "error": "HypervisorError"})
        image_id = house.add_image()
        house.create(image_id=image_id)  # ends in ERROR after a failure at each step that has one
        house.rest()
        house.create()  # rescheduled from the first host to the second
        house.rest()
    (stuck,) = house.create()
    with house.db.write() as connection:  # it has killed its conductors
        connection.execute(jobs.update().where(jobs.c.instance_uuid == stuck).values(leases=1000, started_at=1.0))
    with house.conductor():
        house.wait(lambda: house.build_of(stuck).state == JobState.STUCK)
        with house.db.write() as connection:
            parking.release(connection, house.build_of(stuck).uuid)
        house.rest()
    folded = {(str(a[1]), str(b[1])) if a[1] in BUILDING and b[1] in BUILDING else (a[0], b[0]) for a, b in seen(house)}
    drawing = TEXT[TEXT.index("stateDiagram-v2") :].partition("```")[0]
    assert folded == set(re.findall(r"^ *(\w+) --> (\w+)", drawing, re.MULTILINE))


def put(house: House, uuid: str, vm_state: VmState) -> None:
    """Have the instance be something else, as if it had become so."""
    with house.db.write() as connection:
        instances.transition(connection, uuid, expected_task_state=(None,), vm_state=vm_state)


def test_later_tasks_begin_and_end_as_the_table_says(house: House) -> None:
    told = {(task, vm_state, after) for task, before, after in rows_of("task") for vm_state in before.split(", ")}
    with house.conductor():
        for vm_state in (VmState.ACTIVE, VmState.STOPPED, VmState.ERROR, VmState.BUILDING):
            (uuid,) = house.create()
            house.rest()
            if vm_state in (VmState.ACTIVE, VmState.ERROR):
                put(house, uuid, vm_state)
                house.client.stop_server(uuid, ASKER)
                house.rest()
                house.client.start_server(uuid, ASKER)
                house.rest()
            if vm_state == VmState.ACTIVE:
                house.client.reboot_server(uuid, ASKER, hard=False)
                house.rest()
            put(house, uuid, vm_state)
            if vm_state != VmState.BUILDING:
                house.client.reboot_server(uuid, ASKER, hard=True)
                house.rest()
                put(house, uuid, vm_state)
            house.delete(uuid)
            house.rest()
    ended = {(str(a[1]), a[0], b[0]) for a, b in seen(house) if a[1] is not None and a[1] not in BUILDING and b[1] is None}
    assert ended == told
    assert {task for task, _, _ in told} == set(TaskState) - BUILDING


def test_a_task_that_fails_leaves_the_instance_what_it_was(house: House) -> None:
    with house.conductor():
        (uuid,) = house.create()
        house.rest()
        for name in ("h1", "h2"):
            house.faults(name, {"operation": ["power_off", "power_on", "reboot"], "error": "HypervisorError"})
        house.client.stop_server(uuid, ASKER)
        house.rest()
        house.client.reboot_server(uuid, ASKER, hard=True)
        house.rest()
    instance = house.get(uuid)
    assert (instance.vm_state, instance.task_state) == (VmState.ACTIVE, None)


def test_each_status_is_told_as_the_api_shows_it() -> None:
    told = {cells[0]: cells[1:] for cells in rows_of("vm_state")}
    assert set(told) == {state.value for state in VmState if state not in UNSET}
    for vm_state, (steady, rebooting, rebooting_hard) in told.items():
        assert status(vm_state, None) == steady
        assert status(vm_state, TaskState.REBOOTING) == (rebooting or steady)
        assert status(vm_state, TaskState.REBOOTING_HARD) == (rebooting_hard or steady)
        for task in set(TaskState) - {TaskState.REBOOTING, TaskState.REBOOTING_HARD}:
            assert status(vm_state, task) == steady


def test_the_power_states_are_those_that_the_page_names() -> None:
    line = TEXT[TEXT.index("The power state is") :].split("\n")[0]
    assert {(int(number), name) for number, name in re.findall(r"(\d) ([A-Z]+)", line)} == {(it.value, it.name) for it in PowerState}
