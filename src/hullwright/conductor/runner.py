"""Drives one leased job to rest: builds or reloads its flow, runs it, and records how it ended.

How a job can leave this module: done, reverted, stuck (with the evidence), given back to the queue, or lost to another conductor.
"""

from __future__ import annotations

import dataclasses
import logging
import time
from collections.abc import Callable
from concurrent.futures import Executor
from typing import Any

from taskflow import states as flow_states

from hullwright.conductor import queries
from hullwright.conductor.engine import Graphs, ParallelEngine, SerialEngine
from hullwright.flows import catalog
from hullwright.flows.context import RunContext, Shared
from hullwright.objects.builds import Job
from hullwright.objects.errors import HullwrightError, JobUnloadable, LeaseLost, StoreUnavailable
from hullwright.objects.states import JobState
from hullwright.persistence import atoms, events, jobs
from hullwright.persistence.database import DatabaseUnavailable, now

LOG = logging.getLogger(__name__)
_OUTAGE_PAUSE_SECONDS = 0.5
_LONGEST_RETRY_SECONDS = 60.0


class Runner:
    """Runs jobs, one per calling thread."""

    def __init__(
        self, shared: Shared, *, lease_good: Callable[[Job], bool], draining: Callable[[], bool], pool: Executor | None = None
    ) -> None:
        """`pool`: runs independent steps side by side when given. `draining`: asked between steps; true suspends the flow."""
        self._shared = shared
        self._store = shared.store
        self._conf = shared.conf
        self._graphs = Graphs()
        self._lease_good = lease_good
        self._draining = draining
        self._pool = pool

    def run(self, job: Job) -> None:
        """Drive the job; a database that goes away is waited for, and what was under way is taken up again."""
        while True:
            try:
                self._run(job)
                return
            except (StoreUnavailable, DatabaseUnavailable) as error:
                LOG.warning("Job %s waits for the database: %s", job.uuid, error)
            except LeaseLost as error:
                LOG.warning("Job %s is not ours any more: %s", job.uuid, error)
                return
            finally:
                self._store.forget_job(job.uuid)
            again = self._await_database(job)
            if again is None:
                return
            job = again

    def _await_database(self, job: Job) -> Job | None:
        """Wait until the database answers; None when the job is somebody else's by then, or we are stopping."""
        while not self._draining():
            time.sleep(_OUTAGE_PAUSE_SECONDS)
            try:
                with self._shared.db.read() as connection:
                    return dataclasses.replace(job, seq=jobs.get(connection, job.uuid).seq) if jobs.is_held(connection, job) else None
            except DatabaseUnavailable:
                continue
        return None

    # --- One run -----------------------------------------------------------------------------------------------------------

    def _run(self, job: Job) -> None:
        if job.leases > self._conf.conductor.max_leases:
            self._park(job, f"It was leased {job.leases} times and never came to rest: it seems to crash its conductor.")
            return
        if job.kind in queries.QUERIES:
            self._answer(job)
            return
        try:
            engine = self._load(job)
        except (StoreUnavailable, LeaseLost, DatabaseUnavailable):
            raise
        except HullwrightError as error:
            self._park(job, error.text)
            return
        except Exception as error:  # whatever is wrong with a stored flow, the job must come to rest and be seen
            LOG.exception("Job %s cannot be loaded", job.uuid)
            self._park(job, JobUnloadable(id=job.uuid, reason=f"{type(error).__name__}: {error}").text)
            return
        failure = self._drive(job, engine)
        self._settle(job, engine, failure)

    def _load(self, job: Job) -> Any:
        kind = catalog.KINDS.get(job.kind)
        if kind is None:
            raise JobUnloadable(id=job.uuid, reason=f"this version knows no jobs of kind {job.kind}")
        path = catalog.path_of(kind.factory)
        graph = self._graphs.get(path, kind.factory)
        meta = {"factory": {"name": path, "args": [], "kwargs": {}}}
        detail = self._store.open_job(job, job.kind, meta, scoped=graph.scoped, total_steps=graph.total_steps)
        stored = detail.meta["factory"]["name"]
        if stored != path:  # begun by an older or newer version: go on with the graph it was begun with
            graph = self._graphs.get(stored, catalog.find(stored, job.uuid))
            buffer = self._store.buffer(job.uuid)
            buffer.scoped, buffer.total_steps = graph.scoped, graph.total_steps
        run = RunContext(self._shared, job, lambda: self._lease_good(job))
        engine = SerialEngine(graph, detail, self._store) if self._pool is None else ParallelEngine(graph, detail, self._store, self._pool)
        # Inputs are in the job's row; nothing is injected into the store, where a crash between two writes would break the flow.
        inputs: dict[str, Any] = {"run": run}
        if job.kind == "build_instance":
            inputs["max_attempts"] = run.spec.max_attempts
            self._remember_host(job, run)
        engine.compile()
        engine.storage.inject(inputs, transient=True)
        return engine

    def _remember_host(self, job: Job, run: RunContext) -> None:
        """A build that goes on after a crash acts where its last attempt did."""
        if not self._store.buffer(job.uuid).is_new:
            run.set_host(run.instance.host)

    def _drive(self, job: Job, engine: Any) -> Exception | None:
        """Run until the flow rests or is suspended; answers what it raised."""
        try:
            states = engine.run_iter()
            state = next(states)
            while True:
                if state == flow_states.WAITING and self._pool is not None:
                    self._store.flush(job.uuid)  # the engine is about to sleep: let what is done be known
                state = states.send(self._draining())
        except StopIteration:
            return None
        except Exception as error:  # noqa: BLE001  the steps' own failures come out here; the flow's state says what they mean
            return error

    def _settle(self, job: Job, engine: Any, failure: Exception | None) -> None:
        state = engine.storage.get_flow_state()
        stuck_steps = [name for name, (atom, _) in _atom_states(engine).items() if atom == flow_states.REVERT_FAILURE]
        if state == flow_states.SUCCESS:
            self._end(job, JobState.DONE)
        elif stuck_steps and not catalog.KINDS[job.kind].goes_on:
            evidence = "; ".join(f"{name}: {found.exception_str}" for name, found in engine.storage.get_revert_failures().items())
            self._end(job, JobState.STUCK, error=f"Could not undo {', '.join(sorted(stuck_steps))}: {evidence}")
        elif state == flow_states.REVERTED or stuck_steps:
            cause = _first_line(engine, failure)
            if catalog.KINDS[job.kind].goes_on:
                self._try_again(job, cause)
            else:
                self._end(job, JobState.REVERTED, error=cause)
        elif state in (flow_states.SUSPENDED, flow_states.SUSPENDING):
            with self._store.transaction(job.uuid) as connection:
                jobs.give_back(connection, job)
        else:
            self._end(job, JobState.STUCK, error=f"The flow stopped in state {state}: {failure}")

    def _end(self, job: Job, state: JobState, error: str | None = None) -> None:
        with self._store.transaction(job.uuid) as connection:
            jobs.end(connection, job, state, error=error, progress=100 if state == JobState.DONE else self._store.buffer(job.uuid).progress)
        if state == JobState.STUCK:
            LOG.error("Job %s (%s) is stuck: %s", job.uuid, job.kind, error)

    def _try_again(self, job: Job, cause: str) -> None:
        """Work that must end: forget the flow, keep its history, and begin again after a while that grows with each failure."""
        with self._store.transaction(job.uuid) as connection:
            failures = events.count(connection, job.uuid, step="", to_state=flow_states.REVERTED)
            pause = min(self._conf.conductor.retry_interval * 2 ** min(failures, 16), _LONGEST_RETRY_SECONDS)
            atoms.destroy_flow(connection, job.uuid)
            jobs.give_back(connection, job, not_before=now() + pause, error=cause)
        LOG.warning("Job %s (%s) is tried again in %.0f s: %s", job.uuid, job.kind, pause, cause)

    def _park(self, job: Job, reason: str) -> None:
        LOG.error("Job %s (%s) is parked: %s", job.uuid, job.kind, reason)
        with self._shared.db.write() as connection:
            jobs.end(connection, job, JobState.STUCK, error=reason, progress=job.progress)

    def _answer(self, job: Job) -> None:
        """Run a question's function; its answer or error goes to the job's row, where the asker waits for it."""
        try:
            result = queries.QUERIES[job.kind](self._shared, job.inputs)
            state, error = JobState.DONE, None
        except HullwrightError as failed:
            result, state, error = None, JobState.REVERTED, failed.text
        except Exception as failed:
            LOG.exception("Question %s (%s) failed", job.uuid, job.kind)
            result, state, error = None, JobState.REVERTED, f"{type(failed).__name__}: {failed}"
        with self._shared.db.write() as connection:
            jobs.end(connection, job, state, result=result, error=error)


def _atom_states(engine: Any) -> dict[str, tuple[str, str]]:
    names = [atom.name for atom in engine.storage._flowdetail]
    return engine.storage.get_atoms_states(names)  # type: ignore[no-any-return]


def _first_line(engine: Any, failure: Exception | None) -> str:
    for step, found in engine.storage.get_execute_failures().items():
        return f"{step}: {found.exception_str}"
    return str(failure or "undone")
