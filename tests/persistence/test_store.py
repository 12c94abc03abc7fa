"""The TaskFlow store and its sessions: TaskFlow's own contract for backends, and what we promise beyond it."""

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
from hullwright.persistence import conductors, events, jobs, leases
from hullwright.persistence.database import Database, DatabaseUnavailable
from hullwright.persistence.session import FlowSession
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
def job(db: Database) -> Job:
    """A leased job."""
    with db.write() as connection:
        conductors.enlist(connection, id="c1", hostname="here", pid=1, version="0", lease_seconds=60)
        jobs.post(connection, kind="build_instance", instance_uuid="i1", inputs={})
        return leases.take(connection, "c1", 1)[0]


@pytest.fixture
def session(db: Database, job: Job) -> FlowSession:
    """A session of that job."""
    return FlowSession(db, job, "build_instance", {"factory": {"name": "f"}})


def _open(session: FlowSession) -> models.TaskDetail:
    session.begin(frozenset({"spawn"}), 2)
    changed = session.detail.copy()
    atom = models.TaskDetail("spawn", "a-1")
    atom.state = states.PENDING
    changed.add(atom)
    session.detail.update(session.get_connection().update_flow_details(changed))
    return atom


def _set(session: FlowSession, atom: models.AtomDetail, state: str, result: Any = None) -> None:
    if state in (states.SUCCESS, states.FAILURE):
        atom.put(state, result)
    else:
        atom.state = state
    session.get_connection().update_atom_details(atom)


@contextlib.contextmanager
def _counted(db: Database) -> Iterator[list[int]]:
    before, found = db.commits, [0]
    yield found
    found[0] = db.commits - before


def test_saves_wait_for_the_next_barrier_and_go_in_one_commit(session: FlowSession, job: Job, db: Database) -> None:
    atom = _open(session)
    with _counted(db) as commits:
        _set(session, atom, states.RUNNING)
        _set(session, atom, states.SUCCESS, {"a": 1})
    assert commits == [0]
    with _counted(db) as commits:
        session.flush()
        session.flush()
    assert commits == [1]
    loaded = FlowStore(db).get_connection().get_flow_details(job.uuid)
    assert [(found.name, found.state, found.results) for found in loaded] == [("spawn", "SUCCESS", {"a": 1})]


def test_every_change_of_state_is_an_event_in_the_same_transaction(session: FlowSession, job: Job, db: Database) -> None:
    atom = _open(session)
    _set(session, atom, states.RUNNING)
    with pytest.raises(ZeroDivisionError), session.transaction():
        raise ZeroDivisionError
    with db.read() as connection:
        assert events.list_since(connection, job.uuid) == []
    _set(session, atom, states.SUCCESS, "done")
    session.flush()
    with db.read() as connection:
        told = events.list_since(connection, job.uuid)
    assert [(e.seq, e.step, e.from_state, e.to_state, e.result) for e in told] == [
        (1, "spawn", "PENDING", "RUNNING", None),
        (2, "spawn", "RUNNING", "SUCCESS", "done"),
    ]
    assert {(e.owner, e.fence) for e in told} == {("c1", 1)}


def test_a_replaced_owner_can_write_nothing(session: FlowSession, job: Job, db: Database) -> None:
    atom = _open(session)
    with db.write() as connection:
        conductors.retire(connection, "c1")
        conductors.enlist(connection, id="c2", hostname="here", pid=2, version="0", lease_seconds=60)
        assert [taken.fence for taken in leases.take(connection, "c2", 1, orphans=True)] == [2]
    _set(session, atom, states.RUNNING)
    with pytest.raises(LeaseLost):
        session.flush()
    with db.read() as connection:
        assert events.list_since(connection, job.uuid) == []


def test_a_cancel_is_heeded_by_steps_and_not_by_undos(session: FlowSession, job: Job, db: Database) -> None:
    _open(session)
    with db.write() as connection:
        jobs.cancel_open(connection, "i1")
    with pytest.raises(BuildCancelled):
        session.flush(heed_cancel=True, always=True)
    session.flush(always=True)


def test_an_outage_stops_the_engine_rather_than_failing_the_step(
    session: FlowSession, job: Job, db: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    atom = _open(session)
    _set(session, atom, states.RUNNING)

    @contextlib.contextmanager
    def away() -> Iterator[None]:
        raise DatabaseUnavailable(reason="away")
        yield

    with monkeypatch.context() as patched:
        patched.setattr(db, "write", away)
        with pytest.raises(StoreUnavailable):
            session.flush()
    session.flush()
    with db.read() as connection:
        assert [event.to_state for event in events.list_since(connection, job.uuid)] == ["RUNNING"]


def test_a_retrys_history_survives_a_reload_whole(db: Database) -> None:
    """TaskFlow 6.5's own decoding replaces what a failed attempt's retry provided by the failure."""
    store = FlowStore(db)
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


def test_a_step_found_running_is_told_as_resumed(session: FlowSession, job: Job, db: Database) -> None:
    atom = _open(session)
    _set(session, atom, states.RUNNING)
    session.flush()
    session.close()
    with db.write() as connection:
        conductors.retire(connection, "c1")
        conductors.enlist(connection, id="c2", hostname="here", pid=2, version="0", lease_seconds=60)
        (again,) = leases.take(connection, "c2", 1, orphans=True)
    other = FlowSession(db, again, "build_instance", {})
    other.begin(frozenset({"spawn"}), 2)
    other.flush()
    with db.read() as connection:
        assert [(e.seq, e.to_state, e.owner, e.fence) for e in events.list_since(connection, job.uuid)] == [
            (1, "RUNNING", "c1", 1),
            (2, "RESUMED", "c2", 2),
        ]


def test_an_error_with_arguments_that_json_cannot_hold_is_stored(session: FlowSession, job: Job, db: Database) -> None:
    atom = _open(session)
    try:
        raise RuntimeError(object(), b"bytes")
    except RuntimeError:
        _set(session, atom, states.FAILURE, Failure())
    session.flush()
    (loaded,) = FlowStore(db).get_connection().get_flow_details(job.uuid)
    assert loaded.failure.check(RuntimeError)


def test_a_thread_whose_session_was_closed_can_save_nothing(session: FlowSession, job: Job, db: Database) -> None:
    atom = _open(session)
    session.close()
    for act in (
        lambda: _set(session, atom, states.RUNNING),
        session.flush,
        lambda: session.get_connection().update_flow_details(session.detail),
    ):
        with pytest.raises(LeaseLost):
            act()
