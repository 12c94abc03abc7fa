"""Drives one leased job to rest: builds or reloads its flow, runs it, and records how it ended.

How a job can leave this module: done, reverted, stuck (with the evidence), given back to the queue, left there to wait for room, or lost to
another conductor.
"""

from __future__ import annotations

import datetime
import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

from sqlalchemy.engine import Connection
from taskflow import states as flow_states
from tenacity import Retrying, retry_if_exception_type, wait_fixed

import hullwright
from hullwright.conductor import parking, queries
from hullwright.conductor.engine import Graphs, ParallelEngine, SerialEngine
from hullwright.conductor.intake import PassedOver
from hullwright.flows import catalog, leftovers
from hullwright.flows.context import Hung, RunContext, Shared
from hullwright.objects import fence
from hullwright.objects.builds import Job
from hullwright.objects.errors import HullwrightError, HypervisorTimeout, JobUnloadable, LeaseLost, RoomAwaited, StoreUnavailable
from hullwright.objects.states import JobState
from hullwright.persistence import atoms, conductors, events, jobs, leases
from hullwright.persistence.database import DatabaseUnavailable, read_clock
from hullwright.persistence.session import FlowSession

LOG = logging.getLogger(__name__)
T = TypeVar("T")
_OUTAGE_PAUSE_SECONDS = 0.5
_LONGEST_RETRY_SECONDS = 60.0


@dataclass(slots=True)
class Drive:
    """A job in a thread's hands."""

    job: Job
    given_up: Mapping[str, Hung] = field(default_factory=dict)  # by the step whose last run was given up
    begun: float = field(default_factory=time.monotonic)
    run: RunContext | None = None  # once its flow is loaded
    is_abandoned: bool = False  # its call hangs: the job was taken from this thread
    is_absolved: bool = False  # the lease was lost and the conductor lives: the job has not crashed it

    def overdue(self, limit: Callable[[str], float]) -> Hung | None:
        """What has hung for too long, if anything."""
        if self.run is not None:
            return self.run.overdue(limit)
        seconds = time.monotonic() - self.begun
        return Hung("", seconds) if self.job.kind in queries.QUERIES and seconds > limit("") else None

    def abandon(self) -> None:
        """Shut every door to the thread."""
        self.is_abandoned = True
        if self.run is not None:
            self.run.session.close()


@dataclass(frozen=True, slots=True)
class _Lease:
    """The fence of a job without a flow: a round that hung, or whose conductor stalled, mends nothing beside the one that replaced it."""

    job: Job
    is_good: Callable[[Job], bool]

    def check(self) -> None:
        if not self.is_good(self.job):
            raise LeaseLost(f"job {self.job.uuid}: the heartbeat of its conductor has lapsed")

    def prove(self, connection: Connection) -> None:
        leases.prove(connection, self.job)


class Runner:
    """Runs jobs, one per calling thread."""

    def __init__(
        self,
        shared: Shared,
        *,
        lease_good: Callable[[Job], bool],
        draining: Callable[[], bool],
        passed_over: PassedOver,
        side_by_side: bool = False,
    ) -> None:
        """`draining`: asked between steps; true suspends the flow. `passed_over`: notes what is left to conductors of another version.
        `side_by_side`: runs independent steps so.
        """
        self._shared = shared
        self._db = shared.db
        self._conf = shared.conf
        self._graphs = Graphs()
        self._lease_good = lease_good
        self._draining = draining
        self._side_by_side = side_by_side
        self._passed_over = passed_over

    def run(self, drive: Drive) -> None:
        """Drive the job; a database that goes away is waited for, and what was under way is taken up again."""
        while True:
            try:
                self._run(drive)
                return
            except (StoreUnavailable, DatabaseUnavailable) as error:
                LOG.warning("Job %s waits for the database: %s", drive.job.uuid, error)
            except RoomAwaited as error:
                LOG.info("%s", error)
                return
            except LeaseLost as error:
                if not drive.is_abandoned:
                    LOG.warning("Job %s is not ours any more: %s", drive.job.uuid, error)
                self._clean_after(drive)
                return
            if drive.is_abandoned:
                self._clean_after(drive)
                return
            again = self._await_database(drive.job)
            if again is None:
                return
            if drive.run is not None:
                drive.given_up = drive.run.given_up
            drive.job, drive.run = again, None

    def _await_database(self, job: Job) -> Job | None:
        """Wait until the database answers; None when the job is somebody else's by then, or we are stopping."""

        def look() -> Job | None:
            with self._db.read() as connection:
                fresh = jobs.get(connection, job.uuid)
                return fresh if leases.is_held(connection, job) else None

        if self._draining():
            return None
        time.sleep(_OUTAGE_PAUSE_SECONDS)  # a database that reads and does not write must not keep us busy
        try:
            return self._outlast(look)
        except DatabaseUnavailable:
            return None

    def _outlast(self, act: Callable[[], T]) -> T:
        """Do it, again and again while the database is away.

        Raises: DatabaseUnavailable when it still is and we are stopping.
        """
        tries = Retrying(
            retry=retry_if_exception_type(DatabaseUnavailable),
            wait=wait_fixed(_OUTAGE_PAUSE_SECONDS),
            stop=lambda _told: self._draining(),
            reraise=True,
        )
        return tries(act)

    def _clean_after(self, drive: Drive) -> None:
        """A call that had been given up, or outlived the lease, came back after all: what it did there meanwhile is cleaned up, unless the
        instance lives there.
        """
        host = None
        if drive.run is not None:
            host = drive.run.session.host if drive.is_abandoned else drive.run.cut_off_on
        if drive.job.kind != "build_instance" or host is None:
            return
        LOG.warning("Job %s: a call to host %s has ended after the job was taken; the host is cleaned of it", drive.job.uuid, host)
        inputs = {"instance_uuid": drive.job.instance_uuid, "host": host}
        asked = {"kind": "clean_host", "instance_uuid": None, "request_id": drive.job.request_id, "rank": jobs.RANK_CLEANING}

        def post() -> None:
            with self._db.write() as connection:
                jobs.post(connection, inputs=inputs, **asked)

        self._outlast(post)

    # --- One run -----------------------------------------------------------------------------------------------------------

    def _run(self, drive: Drive) -> None:
        job = drive.job
        if job.leases > self._conf.conductor.max_leases:
            self._park(job, self._evidence(job))
            return
        if job.kind in queries.QUERIES:
            self._answer(drive)
            return
        if job.kind in leftovers.KINDS and self._put_off(job):
            return
        try:
            engine = self._load(drive)
        except (StoreUnavailable, LeaseLost, DatabaseUnavailable):
            raise
        except JobUnloadable as error:
            self._pass_on(job, error)
            return
        except HullwrightError as error:
            self._park(job, error.text)
            return
        except Exception as error:  # whatever is wrong with a stored flow, the job must come to rest and be seen
            LOG.exception("Job %s cannot be loaded", job.uuid)
            self._pass_on(job, JobUnloadable(id=job.uuid, reason=f"{type(error).__name__}: {error}"))
            return
        assert drive.run is not None
        session = drive.run.session
        failure = self._drive(session, engine)
        self._settle(session, engine, failure)

    def _put_off(self, job: Job) -> bool:
        """Give a cleaning back that is too early; nothing has failed, so nothing is told in its history."""
        with self._db.read() as connection:
            if not leftovers.is_too_early(connection, job):
                return False
        with self._db.write() as connection:
            not_before = read_clock(connection) + self._conf.conductor.retry_interval
            leases.give_back(connection, job, not_before=not_before, error="Its instance is still being built or deleted there")
        return True

    def _load(self, drive: Drive) -> Any:
        job = drive.job
        kind = catalog.KINDS.get(job.kind)
        if kind is None:
            raise JobUnloadable(id=job.uuid, reason=f"this version knows no jobs of kind {job.kind}")
        path, factory = catalog.path_of(kind.factory), kind.factory
        session = FlowSession(self._db, job, job.kind, {"factory": {"name": path, "args": [], "kwargs": {}}})
        stored = session.detail.meta["factory"]["name"]
        if stored != path:  # begun by an older or newer version: go on with the graph it was begun with
            path, factory = stored, catalog.find(stored, job.uuid)
        graph = self._graphs.get(path, factory)
        session.begin(graph.scoped, graph.total_steps)
        run = RunContext(self._shared, session, lambda: self._lease_good(job), drive.given_up)
        engine = ParallelEngine(graph, session) if self._side_by_side else SerialEngine(graph, session)
        # Inputs are in the job's row; nothing is injected into the store, where a crash between two writes would break the flow.
        inputs: dict[str, Any] = {"run": run}
        if job.kind == "build_instance":
            inputs["max_attempts"] = run.spec.max_attempts
            if not session.is_new:
                run.set_host(run.instance.host)  # after a crash the last attempt goes on where it was
        engine.compile()
        engine.storage.inject(inputs, transient=True)
        drive.run = run
        return engine

    def _drive(self, session: FlowSession, engine: Any) -> Exception | None:
        """Run until the flow rests or is suspended; answers what it raised."""
        try:
            states = engine.run_iter()
            state, is_under_way = next(states), False
            while True:
                if state == flow_states.WAITING:
                    is_under_way = True
                    if self._side_by_side:
                        session.flush()  # the engine is about to sleep: let what is done be known
                # Not before: TaskFlow calls a flow reverted that is suspended while a step taken up from a dead owner waits to be run.
                state = states.send(is_under_way and self._draining())
        except StopIteration:
            return None
        except Exception as error:  # noqa: BLE001  the steps' own failures come out here; the flow's state says what they mean
            return error
        finally:
            # What stopped the engine may have met one step while another still acts: whatever comes next, be it to clean up after this run
            # or to take the steps up again, comes when all of them have ended.
            engine.await_steps()

    def _settle(self, session: FlowSession, engine: Any, failure: Exception | None) -> None:
        goes_on = catalog.KINDS[session.job.kind].goes_on
        state = engine.storage.get_flow_state()
        stuck_steps = sorted(atom.name for atom in session.detail if atom.state == flow_states.REVERT_FAILURE)
        if state == flow_states.SUCCESS:
            self._end(session, JobState.DONE)
        elif stuck_steps and not goes_on:
            evidence = "; ".join(f"{name}: {found.exception_str}" for name, found in engine.storage.get_revert_failures().items())
            self._end(session, JobState.STUCK, error=f"Could not undo {', '.join(stuck_steps)}: {evidence}", step=stuck_steps[0])
        elif state == flow_states.REVERTED or stuck_steps:
            cause = _first_cause(engine, failure)
            if goes_on:
                self._try_again(session, cause)
            else:
                self._end(session, JobState.REVERTED, error=cause)
        elif state in (flow_states.SUSPENDED, flow_states.SUSPENDING):
            with session.transaction() as connection:
                leases.give_back(connection, session.job)
        else:
            self._end(session, JobState.STUCK, error=f"The flow stopped in state {state}: {failure}")

    def _end(self, session: FlowSession, state: JobState, error: str | None = None, step: str | None = None) -> None:
        job, progress = session.job, 100 if state == JobState.DONE else session.progress
        with session.transaction() as connection:
            leases.end(connection, job, state, error=error, progress=progress)
            if state == JobState.STUCK:
                parking.tell(connection, job, str(error), step)
        if state == JobState.STUCK:
            LOG.error("Job %s (%s) is stuck: %s", job.uuid, job.kind, error)

    def _try_again(self, session: FlowSession, cause: str) -> None:
        """Work that must end: forget the flow, keep its history, and begin again after a while that grows with each failure."""
        job = session.job
        with session.transaction() as connection:
            failures = events.count(connection, job.uuid, step="", to_state=flow_states.REVERTED)
            pause = min(self._conf.conductor.retry_interval * 2 ** min(failures, 16), _LONGEST_RETRY_SECONDS)
            atoms.destroy_flow(connection, job.uuid)
            leases.give_back(connection, job, not_before=read_clock(connection) + pause, error=cause)
        LOG.warning("Job %s (%s) is tried again in %.0f s: %s", job.uuid, job.kind, pause, cause)

    def _pass_on(self, job: Job, error: JobUnloadable) -> None:
        """Leave a job that this version cannot load to another version; park it when none came for it in a while, and none is there."""
        with self._db.write() as connection:
            is_left = self._passed_over.add(job.uuid)
            if not is_left and not job.cancel_requested:  # a delete that waits for it can take apart what is parked
                is_left = conductors.has_other_version(connection, hullwright.__version__)
            if is_left:
                leases.pass_on(connection, job, error.text)
        if is_left:
            LOG.warning("Job %s (%s) is left to conductors of another version: %s", job.uuid, job.kind, error.text)
        else:
            self._park(job, error.text)
            self._passed_over.forget(job.uuid)

    def _evidence(self, job: Job) -> str:
        """Why a job is taken for one that crashes its conductors: how often, where, when and in whose hands it was last, and by what."""
        with self._db.read() as connection:
            last = events.list_latest(connection, job.uuid, 3)
        told = [f"{it.step or 'the flow'} {it.to_state} at {_moment(it.at)} (conductor {it.owner}, fence {it.fence})" for it in last]
        where = "; its last step events: " + ", ".join(told) if told else "; it never began a step"
        by_what = f"; the last error on record: {job.error}" if job.error else ""
        return f"It was leased {job.leases} times without getting further, and its conductors died or failed at it{by_what}{where}"

    def _park(self, job: Job, reason: str) -> None:
        LOG.error("Job %s (%s) is parked: %s", job.uuid, job.kind, reason)
        with self._db.write() as connection:
            leases.end(connection, job, JobState.STUCK, error=reason, progress=job.progress)
            parking.tell(connection, job, reason)

    def _answer(self, drive: Drive) -> None:
        """Run a question's function; its answer or error goes to the job's row, where the asker waits for it."""
        job, result, state, error = drive.job, None, JobState.REVERTED, None
        try:
            if "" in drive.given_up:
                raise HypervisorTimeout(host="?", step=job.kind, seconds=drive.given_up[""].seconds)
            with fence.standing_behind(_Lease(job, self._lease_good)):
                result, state = queries.QUERIES[job.kind](self._shared, job.inputs), JobState.DONE
        except HullwrightError as failed:
            result, error = {"error": type(failed).__name__}, failed.text
        except Exception as failed:
            LOG.exception("Question %s (%s) failed", job.uuid, job.kind)
            error = f"{type(failed).__name__}: {failed}"
        with self._db.write() as connection:
            leases.end(connection, job, state, result=result, error=error)
            jobs.forget_unwanted(connection, job)


def _moment(seconds: float) -> str:
    return datetime.datetime.fromtimestamp(seconds, datetime.UTC).isoformat(timespec="seconds")


def _first_cause(engine: Any, failure: Exception | None) -> str:
    for step, found in engine.storage.get_execute_failures().items():
        return f"{step}: {found.exception_str}"
    return str(failure or "undone")
