"""Caretaker: has the rounds made when they are due, listens to what hypervisors tell of their guests, and clears away what nobody reads:
old rounds, and answers whose asker is gone.

One per conductor. Of all conductors one posts a round, because its job's uuid follows from the round before; every conductor listens to
the hosts, and of those that hear the same news one writes it.
Not for: making a round; that is a job (`rounds`).
"""

from __future__ import annotations

import logging
import queue
import threading
import time
import uuid as uuids
from typing import Any

import sqlalchemy as sa

from hullwright.conductor.loop import Loop
from hullwright.conductor.reconcile import power
from hullwright.conductor.reconcile.rounds import RECONCILE, SYNC_POWER
from hullwright.conductor.reconcile.view import ask_all, ref_of
from hullwright.flows.context import Shared
from hullwright.objects.errors import HullwrightError
from hullwright.objects.hosts import Host, HostRef
from hullwright.objects.states import OPEN_JOB_STATES, JobState, PowerState
from hullwright.persistence import hosts, jobs
from hullwright.persistence.database import now
from hullwright.persistence.inserts import insert_if_absent
from hullwright.persistence.models.hosts import hosts as hosts_table
from hullwright.persistence.models.instances import instances as instances_table
from hullwright.persistence.models.jobs import jobs as jobs_table
from hullwright.persistence.wakeup import Wakeup

LOG = logging.getLogger(__name__)
TICK_SECONDS = 0.5
LOOK_FOR_HOSTS_SECONDS = 10.0
LOOK_FOR_ANSWERS_SECONDS = 10.0
# Whoever asked reads the answer within a second and removes it. Console logs hold passwords that guests print: they do not stay.
UNREAD_SECONDS = 30.0


class Caretaker:
    """See the module."""

    def __init__(self, shared: Shared, wakeup: Wakeup) -> None:
        """`wakeup` tells conductors of new jobs."""
        self._shared = shared
        self._db = shared.db
        self._options = shared.conf.reconcile
        self._wakeup = wakeup
        self._intervals = {RECONCILE: self._options.interval, SYNC_POWER: self._options.sync_power_state_interval}
        self._due: dict[str, float] = {}  # kind -> seconds since the epoch
        self._news: queue.SimpleQueue[tuple[float, str, str]] = queue.SimpleQueue()  # monotonic time, host, instance
        self._waiting: dict[tuple[str, str], float] = {}  # news that is not yet looked at
        self._watched: set[HostRef] = set()
        self._look_for_hosts_at = self._look_for_answers_at = 0.0
        self._pause_seconds: float = min([TICK_SECONDS, *(interval / 4 for interval in self._intervals.values() if interval > 0)])
        self._loop = Loop("caretaker", self._turn, self._pause_seconds)

    def start(self) -> None:
        """Begin."""
        begun = now()
        self._due = {kind: begun + interval for kind, interval in self._intervals.items() if interval > 0}
        self._loop.start()

    def stop(self) -> None:
        """Have no more rounds made; those under way are jobs, and end as such."""
        self._loop.stop()

    def _turn(self) -> float:
        self._post_due()
        self._forget_unread()
        if self._options.watch_guests:
            self._watch_hosts()
            self._heed_news()
        return self._pause_seconds

    # --- Rounds ----------------------------------------------------------------------------------------------------------

    def _post_due(self) -> None:
        for kind, due in self._due.items():
            if due > now():
                continue
            self._due[kind] = self._post(kind)

    def _post(self, kind: str) -> float:
        """Post a round unless there was one; answers when the next is due."""
        interval: float = self._intervals[kind]
        newest = (jobs_table.c.uuid, jobs_table.c.state, jobs_table.c.created_at)
        query = sa.select(*newest).where(jobs_table.c.kind == kind).order_by(jobs_table.c.id.desc()).limit(1)
        with self._db.read() as conn:
            last = conn.execute(query).first()
        if last is not None and (last.created_at > now() - interval or last.state in OPEN_JOB_STATES):
            return max(float(last.created_at), now() - interval / 2) + interval
        # Whoever is quicker has posted it: the next round's uuid follows from the last one's.
        uuid = str(uuids.uuid5(uuids.NAMESPACE_OID, f"{kind} after {last.uuid if last is not None else 'nothing'}"))
        request_id = f"req-{uuid}"
        # An interval more than what the last round has not seen: what ended while it looked, whatever the clocks of those who ended it.
        since = 0.0 if last is None else float(last.created_at) - interval
        inputs = {"request_id": request_id, "since": since}
        row = jobs.new_row(kind=kind, instance_uuid=None, inputs=inputs, request_id=request_id, uuid=uuid)
        with self._db.write() as conn:
            posted = insert_if_absent(conn, jobs_table, row)
            if posted:
                self._clear_away(conn, kind, uuid)
        if posted:
            self._wakeup.poke()
        return now() + interval

    @staticmethod
    def _clear_away(conn: sa.Connection, kind: str, newest: str) -> None:
        """Rounds that ended without news tell nothing but their time, and the newest one's is enough."""
        text = sa.type_coerce(jobs_table.c.result, sa.Text)
        no_news = sa.or_(text.is_(None), text.like('{"unchanged"%'))
        here = sa.and_(jobs_table.c.kind == kind, jobs_table.c.state == JobState.DONE, jobs_table.c.error.is_(None), no_news)
        conn.execute(sa.delete(jobs_table).where(here, jobs_table.c.uuid != newest))

    def _forget_unread(self) -> None:
        if time.monotonic() < self._look_for_answers_at:
            return
        self._look_for_answers_at = time.monotonic() + LOOK_FOR_ANSWERS_SECONDS
        with self._db.read() as conn:
            unread = jobs.list_unread(conn, now() - UNREAD_SECONDS)
        if unread:
            with self._db.write() as conn:
                jobs.forget_unread(conn, unread)

    # --- News of guests --------------------------------------------------------------------------------------------------

    def _watch_hosts(self) -> None:
        if time.monotonic() < self._look_for_hosts_at:
            return
        self._look_for_hosts_at = time.monotonic() + LOOK_FOR_HOSTS_SECONDS
        answering = (hosts_table.c.silent_since.is_(None), hosts_table.c.last_seen_at > 0, hosts_table.c.forced_down.is_(False))
        query = sa.select(hosts_table.c.name, hosts_table.c.uri, hosts_table.c.driver).where(*answering)
        with self._db.read() as conn:
            refs = [HostRef(*row) for row in conn.execute(query)]
        fresh = [ref for ref in refs if ref not in self._watched]
        for ref in fresh[: self._options.max_concurrent_hosts]:
            self._watched.add(ref)
            threading.Thread(target=self._watch, args=(ref,), name=f"watch-{ref.name}", daemon=True).start()
        if len(fresh) > self._options.max_concurrent_hosts:  # the others soon, but not all at once
            self._look_for_hosts_at = time.monotonic() + 1.0

    def _watch(self, ref: HostRef) -> None:
        """In a thread of its own: a host that does not answer is nobody else's trouble."""

        def tell(instance_uuid: str) -> None:
            self._news.put((time.monotonic(), ref.name, instance_uuid))

        try:
            self._shared.drivers.virt(ref).watch(tell)
        except HullwrightError as error:
            LOG.warning("Host %s tells no news of its guests: %s", ref.name, error.text)
            self._watched.discard(ref)
        except Exception:
            LOG.exception("Host %s tells no news of its guests", ref.name)

    def _heed_news(self) -> None:
        while not self._news.empty():
            at, host, instance_uuid = self._news.get()
            self._waiting[host, instance_uuid] = at  # the latest news counts: what comes in a row is looked at once
        settled = time.monotonic() - self._options.event_delay_seconds
        ripe = [key for key, at in self._waiting.items() if at <= settled]
        by_host: dict[str, set[str]] = {}
        for host, instance_uuid in ripe:
            del self._waiting[host, instance_uuid]
            by_host.setdefault(host, set()).add(instance_uuid)
        if by_host:
            self._sync(by_host)

    def _sync(self, by_host: dict[str, set[str]]) -> None:
        with self._db.read() as conn:
            told = [host for host in hosts.list_all(conn) if host.name in by_host]
            before = power.known(conn, instances_table.c.uuid.in_(set().union(*by_host.values())))

        def powers_of(host: Host) -> dict[str, PowerState | None]:
            virt = self._shared.drivers.virt(ref_of(host))
            return {uuid: virt.power_state(uuid) for uuid in by_host[host.name]}

        options: Any = self._options
        answers, _ = ask_all(told, powers_of, timeout_seconds=options.host_timeout_seconds, at_once=options.max_concurrent_hosts)
        posted = False
        for name, powers in answers.items():
            theirs = {uuid: row for uuid, row in before.get(name, {}).items() if uuid in by_host[name]}
            changes = power.sync(self._db, name, theirs, powers, request_id=f"req-{uuids.uuid4()}")
            posted = posted or any(change.job_uuid for change in changes)
        if posted:
            self._wakeup.poke()
