"""libvirt connections: lent to one thread at a time, kept for the next one, opened when needed and again when lost.

One thread at a time, because a daemon serves only five calls of a connection at once (`max_client_requests`): the sixth waits for the
slowest of five others, and so does the keepalive, which then ends the connection under all of them. And because before libvirt 10.4 two
threads on a connection that falls silent may crash the process, or wait for ever (CVE-2024-4418).

Not a driver: the virt, network and volume drivers for libvirt all come here. Not for processes that fork after the first use.

    with LibvirtPool.shared().connection(host, "define network") as connection:
        connection.networkDefineXML(xml)

An error of libvirt that leaves the block arrives as HypervisorUnavailable, HostDiskFull or HypervisorError.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

from hullwright.drivers.libvirt_binding import is_connection_lost, load_libvirt, translate
from hullwright.objects import fence
from hullwright.objects.errors import HypervisorUnavailable
from hullwright.objects.hosts import HostRef

LOG = logging.getLogger(__name__)

CONNECT_SECONDS = 20.0
HUNG_FACTOR = 3.0  # an opening that takes so many times longer than callers wait will not come back, and another one is begun
MOST_GIVEN_UP = 4  # openings of one URI; then no more are begun until one of them comes back
MOST_OPENINGS = 4  # of one URI, at a time, when so many wait for one; those given up are not counted
IDLE_SECONDS = 1.0  # a connection unused for longer is asked for a sign of life before it is lent
SURPLUS_SECONDS = 60.0  # a connection unused for longer, while others were used, is closed
# A host that answers nothing for KEEPALIVE_SECONDS * KEEPALIVE_COUNT is given up, and calls that wait for it fail.
KEEPALIVE_SECONDS = 5
KEEPALIVE_COUNT = 5

MISSING = "the libvirt binding for Python is missing; install it with: pip install 'hullwright[libvirt]'"

Tell = Callable[[str], None]


@dataclass(slots=True, eq=False)
class _Link:
    """A connection. Whoever took it out of its slot has it alone, so it needs no lock."""

    raw: Any
    used_at: float = 0.0  # time.monotonic()
    told: dict[Tell, int] = field(default_factory=dict)  # the watchers that it calls, with libvirt's ids of them

    def is_open(self) -> bool:
        """Whether the connection stands, as far as is known on this side. From any thread."""
        try:
            return bool(self.raw.isAlive() == 1)
        except load_libvirt().libvirtError:
            return False

    def is_alive(self) -> bool:
        """Whether the host answers; one that answered a moment ago is not asked."""
        if not self.is_open():
            return False
        if time.monotonic() - self.used_at > IDLE_SECONDS:
            try:
                self.raw.getLibVersion()
            except load_libvirt().libvirtError:
                return False
        return True

    def tell(self, watcher: Tell, wanted: Mapping[Tell, Any]) -> None:
        """Call the watcher from now on, while it is among the wanted."""
        kind = load_libvirt().VIR_DOMAIN_EVENT_ID_LIFECYCLE
        self.told[watcher] = self.raw.domainEventRegisterAny(None, kind, _on_lifecycle, (watcher, wanted))

    def tell_no_more(self, watcher: Tell) -> None:
        """Call the watcher no more. A connection lives for as long as it has anybody to call."""
        with suppress(load_libvirt().libvirtError):
            self.raw.domainEventDeregisterAny(self.told.pop(watcher))


def _on_lifecycle(_connection: Any, domain: Any, _event: int, _detail: int, told: tuple[Tell, Mapping[Tell, Any]]) -> None:
    """In the thread of libvirt's events, which must not wait for anything."""
    tell, wanted = told
    if tell in wanted:
        tell(domain.UUIDString())


@dataclass(slots=True, eq=False)
class _Opening:
    """A connection being opened. It cannot be interrupted and keeps a thread, which may outlive our patience."""

    since: float = field(default_factory=time.monotonic)


@dataclass(slots=True, eq=False)
class _Slot:
    """What the pool knows of one URI. `changed` is held for moments only, never while the host is asked anything."""

    uri: str
    changed: threading.Condition = field(default_factory=threading.Condition)
    idle: list[_Link] = field(default_factory=list)  # the one used last is lent first
    lent: int = 0
    waiting: int = 0  # threads
    openings: list[_Opening] = field(default_factory=list)
    failures: int = 0  # of openings, ever
    last_failure: BaseException | None = None
    watchers: dict[Tell, _Link | None] = field(default_factory=dict)  # with the link that calls them

    def take(self, host: HostRef, wait_seconds: float) -> _Link:
        """A link that nobody uses, opened if there is none.

        Raises: HypervisorUnavailable, when that fails or takes too long.
        """
        until = time.monotonic() + wait_seconds
        with self.changed:
            failures_before = self.failures
            self.waiting += 1
            try:
                while not self.idle:
                    given_up = sum(time.monotonic() - each.since > HUNG_FACTOR * wait_seconds for each in self.openings)
                    under_way = len(self.openings) - given_up
                    is_refused = self.failures > failures_before
                    is_late = time.monotonic() >= until
                    # Where some are refused, as by a daemon that has enough clients, those that there are go from hand to hand.
                    if is_refused and (is_late or not (under_way or self.lent)):
                        raise _unavailable(host, self.last_failure)
                    if is_late:
                        raise HypervisorUnavailable(host=host.name, reason=f"no answer in {wait_seconds:g} seconds")
                    if not is_refused and under_way < min(self.waiting, MOST_OPENINGS) and given_up < MOST_GIVEN_UP:
                        self._open_another(host.name, is_beside=bool(given_up and not under_way))
                    self.changed.wait(until - time.monotonic())
                self.lent += 1
                return self.idle.pop()
            finally:
                self.waiting -= 1

    def give_back(self, link: _Link) -> None:
        """Its user is done with it."""
        with self.changed:
            self.lent -= 1
            surplus = self._have(link)
        del surplus  # closes, which asks the host

    def _have(self, link: _Link) -> _Link | None:
        """Keep it for the next one; answers one that nobody needed for long."""
        link.used_at = time.monotonic()
        self.idle.append(link)
        old = next((each for each in self.idle if not each.told and link.used_at - each.used_at > SURPLUS_SECONDS), None)
        if old is not None:
            self.idle.remove(old)
        self.changed.notify_all()
        return old

    def drop(self, link: _Link) -> None:
        """It is of no use any more. Whom it called, the next one that is lent calls."""
        with self.changed:
            self.lent -= 1
            self.changed.notify_all()
            for tell, by in self.watchers.items():
                if by is link:
                    self.watchers[tell] = None
        for tell in list(link.told):
            link.tell_no_more(tell)

    def keep_watch(self, link: _Link) -> None:
        """Have the watchers called by this link if whoever called them is gone. For the thread that has the link."""
        with self.changed:
            lost = [tell for tell, by in self.watchers.items() if by is not link and (by is None or not by.is_open())]
            for tell in lost:
                self.watchers[tell] = link
            stale = [tell for tell in link.told if self.watchers.get(tell) is not link]
        for tell in stale:
            link.tell_no_more(tell)
        for tell in lost:
            try:
                link.tell(tell, self.watchers)
            except load_libvirt().libvirtError as error:
                LOG.warning("%s tells no news of its guests now: %s", self.uri, error)
                with self.changed:
                    if self.watchers.get(tell) is link:
                        self.watchers[tell] = None

    def _open_another(self, host_name: str, *, is_beside: bool) -> None:
        if is_beside:
            LOG.warning("Opening %s has not come back; it is tried anew beside it", self.uri)
        opening = _Opening()
        threading.Thread(target=self._open, args=(opening,), name=f"libvirt-open-{host_name}", daemon=True).start()
        self.openings.append(opening)  # its thread looks for it there when we let go of the lock

    def _open(self, opening: _Opening) -> None:
        try:
            libvirt = load_libvirt()
            connection = libvirt.open(self.uri)
            try:
                connection.setKeepAlive(KEEPALIVE_SECONDS, KEEPALIVE_COUNT)
            except libvirt.libvirtError as error:
                LOG.debug("%s has no keepalive: %s", self.uri, error)
        except BaseException as error:  # noqa: BLE001  told to those who wait
            with self.changed:
                self.openings.remove(opening)
                self.failures, self.last_failure = self.failures + 1, error
                self.changed.notify_all()
            return
        with self.changed:
            self.openings.remove(opening)
            surplus = self._have(_Link(connection))
        del surplus


def _unavailable(host: HostRef, failure: BaseException | None) -> HypervisorUnavailable:
    if isinstance(failure, ImportError):
        return HypervisorUnavailable(host=host.name, reason=MISSING)
    told = getattr(failure, "get_error_message", lambda: None)()
    return HypervisorUnavailable(host=host.name, reason=told or str(failure))


class LibvirtPool:
    """Connections by URI."""

    _shared: LibvirtPool | None = None
    _shared_lock = threading.Lock()

    def __init__(self, connect_seconds: float = CONNECT_SECONDS) -> None:
        """`connect_seconds`: how long a caller waits for a connection to be opened, or given back by another."""
        self._connect_seconds = connect_seconds
        self._slots: dict[str, _Slot] = {}
        self._lock = threading.Lock()

    @classmethod
    def shared(cls) -> LibvirtPool:
        """The process's own pool."""
        with cls._shared_lock:
            if cls._shared is None:
                cls._shared = cls()
            return cls._shared

    @contextmanager
    def connection(self, host: HostRef, operation: str) -> Iterator[Any]:
        """Lend a live virConnect of the host; errors of libvirt in the block are translated, `operation` names it in them.

        It is this thread's alone until the block ends, and so is what libvirt finds through it (domains, pools, volumes).

        Raises: HypervisorUnavailable, HypervisorError, HostDiskFull.
        """
        slot = self._slot(host.uri)
        link = self._checkout(slot, host)
        is_lost = False
        try:
            fence.check()  # it may have taken long
            yield link.raw
        except load_libvirt().libvirtError as error:
            is_lost = is_connection_lost(error)
            raise translate(error, host.name, operation) from error
        finally:
            if is_lost:
                slot.drop(link)
            else:
                slot.give_back(link)

    def watch(self, host: HostRef, tell: Tell) -> None:
        """Call `tell` with the uuid of each domain that starts, stops, pauses or goes, on one of the host's connections and, when that is
        gone, on the next that is lent.

        Raises: HypervisorUnavailable.
        """
        slot = self._slot(host.uri)
        with slot.changed:
            slot.watchers[tell] = None
        try:
            with self.connection(host, "watch guests"):
                pass  # whoever is lent one sees to it that it calls
        except HypervisorUnavailable:
            self.unwatch(host, tell)
            raise

    def unwatch(self, host: HostRef, tell: Tell) -> None:
        """Call `tell` no more."""
        slot = self._slot(host.uri)
        with slot.changed:
            slot.watchers.pop(tell, None)

    def _slot(self, uri: str) -> _Slot:
        with self._lock:
            return self._slots.setdefault(uri, _Slot(uri))

    def _checkout(self, slot: _Slot, host: HostRef) -> _Link:
        while True:
            link = slot.take(host, self._connect_seconds)
            if link.is_alive():
                slot.keep_watch(link)
                return link
            slot.drop(link)
