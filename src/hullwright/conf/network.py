"""[network]: the network service."""

from __future__ import annotations

from oslo_config import cfg

GROUP = "network"
OPTS = [
    cfg.StrOpt("driver", default="local", help="Network service. local: the embedded one, on libvirt networks of each host."),
    cfg.StrOpt("dhcp_domain", default="novalocal", help="Domain that the local driver's DHCP gives to guests."),
    cfg.IntOpt(
        "dhcp_lease_seconds",
        default=120,
        min=120,
        help="Length of a DHCP lease. dnsmasq keeps the address of a deleted guest from its next owner until the lease has run out.",
    ),
]
