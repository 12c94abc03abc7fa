"""The TaskFlow store: TaskFlow's own contract for backends, and what we promise beyond it."""

import contextlib
import unittest
from collections.abc import Iterator
from typing import Any

import pytest
from taskflow import states
from taskflow.persistence import models
from taskflow.tests.unit.persistence.base import PersistenceTestMixin
from taskflow.types.failure import Failure

from hullwright.objects.builds import Job
from hullwright.objects.errors import BuildCancelled, LeaseLost, StoreUnavailable
from hullwright.persistence import conductors, events, jobs
from hullwright.persistence.database import Database, DatabaseUnavailable
from hullwright.persistence.store import FlowStore


class TestTaskFlowsOwnContract(PersistenceTestMixin):
    """The suite that TaskFlow runs against its own backends, on each of our databases."""

    _asserts = unittest.TestCase()  # pytest gives no parametrised fixtures to a TestCase itself

    def __getattr__(self, name: str) -> Any:
        return getattr(self._asserts, name)

    @pytest.fixture(autouse=True)
    def _store(self, db: Database) -> None:
        self.store = FlowStore(db)

    def _get_connection(self) -> Any:
        return self.store.get_connection()


@pytest.fixture
def store(db: Database) -> FlowStore:
    return FlowStore(db)


@pytest.fixture
def job(db: Database) -> Job:
    """A leased job."""
    with db.write() as connection:
        conductors.enlist(connection, id="c1", hostname="here", pid=1, version="0", lease_seconds=60)
        jobs.post(connection, kind="build_instance", instance_uuid="i1", inputs={})
        return jobs.lease(connection, "c1", 1)[0]


def _open(store: FlowStore, job: Job) -> tuple[models.FlowDetail, models.TaskDetail]:
    detail = store.open_job(job, "build_instance", {"factory": {"name": "f"}}, scoped=frozenset({"spawn"}), total_steps=2)
    connection = store.get_connection()
    changed = detail.copy()
    atom = models.TaskDetail("spawn", "a-1")
    atom.state = states.PENDING
    changed.add(atom)
    detail.update(connection.update_flow_details(changed))
    return detail, atom


def _set(store: FlowStore, atom: models.AtomDetail, state: str, result: Any = None) -> None:
    if state in (states.SUCCESS, states.FAILURE):
        atom.put(state, result)
    else:
        atom.state = state
    store.get_connection().update_atom_details(atom)


@contextlib.contextmanager
def _counted(db: Database) -> Iterator[list[int]]:
    before, found = db.commits, [0]
    yield found
    found[0] = db.commits - before


def test_saves_wait_for_the_next_barrier_and_go_in_one_commit(store: FlowStore, job: Job, db: Database) -> None:
    _, atom = _open(store, job)
    with _counted(db) as commits:
        _set(store, atom, states.RUNNING)
        _set(store, atom, states.SUCCESS, {"a": 1})
    assert commits == [0]
    with _counted(db) as commits:
        store.flush(job.uuid)
        store.flush(job.uuid)
    assert commits == [1]
    loaded = FlowStore(db).get_connection().get_flow_details(job.uuid)
    assert [(found.name, found.state, found.results) for found in loaded] == [("spawn", "SUCCESS", {"a": 1})]


def test_every_change_of_state_is_an_event_in_the_same_transaction(store: FlowStore, job: Job, db: Database) -> None:
    _, atom = _open(store, job)
    _set(store, atom, states.RUNNING)
    with pytest.raises(ZeroDivisionError), store.transaction(job.uuid):
        raise ZeroDivisionError
    with db.read() as connection:
        assert events.list_since(connection, job.uuid) == []
    _set(store, atom, states.SUCCESS, "done")
    store.flush(job.uuid)
    with db.read() as connection:
        told = events.list_since(connection, job.uuid)
    assert [(e.seq, e.step, e.from_state, e.to_state, e.result) for e in told] == [
        (1, "spawn", "PENDING", "RUNNING", None),
        (2, "spawn", "RUNNING", "SUCCESS", "done"),
    ]
    assert {(e.owner, e.fence) for e in told} == {("c1", 1)}


def test_a_replaced_owner_can_write_nothing(store: FlowStore, job: Job, db: Database) -> None:
    _, atom = _open(store, job)
    with db.write() as connection:
        conductors.retire(connection, "c1")
        conductors.enlist(connection, id="c2", hostname="here", pid=2, version="0", lease_seconds=60)
        assert [taken.fence for taken in jobs.lease(connection, "c2", 1, orphans=True)] == [2]
    _set(store, atom, states.RUNNING)
    with pytest.raises(LeaseLost):
        store.flush(job.uuid)
    with db.read() as connection:
        assert events.list_since(connection, job.uuid) == []


def test_a_cancel_is_heeded_by_steps_and_not_by_undos(store: FlowStore, job: Job, db: Database) -> None:
    _open(store, job)
    with db.write() as connection:
        jobs.cancel_open(connection, "i1")
    with pytest.raises(BuildCancelled):
        store.flush(job.uuid, heed_cancel=True, always=True)
    store.flush(job.uuid, always=True)


def test_an_outage_stops_the_engine_rather_than_failing_the_step(
    store: FlowStore, job: Job, db: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, atom = _open(store, job)
    _set(store, atom, states.RUNNING)

    @contextlib.contextmanager
    def away() -> Iterator[None]:
        raise DatabaseUnavailable(reason="away")
        yield

    with monkeypatch.context() as patched:
        patched.setattr(db, "write", away)
        with pytest.raises(StoreUnavailable):
            store.flush(job.uuid)
    store.flush(job.uuid)
    with db.read() as connection:
        assert [event.to_state for event in events.list_since(connection, job.uuid)] == ["RUNNING"]


def test_a_retrys_history_survives_a_reload_whole(store: FlowStore, db: Database) -> None:
    """TaskFlow 6.5's own decoding replaces what a failed attempt's retry provided by the failure."""
    book, detail = models.LogBook("b"), models.FlowDetail("f", "f-1")
    history = models.RetryDetail("reschedule", "r-1")
    history.put(states.SUCCESS, "h1")
    try:
        raise RuntimeError("boom")
    except RuntimeError:
        history.results[-1][1]["spawn"] = Failure()
    history.put(states.SUCCESS, "h2")
    detail.add(history)
    book.add(detail)
    store.get_connection().save_logbook(book)
    (loaded,) = store.get_connection().get_flow_details("f-1")
    assert [provided for provided, _ in loaded.results] == ["h1", "h2"]
    assert loaded.results[0][1]["spawn"].check(RuntimeError)


def test_a_step_found_running_is_told_as_resumed(store: FlowStore, job: Job, db: Database) -> None:
    _, atom = _open(store, job)
    _set(store, atom, states.RUNNING)
    store.flush(job.uuid)
    store.forget_job(job.uuid)
    with db.write() as connection:
        conductors.retire(connection, "c1")
        conductors.enlist(connection, id="c2", hostname="here", pid=2, version="0", lease_seconds=60)
        (again,) = jobs.lease(connection, "c2", 1, orphans=True)
    FlowStore(db).open_job(again, "build_instance", {})
    other = FlowStore(db)
    other.open_job(again, "build_instance", {}, scoped=frozenset({"spawn"}))
    other.flush(job.uuid)
    with db.read() as connection:
        assert [(e.seq, e.to_state, e.owner, e.fence) for e in events.list_since(connection, job.uuid)] == [
            (1, "RUNNING", "c1", 1),
            (2, "RESUMED", "c2", 2),
        ]


def test_an_error_with_arguments_that_json_cannot_hold_is_stored(store: FlowStore, job: Job, db: Database) -> None:
    _, atom = _open(store, job)
    try:
        raise RuntimeError(object(), b"bytes")
    except RuntimeError:
        _set(store, atom, states.FAILURE, Failure())
    store.flush(job.uuid)
    (loaded,) = FlowStore(db).get_connection().get_flow_details(job.uuid)
    assert loaded.failure.check(RuntimeError)
