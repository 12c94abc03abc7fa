"""The arithmetic of a subnet: its range, gateway and pools as a client gives them, checked. Pure."""

from __future__ import annotations

import ipaddress
import itertools
from collections.abc import Mapping, Sequence

from hullwright.api.errors import HttpError

Net = ipaddress.IPv4Network | ipaddress.IPv6Network
Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Pools = tuple[tuple[str, str], ...]


def parse_cidr(text: str, version: int) -> Net:
    """The range; bits of the host are cut off, as Neutron does.

    Raises: HttpError 400.
    """
    try:
        net = ipaddress.ip_network(text, strict=False)
    except ValueError:
        raise HttpError(400, f"Invalid input for cidr. Reason: '{text}' is not a valid IP subnet.") from None
    if net.version != version:
        raise HttpError(400, f"Invalid input for operation: cidr '{text}' is not of ip_version {version}.")
    if net.prefixlen < 8 or net.num_addresses < 4:
        raise HttpError(400, f"Invalid input for operation: a subnet has between 4 addresses and a /8; {net} has not.")
    if net.is_multicast or net.is_loopback or net.is_unspecified:
        raise HttpError(400, f"Invalid input for operation: {net} is not for hosts.")
    return net


def default_gateway(net: Net) -> str:
    """The first address."""
    return str(net.network_address + 1)


def parse_gateway(net: Net, text: str | None) -> str | None:
    """The gateway's address; None for none.

    Raises: HttpError 400.
    """
    if text is None:
        return None
    address = _address(text, "gateway_ip")
    if not _for_hosts(net, address):
        raise HttpError(400, f"Gateway {text} is not valid on subnet {net}.")
    return str(address)


def parse_nameservers(texts: Sequence[str]) -> tuple[str, ...]:
    """Addresses of name servers, wherever they are.

    Raises: HttpError 400.
    """
    return tuple(str(_address(text, "dns_nameservers")) for text in texts)


def parse_pools(net: Net, gateway: str | None, given: Sequence[Mapping[str, str]] | None) -> Pools:
    """The ranges that ports get addresses from; None means all but the gateway.

    Raises: HttpError 400, or 409 when the gateway lies in one.
    """
    if given is None:
        return _default_pools(net, gateway)
    pools: list[tuple[Address, Address]] = []
    for pool in given:
        first, last = _address(pool["start"], "allocation_pools"), _address(pool["end"], "allocation_pools")
        if not (_for_hosts(net, first) and _for_hosts(net, last)):
            raise HttpError(400, f"The allocation pool {first}-{last} spans beyond the subnet cidr {net}.")
        if int(first) > int(last):
            raise HttpError(400, f"The allocation pool {first}-{last} is not valid.")
        if gateway is not None and int(first) <= int(ipaddress.ip_address(gateway)) <= int(last):
            raise HttpError(409, f"Gateway ip {gateway} conflicts with allocation pool {first}-{last}.")
        pools.append((first, last))
    pools.sort(key=lambda pool: int(pool[0]))
    for (_, end), (start, _) in itertools.pairwise(pools):
        if int(start) <= int(end):
            raise HttpError(409, f"Found overlapping allocation pools for subnet {net}.")
    return tuple((str(first), str(last)) for first, last in pools)


def _default_pools(net: Net, gateway: str | None) -> Pools:
    first, last = int(net.network_address) + 1, int(net.broadcast_address) - (1 if net.version == 4 else 0)
    spans = [(first, last)]
    if gateway is not None:
        taken = int(ipaddress.ip_address(gateway))
        spans = [(first, min(taken - 1, last)), (max(taken + 1, first), last)]
    base = net.network_address
    return tuple((str(base + (low - int(base))), str(base + (high - int(base)))) for low, high in spans if low <= high)


def _for_hosts(net: Net, address: Address) -> bool:
    if address.version != net.version or address not in net or address == net.network_address:
        return False
    return net.version == 6 or address != net.broadcast_address


def _address(text: str, name: str) -> Address:
    try:
        if "%" in text:  # a zone (RFC 4007) means something on one machine only
            raise ValueError(text)
        return ipaddress.ip_address(text)
    except ValueError:
        raise HttpError(400, f"Invalid input for {name}. Reason: '{text}' is not a valid IP address.") from None
