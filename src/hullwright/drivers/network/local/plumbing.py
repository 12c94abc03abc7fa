"""libvirt networks and their DHCP entries on a host. Several conductors may work on one host at once.

What somebody else made meanwhile counts as made; what is gone counts as removed. Of two DHCP entries that claim one MAC or one
address the older is stale: the record of ports says whose an address is.
Not for: deciding which networks and entries there should be (`driver`), nor how they look (`definition`).
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from hullwright.drivers.libvirt_binding import is_gone, load_libvirt, look_up
from hullwright.drivers.network.local.definition import (
    FORWARD_MODES,
    HostEntry,
    bridge_addresses,
    describe,
    name_of,
    network_name,
    network_xml,
)
from hullwright.objects import fence
from hullwright.objects.networks import Network

LOCK_SECONDS = 60.0  # less than a step may take ([conductor] step_timeouts), so that it fails with the reason
_TRIES = 10  # of an update that others get in the way of
_locks: dict[tuple[str, str], threading.Lock] = {}
_locks_guard = threading.Lock()


class Refused(Exception):
    """The host's network is not one that the port can use; the text says why."""


class Busy(Exception):
    """Others of this process have the network, and do not come back."""


@contextlib.contextmanager
def one_at_a_time(uri: str, network_id: str) -> Iterator[None]:
    """Hold a network on a host within this process: libvirt would have its callers wait anyhow, and fail when they race.

    Raises: Busy, when it has to wait for longer than calls take that come back.
    """
    with _locks_guard:
        lock = _locks.setdefault((uri, network_id), threading.Lock())
    if not lock.acquire(timeout=LOCK_SECONDS):
        raise Busy(f"other calls about network {network_id} have not come back for {LOCK_SECONDS:g} seconds; see whether libvirt hangs")
    try:
        fence.check()  # it may have taken long
        yield
    finally:
        lock.release()


def ensure_network(
    connection: Any,
    network: Network,
    domain: str,
    lease_seconds: int,
    entries: Sequence[HostEntry] = (),
    is_known: Callable[[str], bool] = lambda _: True,
) -> Any:
    """Have the libvirt network defined, active and started with the host; answers it. A new one has `entries` from its start.

    When its subnet or bridge is taken, networks of ours that nobody uses and that `is_known` (of their ids) denies make room.

    Raises: Refused, libvirtError.
    """
    try:
        return _ensure(connection, network, domain, lease_seconds, entries)
    except (load_libvirt().libvirtError, Refused):
        if not remove_forgotten(connection, is_known):
            raise
        return _ensure(connection, network, domain, lease_seconds, entries)


def _ensure(connection: Any, network: Network, domain: str, lease_seconds: int, entries: Sequence[HostEntry]) -> Any:
    found = _lookup(connection, network.id)
    if found is None:
        return _define(connection, network_xml(network, domain, entries, lease_seconds), network.id)
    if _differs(found, network):
        found = _renew(connection, found, network, domain, lease_seconds)
    if not found.isActive():
        _start(found)
    return found


def ensure_entries(found: Any, wanted: Sequence[HostEntry], lease_seconds: int) -> None:
    """Have exactly these DHCP entries for their MACs and addresses.

    A name that another guest has already is replaced by host-<address>, for libvirt wants names to be unique.

    Raises: libvirtError.
    """
    for entry in wanted:
        _repeat(lambda entry=entry: _ensure_entry(found, entry, lease_seconds))  # type: ignore[misc]


def remove_entries(connection: Any, network_id: str, macs: Sequence[str]) -> None:
    """Have no DHCP entry for these MACs; a network that is not there has none.

    Raises: libvirtError.
    """
    found = _lookup(connection, network_id)
    if found is None:
        return
    wanted = {mac.lower() for mac in macs}
    _repeat(lambda: _remove(found, lambda entry: entry.mac in wanted))


def entries(connection: Any, is_known: Callable[[str], bool]) -> dict[str, set[str]]:
    """Network id -> MACs that have a DHCP entry, of the networks of ours that `is_known` (of their ids) affirms.

    Raises: libvirtError.
    """
    libvirt = load_libvirt()
    found = {}
    for network in connection.listAllNetworks():
        network_id = network.UUIDString()
        if network.name() != name_of(network_id) or not is_known(network_id):
            continue
        try:
            found[network_id] = {entry.mac for _, held in _places(network) for entry in held}
        except libvirt.libvirtError as error:
            if not is_gone(error):
                raise
    return {network_id: macs for network_id, macs in found.items() if macs}


def remove_network(connection: Any, network_id: str) -> None:
    """Have nothing of the network on the host; guests that are still plugged into it lose their link.

    Raises: libvirtError.
    """
    found = _lookup(connection, network_id)
    if found is not None:
        _forgive(found.destroy, lambda: not found.isActive())
        _forgive(found.undefine, lambda: _lookup(connection, network_id) is None)


def remove_forgotten(connection: Any, is_known: Callable[[str], bool]) -> list[str]:
    """Remove networks of ours that nobody uses and that `is_known` (of their ids) denies; answers the ids.

    Raises: libvirtError.
    """
    removed = forgotten(connection, is_known)
    for network_id in removed:
        remove_network(connection, network_id)
    return removed


def forgotten(connection: Any, is_known: Callable[[str], bool]) -> list[str]:
    """Ids of the networks of ours that nobody uses and that `is_known` (of their ids) denies.

    Raises: libvirtError.
    """
    answer = []
    for network in connection.listAllNetworks():
        network_id = network.UUIDString()
        if network.name() == name_of(network_id) and not is_known(network_id) and not _in_use(network):
            answer.append(network_id)
    return answer


def _in_use(found: Any) -> bool:
    """True while a port has an entry in the network, or a guest is plugged into it."""
    libvirt = load_libvirt()
    try:
        if describe(found.XMLDesc(libvirt.VIR_NETWORK_XML_INACTIVE)).entries:
            return True
        return bool(found.isActive() and (describe(found.XMLDesc()).entries or found.listAllPorts()))
    except libvirt.libvirtError as error:
        if is_gone(error):
            return False
        raise


def _lookup(connection: Any, network_id: str) -> Any:
    return look_up(connection.networkLookupByUUIDString, network_id)


def _forgive(act: Callable[[], Any], done: Callable[[], bool]) -> None:
    """Act; an error is none when what was wanted is so all the same, because somebody else did it."""
    libvirt = load_libvirt()
    try:
        act()
    except libvirt.libvirtError:
        try:
            if done():
                return
        except libvirt.libvirtError as error:
            if is_gone(error):
                return
        raise


def _define(connection: Any, xml: str, network_id: str) -> Any:
    _forgive(lambda: connection.networkDefineXML(xml), lambda: _lookup(connection, network_id) is not None)
    found = connection.networkLookupByUUIDString(network_id)
    try:
        _start(found)
    except (load_libvirt().libvirtError, Refused):
        # Its bridge or subnet is taken on this host. A definition that can never start would fail again at each boot of the host.
        _forgive(found.undefine, lambda: _lookup(connection, network_id) is None)
        raise
    return found


def _start(found: Any) -> None:
    """Raises: Refused, when its bridge or subnet is taken; libvirtError."""
    try:
        _forgive(found.create, lambda: bool(found.isActive()))
    except load_libvirt().libvirtError as error:
        reason = error.get_error_message() or ""
        if "already in use" in reason:  # libvirt has no code for it
            raise Refused(reason) from None
        raise
    found.setAutostart(1)


def _differs(found: Any, network: Network) -> bool:
    is_so = describe(found.XMLDesc())
    should_be = (FORWARD_MODES[network.mode], network.mtu, frozenset(bridge_addresses(network)))
    return (is_so.mode, is_so.mtu, is_so.addresses) != should_be


def _renew(connection: Any, found: Any, network: Network, domain: str, lease_seconds: int) -> Any:
    """Give the network its changed subnets and MTU. libvirt can do that only by stopping it, so not under guests: they keep what
    they have, which is fine as long as the subnets of new ports are there.

    Raises: Refused, libvirtError.
    """
    entries = describe(found.XMLDesc(load_libvirt().VIR_NETWORK_XML_INACTIVE)).entries
    if found.isActive():
        if _in_use(found):
            if set(bridge_addresses(network)) <= describe(found.XMLDesc()).addresses:
                return found
            raise Refused(f"the subnets of {network_name(network)} have changed, and guests still use it as it was")
        _forgive(found.destroy, lambda: not found.isActive())
    xml = network_xml(network, domain, entries, lease_seconds)
    return connection.networkDefineXML(xml)


def _repeat(act: Callable[[], None]) -> None:
    """Act again when a change by somebody else came between looking and acting."""
    libvirt = load_libvirt()
    for tries_left in reversed(range(_TRIES)):
        try:
            act()
            return
        except libvirt.libvirtError as error:
            if error.get_error_code() != libvirt.VIR_ERR_OPERATION_INVALID or not tries_left:
                raise


def _places(found: Any) -> list[tuple[int, tuple[HostEntry, ...]]]:
    """The running network and its stored definition, as flags of an update, with the entries each has; one when they agree."""
    libvirt = load_libvirt()
    stored = describe(found.XMLDesc(libvirt.VIR_NETWORK_XML_INACTIVE)).entries
    if not found.isActive():
        return [(libvirt.VIR_NETWORK_UPDATE_AFFECT_CONFIG, stored)]
    live = describe(found.XMLDesc()).entries
    if set(live) == set(stored):
        return [(libvirt.VIR_NETWORK_UPDATE_AFFECT_LIVE | libvirt.VIR_NETWORK_UPDATE_AFFECT_CONFIG, live)]
    return [(libvirt.VIR_NETWORK_UPDATE_AFFECT_LIVE, live), (libvirt.VIR_NETWORK_UPDATE_AFFECT_CONFIG, stored)]


def _update(found: Any, command: int, entry: HostEntry, lease_seconds: int, flags: int) -> None:
    section = load_libvirt().VIR_NETWORK_SECTION_IP_DHCP_HOST
    found.update(command, section, -1, entry.to_xml(lease_seconds), flags)


def _ensure_entry(found: Any, wanted: HostEntry, lease_seconds: int) -> None:
    libvirt = load_libvirt()
    spare = f"host-{wanted.address.replace('.', '-')}"
    for flags, entries in _places(found):
        claims = [entry for entry in entries if entry.mac == wanted.mac or entry.address == wanted.address]
        if [(entry.mac, entry.address) for entry in claims] == [(wanted.mac, wanted.address)] and claims[0].name in (wanted.name, spare):
            continue
        for entry in claims:
            _update(found, libvirt.VIR_NETWORK_UPDATE_COMMAND_DELETE, entry, lease_seconds, flags)
        taken = {entry.name for entry in entries if entry not in claims}
        named = HostEntry(wanted.mac, wanted.address, spare if wanted.name in taken else wanted.name)
        _update(found, libvirt.VIR_NETWORK_UPDATE_COMMAND_ADD_LAST, named, lease_seconds, flags)


def _remove(found: Any, unwanted: Callable[[HostEntry], bool]) -> None:
    libvirt = load_libvirt()
    for flags, entries in _places(found):
        for entry in filter(unwanted, entries):
            _update(found, libvirt.VIR_NETWORK_UPDATE_COMMAND_DELETE, entry, 0, flags)
