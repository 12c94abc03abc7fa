"""Domains on a host: finding them, their power, and making them go away.

Not for: what a domain is made of; that is domain_xml.py. Errors of libvirt pass; the driver's edge translates them.
Each function looks before it acts and looks again when libvirt says that the state was another: somebody else, or the guest itself,
may have acted in between. Just before it acts it asks its fence: what it waits for takes a minute, and the guest may be another's by then.
"""

from __future__ import annotations

import time
from typing import Any

from hullwright.drivers.libvirt_binding import is_gone, load_libvirt, look_up
from hullwright.drivers.virt.libvirt.domain_xml import METADATA_URI
from hullwright.objects import fence
from hullwright.objects.guests import GuestInfo
from hullwright.objects.states import PowerState

# virDomainState; "being shut down" (4) still runs, "blocked" (2) is an old word for running.
_POWER = {
    0: PowerState.NOSTATE,
    1: PowerState.RUNNING,
    2: PowerState.RUNNING,
    3: PowerState.PAUSED,
    4: PowerState.RUNNING,
    5: PowerState.SHUTDOWN,
    6: PowerState.CRASHED,
    7: PowerState.SUSPENDED,
}
_OFF = (PowerState.SHUTDOWN, PowerState.CRASHED, PowerState.NOSTATE)
_TRIES = 5
_ASK_AGAIN_SECONDS = 10.0  # a guest that is still booting does not hear the power button


def find(connection: Any, uuid: str) -> Any | None:
    """The domain, or None."""
    return look_up(connection.lookupByUUIDString, uuid)


def find_named(connection: Any, name: str) -> Any | None:
    """The domain of that name, or None."""
    return look_up(connection.lookupByName, name)


def is_ours(domain: Any) -> bool:
    """Tell whether a domain carries our metadata."""
    libvirt = load_libvirt()
    try:
        domain.metadata(libvirt.VIR_DOMAIN_METADATA_ELEMENT, METADATA_URI, 0)
    except libvirt.libvirtError as error:
        if is_gone(error):
            return False
        raise
    return True


def is_refusal(error: Any) -> bool:
    """Tell whether a libvirtError says that a guest as it is described cannot be made, whatever state the host is in."""
    libvirt = load_libvirt()
    refusals = (
        libvirt.VIR_ERR_XML_ERROR,
        libvirt.VIR_ERR_XML_DETAIL,
        libvirt.VIR_ERR_XML_INVALID_SCHEMA,
        libvirt.VIR_ERR_CONFIG_UNSUPPORTED,
    )
    if error.get_error_code() in refusals:
        return True
    # Models of cards are QEMU's to know, and its word comes as an internal error; a firmware that is not there is a failed operation.
    message = error.get_error_message() or ""
    return "is not a valid device model name" in message or ("Unable to find" in message and "firmware" in message)


def is_bad_kernel(error: Any) -> bool:
    """Tell whether a libvirtError has QEMU's word that a guest's own kernel or ramdisk is none, by what is in it."""
    message = error.get_error_message() or ""
    return any(words in message for words in ("invalid kernel header", "too old to load a ram disk", "initrd is too large"))


def power_state(domain: Any) -> PowerState:
    """The domain's power state."""
    return _POWER.get(domain.state(0)[0], PowerState.NOSTATE)


def list_all(connection: Any) -> list[GuestInfo]:
    """All domains; one that vanishes meanwhile is left out."""
    libvirt = load_libvirt()
    found = []
    for domain in connection.listAllDomains(0):
        try:
            found.append(GuestInfo(domain.UUIDString(), domain.name(), power_state(domain), is_ours(domain)))
        except libvirt.libvirtError as error:
            if not is_gone(error):
                raise
    return found


def start(domain: Any) -> None:
    """Have the domain running: a new process starts paused and is then let go, so that dying in between leaves nothing odd."""
    libvirt = load_libvirt()
    for attempt in range(_TRIES):
        state = power_state(domain)
        if state is PowerState.RUNNING:
            return
        fence.check()
        try:
            if state is PowerState.PAUSED:
                domain.resume()
            elif state is PowerState.SUSPENDED:
                domain.pMWakeup(0)
            else:
                domain.createWithFlags(libvirt.VIR_DOMAIN_START_PAUSED)
        except libvirt.libvirtError as error:
            if error.get_error_code() != libvirt.VIR_ERR_OPERATION_INVALID or attempt == _TRIES - 1:
                raise
            time.sleep(0.1)
    if power_state(domain) is not PowerState.RUNNING:
        # Asked again, libvirt tells by itself why it does not run.
        fence.check()
        domain.resume()


def stop(domain: Any) -> None:
    """Pull the plug; off is done."""
    libvirt = load_libvirt()
    for attempt in range(_TRIES):
        fence.check()
        try:
            if not domain.isActive():
                return
            domain.destroyFlags(0)
        except libvirt.libvirtError as error:
            if is_gone(error) or error.get_error_code() == libvirt.VIR_ERR_OPERATION_INVALID:
                return
            # The process is stuck in the kernel, waiting for a disk: libvirt gives up before it does.
            if error.get_error_code() != libvirt.VIR_ERR_SYSTEM_ERROR or attempt == _TRIES - 1:
                raise
            time.sleep(0.5)


def shut_down(domain: Any, timeout_seconds: float) -> bool:
    """Press the power button and wait; tells whether the guest went off."""
    libvirt = load_libvirt()
    until = time.monotonic() + timeout_seconds
    asked_at = 0.0
    pause = 0.1
    while time.monotonic() < until:
        fence.check()
        state = power_state(domain)
        if state in _OFF:
            return True
        if state is PowerState.PAUSED:
            return False  # it cannot hear
        if not asked_at or time.monotonic() - asked_at > _ASK_AGAIN_SECONDS:
            try:
                domain.shutdownFlags(libvirt.VIR_DOMAIN_SHUTDOWN_ACPI_POWER_BTN)
            except libvirt.libvirtError as error:
                if error.get_error_code() != libvirt.VIR_ERR_OPERATION_INVALID:
                    raise
            asked_at = time.monotonic()
        time.sleep(min(pause, max(0.0, until - time.monotonic())))
        pause = min(pause * 1.5, 1.0)
    return power_state(domain) in _OFF


def remove(domain: Any) -> None:
    """Have the domain off and its definition gone, with all that libvirt keeps beside it."""
    libvirt = load_libvirt()
    stop(domain)
    flags = (
        libvirt.VIR_DOMAIN_UNDEFINE_MANAGED_SAVE
        | libvirt.VIR_DOMAIN_UNDEFINE_NVRAM
        | libvirt.VIR_DOMAIN_UNDEFINE_SNAPSHOTS_METADATA
        | libvirt.VIR_DOMAIN_UNDEFINE_CHECKPOINTS_METADATA
    )
    fence.check()
    try:
        domain.undefineFlags(flags)
    except libvirt.libvirtError as error:
        # A domain without a definition is gone as soon as it is off.
        if not is_gone(error) and error.get_error_code() != libvirt.VIR_ERR_OPERATION_INVALID:
            raise
