"""The jobboard as any TaskFlow user sees it."""

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from taskflow import engines, exceptions, states, task
from taskflow.conductors import backends as conductor_backends
from taskflow.jobs import backends as job_backends
from taskflow.jobs.base import JobPriority
from taskflow.patterns import linear_flow
from taskflow.persistence import models

from hullwright.persistence import conductors
from hullwright.persistence.database import Database
from hullwright.persistence.jobboard import SqlJobBoard
from hullwright.persistence.store import FlowStore


@pytest.fixture
def board(db: Database, tmp_path: Path) -> Iterator[SqlJobBoard]:
    with job_backends.backend("test-board", {"board": "hullwright", "db": db, "state_path": tmp_path}) as found:
        yield found


def test_it_is_found_by_its_name_among_taskflows_drivers(board: SqlJobBoard) -> None:
    assert isinstance(board, SqlJobBoard)
    assert board.connected


def test_jobs_are_listed_by_priority_and_then_in_order_of_posting(board: SqlJobBoard) -> None:
    names = [("a", JobPriority.NORMAL), ("b", JobPriority.HIGH), ("c", JobPriority.NORMAL), ("d", JobPriority.VERY_LOW)]
    for name, priority in names:
        board.post(name, details={"x": name}, priority=priority)
    assert [(job.name, job.priority) for job in board.iterjobs()] == [
        ("b", JobPriority.HIGH),
        ("a", JobPriority.NORMAL),
        ("c", JobPriority.NORMAL),
        ("d", JobPriority.VERY_LOW),
    ]
    assert board.job_count == 4


def test_a_job_is_claimed_by_one_and_consumed_by_its_owner_only(board: SqlJobBoard) -> None:
    job = board.post("work")
    assert job.state == states.UNCLAIMED
    board.claim(job, "me")
    assert (job.state, board.find_owner(job)) == (states.CLAIMED, "me")
    (seen,) = board.iterjobs()
    with pytest.raises(exceptions.UnclaimableJob):
        board.claim(seen, "you")
    with pytest.raises(exceptions.JobFailure):
        board.consume(seen, "you")
    board.consume(job, "me")
    assert (job.state, board.job_count) == (states.COMPLETE, 0)
    with pytest.raises(exceptions.UnclaimableJob):
        board.claim(job, "me")


def test_an_abandoned_job_can_be_claimed_again_and_a_trashed_one_is_parked(board: SqlJobBoard) -> None:
    job = board.post("work")
    board.claim(job, "me")
    board.abandon(job, "me")
    assert job.state == states.UNCLAIMED
    board.claim(job, "you")
    board.trash(job, "you")
    assert (job.state, list(board.iterjobs())) == (states.COMPLETE, [])


def test_a_claim_lasts_while_its_owner_beats(board: SqlJobBoard, db: Database) -> None:
    job = board.post("work")
    board.claim(job, "me")
    assert board.beat("me")
    with db.write() as connection:
        conductors.retire(connection, "me")
    assert job.state == states.UNCLAIMED
    (seen,) = board.iterjobs(only_unclaimed=True)
    board.claim(seen, "you")
    with pytest.raises(exceptions.JobFailure):
        board.consume(job, "me")


def test_waiting_for_a_job_ends_when_one_is_posted_or_the_time_is_over(board: SqlJobBoard) -> None:
    with pytest.raises(exceptions.NotFound):
        board.wait(timeout=0.05)
    board.post("work")
    assert [job.name for job in board.wait(timeout=5)] == ["work"]


class _Remember(task.Task):
    done: list[str] = []

    def execute(self, word: str) -> None:
        self.done.append(word)


def make_flow() -> linear_flow.Flow:
    """What the stock conductor imports by its dotted path."""
    return linear_flow.Flow("remember").add(_Remember("remember"))


def test_taskflows_own_conductor_runs_a_flow_from_this_board_and_store(board: SqlJobBoard, db: Database) -> None:
    store = FlowStore(db)
    _Remember.done.clear()
    book = models.LogBook("book")
    detail = models.FlowDetail("remember", "f-1")
    detail.meta["store"] = {"word": "hello"}
    book.add(detail)
    store.get_connection().save_logbook(book)
    engines.save_factory_details(detail, make_flow, (), {}, backend=store)
    job = board.post("remember", book=book, details={"flow_uuid": "f-1"})
    its_board = SqlJobBoard("test-board", {"db": db, "state_path": board._conf["state_path"]}, store)
    stock = conductor_backends.fetch("blocking", "stock", its_board, persistence=store, wait_timeout=0.05)
    stock.connect()
    thread = threading.Thread(target=stock.run)
    thread.start()
    try:
        assert job.wait(timeout=10)
    finally:
        stock.stop()
        thread.join(timeout=10)
        stock.close()
    assert (_Remember.done, job.state) == (["hello"], states.COMPLETE)
