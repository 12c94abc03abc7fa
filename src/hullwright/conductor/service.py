"""The conductor: a service that leases jobs and drives them, each in a thread, until it is told to stop.

It wakes at once when a job is posted, takes over the jobs of conductors that died, and on SIGTERM lets the steps under way end and hands
the rest back. Not for: what a job does; see `runner.py` and `flows/`.
"""

from __future__ import annotations

import logging
import signal
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import hullwright
from hullwright.conductor.heartbeat import Heartbeat
from hullwright.conductor.hosts import HostMonitor
from hullwright.conductor.reconcile.caretaker import Caretaker
from hullwright.conductor.runner import Drive, Runner
from hullwright.conductor.waiting_room import WaitingRoom
from hullwright.conf import database as database_options
from hullwright.drivers.registry import Drivers
from hullwright.flows.context import Shared
from hullwright.objects.builds import Job
from hullwright.objects.errors import LeaseLost
from hullwright.persistence import conductors, jobs
from hullwright.persistence.database import Database, DatabaseUnavailable
from hullwright.persistence.images import SqlImageStore
from hullwright.persistence.ports import SqlPortStore
from hullwright.persistence.volumes import SqlVolumeStore
from hullwright.persistence.wakeup import Wakeup
from hullwright.scheduler.select import Scheduler

LOG = logging.getLogger(__name__)
_PARALLEL_STEPS = 3  # per job: network, volumes, image


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
        self._step_pool = (
            ThreadPoolExecutor(self._options.max_concurrent_jobs * _PARALLEL_STEPS, thread_name_prefix="step")
            if self._options.engine == "parallel"
            else None
        )
        self._runner = Runner(
            self.shared,
            lease_good=lambda job: self._heartbeat.is_good(job.owner),
            draining=self._stopping.is_set,
            pool=self._step_pool,
        )
        self._driving: dict[str, Drive] = {}  # by the job's uuid
        self._hosts = HostMonitor(db, conf, drivers.virt)
        self._caretaker = Caretaker(self.shared, self._wakeup)
        self._waiting_room = WaitingRoom(self.shared, self._wakeup)
        self._look_for_orphans_at = 0.0

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
                self._serve_once()
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

    # --- Work --------------------------------------------------------------------------------------------------------------

    def _serve_once(self) -> None:
        """Lease what there is room for, look after what hangs, then sleep until woken."""
        free = self._options.max_concurrent_jobs - len(self._driving)
        leased = 0
        if free > 0:
            try:
                leased = self._lease(free)
            except DatabaseUnavailable as error:
                LOG.warning("Cannot look for jobs: %s", error)
                self._stopping.wait(0.5)
        self._give_up_hung_calls()
        if leased == 0 or leased == free:
            self._wakeup.wait(self._options.poll_interval)

    def _lease(self, free: int) -> int:
        batch: list[Job] = []
        with self._db.read() as connection:
            is_something_queued = jobs.leasable(connection)
            look_for_orphans = time.monotonic() >= self._look_for_orphans_at
            if look_for_orphans:
                self.shared.scheduler.turn = conductors.turn(connection, self._heartbeat.id)
        if is_something_queued or look_for_orphans:
            with self._db.write() as connection:
                if look_for_orphans:
                    conductors.shorten(connection, self._options.lease_seconds)
                    batch = jobs.lease_again(connection, self._heartbeat.id, list(self._driving), free)
                    batch += jobs.lease(connection, self._heartbeat.id, free - len(batch), orphans=True)
                if len(batch) < free:
                    batch += jobs.lease(connection, self._heartbeat.id, free - len(batch))
        if look_for_orphans:
            self._look_for_orphans_at = time.monotonic() + self._options.lease_seconds / 3
        for job in batch:
            if job.leases > 1:
                LOG.info("Taking up job %s (%s), lease %d", job.uuid, job.kind, job.leases)
            self._start(Drive(job))
        return len(batch)

    def _start(self, drive: Drive) -> None:
        """Give the job a thread. A daemon: one that hangs in a call must not keep the process from ending."""
        self._driving[drive.job.uuid] = drive
        threading.Thread(target=self._run_job, args=(drive,), name=f"job-{drive.job.id}", daemon=True).start()

    def _run_job(self, drive: Drive) -> None:
        try:
            self._runner.run(drive)
        except BaseException:
            LOG.exception("Job %s left its runner", drive.job.uuid)
        finally:
            if self._driving.get(drive.job.uuid) is drive:
                del self._driving[drive.job.uuid]
            # A place is free, and the job may have been in the way of the next one of its instance.
            self._wakeup.poke_self()

    # --- Deadlines ---------------------------------------------------------------------------------------------------------

    def _limit(self, step: str) -> float:
        """Seconds that a step may go without progress."""
        return float(self._options.step_timeouts.get(step, self._options.step_timeout))

    def _give_up_hung_calls(self) -> None:
        for drive in list(self._driving.values()):
            late = drive.overdue(self._limit)
            if late is not None:
                self._give_up(drive, *late)

    def _give_up(self, drive: Drive, step: str, seconds: float) -> None:
        """Take the job from a thread that hangs: raise the fence, shut the thread's doors, go on in another thread."""
        LOG.error("Job %s: step %s has hung for %.0f s and is given up", drive.job.uuid, step or drive.job.kind, seconds)
        try:
            with self._db.write() as connection:
                job = jobs.take_again(connection, drive.job)
        except (DatabaseUnavailable, LeaseLost) as error:
            LOG.warning("Job %s cannot be taken from its thread now: %s", drive.job.uuid, error)
            return
        drive.abandon()
        self._start(Drive(job, given_up={step: seconds}))

    # --- Ending ------------------------------------------------------------------------------------------------------------

    def _drain(self) -> None:
        LOG.info("Conductor %s drains %d job(s)", self._heartbeat.id, len(self._driving))
        deadline = time.monotonic() + self._options.drain_timeout
        while self._driving and time.monotonic() < deadline:
            self._wakeup.wait(0.2)
        for drive in list(self._driving.values()):
            LOG.warning("Job %s (%s) is left to others: a step did not end in time", drive.job.uuid, drive.job.kind)
            drive.abandon()
        if self._step_pool is not None:
            self._step_pool.shutdown(wait=False, cancel_futures=True)
        self._waiting_room.stop()
        self._caretaker.stop()
        self._hosts.stop()
        self._heartbeat.stop()
        self._wakeup.close()
        self.shared.drivers.close()


def run(conf: Any) -> None:
    """Serve in this process until SIGTERM or SIGINT."""
    db = Database(
        database_options.url(conf),
        synchronous=conf.database.sqlite_synchronous,
        busy_timeout_seconds=conf.database.busy_timeout_seconds,
        pool_size=max(conf.database.pool_size, conf.conductor.max_concurrent_jobs + 8),
    )
    conductor = Conductor(db, conf)
    conductor.heed_signals()
    try:
        conductor.run()
    finally:
        db.close()
