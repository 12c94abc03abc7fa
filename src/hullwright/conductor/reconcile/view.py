"""What checks look at: the records as of one moment, what hosts told just before it, and whom somebody is working on.

Hosts are asked before the records are read: whatever is on a host was in the records before, so that only work which ended in between
can be mistaken, and that is known from the time of the instance's last change.
Not for: judging; see `checks`.
"""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from hullwright.drivers.network.contract import NetworkDriver
from hullwright.drivers.registry import Drivers
from hullwright.drivers.virt.contract import VirtDriver
from hullwright.objects.errors import HullwrightError
from hullwright.objects.guests import GuestInfo
from hullwright.objects.hosts import Host, HostRef
from hullwright.objects.states import OPEN_JOB_STATES, JobState
from hullwright.persistence import conductors
from hullwright.persistence.models.instances import instances
from hullwright.persistence.models.jobs import jobs

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Answer:
    """What a host told of itself."""

    guests: tuple[GuestInfo, ...] = ()
    files: frozenset[str] = frozenset()  # uuids of instances
    half_images: Mapping[str, str] = field(default_factory=dict)
    networks: tuple[str, ...] = ()  # ids of deleted ones


@dataclass(frozen=True, slots=True)
class OpenJob:
    """A job that somebody will do something with, or that stopped where an operator must decide."""

    uuid: str
    kind: str
    state: str
    owner: str | None
    instance_uuid: str | None  # whom it works on
    volume_id: str | None
    created_at: float
    error: str | None


def ref_of(host: Host) -> HostRef:
    """How to reach a host."""
    return HostRef(host.name, host.uri, host.driver)


def ask(virt: VirtDriver, network: NetworkDriver, ref: HostRef) -> Answer:
    """All that a host has to tell.

    Raises: what drivers raise.
    """
    # Files first: a guest that is made meanwhile would show files without a guest otherwise.
    files = frozenset(virt.leftovers())
    return Answer(tuple(virt.guests()), files, dict(virt.half_images()), tuple(network.forgotten(ref)))


def ask_all(
    hosts: Sequence[Host], question: Callable[[Host], T], *, timeout_seconds: float, at_once: int
) -> tuple[dict[str, T], dict[str, str]]:
    """Ask hosts side by side; answers by host name, and the reasons of those that gave none in time.

    A call that hangs keeps its own thread and nobody else.
    """
    told: queue.SimpleQueue[tuple[str, T | None, str]] = queue.SimpleQueue()

    def put(host: Host) -> None:
        try:
            told.put((host.name, question(host), ""))
        except HullwrightError as error:
            told.put((host.name, None, error.text))
        except Exception as error:  # noqa: BLE001  whatever a driver raises is that host's trouble alone
            told.put((host.name, None, f"{type(error).__name__}: {error}"))

    waiting, asked = list(reversed(hosts)), dict[str, float]()
    answers: dict[str, T] = {}
    silent: dict[str, str] = {}
    while waiting or asked:
        while waiting and len(asked) < at_once:
            host = waiting.pop()
            asked[host.name] = time.monotonic() + timeout_seconds
            threading.Thread(target=put, args=(host,), name=f"ask-{host.name}", daemon=True).start()
        try:
            name, answer, error = told.get(timeout=max(0.001, min(asked.values()) - time.monotonic()))
        except queue.Empty:
            for name in [name for name, until in asked.items() if until <= time.monotonic()]:
                del asked[name]
                silent[name] = f"no answer within {timeout_seconds:g} seconds"
            continue
        if asked.pop(name, None) is None:
            continue  # too late
        if answer is None:
            silent[name] = error
        else:
            answers[name] = answer
    return answers, silent


class View:
    """One look. Valid for as long as its connection's transaction."""

    def __init__(
        self,
        conn: Connection,
        answers: Mapping[str, Answer],
        *,
        began_at: float,
        busy_before: Collection[str] = (),
        uploading: Callable[[str], bool] = lambda _: False,
        only: str | None = None,
        not_counting: Collection[str] = (),
    ) -> None:
        """`only`: the subject or instance that is looked at. `busy_before`: instances that had open work when the hosts were asked.

        `not_counting`: jobs that do not make their instance busy, such as those that repairs have posted just now.
        """
        self.conn = conn
        self.answers = answers
        self.began_at = began_at
        self.uploading = uploading
        self.only = only
        self.open_jobs = [job for job in _jobs(conn, jobs.c.state.in_(OPEN_JOB_STATES)) if job.uuid not in not_counting]
        stuck = sa.and_(jobs.c.state == JobState.STUCK, instances.c.deleted_at.is_(None))
        self.stuck_jobs = _jobs(conn, sa.and_(stuck, self.about(jobs.c.uuid, jobs.c.instance_uuid)))
        self.living_conductors = set(conn.execute(conductors.living(conn)).scalars())
        # What a stuck job has is kept together until somebody decides about the job.
        working = [*self.open_jobs, *self.stuck_jobs]
        self.busy = {job.instance_uuid for job in working if job.instance_uuid} | set(busy_before)
        self.busy_volumes = {job.volume_id for job in working if job.volume_id}

    def about(self, *columns: sa.ColumnElement[Any]) -> sa.ColumnElement[bool]:
        """A condition that leaves only what this look is about; true when it is about everything."""
        if self.only is None:
            return sa.true()
        return sa.or_(*(column == self.only for column in columns))

    def known_instances(self, uuids: Iterable[str]) -> dict[str, sa.Row[*tuple[Any, ...]]]:
        """uuid -> row (uuid, host, vm_state, deleted_at, updated_at) of those that there is a record of."""
        wanted = sorted(set(uuids))
        found: dict[str, sa.Row[*tuple[Any, ...]]] = {}
        columns = (instances.c.uuid, instances.c.host, instances.c.vm_state, instances.c.deleted_at, instances.c.updated_at)
        for start in range(0, len(wanted), 500):
            query = sa.select(*columns).where(instances.c.uuid.in_(wanted[start : start + 500]))
            found |= {row.uuid: row for row in self.conn.execute(query)}
        return found

    def changed_meanwhile(self, row: sa.Row[*tuple[Any, ...]] | None) -> bool:
        """Whether an instance's record is younger than what the hosts told."""
        return row is not None and row.updated_at >= self.began_at


def _jobs(conn: Connection, which: sa.ColumnElement[bool]) -> list[OpenJob]:
    columns = (jobs.c.uuid, jobs.c.kind, jobs.c.state, jobs.c.owner, jobs.c.instance_uuid, jobs.c.inputs, jobs.c.created_at, jobs.c.error)
    theirs = jobs.outerjoin(instances, instances.c.uuid == jobs.c.instance_uuid)
    return [
        OpenJob(
            row.uuid,
            row.kind,
            row.state,
            row.owner,
            row.instance_uuid or row.inputs.get("instance_uuid"),
            row.inputs.get("volume_id"),
            row.created_at,
            row.error,
        )
        for row in conn.execute(sa.select(*columns).select_from(theirs).where(which))
    ]


def ask_hosts(drivers: Drivers, hosts: Sequence[Host], conf: Any) -> tuple[dict[str, Answer], dict[str, str]]:
    """What the hosts have to tell, and why some did not."""
    options = conf.reconcile
    return ask_all(
        hosts,
        lambda host: ask(drivers.virt(ref_of(host)), drivers.network, ref_of(host)),
        timeout_seconds=options.host_timeout_seconds,
        at_once=options.max_concurrent_hosts,
    )
