"""Answers that nobody reads: of an API that died while it waited. A console log may hold passwords, so they do not stay."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from typing import Any

import pytest
import requests
import sqlalchemy as sa

from hullwright.cli import http
from hullwright.conductor.reconcile import caretaker
from hullwright.objects.builds import Job
from hullwright.objects.states import JobState, VmState
from hullwright.persistence import jobs
from hullwright.persistence.database import now
from hullwright.persistence.models.jobs import jobs as jobs_table
from support.api_process import ServedHouse, served  # noqa: F401  a fixture
from support.house import House


def _questions(house: House) -> list[Job]:
    with house.db.read() as connection:
        return jobs.list_jobs(connection, kinds=["console_log"])


def _ask(house: ServedHouse, server: str) -> None:
    with contextlib.suppress(requests.ConnectionError), requests.Session() as session:
        session.trust_env = False
        headers = {"OpenStack-API-Version": f"compute {http.MICROVERSION}"}
        session.post(f"{house.url}/v2.1/servers/{server}/action", json={"os-getConsoleOutput": {}}, headers=headers, timeout=60)


def test_the_answer_to_an_api_that_died_while_it_waited_does_not_stay(
    served: ServedHouse,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    house = served
    monkeypatch.setattr(caretaker, "LOOK_FOR_ANSWERS_SECONDS", 0.05)
    house.add_host("h1")
    with house.conductor():
        (server,) = house.create()
        house.wait(lambda: house.get(server).vm_state == VmState.ACTIVE)
        api = house.start_api()
        house.faults("h1", {"operation": "console_log", "hang": True})
        asker = threading.Thread(target=_ask, args=(house, server))
        asker.start()
        house.wait(lambda: [job for job in _questions(house) if job.state == JobState.RUNNING])
        os.killpg(api.pid, signal.SIGKILL)  # with its workers
        asker.join(20)
        house.faults("h1")
        house.rest()
        (left,) = _questions(house)
        assert (left.state, type(left.result)) == (JobState.DONE, str), "who is slow may still read it"
        monkeypatch.setattr(caretaker, "UNREAD_SECONDS", 0.0)
        house.wait(lambda: not _questions(house))


def _post(house: House, **fields: Any) -> int:
    with house.db.write() as connection:
        row = jobs.new_row(kind="console_log", instance_uuid=None, inputs={}, rank=jobs.RANK_QUERY)
        jobs.post_rows(connection, [row | {"result": "secret"} | fields])
        return int(connection.execute(sa.select(jobs_table.c.id).where(jobs_table.c.uuid == row["uuid"])).scalar_one())


def test_only_answers_that_were_there_for_a_while_are_unread(house_on_each: House) -> None:
    house = house_on_each
    old = now() - 60
    done, failed = (_post(house, state=state, finished_at=old) for state in (JobState.DONE, JobState.REVERTED))
    others = [
        _post(house, state=JobState.DONE, finished_at=now()),
        _post(house, state=JobState.QUEUED),
        _post(house, state=JobState.RUNNING),
        _post(house, state=JobState.STUCK, finished_at=old),
        _post(house, kind="build_instance", rank=jobs.RANK_DEFAULT, state=JobState.DONE, finished_at=old),
    ]
    with house.db.write() as connection:
        unread = jobs.list_unread(connection, now() - 30)
        jobs.forget_unread(connection, unread)
        left = list(connection.execute(sa.select(jobs_table.c.id).order_by(jobs_table.c.id)).scalars())
    assert sorted(unread) == [done, failed]
    assert left == others


def test_to_look_for_them_costs_nothing_of_what_ended_before(house: House) -> None:
    asked: list[tuple[str, Any]] = []
    sa.event.listen(house.db.engine, "before_cursor_execute", lambda *told: asked.append((told[2], told[3])))
    with house.db.read() as connection:
        jobs.list_unread(connection, now())
        ((statement, given),) = [each for each in asked if "SELECT" in each[0]]
        plan = connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {statement}", given).all()
    assert [row[3] for row in plan] == ["SEARCH jobs USING INDEX ix_jobs_answered (rank=? AND finished_at<?)"]
