"""The libvirt module, loaded when it is first needed, and the one place where its errors become ours.

Not for: connections; see libvirt_pool.py.
"""

from __future__ import annotations

import errno
import importlib
import logging
import threading
import time
from collections.abc import Callable
from typing import Any

from hullwright.objects.errors import HostDiskFull, HullwrightError, HypervisorError, HypervisorUnavailable

LOG = logging.getLogger(__name__)

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


def look_up(lookup: Callable[[str], Any], key: str) -> Any | None:
    """What a libvirt look-up finds, or None when it is not there."""
    try:
        return lookup(key)
    except load_libvirt().libvirtError as error:
        if is_gone(error):
            return None
        raise


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
