"""Passes hosts in the network around the address of the hint `build_near_host_ip`; its size is the hint `cidr`, /24 by default."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator

from hullwright.scheduler.columns import Columns, Mask
from hullwright.scheduler.filters import Verdict
from hullwright.scheduler.request import Request


def check(hosts: Columns, request: Request) -> Iterator[Verdict]:
    """Reject hosts whose own address is elsewhere."""
    near = request.spec.scheduler_hints.get("build_near_host_ip")
    if near:
        size = str(request.spec.scheduler_hints.get("cidr") or "/24")
        try:
            network = ipaddress.ip_network(f"{near}{size}", strict=False)
        except ValueError:
            yield hosts.none(), f"not in {near}{size}, which is no network"
            return
        yield _inside(hosts, network), f"outside {network}"


def _inside(hosts: Columns, network: ipaddress.IPv4Network | ipaddress.IPv6Network) -> Mask:
    """Addresses are all different and slow to read: those of IPv4 are kept as numbers."""
    if isinstance(network, ipaddress.IPv6Network):
        return hosts.host_ip.matching(lambda word: _is_in(word, network))
    numbers = hosts.host_ip.numbers(_number)
    mask: Mask = (numbers >= int(network.network_address)) & (numbers <= int(network.broadcast_address))
    return mask


def _number(address: str) -> int:
    """-1 for what is no address of IPv4."""
    try:
        return int(ipaddress.IPv4Address(address))
    except ValueError:
        return -1


def _is_in(address: str, network: ipaddress.IPv4Network | ipaddress.IPv6Network) -> bool:
    try:
        return ipaddress.ip_address(address) in network
    except ValueError:
        return False
