"""What checks look at: the records as of one moment, what hosts told just before it, and whom somebody is working on.

Hosts are asked before the records are read: whatever is on a host was in the records before, so that only work which ended in between
can be mistaken, and that is known from the time of the instance's last change.
Not for: judging; see `checks`.
"""

from __future__ import annotations

import itertools
import queue
import threading
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, TypeVar

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from hullwright.drivers.network.contract import NetworkDriver
from hullwright.drivers.registry import Drivers
from hullwright.drivers.virt.contract import VirtDriver
from hullwright.drivers.volume.contract import VolumeDriver
from hullwright.objects.errors import HullwrightError
from hullwright.objects.guests import GuestInfo
from hullwright.objects.hosts import Host, HostRef
from hullwright.objects.states import OPEN_JOB_STATES, JobState
from hullwright.persistence import conductors
from hullwright.persistence.models.instances import instances
from hullwright.persistence.models.jobs import jobs

T = TypeVar("T")
BATCH = 500  # rows whose own rows are asked for with one statement
HISTORY_SECONDS = 86_400.0  # by hand, the histories of jobs that ended since then are read
IMAGES_SECONDS = 6 * 3600.0  # that a host may take to read its base images
HISTORY_MAX = 5_000  # jobs whose histories one look reads, the latest; some 50 us each

# In the very words of the indexes that hold nothing else: SQLite does not look into parameters.
IS_OPEN = jobs.c.state.in_(sa.bindparam("open_states", [str(state) for state in OPEN_JOB_STATES], expanding=True, literal_execute=True))
IS_STUCK = jobs.c.state == sa.literal(str(JobState.STUCK), literal_execute=True)


@dataclass(frozen=True, slots=True)
class Answer:
    """What a host told of itself."""

    guests: tuple[GuestInfo, ...] = ()
    files: frozenset[str] = frozenset()  # uuids of instances
    half_images: Mapping[str, str] = field(default_factory=dict)
    networks: tuple[str, ...] = ()  # ids of deleted ones
    entries: tuple[str, ...] = ()  # of ports that are gone
    volumes: tuple[str, ...] = ()  # ids of those that have bytes there
    shares_files: bool = False  # what it shows of instances' files others show too
    shares_volumes: bool = False
    damaged_images: Mapping[str, str] = field(default_factory=dict)  # -> what is wrong; empty when it was not asked for


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


def in_batches(things: Iterable[T]) -> Iterator[list[T]]:
    """The same in lists of at most BATCH."""
    rest = iter(things)
    while batch := list(itertools.islice(rest, BATCH)):
        yield batch


def ask(virt: VirtDriver, network: NetworkDriver, volume: VolumeDriver, ref: HostRef, conf: Any) -> Answer:
    """All that a host has to tell.

    Raises: what drivers raise.
    """
    # Files first: a guest that is made meanwhile would show files without a guest otherwise.
    files = frozenset(virt.leftovers())
    return Answer(
        guests=tuple(virt.guests()),
        files=files,
        half_images=dict(virt.half_images()),
        networks=tuple(network.forgotten(ref)),
        entries=tuple(network.entries_left(ref)),
        volumes=tuple(volume.on_host(ref)),
        shares_files=ref.driver == "libvirt" and bool(conf.libvirt.pool_shared),
        shares_volumes=bool(conf.volume.shared),
    )


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
        known_before: Mapping[str, float] | None = None,
        uploading: Callable[[str], bool] = lambda _: False,
        only: str | None = None,
        not_counting: Collection[str] = (),
        since: float | None = None,
    ) -> None:
        """`only`: the subject or instance that is looked at. `busy_before`: instances that had open work when the hosts were asked.
        `known_before`: when the others had last changed by then, by uuid; only what power states are judged by.

        `not_counting`: jobs that do not make their instance busy, such as those that repairs have posted just now.
        `since`: of what is kept for ever, and of what is large, only what ended or changed since then is looked at; None: by hand, as much
        of it as a person may wait for.
        """
        self.conn = conn
        self.since = since
        self.answers = answers
        self.began_at = began_at
        self.known_before = known_before or {}
        self.uploading = uploading
        self.only = only
        self.open_jobs = [job for job in open_work(conn) if job.uuid not in not_counting]
        stuck = sa.and_(IS_STUCK, instances.c.deleted_at.is_(None))
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

    @cached_property
    def ended(self) -> Sequence[Any]:
        """Jobs that came to rest lately, stuck ones too, the latest first: uuid, kind, state, instance_uuid, seq, error, finished_at."""
        columns = (jobs.c.uuid, jobs.c.kind, jobs.c.state, jobs.c.instance_uuid, jobs.c.seq, jobs.c.error, jobs.c.finished_at)
        since = self.began_at - HISTORY_SECONDS if self.since is None else self.since
        at_rest = sa.and_(jobs.c.finished_at >= since, jobs.c.state.not_in(OPEN_JOB_STATES))
        return self.conn.execute(sa.select(*columns).where(at_rest).order_by(jobs.c.finished_at.desc()).limit(HISTORY_MAX)).all()

    def of_ended(self, job_uuid: sa.ColumnElement[str]) -> Iterator[sa.ColumnElement[bool]]:
        """Conditions on what belongs to a job, to be asked for one after the other: together, what is of jobs that ended since the last
        round. By hand it is one, and always true: a statement that goes through a whole table may be waited for.
        """
        if self.since is None:
            yield sa.true()
        else:
            for batch in in_batches(self.ended):
                yield job_uuid.in_([job.uuid for job in batch])

    @property
    def placed(self) -> Iterator[Any]:
        """Instances on hosts, of which a round sees those that changed lately: id, uuid, host, spec (as JSON tells it), updated_at."""
        columns = (instances.c.id, instances.c.uuid, instances.c.host, instances.c.spec, instances.c.updated_at)
        here = [instances.c.deleted_at.is_(None), instances.c.host.is_not(None), self.about(instances.c.uuid)]
        if self.since is not None:
            here.append(instances.c.updated_at >= self.since)
        query = sa.select(*columns).where(*here).order_by(instances.c.id).limit(BATCH)
        last = 0
        while rows := self.conn.execute(query.where(instances.c.id > last)).all():
            yield from rows
            last = rows[-1].id

    def known_instances(self, uuids: Iterable[str]) -> dict[str, sa.Row[*tuple[Any, ...]]]:
        """uuid -> row (uuid, host, vm_state, deleted_at, updated_at) of those that there is a record of."""
        wanted = sorted(set(uuids))
        found: dict[str, sa.Row[*tuple[Any, ...]]] = {}
        columns = (instances.c.uuid, instances.c.host, instances.c.vm_state, instances.c.deleted_at, instances.c.updated_at)
        for batch in in_batches(wanted):
            found |= {row.uuid: row for row in self.conn.execute(sa.select(*columns).where(instances.c.uuid.in_(batch)))}
        return found

    def changed_meanwhile(self, row: sa.Row[*tuple[Any, ...]] | None) -> bool:
        """Whether an instance's record is younger than what the hosts told."""
        return row is not None and row.updated_at >= self.began_at


def open_work(conn: Connection) -> list[OpenJob]:
    """All that is still to be done."""
    return _jobs(conn, IS_OPEN)


def wanting_image(conn: Connection, image_id: str) -> list[str]:
    """Instances that are being built from an image."""
    query = sa.select(instances.c.uuid).join(jobs, jobs.c.instance_uuid == instances.c.uuid)
    return sorted(set(conn.execute(query.where(IS_OPEN, instances.c.image_id == image_id)).scalars()))


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


def ask_images(
    drivers: Drivers, hosts: Sequence[Host], conf: Any, *, deep: bool, only: Collection[str] | None
) -> tuple[dict[str, Mapping[str, str]], dict[str, str]]:
    """Which base images on the hosts are damaged, and why some did not tell. Waits for as long as the reading takes."""
    return ask_all(
        hosts,
        lambda host: drivers.virt(ref_of(host)).damaged_images(deep=deep, only=only),
        timeout_seconds=IMAGES_SECONDS,
        at_once=conf.reconcile.max_concurrent_hosts,
    )


def ask_hosts(drivers: Drivers, hosts: Sequence[Host], conf: Any) -> tuple[dict[str, Answer], dict[str, str]]:
    """What the hosts have to tell, and why some did not."""
    options = conf.reconcile
    return ask_all(
        hosts,
        lambda host: ask(drivers.virt(ref_of(host)), drivers.network, drivers.volume, ref_of(host), conf),
        timeout_seconds=options.host_timeout_seconds,
        at_once=options.max_concurrent_hosts,
    )
