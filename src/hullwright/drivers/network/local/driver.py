"""The embedded network service: ports from a store that the caller hands in; on a host a libvirt network per network, a DHCP entry
and a filter per port. On a fake host it only records.

A host's libvirt network stays when its last port goes; `remove_network` takes it away, and one whose record is gone makes room when
a new one needs its subnet. Bridge and subnet must be free on the host. Each host has the network for itself: guests on different
hosts meet only by the hosts' routing, or on a network of mode bridge, whose bridge the operator joins to something real.
Not for: addresses and MACs; the store gives them.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any

from hullwright.drivers.fake_host import FakeHost, is_fake
from hullwright.drivers.libvirt_pool import LibvirtPool
from hullwright.drivers.network.contract import NetworkDriver, PortStore
from hullwright.drivers.network.local import filters, plumbing
from hullwright.drivers.network.local.definition import bridge_name, entry_of, network_name
from hullwright.objects.errors import HostDiskFull, HypervisorError, NetworkError, NetworkNotFound, NetworkRefused
from hullwright.objects.hosts import HostRef
from hullwright.objects.networks import Network, NetworkRequest, Port, Vif


class LocalNetworkDriver(NetworkDriver):
    """Networks on libvirt hosts."""

    def __init__(self, conf: Any, ports: PortStore) -> None:
        self._conf = conf
        self._ports = ports

    def allocate(self, instance_uuid: str, project_id: str, requests: Sequence[NetworkRequest]) -> list[Port]:
        """Have the ports, addresses included.

        Raises: PortInUse, PortNotFound, NetworkNotFound, NoMoreFixedIps, FixedIpAlreadyInUse.
        """
        return self._ports.ensure_ports(instance_uuid, project_id, requests) if requests else []

    def deallocate(self, instance_uuid: str) -> None:
        """Leave no port of the instance: delete ours, free the user's."""
        self._ports.release(instance_uuid)

    def plug(self, host: HostRef, instance_uuid: str, hostname: str) -> list[Vif]:
        """Have on the host what the instance's ports need: network, DHCP entry, filter; record the binding.

        Raises: NetworkError, HypervisorUnavailable.
        """
        ports = self._ports.ports_of(instance_uuid)
        networks = {network_id: self._ports.network(network_id) for network_id in dict.fromkeys(port.network_id for port in ports)}
        if is_fake(host):
            fake = FakeHost(host, self._conf.state_path)
            with fake.call("plug", instance_uuid):
                fake.things.make("plugs", instance_uuid, {"ports": [port.id for port in ports]}, "plug")
        else:
            for network in networks.values():
                self._plug(host, network, [port for port in ports if port.network_id == network.id], hostname)
        unbound = [port.id for port in ports if port.host != host.name]
        if unbound:
            self._ports.bind(unbound, host.name)
        return [_vif(port, networks[port.network_id]) for port in ports]

    def _plug(self, host: HostRef, network: Network, ports: Sequence[Port], hostname: str) -> None:
        if network.mode == "bridge" and not network.bridge:
            raise NetworkRefused(port=ports[0].id, host=host.name, reason=f"network {network.id} names no bridge")
        names = {filters.choose(fixed.address for fixed in port.fixed_ips)[0] for port in ports} if network.port_security else set()
        lease_seconds = self._conf.network.dhcp_lease_seconds
        with (
            self._translated(host, ports[0].id),
            plumbing.one_at_a_time(host.uri, network.id),
            LibvirtPool.shared().connection(host, "plug network") as connection,
        ):
            for name in sorted(names):
                filters.ensure(connection, name)
            if network.mode == "bridge":
                return
            entries = [entry for port in ports if (entry := entry_of(network, port, hostname)) is not None]
            found = plumbing.ensure_network(connection, network, self._conf.network.dhcp_domain, lease_seconds, entries, self._is_known)
            plumbing.ensure_entries(found, entries, lease_seconds)

    def _is_known(self, network_id: str) -> bool:
        try:
            self._ports.network(network_id)
        except NetworkNotFound:
            return False
        return True

    def unplug(self, host: HostRef, instance_uuid: str) -> None:
        """Remove the DHCP entries of the instance's ports from the host and record that they are bound nowhere.

        Of an instance without ports, whose host was silent when they went: the entries of all ports whose records are gone.
        Raises: NetworkError, HypervisorUnavailable.
        """
        ports = self._ports.ports_of(instance_uuid)
        if is_fake(host):
            fake = FakeHost(host, self._conf.state_path)
            with fake.call("unplug", instance_uuid):
                fake.things.drop("plugs", instance_uuid, "unplug")
        elif not ports:
            self._drop_entries(host)  # a late cleaning: nobody knows any more which were the instance's
        else:
            for network_id in dict.fromkeys(port.network_id for port in ports):
                mine = [port for port in ports if port.network_id == network_id]
                with (
                    self._translated(host, mine[0].id),
                    plumbing.one_at_a_time(host.uri, network_id),
                    LibvirtPool.shared().connection(host, "unplug network") as connection,
                ):
                    plumbing.remove_entries(connection, network_id, [port.mac_address for port in mine])
        bound = [port.id for port in ports if port.host == host.name]
        if bound:
            self._ports.bind(bound, None)

    def remove_network(self, host: HostRef, network_id: str) -> None:
        """Leave nothing of a network on the host; gone is done. Guests that are still plugged into it lose their link.

        Raises: NetworkError, HypervisorUnavailable.
        """
        if is_fake(host):
            return
        with (
            self._translated(host, "-"),
            plumbing.one_at_a_time(host.uri, network_id),
            LibvirtPool.shared().connection(host, f"remove network {network_id}") as connection,
        ):
            plumbing.remove_network(connection, network_id)

    def sweep(self, host: HostRef) -> list[str]:
        """Remove from the host the DHCP entries of ports and then the networks whose records are gone; answers the networks' ids.

        A network that somebody still uses stays.
        Raises: NetworkError, HypervisorUnavailable.
        """
        for left in self.entries_left(host) if is_fake(host) else ():
            FakeHost(host, self._conf.state_path).things.drop("entries", left, "sweep")
        if is_fake(host):
            fake = FakeHost(host, self._conf.state_path)
            return [id for id in self.forgotten(host) if fake.things.drop("networks", id, "sweep")]
        self._drop_entries(host)
        with self._translated(host, "-"), LibvirtPool.shared().connection(host, "sweep networks") as connection:
            return plumbing.remove_forgotten(connection, self._is_known)

    def forgotten(self, host: HostRef) -> list[str]:
        """Ids of the networks that `sweep` would remove. A fake host has only those that a test put into the room `networks`.

        Raises: NetworkError, HypervisorUnavailable.
        """
        if is_fake(host):
            return [id for id in FakeHost(host, self._conf.state_path).things.all("networks") if not self._is_known(id)]
        with self._translated(host, "-"), LibvirtPool.shared().connection(host, "look for deleted networks") as connection:
            return plumbing.forgotten(connection, self._is_known)

    def entries_left(self, host: HostRef) -> list[str]:
        """DHCP entries that `sweep` would remove, as "network MAC". A fake host has only those that a test put into the room `entries`.

        Raises: NetworkError, HypervisorUnavailable.
        """
        if is_fake(host):
            told = {left: left.split()[1] for left in FakeHost(host, self._conf.state_path).things.all("entries")}
            return sorted(left for left, mac in told.items() if mac not in self._ports.known_macs(list(told.values())))
        return sorted(f"{network_id} {mac}" for network_id, macs in self._stale(host).items() for mac in macs)

    def _stale(self, host: HostRef) -> dict[str, set[str]]:
        """Network id -> MACs that have an entry on the host and are no port's. A port is on record before it is plugged, so that no
        entry is taken for one of these that is just being made.
        """
        with self._translated(host, "-"), LibvirtPool.shared().connection(host, "look for entries of deleted ports") as connection:
            found = plumbing.entries(connection, self._is_known)
        known = self._ports.known_macs([mac for macs in found.values() for mac in macs])
        return {network_id: macs - known for network_id, macs in found.items() if macs - known}

    def _drop_entries(self, host: HostRef) -> None:
        for network_id, macs in self._stale(host).items():
            with (
                self._translated(host, "-"),
                plumbing.one_at_a_time(host.uri, network_id),
                LibvirtPool.shared().connection(host, "drop entries of deleted ports") as connection,
            ):
                plumbing.remove_entries(connection, network_id, sorted(macs))

    @contextlib.contextmanager
    def _translated(self, host: HostRef, port_id: str) -> Iterator[None]:
        try:
            yield
        except (HypervisorError, HostDiskFull) as error:
            raise NetworkError(port=port_id, host=host.name, reason=error.text) from error
        except plumbing.Busy as error:
            raise NetworkError(port=port_id, host=host.name, reason=str(error)) from error
        except plumbing.Refused as error:
            raise NetworkRefused(port=port_id, host=host.name, reason=str(error)) from error

    def close(self) -> None:
        """The pool of libvirt connections is the process's; nothing else is held open."""


def _vif(port: Port, network: Network) -> Vif:
    """The port as the hypervisor needs it."""
    on_bridge = network.mode == "bridge"
    name, parameters = filters.choose(fixed.address for fixed in port.fixed_ips)
    entry = None if on_bridge else entry_of(network, port, "")
    return Vif(
        port_id=port.id,
        mac_address=port.mac_address,
        kind="bridge" if on_bridge else "network",
        source=bridge_name(network) if on_bridge else network_name(network),
        mtu=network.mtu,
        filter=name if network.port_security else None,
        filter_parameters=parameters if network.port_security else (),
        network_id=network.id,
        network_label=network.name,
        subnets=network.subnets,
        fixed_ips=port.fixed_ips,
        tag=port.tag,
        # A bridge's outside DHCP knows nothing of our addresses, and the filter lets no other one pass.
        dhcp_addresses=(entry.address,) if entry is not None else (),
    )
