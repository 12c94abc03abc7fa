"""Contract suites: each test runs against every driver of its kind, on every kind of host that the driver knows."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import pytest

from support.local_hosts import HostUnderTest


@pytest.fixture(params=["fake", pytest.param("libvirt", marks=pytest.mark.libvirt)])
def host(request: pytest.FixtureRequest) -> HostUnderTest:
    """A host of each kind in turn."""
    name = "fake_host" if request.param == "fake" else "real_host"
    found: HostUnderTest = request.getfixturevalue(name)
    return found


@pytest.fixture
def other_host(request: pytest.FixtureRequest, host: HostUnderTest) -> HostUnderTest:
    """A second host of the same kind."""
    name = "other_fake_host" if host.ref.driver == "fake" else "other_real_host"
    found: HostUnderTest = request.getfixturevalue(name)
    return found


@pytest.fixture
def at_once() -> Callable[..., list[Any]]:
    """Calls functions in a thread each, all at the same moment; answers what they answered, or raises what one raised."""

    def run(*calls: Callable[[], Any]) -> list[Any]:
        answers: list[Any] = [None] * len(calls)
        errors: list[BaseException] = []
        start = threading.Barrier(len(calls))

        def one(place: int, call: Callable[[], Any]) -> None:
            start.wait()
            try:
                answers[place] = call()
            except BaseException as error:  # noqa: BLE001  raised again below
                errors.append(error)

        threads = [threading.Thread(target=one, args=pair) for pair in enumerate(calls)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(120)
        if errors:
            raise errors[0]
        return answers

    return run
