"""The nine windows in which a crash loses a build in Nova, each with the kill that would fall into it here.

Numbers of windows are those of docs/reliability.md. Each test asserts that what the window leaves behind in Nova is not there; that the
server is as if nothing had happened, and each thing was made once, is checked for all of them besides.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pytest
import sqlalchemy as sa

from crash.cases import Case, Template, run
from crash.plan import workshop
from crash.scenarios import Facts
from hullwright.drivers.fake_host import FakeHost
from hullwright.objects.hosts import HostRef
from hullwright.objects.states import OPEN_JOB_STATES, PowerState
from hullwright.persistence.models.hosts import allocations, hosts
from hullwright.persistence.models.instances import instance_faults, instances
from hullwright.persistence.models.jobs import jobs
from hullwright.persistence.models.networks import ports
from hullwright.persistence.models.volumes import attachments
from support.house import House


@dataclass(frozen=True)
class After:
    """What is there when another process has finished what the killed one left."""

    states: list[tuple[str, str | None, str | None]]  # of each server: vm_state, task_state, host
    faults: int
    open_jobs: int
    servers: set[str]  # that are not deleted
    builds: set[str]  # servers that have a build
    claims: set[str]  # who has resources
    ports: set[str | None]  # whose they are
    attachments: set[str]
    guests: dict[str, dict[str, PowerState]]  # host -> server -> power state
    things: dict[str, set[str]]  # host -> whose guests, files and network entries are there


Kill = Callable[..., list[After]]


def _look(house: House, _facts: Facts) -> After:
    def column(connection: Any, wanted: Any) -> list[Any]:
        return list(connection.execute(sa.select(wanted)).scalars())

    with house.db.read() as connection:
        rows = connection.execute(sa.select(instances)).mappings().all()
        refs = [HostRef(row["name"], row["uri"], row["driver"]) for row in connection.execute(sa.select(hosts)).mappings()]
        things = {ref.name: FakeHost(ref, house.conf.state_path).things for ref in refs}
        work = connection.execute(sa.select(jobs)).mappings().all()
        return After(
            states=[(row["vm_state"], row["task_state"], row["host"]) for row in rows],
            faults=len(column(connection, instance_faults.c.id)),
            open_jobs=sum(row["state"] in OPEN_JOB_STATES for row in work),
            servers={row["uuid"] for row in rows if row["deleted_at"] is None},
            builds={row["instance_uuid"] for row in work if row["kind"] == "build_instance"},
            claims=set(column(connection, allocations.c.instance_uuid)),
            ports=set(column(connection, ports.c.device_id)),
            attachments=set(column(connection, attachments.c.instance_uuid)),
            guests={
                name: {uuid: PowerState(guest["power_state"]) for uuid, guest in of.all("guests").items()} for name, of in things.items()
            },
            things={name: {*of.all("guests"), *of.all("disks"), *of.all("plugs")} for name, of in things.items()},
        )


@pytest.fixture(scope="module")
def kill() -> Iterator[Kill]:
    """Kill a scenario at every boundary of that name in that step or function, one after the other; answers what was there after each."""
    templates: dict[str, Template] = {}
    with workshop() as directory:

        def kill(scenario: str, *places: tuple[str, str]) -> list[After]:
            if scenario not in templates:
                templates[scenario] = Template(scenario, directory / scenario)
            found = [number for place in places for number in _find(templates[scenario].plain, *place)]
            return [_after(templates[scenario], number) for number in found]

        yield kill


def _find(trace: list[str], what: str, where: str) -> list[int]:
    lines = [line.split("\t") for line in trace]
    found = [int(number) for number, told, place in lines if told == what and place.startswith(where)]
    assert found, f"there is no boundary {what} in {where}"
    return found


def _after(template: Template, number: int) -> After:
    outcome = run(template, Case(template.scenario.name, (number,)), look=_look)
    assert not outcome.error, f"{outcome.case.command}: {outcome.error}"
    assert outcome.met == 1, f"{outcome.case.command}: nobody died"
    seen: After = outcome.seen
    return seen


def test_w1_a_conductor_that_dies_having_just_taken_a_build_loses_nothing(kill: Kill) -> None:
    for after in kill("build", ("before commit", "conductor.intake.take"), ("after commit", "conductor.intake.take")):
        assert after.open_jobs == 0, "a build that nobody works on"
        assert after.states == [("active", None, "h1")]


def test_w2_a_conductor_that_dies_having_claimed_resources_leaks_no_claim(kill: Kill) -> None:
    for after in kill("build", ("before commit", "claim.execute"), ("after commit", "claim.execute")):
        assert after.claims == after.servers, "a claim without a server"
        assert after.states == [("active", None, "h1")]


def test_w3_a_server_is_written_with_its_build_or_not_at_all(kill: Kill) -> None:
    before, since = kill("post", ("before commit", "conductor.client"), ("after commit", "conductor.client"))
    assert (before.servers, before.builds) == (set(), set())
    assert since.builds == since.servers, "a server that nobody builds"
    assert since.states == [("active", None, "h1")], "a server in BUILD without a host"


def test_w4_a_conductor_that_dies_before_it_claimed_anything_is_replaced(kill: Kill) -> None:
    for after in kill("build", ("before network.allocate", "reserve.execute"), ("after volume.reserve", "reserve.execute")):
        assert after.states == [("active", None, "h1")], "a server in BUILD without a host"


def test_w5_a_conductor_that_dies_preparing_a_host_leaves_no_port_volume_file_or_guest(kill: Kill) -> None:
    network = ("after effect plug (plugs)", "plug_network.execute")
    volume = ("after effect create_volume (volumes)", "connect_volumes.execute")
    image, guest = ("after effect put (parts)", "fetch_image.execute"), ("after effect define (guests)", "spawn.execute")
    for after in kill("build", network, volume, image, guest):
        assert after.ports == after.attachments == after.servers, "a port or a volume of nobody"
        assert after.things == {"h1": after.servers, "h2": set()}, "a guest, a file or a network entry of nobody"
        assert set(after.guests["h1"].values()) == {PowerState.RUNNING}, "a paused guest"
        assert (after.states, after.faults) == ([("active", None, "h1")], 0)


def test_w6_a_guest_that_runs_becomes_active_though_the_conductor_died_before_it_could_say_so(kill: Kill) -> None:
    for after in kill("build", ("after virt.spawn", "spawn.execute"), ("before commit", "activate.execute")):
        assert list(after.guests["h1"].values()) == [PowerState.RUNNING]
        assert after.states == [("active", None, "h1")], "a running guest whose server is in ERROR"


def test_w7_a_build_between_two_hosts_goes_on(kill: Kill) -> None:
    for after in kill("reschedule", ("after commit", "claim.revert"), ("after commit", "select_host.revert")):
        assert after.states == [("active", None, "h2")], "a server that no repair finds"
        assert after.things["h1"] == set(), "something is left on the first host"
        assert after.open_jobs == 0


def test_w8_an_api_that_dies_before_it_answered_leaves_a_whole_server_or_none(kill: Kill) -> None:
    (after,) = kill("post", ("before answer", ""))
    assert after.builds == after.servers, "a server that nobody builds"
    assert after.states == [("active", None, "h1")]


def test_w9_a_delete_ends_though_its_conductor_died_and_its_host_was_silent(kill: Kill) -> None:
    died = kill("delete", ("before virt.destroy", "destroy_guest.execute"), ("after virt.destroy", "destroy_guest.execute"))
    silent = kill("silent-delete", ("after commit", "destroy_guest.execute"), ("before virt.destroy", "clean_host.execute"))
    for after in (*died, *silent):
        assert [state[:2] for state in after.states] == [("deleted", None)], "DELETING for ever"
        assert after.things == {"h1": set(), "h2": set()}, "something is left on the host"
        assert (after.claims, after.open_jobs) == (set(), 0)
