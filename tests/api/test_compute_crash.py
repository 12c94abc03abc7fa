"""The API is killed around the commit of a create request; its client sends the request again. One server, always."""

from __future__ import annotations

import threading
from typing import Any

import pytest
import sqlalchemy as sa

from hullwright.cli import http
from hullwright.objects.states import VmState
from hullwright.persistence.models.idempotency_keys import idempotency_keys
from hullwright.persistence.models.instances import instances
from support import invariants
from support.api_process import ServedHouse

# Kills the process, or the whole API, once: at the first write transaction there is, which is that of the create request.
KILL_ONCE = """
import contextlib, os, signal
from hullwright.persistence import database
_write = database.Database.write
def die(moment):
    if moment == {moment!r}:
        try:
            os.close(os.open({flag!r}, os.O_CREAT | os.O_EXCL))
        except FileExistsError:
            return
        if {whole}:
            os.killpg(0, signal.SIGKILL)
        os.kill(os.getpid(), signal.SIGKILL)
@contextlib.contextmanager
def write(self):
    die("begin")
    with _write(self) as connection:
        yield connection
        die("before")
    die("after")
database.Database.write = write
"""


def uuids(house: ServedHouse) -> list[str]:
    """All instances."""
    with house.db.read() as connection:
        return list(connection.scalars(sa.select(instances.c.uuid)))


def preamble(house: ServedHouse, moment: str, *, whole: bool) -> str:
    """See `KILL_ONCE`."""
    return KILL_ONCE.format(moment=moment, flag=str(house.directory / "killed"), whole=whole)


class Posted(threading.Thread):
    """A client that sends a request as our command does, again until it is answered."""

    def __init__(self, house: ServedHouse, body: Any) -> None:
        super().__init__()
        self._house, self._body = house, body
        self.answer: Any = None
        self.start()

    def run(self) -> None:
        """Send it."""
        client = http.Client(self._house.url)
        try:
            self.answer = client.post_once(http.COMPUTE + "/servers", self._body)
        finally:
            client.session.close()


@pytest.mark.parametrize("count", [1, 3])
@pytest.mark.parametrize("moment", ["begin", "before", "after"])
@pytest.mark.parametrize("whole", [False, True], ids=["the worker", "the whole API"])
def test_an_api_killed_around_the_commit_makes_each_server_once(served: ServedHouse, whole: bool, moment: str, count: int) -> None:
    served.add_host("h1")
    process = served.start_api(preamble(served, moment, whole=whole))
    client = Posted(served, served.body(min_count=count))
    served.wait((served.directory / "killed").exists, 30)
    if whole:
        process.join(30)
        assert process.exitcode == -9
        assert len(uuids(served)) == (count if moment == "after" else 0)
        served.start_api()
    client.join(60)
    assert client.answer is not None, served.api_log()
    made = uuids(served)
    assert len(made) == count
    assert client.answer["server"]["id"] in made
    with served.conductor():
        served.rest(30)
    assert served.states(made) == {VmState.ACTIVE: count}
    invariants.check(served)


def test_a_request_that_was_committed_and_not_answered_is_answered_from_the_record(served: ServedHouse) -> None:
    process = served.start_api(preamble(served, "after", whole=True))
    with pytest.raises(OSError):
        served.post(served.body(), "k")
    process.join(30)
    served.start_api()
    answer = served.post(served.body(), "k")
    assert (answer.status_code, answer.json()["server"]["id"]) == (202, uuids(served)[0])
    assert answer.headers["Idempotent-Replayed"] == "true"
    assert served.post(served.body("other"), "k").status_code == 409
    assert len(uuids(served)) == 1


def test_a_key_and_its_servers_are_on_record_together_or_not_at_all(served: ServedHouse) -> None:
    process = served.start_api(preamble(served, "before", whole=True))
    with pytest.raises(OSError):
        served.post(served.body(), "k")
    process.join(30)
    with served.db.read() as connection:
        assert connection.execute(sa.select(idempotency_keys)).all() == []
    assert uuids(served) == []
    served.start_api()
    assert served.post(served.body("mended"), "k").status_code == 202
