"""What Hullwright asks of a network service: ports with addresses, and a host prepared for them.

A port's id is chosen by the caller, so that a call that runs twice finds the port it made.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Protocol

from hullwright.objects.hosts import HostRef
from hullwright.objects.networks import Network, NetworkRequest, Port, Vif


class PortStore(Protocol):
    """The record of networks and ports that the embedded network service keeps. The caller hands one to the local driver."""

    def network(self, network_id: str) -> Network:
        """Raises: NetworkNotFound."""
        ...

    def ensure_ports(self, instance_uuid: str, project_id: str, requests: Sequence[NetworkRequest]) -> list[Port]:
        """Have each requested port with MAC and addresses, in one transaction.

        Raises: PortInUse, PortNotFound, NetworkNotFound, NoMoreFixedIps, FixedIpAlreadyInUse.
        """
        ...

    def ports_of(self, instance_uuid: str) -> list[Port]:
        """The ports of an instance, in the order of the request."""
        ...

    def bind(self, port_ids: Sequence[str], host: str | None) -> None:
        """Record where ports are plugged."""
        ...

    def known_macs(self, macs: Sequence[str]) -> set[str]:
        """Those of the MACs that are some port's."""
        ...

    def release(self, instance_uuid: str) -> None:
        """Delete the ports that builds made for the instance; unbind and free those that users made."""
        ...


class NetworkDriver(ABC):
    """A network service."""

    @abstractmethod
    def allocate(self, instance_uuid: str, project_id: str, requests: Sequence[NetworkRequest]) -> list[Port]:
        """Have the ports, addresses included. Survives a reschedule: the address stays.

        Raises: PortInUse, PortNotFound, NetworkNotFound, NoMoreFixedIps, FixedIpAlreadyInUse.
        """

    @abstractmethod
    def deallocate(self, instance_uuid: str) -> None:
        """Leave no port of the instance: delete ours, free the user's. Gone is done."""

    @abstractmethod
    def plug(self, host: HostRef, instance_uuid: str, hostname: str) -> list[Vif]:
        """Prepare the host for the instance's ports (network, DHCP entry, filter) and record the binding.

        Raises: NetworkError, HypervisorUnavailable.
        """

    @abstractmethod
    def unplug(self, host: HostRef, instance_uuid: str) -> None:
        """Undo `plug`; a host that never had it is fine. Also when the instance's ports are gone already.

        Raises: NetworkError, HypervisorUnavailable.
        """

    @abstractmethod
    def remove_network(self, host: HostRef, network_id: str) -> None:
        """Leave nothing of a network on the host, after its last port went; gone is done.

        Raises: NetworkError, HypervisorUnavailable.
        """

    @abstractmethod
    def sweep(self, host: HostRef) -> list[str]:
        """Remove from the host what is left of ports, and networks that nobody uses, whose records are gone; answers the networks' ids.

        Raises: NetworkError, HypervisorUnavailable.
        """

    def entries_left(self, host: HostRef) -> list[str]:
        """What `sweep` would remove from the host of ports whose records are gone, as "network MAC".

        Raises: NetworkError, HypervisorUnavailable.
        """
        return []

    def forgotten(self, host: HostRef) -> list[str]:
        """Ids of the networks that `sweep` would remove from the host.

        Raises: NetworkError, HypervisorUnavailable.
        """
        return []

    @abstractmethod
    def close(self) -> None:
        """Give connections back."""
