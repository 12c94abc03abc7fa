"""The nine windows in which a crash loses a build in Nova, each with the kill that would fall into it here.

Numbers of windows are those of docs/reliability.md. What must be true after each kill is the scenario's to say: the server is as if
nothing had happened, each thing was made once, nothing is left.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from crash.cases import Case, Template, run
from crash.plan import workshop

Kill = Callable[..., None]


@pytest.fixture(scope="module")
def kill() -> Iterator[Kill]:
    """Kill a scenario at every boundary of that name in that step or function, one after the other."""
    templates: dict[str, Template] = {}
    with workshop() as directory:

        def kill(scenario: str, *places: tuple[str, str]) -> None:
            if scenario not in templates:
                templates[scenario] = Template(scenario, directory / scenario)
            template = templates[scenario]
            for what, where in places:
                found = _find(template.plain, what, where)
                assert found, f"{scenario} has no boundary {what} in {where}"
                for number in found:
                    _check(template, number)

        yield kill


def _find(trace: list[str], what: str, where: str) -> list[int]:
    lines = [line.split("\t") for line in trace]
    return [int(number) for number, told, place in lines if told == what and place.startswith(where)]


def _check(template: Template, number: int) -> None:
    outcome = run(template, Case(template.scenario.name, (number,)))
    assert outcome.deaths == 1, f"{outcome.case.command}: nobody died"
    assert not outcome.error, f"{outcome.case.command}: {outcome.error}"


def test_w1_a_conductor_that_dies_having_just_taken_a_build_loses_nothing(kill: Kill) -> None:
    kill("build", ("before commit", "conductor.service"), ("after commit", "conductor.service"))


def test_w2_a_conductor_that_dies_having_claimed_resources_leaks_no_claim(kill: Kill) -> None:
    kill("build", ("before commit", "claim.execute"), ("after commit", "claim.execute"))


def test_w3_a_server_is_written_with_its_build_or_not_at_all(kill: Kill) -> None:
    kill("post", ("before commit", "conductor.client"), ("after commit", "conductor.client"))


def test_w4_a_conductor_that_dies_before_it_claimed_anything_is_replaced(kill: Kill) -> None:
    kill("build", ("before network.allocate", "reserve.execute"), ("after volume.reserve", "reserve.execute"))


def test_w5_a_conductor_that_dies_preparing_a_host_leaves_no_port_volume_file_or_guest(kill: Kill) -> None:
    kill(
        "build", ("after effect plug (plugs)", "plug_network.execute"), ("after effect create_volume (volumes)", "connect_volumes.execute")
    )
    kill("build", ("after effect put (parts)", "fetch_image.execute"), ("after effect define (guests)", "spawn.execute"))


def test_w6_a_guest_that_runs_becomes_active_though_the_conductor_died_before_it_could_say_so(kill: Kill) -> None:
    kill("build", ("after virt.spawn", "spawn.execute"), ("before commit", "activate.execute"))


def test_w7_a_build_between_two_hosts_goes_on(kill: Kill) -> None:
    kill("reschedule", ("after commit", "claim.revert"), ("after commit", "select_host.revert"))


def test_w8_an_api_that_dies_before_it_answered_leaves_a_whole_server_or_none(kill: Kill) -> None:
    kill("post", ("before answer", ""))


def test_w9_a_delete_ends_though_its_conductor_died_and_its_host_was_silent(kill: Kill) -> None:
    kill("delete", ("before virt.destroy", "destroy_guest.execute"), ("after virt.destroy", "destroy_guest.execute"))
    kill("silent-delete", ("after commit", "destroy_guest.execute"), ("before virt.destroy", "clean_host.execute"))
