"""More servers asked for at once than there is room: the room is filled exactly, the rest is told why, no host ever has too many."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from hullwright.cli import http
from hullwright.persistence.models.hosts import hosts, inventories
from support import invariants
from support.api_process import ServedHouse

HOSTS = 10
REQUESTS, ROOM = 1000, 900
CLIENTS = 64
SENT_TWICE = 10  # every tenth request comes twice at once, with the same key
PATIENCE_SECONDS = 30 + REQUESTS * 0.5
EXACT = {"cpu_allocation_ratio": 1.0, "reserved_host_memory_mb": 0}


class Watch(threading.Thread):
    """Looks at all hosts again and again, for one that has more than it has room for."""

    def __init__(self, house: ServedHouse) -> None:
        super().__init__()
        self._house, self._done = house, threading.Event()
        self.looks = 0
        self.too_many: list[Any] = []

    def run(self) -> None:
        """Look until told to stop."""
        room = (inventories.c.total - inventories.c.reserved) * inventories.c.allocation_ratio
        query = sa.select(hosts.c.name, inventories.c.resource_class, inventories.c.used).join(hosts, hosts.c.id == inventories.c.host_id)
        while not self._done.wait(0.1):
            with self._house.db.read() as connection:
                self.too_many += connection.execute(query.where(inventories.c.used > room)).all()
            self.looks += 1

    def stop(self) -> None:
        """Look no more."""
        self._done.set()
        self.join()


def ask(house: ServedHouse, number: int) -> set[str]:
    """One request, as the command sends it; the ids that came back."""
    answer = house.post(house.body(f"vm{number}"), f"key-{number}")
    assert answer.status_code == 202, answer.text
    return {answer.json()["server"]["id"]}


def servers(house: ServedHouse) -> list[dict[str, Any]]:
    """All, with their details, as the API shows them."""
    client, found, query = http.Client(house.url), list[dict[str, Any]](), dict[str, Any]()
    try:
        while page := client.get(http.COMPUTE + "/servers/detail", limit=500, **query)["servers"]:
            found += page
            query = {"marker": page[-1]["id"]}
    finally:
        client.session.close()
    return found


@dataclass
class Rush:
    """What a rush on one database ended in."""

    answered: set[str]  # ids that clients were told
    shown: list[dict[str, Any]]  # servers at rest
    looks: int  # at the hosts while it lasted
    too_many: list[Any]  # hosts that had more than they have room for at any of them

    def ids(self, status: str) -> list[str]:
        """Servers in that status."""
        return [server["id"] for server in self.shown if server["status"] == status]

    @property
    def placed(self) -> Counter[str]:
        """How many ACTIVE servers each host has."""
        return Counter(server["OS-EXT-SRV-ATTR:host"] for server in self.shown if server["status"] == "ACTIVE")

    @property
    def told(self) -> set[tuple[str, str | None]]:
        """What those that found no room were told, up to its numbers, and the host that they are on."""
        failed = [server for server in self.shown if server["status"] == "ERROR"]
        return {(server["fault"]["message"].partition(" fit")[0], server["OS-EXT-SRV-ATTR:host"]) for server in failed}


def rush(house: ServedHouse, conductors: int) -> Rush:
    """More clients than there is room for, all at once, until everything rests."""
    watch = Watch(house)
    try:
        for number in range(HOSTS):  # half are short of memory, half of CPUs
            narrow, each = bool(number % 2), ROOM // HOSTS
            house.add_host(f"h{number}", vcpus=each if narrow else 4 * each, memory_mb=512 * (4 * each if narrow else each))
            house.faults(f"h{number}", {"operation": "spawn", "delay": [0.0, 0.02]})
        house.start_api()
        for _ in range(conductors):
            house.start_conductor()
        watch.start()
        began = time.monotonic()
        asked = sorted([*range(REQUESTS), *range(0, REQUESTS, SENT_TWICE)])
        with ThreadPoolExecutor(CLIENTS) as clients:
            answered = set[str]().union(*clients.map(lambda number: ask(house, number), asked))
        posted_seconds = time.monotonic() - began
        house.rest(PATIENCE_SECONDS)
        built_seconds = time.monotonic() - began
    finally:
        watch.stop() if watch.is_alive() else None
    print(f"{REQUESTS} requests taken in {posted_seconds:.1f} s, at rest after {built_seconds:.1f} s, {watch.looks} looks at the hosts")
    return Rush(answered, servers(house), watch.looks, watch.too_many)


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.postgresql)])
def house(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[ServedHouse]:
    """A house on each database in turn."""
    url = request.getfixturevalue("postgres_tables_url") if request.param == "postgresql" else None
    made = ServedHouse(tmp_path, url, api={"threads": 8}, compute=EXACT, conductor={"lease_seconds": 15.0})
    yield made
    made.close()


@pytest.mark.slow
def test_the_room_is_filled_exactly_and_the_rest_is_told_why(house: ServedHouse) -> None:
    """By one conductor on SQLite, by two on PostgreSQL."""
    seen = rush(house, conductors=2 if house.db.is_postgresql else 1)
    assert {server["id"] for server in seen.shown} == seen.answered
    assert (len(seen.ids("ACTIVE")), len(seen.ids("ERROR")), len(seen.shown)) == (ROOM, REQUESTS - ROOM, REQUESTS)
    assert seen.told == {("No valid host was found. 0 of 10 hosts", None)}
    assert seen.placed == {f"h{number}": ROOM // HOSTS for number in range(HOSTS)}
    assert seen.looks > 5
    assert seen.too_many == []
    invariants.check(house)
