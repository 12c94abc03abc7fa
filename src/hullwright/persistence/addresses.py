"""Fixed addresses: which one a port gets. The unique index decides; a hint per subnet finds a free one at once.

Not for: ports themselves; see `ports`. Callers hold a write transaction and have locked the subnets with `lock_subnets`.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator, Sequence
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from hullwright.objects.errors import FixedIpAlreadyInUse, InvalidIpForNetwork, NoMoreFixedIps, SubnetNotFound
from hullwright.objects.networks import FixedIp
from hullwright.persistence.inserts import insert_if_absent
from hullwright.persistence.models.networks import addresses, subnets

Address = ipaddress.IPv4Address | ipaddress.IPv6Address

# Every build runs these, so they are built once.
_LOCK = (
    sa.select(subnets).where(subnets.c.network_id.in_(sa.bindparam("networks", expanding=True))).order_by(subnets.c.id).with_for_update()
)
_MOVE_HINT = subnets.update().where(subnets.c.id == sa.bindparam("subnet")).values(next_address=sa.bindparam("hint"))

_TRIES = 3  # addresses tried one by one before those in use are read


def holder(conn: Connection, address: str, *, subnet_id: str | None = None, network_id: str | None = None) -> str | None:
    """The port that has the address in that subnet, or anywhere in that network."""
    there = addresses.c.subnet_id == subnet_id if subnet_id is not None else addresses.c.network_id == network_id
    return conn.scalar(sa.select(addresses.c.port_id).where(there, addresses.c.address == address))


class SubnetPool:
    """A subnet while addresses are taken from it: its row, its ranges as numbers, and where to look next."""

    def __init__(self, row: sa.RowMapping) -> None:
        """Take the subnet's row."""
        self.id: str = row["id"]
        self.network_id: str = row["network_id"]
        self.version: int = row["ip_version"]
        self.net = ipaddress.ip_network(row["cidr"])
        self.gateway: str | None = row["gateway_ip"]
        self.ranges = sorted((int(ipaddress.ip_address(first)), int(ipaddress.ip_address(last))) for first, last in row["allocation_pools"])
        self.hint = int(ipaddress.ip_address(row["next_address"])) if row["next_address"] else 0

    def text(self, number: int) -> str:
        """The address as it is stored and shown."""
        return str(ipaddress.IPv4Address(number) if self.version == 4 else ipaddress.IPv6Address(number))

    def candidates(self) -> Iterator[int]:
        """Every address of the ranges once, from the hint on, around the end."""
        for first, last in self.ranges:
            yield from range(max(first, self.hint), last + 1)
        for first, last in self.ranges:
            yield from range(first, min(last, self.hint - 1) + 1)

    def usable(self, address: Address) -> bool:
        """True for an address that a guest may have: within the subnet, neither its network, broadcast nor gateway address."""
        if address not in self.net or str(address) == self.gateway:
            return False
        small = self.net.prefixlen >= self.net.max_prefixlen - 1
        return small or address not in (self.net.network_address, self.net.broadcast_address)


def lock_subnets(conn: Connection, network_ids: Sequence[str]) -> dict[str, list[SubnetPool]]:
    """The subnets of networks, locked until the transaction ends: network id -> pools, oldest first.

    In the order of their ids, so that two transactions never wait for each other.
    """
    rows = conn.execute(_LOCK, {"networks": list(network_ids)}).mappings()
    pools: dict[str, list[tuple[float, SubnetPool]]] = {}
    for row in rows:
        pools.setdefault(row["network_id"], []).append((row["created_at"], SubnetPool(row)))
    return {network: [pool for _, pool in sorted(found, key=lambda f: f[0])] for network, found in pools.items()}


def take_default(conn: Connection, network_id: str, port_id: str, pools: Sequence[SubnetPool]) -> list[FixedIp]:
    """Give the port one address of each IP version that the network has; a network without subnets gives none.

    Raises: NoMoreFixedIps.
    """
    taken = []
    for version in (4, 6):
        of_version = [pool for pool in pools if pool.version == version]
        if of_version:
            taken.append(_take_any(conn, network_id, port_id, of_version))
    return taken


def take_from(conn: Connection, network_id: str, port_id: str, pools: Sequence[SubnetPool], subnet_id: str) -> FixedIp:
    """Give the port any address of one subnet.

    Raises: SubnetNotFound, NoMoreFixedIps.
    """
    chosen = [pool for pool in pools if pool.id == subnet_id]
    if not chosen:
        raise SubnetNotFound(id=subnet_id)
    return _take_any(conn, network_id, port_id, chosen)


def take_exactly(
    conn: Connection, network_id: str, port_id: str, pools: Sequence[SubnetPool], address: str, subnet_id: str | None = None
) -> FixedIp:
    """Give the port the address asked for. It need not lie in an allocation pool.

    Raises: InvalidIpForNetwork, FixedIpAlreadyInUse.
    """
    try:
        wanted = ipaddress.ip_address(address)
    except ValueError:
        raise InvalidIpForNetwork(address=address, network=network_id) from None
    if "%" in address:  # a zone (RFC 4007) means something on one machine only
        raise InvalidIpForNetwork(address=address, network=network_id)
    for pool in pools:
        if pool.usable(wanted) and subnet_id in (None, pool.id):
            if not _insert(conn, pool, port_id, str(wanted)):
                raise FixedIpAlreadyInUse(address=str(wanted), network=network_id)
            return FixedIp(pool.id, str(wanted))
    raise InvalidIpForNetwork(address=address, network=network_id)


def _take_any(conn: Connection, network_id: str, port_id: str, pools: Sequence[SubnetPool]) -> FixedIp:
    for pool in pools:
        number = _take_next(conn, pool, port_id)
        if number is not None:
            # The hint moves past it: an address that was just freed rests until the search has come around.
            pool.hint = number + 1
            last = (1 << pool.net.max_prefixlen) - 1
            conn.execute(_MOVE_HINT, {"subnet": pool.id, "hint": pool.text(min(pool.hint, last))})
            return FixedIp(pool.id, pool.text(number))
    raise NoMoreFixedIps(network=network_id)


def _take_next(conn: Connection, pool: SubnetPool, port_id: str) -> int | None:
    """Try the next few; if they are taken, read what is in use once and skip it, however much it is."""
    used: set[str] | None = None
    for count, number in enumerate(pool.candidates()):
        text = pool.text(number)
        if not pool.usable(ipaddress.ip_address(text)):
            continue
        if used is None and count >= _TRIES:
            used = set(conn.scalars(sa.select(addresses.c.address).where(addresses.c.subnet_id == pool.id)))
        if used is not None and text in used:
            continue
        if _insert(conn, pool, port_id, text):
            return number
    return None


def _insert(conn: Connection, pool: SubnetPool, port_id: str, address: str) -> bool:
    values: dict[str, Any] = {
        "subnet_id": pool.id,
        "address": address,
        "network_id": pool.network_id,
        "port_id": port_id,
    }
    return insert_if_absent(conn, addresses, values)
