"""libvirt connections: one per URI and process, shared by all threads, opened when needed and again when lost; and the one
place where libvirt's errors become ours.

Not a driver: the virt, network and volume drivers for libvirt all come here. Not for processes that fork after the first use.

    with LibvirtPool.shared().connection(host, "define network") as connection:
        connection.networkDefineXML(xml)

An error of libvirt that leaves the block arrives as HypervisorUnavailable, HostDiskFull or HypervisorError.
"""

from __future__ import annotations

import errno
import importlib
import logging
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeout
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

from hullwright.objects import fence
from hullwright.objects.errors import HostDiskFull, HullwrightError, HypervisorError, HypervisorUnavailable
from hullwright.objects.hosts import HostRef

LOG = logging.getLogger(__name__)

CONNECT_SECONDS = 20.0
IDLE_SECONDS = 1.0  # a connection unused for longer is asked for a sign of life before it is handed out
# A host that answers nothing for KEEPALIVE_SECONDS * KEEPALIVE_COUNT is given up, and calls that wait for it fail.
KEEPALIVE_SECONDS = 5
KEEPALIVE_COUNT = 5

MISSING = "the libvirt binding for Python is missing; install it with: pip install 'hullwright[libvirt]'"


_loading = threading.Lock()
_loaded: list[Any] = []


def load_libvirt() -> Any:
    """The `libvirt` module, quiet and with its event loop running.

    Raises: ImportError.
    """
    with _loading:
        if not _loaded:
            _loaded.append(_load())
        return _loaded[0]


def _load() -> Any:
    libvirt = importlib.import_module("libvirt")
    # Without this, libvirt also prints every error on stderr.
    libvirt.registerErrorHandler(lambda _context, _error: None, None)
    # Keepalive, and noticing that a connection closed, need a loop that was registered before the first connection.
    libvirt.virEventRegisterDefaultImpl()
    threading.Thread(target=_run_events, args=(libvirt,), name="libvirt-events", daemon=True).start()
    return libvirt


def _run_events(libvirt: Any) -> None:
    # The loop blocks in poll while no timer is due, so this one keeps it from ever being without any.
    libvirt.virEventAddTimeout(60_000, lambda _timer, _opaque: None, None)
    while True:
        try:
            libvirt.virEventRunDefaultImpl()
        except libvirt.libvirtError as error:
            LOG.warning("libvirt's event loop: %s", error)
            time.sleep(1.0)


# --- Errors ---------------------------------------------------------------------------------------------------------


def is_gone(error: Any) -> bool:
    """Tell whether a libvirtError says that the object looked up is not there."""
    libvirt = load_libvirt()
    return error.get_error_code() in (
        libvirt.VIR_ERR_NO_DOMAIN,
        libvirt.VIR_ERR_NO_NETWORK,
        libvirt.VIR_ERR_NO_STORAGE_POOL,
        libvirt.VIR_ERR_NO_STORAGE_VOL,
        libvirt.VIR_ERR_NO_NWFILTER,
        libvirt.VIR_ERR_NO_SECRET,
        libvirt.VIR_ERR_NO_DOMAIN_METADATA,
    )


def is_disk_full(error: Any) -> bool:
    """Tell whether a libvirtError comes from a full disk; tools that libvirt runs tell it in text only."""
    full = (errno.ENOSPC, errno.EDQUOT)
    libvirt = load_libvirt()
    if error.get_error_code() == libvirt.VIR_ERR_SYSTEM_ERROR and error.get_int1() in full:
        return True
    message = error.get_error_message() or ""
    return "No space left on device" in message or "Disk quota exceeded" in message


def is_connection_lost(error: Any) -> bool:
    """Tell whether a libvirtError comes from the way to the host, not from the host's answer."""
    libvirt = load_libvirt()
    if error.get_error_code() in (libvirt.VIR_ERR_NO_CONNECT, libvirt.VIR_ERR_AUTH_FAILED, libvirt.VIR_ERR_GNUTLS_ERROR):
        return True
    # Errors of the far side keep their own domain; those of these two were made on the way.
    return error.get_error_domain() in (libvirt.VIR_FROM_RPC, libvirt.VIR_FROM_REMOTE) and error.get_error_code() in (
        libvirt.VIR_ERR_SYSTEM_ERROR,
        libvirt.VIR_ERR_INTERNAL_ERROR,
        libvirt.VIR_ERR_INVALID_CONN,
        libvirt.VIR_ERR_RPC,
        libvirt.VIR_ERR_OPERATION_FAILED,
        libvirt.VIR_ERR_OPERATION_TIMEOUT,
    )


def translate(error: Any, host_name: str, operation: str) -> HullwrightError:
    """Our error for a libvirtError: HypervisorUnavailable, HostDiskFull or HypervisorError."""
    reason = error.get_error_message() or str(error)
    if is_connection_lost(error):
        return HypervisorUnavailable(host=host_name, reason=reason)
    if is_disk_full(error):
        return HostDiskFull(host=host_name, reason=reason)
    return HypervisorError(operation=operation, host=host_name, reason=reason)


# --- Connections ----------------------------------------------------------------------------------------------------


@dataclass(slots=True)
class _Slot:
    """What the pool knows of one URI."""

    uri: str
    lock: threading.Lock = field(default_factory=threading.Lock)
    connection: Any = None
    used_at: float = 0.0  # time.monotonic()
    opening: Future[Any] | None = None
    watchers: list[Callable[[str], None]] = field(default_factory=list)
    callbacks: list[int] = field(default_factory=list)  # ids of the watchers on the present connection

    def watch(self, connection: Any) -> None:
        """Have the watchers called by a connection that was just opened."""
        libvirt = load_libvirt()
        for tell in self.watchers:
            try:
                known = connection.domainEventRegisterAny(None, libvirt.VIR_DOMAIN_EVENT_ID_LIFECYCLE, _on_lifecycle, tell)
            except libvirt.libvirtError as error:
                LOG.warning("%s tells no news of its guests: %s", self.uri, error)
            else:
                self.callbacks.append(known)

    def unwatch(self, connection: Any) -> None:
        """Let go of a connection, which lives for as long as anybody is to be called by it."""
        for known in self.callbacks:
            with suppress(load_libvirt().libvirtError):
                connection.domainEventDeregisterAny(known)
        self.callbacks.clear()


def _on_lifecycle(_connection: Any, domain: Any, _event: int, _detail: int, tell: Callable[[str], None]) -> None:
    """In the thread of libvirt's events, which must not wait for anything."""
    tell(domain.UUIDString())


class LibvirtPool:
    """Connections by URI."""

    _shared: LibvirtPool | None = None
    _shared_lock = threading.Lock()

    def __init__(self, connect_seconds: float = CONNECT_SECONDS) -> None:
        """`connect_seconds`: how long a caller waits for a connection."""
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
        """Lend the host's live virConnect; errors of libvirt in the block are translated, `operation` names it in them.

        Raises: HypervisorUnavailable, HypervisorError, HostDiskFull.
        """
        slot = self._slot(host.uri)
        connection = self._checkout(slot, host)
        fence.check()  # it may have taken long
        libvirt = load_libvirt()
        try:
            yield connection
        except libvirt.libvirtError as error:
            if is_connection_lost(error):
                self._discard(slot, connection)
            raise translate(error, host.name, operation) from error
        finally:
            slot.used_at = time.monotonic()

    def watch(self, host: HostRef, tell: Callable[[str], None]) -> None:
        """Call `tell` with the uuid of each domain that starts, stops, pauses or goes, on this connection and those that follow it.

        Raises: HypervisorUnavailable.
        """
        slot = self._slot(host.uri)
        connection = self._checkout(slot, host)
        with slot.lock:
            slot.unwatch(connection)
            slot.watchers.append(tell)
            if slot.connection is not None:
                slot.watch(slot.connection)

    def unwatch(self, host: HostRef, tell: Callable[[str], None]) -> None:
        """Call `tell` no more."""
        slot = self._slot(host.uri)
        with slot.lock:
            slot.watchers = [other for other in slot.watchers if other is not tell]
            if slot.connection is not None:
                slot.unwatch(slot.connection)
                slot.watch(slot.connection)

    def close(self) -> None:
        """Drop all connections; those in use close when their users are done. The pool can be used again."""
        with self._lock:
            slots, self._slots = list(self._slots.values()), {}
        for slot in slots:
            with slot.lock:
                if slot.connection is not None:
                    slot.unwatch(slot.connection)
                slot.connection = None

    def _slot(self, uri: str) -> _Slot:
        with self._lock:
            return self._slots.setdefault(uri, _Slot(uri))

    def _checkout(self, slot: _Slot, host: HostRef) -> Any:
        connection = slot.connection
        if connection is not None:
            if self._alive(slot, connection):
                return connection
            self._discard(slot, connection)
        return self._open(slot, host)

    @staticmethod
    def _alive(slot: _Slot, connection: Any) -> bool:
        try:
            if connection.isAlive() != 1:
                return False
            if time.monotonic() - slot.used_at > IDLE_SECONDS:
                connection.getLibVersion()
        except load_libvirt().libvirtError:
            return False
        return True

    @staticmethod
    def _discard(slot: _Slot, connection: Any) -> None:
        """Forget a broken connection; other threads may still hold it, so it is left to close by itself."""
        with slot.lock:
            if slot.connection is connection:
                slot.unwatch(connection)
                slot.connection = None

    def _open(self, slot: _Slot, host: HostRef) -> Any:
        """Open once for all that wait. Opening cannot be interrupted, so it has a thread that may outlive our patience."""
        with slot.lock:
            if slot.connection is not None:
                return slot.connection
            if slot.opening is None or slot.opening.done():
                slot.opening = Future()
                threading.Thread(target=_open_into, args=(slot, slot.opening), name=f"libvirt-open-{host.name}", daemon=True).start()
            opening = slot.opening
        try:
            return opening.result(self._connect_seconds)
        except FutureTimeout:
            reason = f"no answer in {self._connect_seconds:g} seconds"
            raise HypervisorUnavailable(host=host.name, reason=reason) from None
        except ImportError:
            raise HypervisorUnavailable(host=host.name, reason=MISSING) from None
        except load_libvirt().libvirtError as error:
            raise HypervisorUnavailable(host=host.name, reason=error.get_error_message() or str(error)) from error


def _open_into(slot: _Slot, opening: Future[Any]) -> None:
    try:
        libvirt = load_libvirt()
        connection = libvirt.open(slot.uri)
        try:
            connection.setKeepAlive(KEEPALIVE_SECONDS, KEEPALIVE_COUNT)
        except libvirt.libvirtError as error:
            LOG.debug("%s has no keepalive: %s", slot.uri, error)
    except BaseException as error:  # noqa: BLE001  handed to those who wait
        opening.set_exception(error)
        return
    with slot.lock:
        slot.connection = connection
        slot.watch(connection)
        slot.used_at = time.monotonic()
    opening.set_result(connection)
