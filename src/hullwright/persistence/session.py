"""A session: one run of one job's flow, as TaskFlow's persistence backend, and the writer of the build's history.

TaskFlow saves an atom four times per step; stock backends make each save a transaction that rewrites rows. Here the saves of a flow gather,
and one transaction writes what changed (atom rows) together with what happened (step events), at barriers: before a step acts on the world,
whenever a step writes to the database, and when the flow rests. So the record of a step is exactly as durable as its state. Each such
transaction first proves that the job's lease is still ours (`leases.hold`).

A session belongs to one lease. Once it is closed nothing can be saved through it any more: a thread that hung in a step and wakes up after
the job was taken from it is stopped at its next word.
Not for: deciding what runs; see `conductor/`.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection
from taskflow import states as flow_states
from taskflow.persistence import models

from hullwright.objects import fence
from hullwright.objects.builds import Job
from hullwright.objects.errors import BuildCancelled, LeaseLost, StoreUnavailable
from hullwright.objects.states import StepState
from hullwright.persistence import atoms, leases
from hullwright.persistence.database import Database, DatabaseUnavailable, now
from hullwright.persistence.models.jobs import flows, step_events
from hullwright.persistence.store import FlowStore, StoreConnection

# States of a flow that people should see; the others are TaskFlow's breathing.
_TOLD_FLOW_STATES = frozenset({flow_states.RUNNING, flow_states.SUCCESS, flow_states.REVERTED, flow_states.FAILURE})
# A step that comes back to PENDING is about to be tried again: its next event says so.
_UNTOLD_ATOM_STATES = frozenset({flow_states.PENDING, None})


class FlowSession(FlowStore):
    """Gathers and writes what happens to the flow of a leased job."""

    def __init__(self, db: Database, job: Job, flow_name: str, meta: dict[str, Any]) -> None:
        """Load the flow if it ran before, else begin one with that name and meta; nothing is written yet.

        Raises: StoreUnavailable.
        """
        super().__init__(db)
        self._connection = _SessionConnection(self)
        self.job = job
        self.scoped: frozenset[str] = frozenset()  # names of the steps inside the retry loop
        self.total_steps = 1
        self.host: str | None = None  # where the present attempt acts; its events carry the name
        self.ended_at: dict[str, float] = {}  # step -> when it really ended; TaskFlow tells after all that ran beside it have ended
        self._later: list[Callable[[Connection], None]] = []
        self._seq = job.seq
        self._attempt = 0
        self._lock = threading.RLock()
        self._is_closed = False
        self._atoms: dict[str, models.AtomDetail] = {}
        self._known: set[str] = set()  # uuids of the flow's atoms
        self._states: dict[str, str | None] = {}  # atom name -> last state told
        self._events: list[dict[str, Any]] = []
        self._flow: models.FlowDetail | None = None  # when its row must be written
        self._told_flow_state: str | None = None
        detail = None
        if job.seq > 0:  # something of it was written before
            with _mapped_outage(), db.read() as connection:
                detail = atoms.load_flow(connection, job.uuid)
        self.is_new = detail is None
        if detail is None:
            detail = models.FlowDetail(flow_name, job.uuid)
            detail.meta = meta
        self.detail: models.FlowDetail = detail

    def begin(self, scoped: frozenset[str], total_steps: int) -> None:
        """Say what graph it is. Steps that were under way when the last owner died are told as resumed: TaskFlow tells nothing of them."""
        self.scoped, self.total_steps = scoped, total_steps
        for atom in self.detail:
            self._known.add(atom.uuid)
            self._states[atom.name] = atom.state
            if isinstance(atom, models.RetryDetail):
                self._attempt = max(self._attempt, len(atom.results))
        for atom in self.detail:
            if atom.state in (flow_states.RUNNING, flow_states.REVERTING, flow_states.RETRYING):
                self._tell(atom.name, atom.state, StepState.RESUMED)

    def close(self) -> None:
        """Let nothing be saved through this session any more; what was not written is dropped."""
        self._is_closed = True

    @property
    def progress(self) -> int:
        """Percent of the flow's steps that are done; 100 only when the job ends."""
        done = sum(1 for state in self._states.values() if state == flow_states.SUCCESS)
        return min(99, 100 * done // max(1, self.total_steps))

    # --- Barriers ----------------------------------------------------------------------------------------------------------

    def flush(self, *, heed_cancel: bool = False, always: bool = False) -> None:
        """Write what waits, in one transaction, proving the lease.

        `always`: prove the lease even when nothing waits. `heed_cancel`: raise when the user asked to stop.

        Raises: LeaseLost, StoreUnavailable, BuildCancelled.
        """
        self.check_open()
        if always or self._atoms or self._events or self._later or self._flow is not None:
            with self.transaction(heed_cancel=heed_cancel):
                pass

    @contextlib.contextmanager
    def transaction(self, *, heed_cancel: bool = False) -> Iterator[Connection]:
        """A write transaction that also writes what waits: a step's own rows and the record of the step stand or fall together.

        Raises: LeaseLost, StoreUnavailable, BuildCancelled.
        """
        with self._lock:
            self.check_open()
            # It proves the lease itself, with the same statement that counts the events.
            with _mapped_outage(), fence.standing_behind(None), self.db.write() as connection:
                if not leases.hold(connection, self.job, seq=self._seq, progress=self.progress, heed_cancel=heed_cancel):
                    raise BuildCancelled(instance=self.job.instance_uuid)
                self._write(connection)
                yield connection
            self._atoms.clear()
            self._events.clear()
            self._later.clear()
            self._flow, self.is_new = None, False

    def prove(self, connection: Connection) -> None:
        """In a write transaction of somebody else's, a store's: the job is ours until its commit.

        Raises: LeaseLost.
        """
        self.check_open()
        leases.prove(connection, self.job)

    def write_later(self, write: Callable[[Connection], None]) -> None:
        """Have `write` done in the next barrier's transaction. For what must be written before anybody acts, and cannot fail."""
        with self._lock:
            self._later.append(write)

    def check_open(self) -> None:
        """Raises: LeaseLost when the job was taken from this thread."""
        if self._is_closed:
            raise LeaseLost(f"job {self.job.uuid}: it was taken from this thread")

    def _write(self, connection: Connection) -> None:
        if self._flow is not None:
            if self.is_new:
                connection.execute(_INSERT_FLOW, atoms.flow_row(self._flow))
            else:
                connection.execute(_UPDATE_FLOW, {"its_uuid": self._flow.uuid, "new_state": self._flow.state})
        if self._atoms:
            atoms.save(connection, self.job.uuid, list(self._atoms.values()))
        if self._events:
            connection.execute(_INSERT_EVENTS, self._events)
        for write in self._later:
            write(connection)

    # --- Saves by TaskFlow -------------------------------------------------------------------------------------------------

    def save_flow(self, detail: models.FlowDetail) -> None:
        """Take the flow's new state, and atoms that it did not have before."""
        with self._lock:
            self.check_open()
            self._flow = detail
            for atom in detail:
                if atom.uuid not in self._known:
                    self._known.add(atom.uuid)
                    self._states[atom.name] = atom.state
                    self._atoms[atom.uuid] = atom
            if detail.state in _TOLD_FLOW_STATES and detail.state != self._told_flow_state:
                self._tell("", self._told_flow_state, detail.state)
                self._told_flow_state = detail.state

    def save_atom(self, atom: models.AtomDetail) -> None:
        """Take an atom's new state; a change of state becomes an event."""
        with self._lock:
            self.check_open()
            self._atoms[atom.uuid] = atom
            before = self._states.get(atom.name)
            if before == atom.state:
                return
            self._states[atom.name] = atom.state
            if isinstance(atom, models.RetryDetail) and atom.state == flow_states.RUNNING:
                self._attempt, self.host = len(atom.results) + 1, None
            if atom.state not in _UNTOLD_ATOM_STATES:
                self._tell(atom.name, before, atom.state, atoms.told_result(atom))

    def tell(self, connection: Connection, step: str, to_state: str, result: Any) -> int:
        """Write what TaskFlow does not know of a step, in a transaction of this session; answers the number of the event."""
        self._tell(step, self._states.get(step), to_state, result)
        connection.execute(_INSERT_EVENTS, self._events[-1:])
        return self._seq

    def _tell(self, step: str, from_state: str | None, to_state: str, result: Any = None) -> None:
        self._seq += 1
        is_scoped = step in self.scoped
        self._events.append(
            {
                "job_uuid": self.job.uuid,
                "seq": self._seq,
                "attempt": self._attempt if is_scoped else 0,
                "step": step,
                "from_state": from_state,
                "to_state": to_state,
                "at": self.ended_at.pop(step, None) or now(),
                "owner": self.job.owner or "",
                "fence": self.job.fence,
                "host": self.host if is_scoped else None,
                "result": result,
            }
        )


class _SessionConnection(StoreConnection):
    """Saves go to the session's buffer; loads come from the database."""

    _store: FlowSession

    def update_atom_details(self, atom_detail: models.AtomDetail) -> models.AtomDetail:
        """Gather an atom."""
        self._store.save_atom(atom_detail)
        return atom_detail

    def update_flow_details(self, flow_detail: models.FlowDetail, ignore_missing: bool = False) -> models.FlowDetail:
        """Gather the flow's state and atoms it gained."""
        self._store.save_flow(flow_detail)
        return flow_detail


_INSERT_FLOW = sa.insert(flows)
_INSERT_EVENTS = sa.insert(step_events)
_UPDATE_FLOW = sa.update(flows).where(flows.c.uuid == sa.bindparam("its_uuid")).values(state=sa.bindparam("new_state"))


@contextlib.contextmanager
def _mapped_outage() -> Iterator[None]:
    """A database that is away must stop the engine, not fail the step: nothing is undone because of it."""
    try:
        yield
    except DatabaseUnavailable as error:
        raise StoreUnavailable(error.text) from error
