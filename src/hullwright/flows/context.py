"""What a running step may use: its job, its instance, and the doors to the database and to the drivers.

Every door first makes durable that the step is running, and proves that its conductor still holds the job. So nothing can be done to the
world that the record does not know of, and an owner that was replaced can do nothing at all.
The context is injected into flows and never stored.
"""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Callable, Iterator, Mapping
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

from sqlalchemy.engine import Connection

from hullwright.drivers.image.contract import ImageDriver
from hullwright.drivers.network.contract import NetworkDriver
from hullwright.drivers.registry import Drivers
from hullwright.drivers.virt.contract import VirtDriver
from hullwright.drivers.volume.contract import VolumeDriver
from hullwright.objects import fence
from hullwright.objects.builds import Job
from hullwright.objects.errors import BuildTimedOut, HypervisorTimeout, LeaseLost, ServiceTimeout
from hullwright.objects.hosts import HostRef
from hullwright.objects.instances import Instance, RequestSpec
from hullwright.persistence import events, hosts, instances
from hullwright.persistence.database import Database, DatabaseUnavailable, now, read_clock
from hullwright.persistence.session import FlowSession
from hullwright.scheduler.select import Scheduler

_PROGRESS_EVERY_SECONDS = 0.5
_HOST_REF_SECONDS = 5.0  # how long a host's address may be out of date
_DEADLINE_GRACE_SECONDS = 2.0  # a step that is alive ends by itself at its next door
_current_step: ContextVar[str] = ContextVar("current_step", default="")


class Shared:
    """What all jobs of a conductor share."""

    def __init__(self, db: Database, drivers: Drivers, scheduler: Scheduler, conf: Any) -> None:
        self.db = db
        self.drivers = drivers
        self.scheduler = scheduler
        self.conf = conf
        self.has_waiters = True  # whether builds wait for room, by the latest look of this conductor's waiting room
        self._host_refs: dict[str, tuple[float, HostRef]] = {}

    def host_ref(self, name: str) -> HostRef:
        """How to reach a host.

        Raises: HostNotFound.
        """
        cached = self._host_refs.get(name)
        if cached is not None and cached[0] > time.monotonic():
            return cached[1]
        with self.db.read() as connection:
            host = hosts.get(connection, name)
        ref = HostRef(host.name, host.uri, host.driver)
        self._host_refs[name] = (time.monotonic() + _HOST_REF_SECONDS, ref)
        return ref


@dataclass(frozen=True, slots=True)
class Hung:
    """A call that has not come back for too long."""

    step: str  # empty: it is a question's
    seconds: float
    of_images: bool = False  # it was the image service that was asked, which is no host's fault


class RunContext:
    """One job's context."""

    def __init__(
        self, shared: Shared, session: FlowSession, lease_good: Callable[[], bool], given_up: Mapping[str, Hung] | None = None
    ) -> None:
        """`lease_good`: whether, by this process's own clock, the conductor's lease still holds. `given_up`: step -> why its last run was
        given up; the first door it goes to stays shut, as if the host did not answer.
        """
        self.shared = shared
        self.db = shared.db
        self.conf = shared.conf
        self.scheduler = shared.scheduler
        self.session = session
        # Monotonic, so that a wall clock that is set meanwhile ends no build.
        self.job, self._ends_at = session.job, math.inf
        self.go_on_as(session.job)
        self._is_proved_over = False
        self.chose_for: int | None = None  # the attempt for which this run of the job chose hosts; None: an earlier one did, if any
        self._lease_good = lease_good
        self.given_up = dict(given_up or {})  # those whose failure has not been told yet
        self._begun: dict[str, float] = {}  # step under way -> monotonic time of its beginning, or of its last progress
        self._undone: set[str] = set()  # those of them that are being undone
        self._done: dict[str, int] = {}
        self._instance: tuple[Instance, str] | None = None  # with its guest's name
        self._told_at: dict[str, float] = {}
        self._acts_on: dict[str, str] = {}  # step under way -> the host whose door it last went through
        self._asks_images: set[str] = set()  # steps under way whose last door was the image service's
        self.cut_off_on: str | None = None  # the host that a step was acting on when it lost its lease

    # --- What the job is about -------------------------------------------------------------------------------------------

    @property
    def instance_uuid(self) -> str:
        """The instance's uuid."""
        return self.job.instance_uuid or str(self.job.inputs["instance_uuid"])

    @property
    def instance(self) -> Instance:
        """The instance as it was when this run of the job first asked; its states are checked where they are changed."""
        return self._read_instance()[0]

    @property
    def spec(self) -> RequestSpec:
        """What was asked for."""
        return self.instance.spec

    @property
    def guest_name(self) -> str:
        """The hypervisor's name for the guest: instance-0000002a."""
        return self._read_instance()[1]

    def _read_instance(self) -> tuple[Instance, str]:
        if self._instance is None:
            with self.db.read() as connection:
                row = instances.get_row(connection, self.instance_uuid, deleted=True)
            self._instance = instances.from_row(row), instances.guest_name(row["id"])
        return self._instance

    def host_ref(self, name: str) -> HostRef:
        """How to reach a host."""
        return self.shared.host_ref(name)

    # --- Doors -----------------------------------------------------------------------------------------------------------

    def go_on_as(self, job: Job) -> None:
        """The job's row was changed, its deadline perhaps with it."""
        self.job = job
        self._ends_at = math.inf if job.deadline_at is None else time.monotonic() + job.deadline_at - now()

    @contextlib.contextmanager
    def transaction(self) -> Iterator[Connection]:
        """A write transaction in which the step's own record is written too.

        Raises: LeaseLost, BuildCancelled, StoreUnavailable.
        """
        self._check_lease()
        self._check_deadline()
        with self.session.transaction(heed_cancel=not self.undoing) as connection:
            yield connection

    def write_later(self, write: Callable[[Connection], None]) -> None:
        """Have `write` done in the transaction of the next door. For what must be written before anybody acts, and cannot fail."""
        self.session.write_later(write)

    def virt(self, host: str) -> VirtDriver:
        """The hypervisor of a host."""
        self._act(host)
        return self.shared.drivers.virt(self.host_ref(host))

    @property
    def network(self) -> NetworkDriver:
        """The network service."""
        self._act()
        return self.shared.drivers.network

    @property
    def volume(self) -> VolumeDriver:
        """The volume service."""
        self._act()
        return self.shared.drivers.volume

    @property
    def image(self) -> ImageDriver:
        """The image service."""
        self._act()
        self._asks_images.add(_current_step.get())
        return self.shared.drivers.image

    def _act(self, host: str | None = None) -> None:
        self._check_lease()
        self._check_deadline()  # before all else: a call that was given up because the build's time was over is no fault of its host's
        step = _current_step.get()
        if step in self.given_up:
            self._raise_timeout(host or self.session.host, step)
        self.session.flush(heed_cancel=not self.undoing)
        self._asks_images.discard(step)
        if acts_on := host or self.session.host:
            self._acts_on[step] = acts_on

    def has_given_up(self) -> bool:
        """Whether this step's last run was given up; asked by one that can leave to later what hung. Told once."""
        return self.given_up.pop(_current_step.get(), None) is not None

    def _raise_timeout(self, host: str | None, step: str) -> None:
        """Fail a step whose last run was given up. Not an undo that concerns no host: it cannot be left to later, so it is tried again."""
        if host is None and (self.job.instance_uuid or "instance_uuid" in self.job.inputs):
            host = self.instance.host
        hung = self.given_up.pop(step)
        if host is not None and not hung.of_images:
            raise HypervisorTimeout(host=host, step=step, seconds=hung.seconds)
        if not self.undoing:
            raise ServiceTimeout(step=step, seconds=hung.seconds)

    def check(self) -> None:
        """For drivers, by `objects.fence`: just before an effect, however long ago the door was.

        Raises: LeaseLost.
        """
        self.session.check_open()
        self._check_lease()

    def prove(self, connection: Connection) -> None:
        """For the write transactions of stores, by `objects.fence`.

        Raises: LeaseLost.
        """
        self.session.prove(connection)

    def _check_lease(self) -> None:
        if not self._lease_good():
            raise LeaseLost(f"job {self.job.uuid}: the heartbeat of its conductor has lapsed")

    def _check_deadline(self) -> None:
        if not self.undoing and self._is_over():
            self.given_up.pop(_current_step.get(), None)
            seconds = round((self.job.deadline_at or 0.0) - self.job.created_at)
            raise BuildTimedOut(instance=self.job.instance_uuid, seconds=seconds)

    def _is_over(self, grace_seconds: float = 0.0) -> bool:
        """Whether the build's time is over. When our own clock says so, the database's has the last word: ours may have been set."""
        if time.monotonic() <= self._ends_at + grace_seconds:
            return False
        if not self._is_proved_over:
            with self.db.read() as connection:
                left = (self.job.deadline_at or 0.0) - read_clock(connection)
            self._ends_at, self._is_proved_over = time.monotonic() + left, left <= 0.0
        return time.monotonic() > self._ends_at + grace_seconds

    @property
    def undoing(self) -> bool:
        """Whether this thread's step is being undone: an undo heeds neither a cancel nor the build's deadline."""
        return _current_step.get() in self._undone

    # --- Being watched -----------------------------------------------------------------------------------------------------

    @contextlib.contextmanager
    def doing(self, step: str, *, undoing: bool) -> Iterator[None]:
        """Mark that this thread is in a step; the conductor watches how long."""
        self._begun[step] = time.monotonic()
        if undoing:
            self._undone.add(step)
        self._done.pop(step, None)  # on another host it begins from nothing
        token, is_lost = _current_step.set(step), False
        try:
            with fence.standing_behind(self):
                yield
        except LeaseLost:
            is_lost = True
            raise
        finally:
            # However it ended: a host may have done later what it was asked for while the lease held, and the step was through with that.
            if is_lost or not self._lease_good():
                self.cut_off_on = self._acts_on.get(step, self.cut_off_on)
            _current_step.reset(token)
            self._acts_on.pop(step, None)
            self._asks_images.discard(step)
            self._begun.pop(step, None)
            self._undone.discard(step)
            self.session.ended_at[step] = now()

    def overdue(self, limit: Callable[[str], float]) -> Hung | None:
        """A step that has shown no progress for longer than its limit, or is at it when the build's time is over."""
        is_late = False
        with contextlib.suppress(DatabaseUnavailable):
            is_late = self._is_over(_DEADLINE_GRACE_SECONDS)
        for step, begun in list(self._begun.items()):
            seconds = time.monotonic() - begun
            if seconds > limit(step) or (is_late and step not in self._undone and seconds > _DEADLINE_GRACE_SECONDS):
                return Hung(step, seconds, of_images=step in self._asks_images)
        return None

    # --- Telling ---------------------------------------------------------------------------------------------------------

    def set_host(self, host: str | None) -> None:
        """Say where the present attempt acts; its events carry the name."""
        self.session.host = host

    def progress(self, step: str, done: int, total: int, unit: str = "bytes") -> None:
        """Tell how far a long step is. Written twice a second at most; stops the step when the job was cancelled or lost.

        Raises: LeaseLost, BuildCancelled, StoreUnavailable.
        """
        moment = time.monotonic()
        if done > self._done.get(step, -1):
            self._done[step] = done
            self._begun[step] = moment
        if done < total and moment - self._told_at.get(step, 0.0) < _PROGRESS_EVERY_SECONDS:
            return
        self._told_at[step] = moment
        with self.transaction() as connection:
            events.record_progress(connection, job_uuid=self.job.uuid, step=step, done=done, total=total, unit=unit)
