"""Passes hosts in the network around the address of the hint `build_near_host_ip`; its size is the hint `cidr`, /24 by default."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator

from hullwright.scheduler.columns import Columns
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
        yield hosts.host_ip.matching(lambda word: _is_in(word, network)), f"outside {network}"


def _is_in(address: str, network: ipaddress.IPv4Network | ipaddress.IPv6Network) -> bool:
    try:
        return ipaddress.ip_address(address) in network
    except ValueError:
        return False
