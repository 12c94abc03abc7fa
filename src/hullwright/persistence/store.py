"""The TaskFlow store: a persistence backend of our own on our database, which also writes each build's history.

TaskFlow saves an atom four times per step; stock backends make each save a transaction that rewrites rows. Here saves of a flow gather in
a buffer, and one transaction writes what changed (atom rows) together with what happened (step events), at barriers: before a step acts on
the world, whenever a step writes to the database, and when the flow rests. So the record of a step is exactly as durable as its state.
Each such transaction first proves that the job's lease is still ours (`jobs.hold`).

A flow that no job was opened for (`open_job`) is written through at once and without events: that is plain TaskFlow use.
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
from taskflow.persistence import base, models

from hullwright.objects.builds import Job
from hullwright.objects.errors import BuildCancelled, StoreUnavailable
from hullwright.objects.states import StepState
from hullwright.persistence import atoms, jobs
from hullwright.persistence.database import Database, DatabaseUnavailable, now
from hullwright.persistence.models.jobs import flows, step_events

# States of a flow that people should see; the others are TaskFlow's breathing.
_TOLD_FLOW_STATES = frozenset({flow_states.RUNNING, flow_states.SUCCESS, flow_states.REVERTED, flow_states.FAILURE})
# A step that comes back to PENDING is about to be tried again: its next event says so.
_UNTOLD_ATOM_STATES = frozenset({flow_states.PENDING, None})


class FlowBuffer:
    """What a running flow has not yet written, and what its events need to know."""

    def __init__(self, job: Job, scoped: frozenset[str], total_steps: int) -> None:
        self.job = job
        self.scoped = scoped  # names of the steps inside the retry loop
        self.total_steps = total_steps
        self.seq = job.seq
        self.attempt = 0
        self.host: str | None = None  # where the present attempt acts
        self.lock = threading.RLock()
        self.atoms: dict[str, models.AtomDetail] = {}
        self.states: dict[str, str | None] = {}  # atom name -> last state told
        self.events: list[dict[str, Any]] = []
        self.ended_at: dict[str, float] = {}  # step -> when it really ended; TaskFlow tells after all that ran beside it have ended
        self.later: list[Callable[[Connection], None]] = []  # writes of steps that may wait for the next barrier
        self.flow: models.FlowDetail | None = None  # when its row must be written
        self.is_new = True  # the flow has no row yet
        self.told_flow_state: str | None = None

    @property
    def is_dirty(self) -> bool:
        """Whether something waits to be written."""
        return bool(self.atoms or self.events or self.later or self.flow is not None)

    @property
    def progress(self) -> int:
        """Percent of the flow's steps that are done; 100 only when the job ends."""
        done = sum(1 for state in self.states.values() if state == flow_states.SUCCESS)
        return min(99, 100 * done // max(1, self.total_steps))

    def tell(self, step: str, from_state: str | None, to_state: str, result: Any = None) -> None:
        """Add an event."""
        self.seq += 1
        scoped = step in self.scoped
        self.events.append(
            {
                "job_uuid": self.job.uuid,
                "seq": self.seq,
                "attempt": self.attempt if scoped else 0,
                "step": step,
                "from_state": from_state,
                "to_state": to_state,
                "at": self.ended_at.pop(step, None) or now(),
                "owner": self.job.owner or "",
                "fence": self.job.fence,
                "host": self.host if scoped else None,
                "result": result,
            }
        )


class FlowStore(base.Backend):  # type: ignore[misc]
    """TaskFlow's `Backend` on a `Database`."""

    def __init__(self, db: Database) -> None:
        super().__init__({})
        self.db = db
        self._connection = StoreConnection(self)
        self._buffers: dict[str, FlowBuffer] = {}
        self._owners: dict[str, str] = {}  # atom uuid -> flow uuid, of open flows

    # --- TaskFlow's side -----------------------------------------------------------------------------------------------

    def get_connection(self) -> StoreConnection:
        """The one connection object: it holds nothing."""
        return self._connection

    def close(self) -> None:
        """Nothing is held; the database is its owner's to close."""

    # --- Our side: flows of jobs ---------------------------------------------------------------------------------------

    def open_job(
        self, job: Job, flow_name: str, meta: dict[str, Any], *, scoped: frozenset[str] = frozenset(), total_steps: int = 1
    ) -> models.FlowDetail:
        """Start buffering the flow of a leased job; answers its flow detail, loaded if it ran before.

        Steps that were under way when its last owner died get a RESUMED event, because TaskFlow tells none.
        Raises: StoreUnavailable.
        """
        detail = None
        if job.seq > 0:  # something of it was written before
            with self._mapped_outage(), self.db.read() as connection:
                detail = _load_flow(connection, job.uuid)
        buffer = FlowBuffer(job, scoped, total_steps)
        if detail is None:
            detail = models.FlowDetail(flow_name, job.uuid)
            detail.meta = meta
        else:
            buffer.is_new = False
            self._take_up(buffer, detail)
        self._buffers[job.uuid] = buffer
        return detail

    def _take_up(self, buffer: FlowBuffer, detail: models.FlowDetail) -> None:
        for atom in detail:
            self._owners[atom.uuid] = detail.uuid
            buffer.states[atom.name] = atom.state
            if isinstance(atom, models.RetryDetail):
                buffer.attempt = max(buffer.attempt, len(atom.results))
        for atom in detail:
            if atom.state in (flow_states.RUNNING, flow_states.REVERTING, flow_states.RETRYING):
                buffer.tell(atom.name, atom.state, StepState.RESUMED)

    def buffer(self, job_uuid: str) -> FlowBuffer:
        """The buffer of an open flow."""
        return self._buffers[job_uuid]

    def forget_job(self, job_uuid: str) -> None:
        """Drop a flow's buffer, written or not."""
        self._buffers.pop(job_uuid, None)
        for atom_uuid in [key for key, flow_uuid in self._owners.items() if flow_uuid == job_uuid]:
            del self._owners[atom_uuid]

    def flush(self, job_uuid: str, *, heed_cancel: bool = False, always: bool = False) -> None:
        """Write what waits, in one transaction, proving the lease.

        `always`: prove the lease even when nothing waits. `heed_cancel`: raise when the user asked to stop.

        Raises: LeaseLost, StoreUnavailable, BuildCancelled.
        """
        if always or self._buffers[job_uuid].is_dirty:
            with self.transaction(job_uuid, heed_cancel=heed_cancel):
                pass

    @contextlib.contextmanager
    def transaction(self, job_uuid: str, *, heed_cancel: bool = False) -> Iterator[Connection]:
        """A write transaction that also writes what waits: a step's own rows and the record of the step stand or fall together.

        Raises: LeaseLost, StoreUnavailable, BuildCancelled.
        """
        buffer = self._buffers[job_uuid]
        with buffer.lock:
            with self._mapped_outage(), self.db.write() as connection:
                if not jobs.hold(connection, buffer.job, seq=buffer.seq, progress=buffer.progress, heed_cancel=heed_cancel):
                    raise BuildCancelled(instance=buffer.job.instance_uuid)
                self._write(connection, buffer)
                yield connection
            buffer.atoms.clear()
            buffer.events.clear()
            buffer.later.clear()
            buffer.flow, buffer.is_new = None, False

    def _write(self, connection: Connection, buffer: FlowBuffer) -> None:
        if buffer.flow is not None:
            if buffer.is_new:
                connection.execute(sa.insert(flows), _flow_row(buffer.flow))
            else:
                connection.execute(
                    sa.update(flows).where(flows.c.uuid == buffer.flow.uuid).values(state=buffer.flow.state, meta=buffer.flow.meta)
                )
        if buffer.atoms:
            atoms.save(connection, buffer.job.uuid, list(buffer.atoms.values()))
        if buffer.events:
            connection.execute(sa.insert(step_events), buffer.events)
        for write in buffer.later:
            write(connection)

    @contextlib.contextmanager
    def _mapped_outage(self) -> Iterator[None]:
        """A database that is away must stop the engine, not fail the step: nothing is undone because of it."""
        try:
            yield
        except DatabaseUnavailable as error:
            raise StoreUnavailable(error.text) from error

    # --- Saves by TaskFlow ---------------------------------------------------------------------------------------------

    def save_flow(self, detail: models.FlowDetail, *, ignore_missing: bool) -> models.FlowDetail:
        """Take a flow's new state, and atoms that it did not have before."""
        buffer = self._buffers.get(detail.uuid)
        if buffer is None:
            return self._write_through_flow(detail, ignore_missing=ignore_missing)
        with buffer.lock:
            buffer.flow = detail
            for atom in detail:
                if atom.uuid not in self._owners:
                    self._owners[atom.uuid] = detail.uuid
                    buffer.states[atom.name] = atom.state
                    buffer.atoms[atom.uuid] = atom
            if detail.state in _TOLD_FLOW_STATES and detail.state != buffer.told_flow_state:
                buffer.tell("", buffer.told_flow_state, detail.state)
                buffer.told_flow_state = detail.state
        return detail

    def save_atom(self, atom: models.AtomDetail) -> models.AtomDetail:
        """Take an atom's new state; a change of state becomes an event."""
        job_uuid = self._owners.get(atom.uuid)
        buffer = None if job_uuid is None else self._buffers.get(job_uuid)
        if buffer is None:
            with self._mapped_outage(), self.db.write() as connection:
                atoms.replace(connection, atom)
            return atom
        with buffer.lock:
            buffer.atoms[atom.uuid] = atom
            before = buffer.states.get(atom.name)
            if before != atom.state:
                buffer.states[atom.name] = atom.state
                if isinstance(atom, models.RetryDetail) and atom.state == flow_states.RUNNING:
                    buffer.attempt, buffer.host = len(atom.results) + 1, None
                if atom.state not in _UNTOLD_ATOM_STATES:
                    buffer.tell(atom.name, before, atom.state, atoms.told_result(atom))
        return atom

    def _write_through_flow(self, detail: models.FlowDetail, *, ignore_missing: bool) -> models.FlowDetail:
        with self._mapped_outage(), self.db.write() as connection:
            known = connection.execute(
                sa.update(flows).where(flows.c.uuid == detail.uuid).values(state=detail.state, meta=detail.meta)
            ).rowcount
            if not known:
                if not ignore_missing:
                    raise atoms.not_found("flow", detail.uuid)
                connection.execute(sa.insert(flows), _flow_row(detail))
            atoms.save(connection, detail.uuid, list(detail))
        return detail


class StoreConnection(base.Connection):  # type: ignore[misc]
    """TaskFlow's `Connection`: saves go to the store's buffers, loads come from the database."""

    def __init__(self, store: FlowStore) -> None:
        self._store = store

    @property
    def backend(self) -> FlowStore:
        """The store."""
        return self._store

    def close(self) -> None:
        """Nothing is held."""

    def validate(self) -> None:
        """The schema's revision is checked when a service starts."""

    def upgrade(self) -> None:
        """Migrations are the schema's; see `schema.upgrade`."""

    def clear_all(self) -> None:
        """Delete every logbook, flow and atom."""
        with self._store.db.write() as connection:
            atoms.clear(connection)

    def update_atom_details(self, atom_detail: models.AtomDetail) -> models.AtomDetail:
        """Save an atom."""
        return self._store.save_atom(atom_detail)

    def update_flow_details(self, flow_detail: models.FlowDetail, ignore_missing: bool = False) -> models.FlowDetail:
        """Save a flow and atoms it gained."""
        return self._store.save_flow(flow_detail, ignore_missing=ignore_missing)

    def save_logbook(self, book: models.LogBook) -> models.LogBook:
        """Save a book with its flows and their atoms."""
        with self._store.db.write() as connection:
            return atoms.save_book(connection, book)

    def destroy_logbook(self, book_uuid: str) -> None:
        """Delete a book with its flows and their atoms."""
        with self._store.db.write() as connection:
            atoms.destroy_book(connection, book_uuid)

    def get_logbooks(self, lazy: bool = False) -> Iterator[models.LogBook]:
        """All books."""
        with self._store.db.read() as connection:
            uuids = atoms.book_uuids(connection)
        return iter([self.get_logbook(uuid, lazy=lazy) for uuid in uuids])

    def get_logbook(self, book_uuid: str, lazy: bool = False) -> models.LogBook:
        """One book; `lazy` leaves its flows out."""
        with self._store.db.read() as connection:
            book = atoms.load_book(connection, book_uuid)
        if not lazy:
            for detail in self.get_flows_for_book(book_uuid):
                book.add(detail)
        return book

    def get_flows_for_book(self, book_uuid: str, lazy: bool = False) -> Iterator[models.FlowDetail]:
        """A book's flows; `lazy` leaves their atoms out."""
        with self._store.db.read() as connection:
            uuids = list(connection.execute(sa.select(flows.c.uuid).where(flows.c.book_uuid == book_uuid)).scalars())
        return iter([self.get_flow_details(uuid, lazy=lazy) for uuid in uuids])

    def get_flow_details(self, fd_uuid: str, lazy: bool = False) -> models.FlowDetail:
        """One flow; `lazy` leaves its atoms out."""
        with self._store.db.read() as connection:
            detail = _load_flow(connection, fd_uuid, with_atoms=not lazy)
        if detail is None:
            raise atoms.not_found("flow", fd_uuid)
        return detail

    def get_atom_details(self, ad_uuid: str) -> models.AtomDetail:
        """One atom."""
        with self._store.db.read() as connection:
            return atoms.load_one(connection, ad_uuid)

    def get_atoms_for_flow(self, fd_uuid: str) -> Iterator[models.AtomDetail]:
        """A flow's atoms."""
        with self._store.db.read() as connection:
            return iter(atoms.load_for_flow(connection, fd_uuid))


def _flow_row(detail: models.FlowDetail) -> dict[str, Any]:
    return {"uuid": detail.uuid, "name": detail.name, "state": detail.state, "meta": detail.meta}


def _load_flow(connection: Connection, uuid: str, *, with_atoms: bool = True) -> models.FlowDetail | None:
    row = connection.execute(sa.select(flows).where(flows.c.uuid == uuid)).mappings().first()
    if row is None:
        return None
    detail = models.FlowDetail(row["name"], uuid)
    detail.state, detail.meta = row["state"], row["meta"] or {}
    if with_atoms:
        for atom in atoms.load_for_flow(connection, uuid):
            detail.add(atom)
    return detail
