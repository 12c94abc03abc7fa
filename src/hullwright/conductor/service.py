"""The conductor: a service that leases jobs and drives them, each in a thread, until it is told to stop.

It wakes at once when a job is posted, takes over the jobs of conductors that died, and on SIGTERM lets the steps under way end and hands
the rest back. Not for: what a job does; see `runner.py` and `flows/`.
"""

from __future__ import annotations

import contextlib
import logging
import signal
import threading
import time
from typing import Any

import hullwright
from hullwright.conductor.heartbeat import Heartbeat
from hullwright.conductor.hosts import HostMonitor
from hullwright.conductor.intake import Intake, PassedOver, urgent_places
from hullwright.conductor.reconcile.caretaker import Caretaker
from hullwright.conductor.runner import Drive, Runner
from hullwright.conductor.waiting_room import WaitingRoom
from hullwright.conf import database as database_options
from hullwright.conf.conductor import step_limit_seconds
from hullwright.drivers.registry import Drivers
from hullwright.flows import catalog, leftovers
from hullwright.flows.context import Hung, Shared
from hullwright.objects.errors import BadRequest, LeaseLost
from hullwright.persistence import leases
from hullwright.persistence.database import Database, DatabaseUnavailable
from hullwright.persistence.images import SqlImageStore
from hullwright.persistence.ports import SqlPortStore
from hullwright.persistence.volumes import SqlVolumeStore
from hullwright.persistence.wakeup import Wakeup
from hullwright.scheduler.select import Scheduler

LOG = logging.getLogger(__name__)
_STUMBLE_PAUSE_SECONDS = 1.0


class Conductor:
    """One conductor process's inside."""

    def __init__(self, db: Database, conf: Any) -> None:
        self._db = db
        self._conf = conf
        self._options = conf.conductor
        self._stopping = threading.Event()
        self._wakeup = Wakeup(db, conf.state_path)
        drivers = Drivers(conf, ports=SqlPortStore(db), volumes=SqlVolumeStore(db), images=SqlImageStore(db))
        self.shared = Shared(db, drivers, Scheduler(db, conf), conf)
        self._heartbeat = Heartbeat(db, self._options.lease_seconds, hullwright.__version__, self._on_lease_lost)
        passed_over = PassedOver(self._options.unknown_job_seconds)
        self._intake = Intake(db, self._options, self.shared.scheduler, passed_over)
        self._runner = Runner(
            self.shared,
            lease_good=lambda job: self._heartbeat.is_good(job.owner),
            draining=self._stopping.is_set,
            passed_over=passed_over,
            side_by_side=self._options.engine == "parallel",
        )
        self._driving: dict[str, Drive] = {}  # by the job's uuid
        self._hosts = HostMonitor(db, conf, drivers.virt)
        self._caretaker = Caretaker(self.shared, self._wakeup)
        self._waiting_room = WaitingRoom(self.shared, self._wakeup)

    # --- Life --------------------------------------------------------------------------------------------------------------

    def run(self) -> None:
        """Serve until `stop`; then drain."""
        self._wakeup.listen()
        self._start_heartbeat()
        self._hosts.start()
        self._caretaker.start()
        self._waiting_room.start()
        LOG.info("Conductor %s serves, up to %d jobs at a time", self._heartbeat.id, self._options.max_concurrent_jobs)
        try:
            while not self._stopping.is_set():
                try:
                    self._serve_once()
                except DatabaseUnavailable as error:
                    LOG.warning("Cannot look for jobs: %s", error)
                    self._stopping.wait(0.5)
                except Exception:  # whatever it is, the jobs in hand go on, and it may be over at the next turn
                    LOG.exception("Conductor %s stumbled", self._heartbeat.id)
                    self._stopping.wait(_STUMBLE_PAUSE_SECONDS)
        finally:
            self._drain()

    def stop(self, *_signal: Any) -> None:
        """Have `run` drain and return. Safe in a signal handler."""
        self._stopping.set()
        self._wakeup.poke_self()

    def heed_signals(self) -> None:
        """Have SIGTERM and SIGINT stop this conductor at once. For the process's main thread."""
        signal.signal(signal.SIGTERM, self.stop)
        signal.signal(signal.SIGINT, self.stop)
        self._wakeup.hear_signals()

    def _start_heartbeat(self) -> None:
        while not self._stopping.is_set():
            try:
                self._heartbeat.start()
                return
            except DatabaseUnavailable as error:
                LOG.warning("Waiting for the database: %s", error)
                self._stopping.wait(1.0)

    def _on_lease_lost(self) -> None:
        """Our jobs notice at their next door; new ones are leased under the new id."""
        self._wakeup.poke_self()

    def _absolve_lost(self) -> None:
        """None of the jobs that were leased under an id whose lease lapsed has crashed us."""
        self._absolve([drive for drive in list(self._driving.values()) if drive.job.owner != self._heartbeat.id])

    def _absolve(self, drives: list[Drive]) -> None:
        blamed = [drive for drive in drives if not drive.is_absolved]
        if blamed:
            with self._db.write() as connection:
                leases.absolve(connection, [drive.job for drive in blamed])
            for drive in blamed:
                drive.is_absolved = True

    # --- Work --------------------------------------------------------------------------------------------------------------

    def _serve_once(self) -> None:
        """Lease what there is room for, look after what hangs, then sleep until woken."""
        self._absolve_lost()
        self._give_up_hung_calls()
        if not self._lease():
            self._wakeup.wait(self._options.poll_interval)

    def _lease(self) -> int:
        """Take up what there is to be done; answers how many jobs."""
        owner = self._heartbeat.id
        if not self._heartbeat.is_good(owner):
            return 0  # nothing could be done with them
        cleanings = sum(drive.job.kind in leftovers.KINDS for drive in list(self._driving.values()))
        batch = self._intake.take(owner, list(self._driving), cleanings)
        for job in batch:
            self._start(Drive(job))
        return len(batch)

    def _start(self, drive: Drive) -> None:
        """Give the job a thread. A daemon: one that hangs in a call must not keep the process from ending."""
        self._driving[drive.job.uuid] = drive
        try:
            threading.Thread(target=self._run_job, args=(drive,), name=f"job-{drive.job.id}", daemon=True).start()
        except RuntimeError:  # the machine has no thread to give now; as it is ours and nobody drives it, it is taken up again
            self._leave(drive)
            raise

    def _run_job(self, drive: Drive) -> None:
        try:
            self._runner.run(drive)
        except BaseException as error:
            LOG.exception("Job %s left its runner", drive.job.uuid)
            self._blame(drive, error)
        finally:
            self._leave(drive)
            # A place is free, and the job may have been in the way of the next one of its instance.
            self._wakeup.poke_self()

    def _blame(self, drive: Drive, error: BaseException) -> None:
        """A job that ends its thread by what nobody foresaw is ours still and taken up again: not for ever, as if it crashed conductors."""
        if not isinstance(error, DatabaseUnavailable):
            with contextlib.suppress(DatabaseUnavailable), self._db.write() as connection:
                leases.blame(connection, drive.job, f"{type(error).__name__}: {error}")

    def _leave(self, drive: Drive) -> None:
        if self._driving.get(drive.job.uuid) is drive:  # else another thread of ours has it by now
            del self._driving[drive.job.uuid]

    # --- Deadlines ---------------------------------------------------------------------------------------------------------

    def _limit(self, step: str) -> float:
        """Seconds that a step may go without progress."""
        return step_limit_seconds(self._options, step)

    def _give_up_hung_calls(self) -> None:
        for drive in list(self._driving.values()):
            late = drive.overdue(self._limit)
            if late is not None:
                self._give_up(drive, late)

    def _give_up(self, drive: Drive, hung: Hung) -> None:
        """Take the job from a thread that hangs: raise the fence, shut the thread's doors, go on in another thread."""
        LOG.error("Job %s: step %s has hung for %.0f s and is given up", drive.job.uuid, hung.step or drive.job.kind, hung.seconds)
        try:
            with self._db.write() as connection:
                job = leases.raise_fence(connection, drive.job)
        except DatabaseUnavailable as error:
            LOG.warning("Job %s cannot be taken from its thread now: %s", drive.job.uuid, error)
            return
        except LeaseLost as error:
            LOG.warning("Job %s is not ours any more; its thread is left to itself: %s", drive.job.uuid, error)
            drive.abandon()
            self._leave(drive)
            return
        drive.abandon()
        self._start(Drive(job, given_up={hung.step: hung}))

    # --- Ending ------------------------------------------------------------------------------------------------------------

    def _drain(self) -> None:
        LOG.info("Conductor %s drains %d job(s)", self._heartbeat.id, len(self._driving))
        deadline = time.monotonic() + self._options.drain_timeout
        while self._driving and time.monotonic() < deadline:
            self._wakeup.wait(0.2)
        left = list(self._driving.values())
        for drive in left:
            LOG.warning("Job %s (%s) is left to others: a step did not end in time", drive.job.uuid, drive.job.kind)
            drive.abandon()
        with contextlib.suppress(DatabaseUnavailable):
            self._absolve(left)
        self._waiting_room.stop()
        self._caretaker.stop()
        self._hosts.stop()
        self._heartbeat.stop()
        self._wakeup.close()
        self.shared.drivers.close()


def check_options(conf: Any) -> None:
    """Refuse what would be ignored in silence.

    Raises: BadRequest.
    """
    known = catalog.step_names()
    for step in conf.conductor.step_timeouts:
        if step not in known:
            raise BadRequest(reason=f"[conductor] step_timeouts: there is no step {step!r}; there are {', '.join(sorted(known))}.")


def run(conf: Any) -> None:
    """Serve in this process until SIGTERM or SIGINT.

    Raises: BadRequest for options that cannot be meant.
    """
    check_options(conf)
    places = conf.conductor.max_concurrent_jobs
    db = Database(
        database_options.url(conf),
        synchronous=conf.database.sqlite_synchronous,
        busy_timeout_seconds=conf.database.busy_timeout_seconds,
        pool_size=max(conf.database.pool_size, places + 2 * urgent_places(places) + 8),
    )
    conductor = Conductor(db, conf)
    conductor.heed_signals()
    try:
        conductor.run()
    finally:
        db.close()
