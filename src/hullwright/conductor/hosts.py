"""HostMonitor: asks each registered host, every so often, what it has and can do, and notes who is silent.

Of all conductors one asks a host: whoever moved its `checked_at` on. A host that hangs keeps its own thread and nobody else's turn.
Not for: deciding that a host is down; `is_up` of objects/hosts.py says it, from the silence noted here.
"""

from __future__ import annotations

import contextlib
import logging
import math
import queue
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from hullwright.drivers.virt.contract import VirtDriver
from hullwright.objects.aggregates import least
from hullwright.objects.errors import HostNotFound, HullwrightError, HypervisorUnavailable
from hullwright.objects.hosts import HOST_RESERVES, Host, HostFacts, HostRef, Inventory
from hullwright.persistence import aggregates, hosts
from hullwright.persistence.database import Database, DatabaseUnavailable, now

log = logging.getLogger(__name__)

ERROR_MAX = 1000  # characters kept of why a host did not answer
LOOK_SECONDS = 1.0  # between two looks for hosts that are due, at most


def inventories_of(
    facts: HostFacts, conf: Any, aggregates: Sequence[Mapping[str, str]] = (), own: Mapping[str, float] | None = None
) -> tuple[Inventory, ...]:
    """What of a host may be claimed: what it has, less what is reserved, times the allocation ratios.

    A ratio is the host's `own`, else the least that the metadata of its `aggregates` name under the option's name, else that of
    [compute]; what is reserved is the host's own, else that of [compute].
    """
    options, own = conf.compute, own or {}

    def ratio(name: str) -> float:
        if name in own:
            return own[name]
        named = least((metadata[name] for metadata in aggregates if name in metadata), options[name])
        return named if 0 < named < math.inf else float(options[name])

    reserved = {name: int(own.get(name, options[name])) for name in HOST_RESERVES}
    reserved_disk_gb = -(-reserved["reserved_host_disk_mb"] // 1024)
    return (
        Inventory("VCPU", facts.vcpus, min(reserved["reserved_host_cpus"], facts.vcpus), ratio("cpu_allocation_ratio")),
        Inventory("MEMORY_MB", facts.memory_mb, min(reserved["reserved_host_memory_mb"], facts.memory_mb), ratio("ram_allocation_ratio")),
        Inventory("DISK_GB", facts.disk_gb, min(reserved_disk_gb, facts.disk_gb), ratio("disk_allocation_ratio")),
    )


@dataclass(slots=True)
class _Question:
    """A host that is being asked."""

    begun: float  # monotonic
    overdue: bool = False


class HostMonitor:
    """Keeps facts, inventories and last answers of the hosts current. One per conductor."""

    def __init__(self, db: Database, conf: Any, virt_factory: Callable[[HostRef], VirtDriver]) -> None:
        """`virt_factory` gives the driver that speaks to a host; it is called from many threads."""
        self._db = db
        self._conf = conf
        self._virt = virt_factory
        self._answers: queue.SimpleQueue[tuple[str, HostFacts | str] | None] = queue.SimpleQueue()  # None: stop
        self._asked: dict[str, _Question] = {}  # touched by the monitor's own thread only
        self._silent: set[str] = set()
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Begin to ask."""
        self._thread = threading.Thread(target=self._run, name="host-monitor", daemon=True)
        self._thread.start()

    def stop(self, timeout_seconds: float = 5.0) -> None:
        """Ask no more. Questions under way end by themselves and are not noted."""
        if self._thread is not None:
            self._answers.put(None)
            self._thread.join(timeout_seconds)
            self._thread = None

    def refresh_now(self, name: str) -> HostFacts:
        """Ask one host and wait for its answer, as after its registration.

        Raises: HostNotFound; HypervisorUnavailable or what else the driver says, which is noted too.
        """
        with self._db.read() as conn:
            host = hosts.get(conn, name)
        try:
            facts = self._virt(_ref(host)).facts()
        except HullwrightError as error:
            self._note([(name, error.text)])
            raise
        except Exception as error:
            self._note([(name, _tell(error))])
            raise HypervisorUnavailable(host=name, reason=_tell(error)) from error
        self._note([(name, facts)])
        return facts

    def _run(self) -> None:
        pause = min(LOOK_SECONDS, self._conf.compute.report_interval / 4)
        while True:
            try:
                self._mark_overdue()
                self._ask_due()
            except DatabaseUnavailable as error:
                log.warning("hosts are not looked after: %s", error)
            except Exception:  # without this thread no host would be asked, and none be marked down, until a restart
                log.exception("hosts could not be looked after")
            answers = self._collect(pause)
            if answers is None:
                return
            try:
                self._note(answers)
            except DatabaseUnavailable as error:
                log.warning("%d answers of hosts could not be noted: %s", len(answers), error)
            except Exception:
                log.exception("%d answers of hosts could not be noted together", len(answers))
                self._note_singly(answers)

    def _note_singly(self, answers: list[tuple[str, HostFacts | str]]) -> None:
        """One that cannot be noted is that host's trouble alone."""
        for answer in answers:
            try:
                self._note([answer])
            except Exception:
                log.exception("the answer of host %s could not be noted", answer[0])

    def _collect(self, pause_seconds: float) -> list[tuple[str, HostFacts | str]] | None:
        """Wait for an answer, then take all that are there: one transaction notes them. None: stop."""
        found: list[tuple[str, HostFacts | str]] = []
        with contextlib.suppress(queue.Empty):
            answer = self._answers.get(timeout=pause_seconds)
            while True:
                if answer is None:
                    return None
                self._asked.pop(answer[0], None)
                found.append(answer)
                answer = self._answers.get_nowait()
        return found

    def _mark_overdue(self) -> None:
        """Note hosts that do not answer in time. Their threads wait on, but nobody waits for them."""
        timeout = self._conf.compute.facts_timeout_seconds
        late = [name for name, asked in self._asked.items() if not asked.overdue and time.monotonic() - asked.begun > timeout]
        if late:
            self._note([(name, self._overdue_text()) for name in late])
            for name in late:
                self._asked[name].overdue = True

    def _overdue_text(self) -> str:
        return f"no answer within {self._conf.compute.facts_timeout_seconds:g} seconds"

    def _ask_due(self) -> None:
        options = self._conf.compute
        room = options.max_concurrent_facts - sum(not asked.overdue for asked in self._asked.values())
        if room <= 0:
            return
        with self._db.read() as conn:
            oldest = hosts.next_check_due(conn)
        if oldest is None or oldest > now() - options.report_interval:
            return
        with self._db.write() as conn:
            due = hosts.take_due_checks(conn, interval_seconds=options.report_interval, limit=room)
        still_silent = [host.name for host in due if host.name in self._asked and self._asked[host.name].overdue]
        self._note([(name, self._overdue_text()) for name in still_silent])
        for host in due:
            if host.name not in self._asked:  # else it still owes us an answer, and is not asked twice
                thread = threading.Thread(target=self._ask, args=(host,), name=f"facts-{host.name}", daemon=True)
                thread.start()  # may raise, where the machine has no thread to give: then the host was not asked
                self._asked[host.name] = _Question(time.monotonic())

    def _ask(self, host: Host) -> None:
        answer: HostFacts | str
        try:
            answer = self._virt(_ref(host)).facts()
        except HullwrightError as error:
            answer = error.text
        except Exception as error:  # whatever a driver raises is that host's trouble alone
            log.exception("asking host %s failed", host.name)
            answer = _tell(error)
        self._answers.put((host.name, answer))

    def _note(self, answers: list[tuple[str, HostFacts | str]]) -> None:
        if not answers:
            return
        with self._db.write() as conn:
            told = [name for name, answer in answers if isinstance(answer, HostFacts)]
            metadata, settings = aggregates.metadata_of_hosts(conn, told), hosts.settings_of(conn, told)
            for name, answer in answers:
                with contextlib.suppress(HostNotFound):  # removed meanwhile
                    if isinstance(answer, str):
                        hosts.record_silence(conn, name, answer[:ERROR_MAX])
                    else:
                        room = inventories_of(answer, self._conf, metadata.get(name, ()), settings.get(name))
                        hosts.record_facts(conn, name, answer, room)
        for name, answer in answers:
            if isinstance(answer, str):
                if name not in self._silent:
                    log.warning("host %s does not answer: %s", name, answer)
                self._silent.add(name)
            elif name in self._silent:
                log.info("host %s answers again", name)
                self._silent.discard(name)


def _ref(host: Host) -> HostRef:
    return HostRef(host.name, host.uri, host.driver)


def _tell(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"
