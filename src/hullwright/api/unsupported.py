"""What Nova, Neutron, Cinder and Glance do and Hullwright does not: asked for, it is refused by name instead of "not found".

The status is 501, as Nova's where a hypervisor lacks something; clients tell the text and do not try again. What Nova itself has removed is
410, as there.
Not for: what none of them knows; that stays 404, 405, or "There is no such action".
"""

from __future__ import annotations

import re
from typing import NamedTuple

_CONSOLES = "give access to consoles; `openstack console log show` tells what the guest wrote"
_ATTACH_VOLUMES = "attach, detach or swap volumes of a server that is there; name them when you create it"
_ATTACH_PORTS = "add or remove network cards of a server that is there; name ports and networks when you create it"
_GROUPS = "have security groups other than default, which lets everything pass"
_FLOATING = "have floating IPs or routers; a network of the mode nat or route reaches out by its host, a bridged one is outside"
_RESIZE = "resize servers; create another with the flavor that you want"
_MIGRATE = "move servers between hosts"
_SNAPSHOT = "make images, snapshots or backups of servers or volumes"
_SHELVE = "shelve servers; stop them, or delete them and keep their volumes"
_PAUSE = "pause or suspend servers; stop them"
_USAGE = "count usage over time; `openstack limits show --absolute` tells what is used now"
_QUOTAS = "have quotas that can be changed; [api] in the configuration limits single requests"
_METADEFS = "keep definitions of metadata"

ACTIONS = {
    "addFixedIp": _ATTACH_PORTS,
    "addFloatingIp": _FLOATING,
    "addSecurityGroup": _GROUPS,
    "changePassword": "set passwords in guests",
    "confirmResize": _RESIZE,
    "createBackup": _SNAPSHOT,
    "createImage": _SNAPSHOT,
    "evacuate": _MIGRATE,
    "injectNetworkInfo": "inject network information into guests; use DHCP or a config drive",
    "migrate": _MIGRATE,
    "os-getRDPConsole": _CONSOLES,
    "os-getSPICEConsole": _CONSOLES,
    "os-getSerialConsole": _CONSOLES,
    "os-getVNCConsole": _CONSOLES,
    "os-migrateLive": _MIGRATE,
    "pause": _PAUSE,
    "rebuild": "rebuild servers; delete the server and create it anew",
    "removeFixedIp": _ATTACH_PORTS,
    "removeFloatingIp": _FLOATING,
    "removeSecurityGroup": _GROUPS,
    "rescue": "rescue servers",
    "resetNetwork": "reset the network of guests",
    "resize": _RESIZE,
    "restore": "restore deleted servers: what is deleted is gone",
    "resume": _PAUSE,
    "revertResize": _RESIZE,
    "shelve": _SHELVE,
    "shelveOffload": _SHELVE,
    "suspend": _PAUSE,
    "trigger_crash_dump": "trigger crash dumps in guests",
    "unpause": _PAUSE,
    "unrescue": "rescue servers",
    "unshelve": _SHELVE,
}

VOLUME_ACTIONS = {
    "os-attach": _ATTACH_VOLUMES,
    "os-begin_detaching": _ATTACH_VOLUMES,
    "os-complete": _ATTACH_VOLUMES,
    "os-detach": _ATTACH_VOLUMES,
    "os-extend": "extend volumes",
    "os-force_delete": "delete volumes by force",
    "os-force_detach": _ATTACH_VOLUMES,
    "os-initialize_connection": _ATTACH_VOLUMES,
    "os-migrate_volume": "move volumes between hosts",
    "os-migrate_volume_completion": "move volumes between hosts",
    "os-reimage": "write an image over a volume",
    "os-reserve": _ATTACH_VOLUMES,
    "os-reset_status": "set the status of volumes by hand; `hullwright doctor` mends records",
    "os-retype": "retype volumes: there is one type",
    "os-roll_detaching": _ATTACH_VOLUMES,
    "os-set_image_metadata": "change the image metadata of volumes",
    "os-show_image_metadata": "change the image metadata of volumes",
    "os-terminate_connection": _ATTACH_VOLUMES,
    "os-unmanage": "manage or unmanage volumes that others made",
    "os-unreserve": _ATTACH_VOLUMES,
    "os-unset_image_metadata": "change the image metadata of volumes",
    "os-update_readonly_flag": "make volumes read-only",
    "os-volume_upload_image": _SNAPSHOT,
    "revert": _SNAPSHOT,
}

# (path below the service, `*` for one part of it; methods; what is not done). Without methods: any, there and below.
_COMPUTE = (
    ("servers/*/diagnostics", "", "tell diagnostics of guests"),
    ("servers/*/migrations", "", _MIGRATE),
    ("servers/*/os-interface", "POST", _ATTACH_PORTS),
    ("servers/*/os-interface/*", "DELETE PUT", _ATTACH_PORTS),
    ("servers/*/os-security-groups", "", _GROUPS),
    ("servers/*/os-server-password", "", "keep passwords of guests"),
    ("servers/*/os-volume_attachments", "POST", _ATTACH_VOLUMES),
    ("servers/*/os-volume_attachments/*", "DELETE PUT", _ATTACH_VOLUMES),
    ("servers/*/remote-consoles", "", _CONSOLES),
    ("servers/*/shares", "", "attach shares to servers"),
    ("servers/*/topology", "", "tell the NUMA topology of servers"),
    ("flavors/*/action", "", "give access to private flavors; make the flavor public"),
    ("images", "", "pass image requests on; the image service is at /image"),
    ("os-aggregates/*/images", "", "fetch images ahead to the hosts of an aggregate"),
    ("os-assisted-volume-snapshots", "", _SNAPSHOT),
    ("os-baremetal-nodes", "", "build on bare metal"),
    ("os-console-auth-tokens", "", _CONSOLES),
    ("os-floating-ip-pools", "", _FLOATING),
    ("os-floating-ips", "", _FLOATING),
    ("os-hosts", "", "serve os-hosts; use os-services and os-hypervisors"),
    ("os-hypervisors/*/search", "", "serve this old search; use hypervisor_hostname_pattern"),
    ("os-hypervisors/*/servers", "", "serve this old list; use with_servers"),
    ("os-hypervisors/*/uptime", "", "tell how long a hypervisor is up"),
    ("os-instance_usage_audit_log", "", _USAGE),
    ("os-migrations", "", _MIGRATE),
    ("os-networks", "", "serve os-networks; use the network service at /network"),
    ("os-quota-class-sets", "", _QUOTAS),
    ("os-quota-sets/*", "DELETE PUT", _QUOTAS),
    ("os-security-group-rules", "", _GROUPS),
    ("os-security-groups", "", _GROUPS),
    ("os-server-external-events", "", "take events of other services; it asks them itself"),
    ("os-services/*", "DELETE", "remove hosts by this API; use `hullwright host remove`"),
    ("os-simple-tenant-usage", "", _USAGE),
    ("os-snapshots", "", _SNAPSHOT),
    ("os-tenant-networks", "", "serve os-tenant-networks; use the network service at /network"),
    ("os-volumes", "", "serve os-volumes; use the volume service at /volume"),
)
_NETWORKS_THERE = "manage networks here; use the network service at /network"
_REMOVED = (
    ("servers/*/consoles", "", _CONSOLES),
    ("servers/*/os-virtual-interfaces", "", "serve os-virtual-interfaces; use os-interface"),
    ("os-agents", "", "have agents in guests"),
    ("os-cells", "", "have cells"),
    ("os-certificates", "", "keep certificates"),
    ("os-cloudpipe", "", "have VPNs of projects"),
    ("os-fixed-ips", "", "serve os-fixed-ips; use the network service at /network"),
    ("os-floating-ip-dns", "", _FLOATING),
    ("os-floating-ips-bulk", "", _FLOATING),
    ("os-fping", "", "ping guests"),
    ("os-networks", "POST", _NETWORKS_THERE),
    ("os-networks/*", "DELETE POST", _NETWORKS_THERE),
    ("os-networks/*/action", "POST", _NETWORKS_THERE),
    ("os-security-group-default-rules", "", _GROUPS),
    ("os-tenant-networks", "POST", _NETWORKS_THERE),
    ("os-tenant-networks/*", "DELETE", _NETWORKS_THERE),
)
_NETWORK = (
    ("address-groups", "", _GROUPS),
    ("address-scopes", "", "have address scopes"),
    ("agents", "", "have network agents; `hullwright host list` tells the hosts"),
    ("auto-allocated-topology", "", "allocate topologies"),
    ("availability_zones", "", "have availability zones of networks"),
    ("default-security-group-rules", "", _GROUPS),
    ("flavors", "", "have network flavors"),
    ("floatingips", "", _FLOATING),
    ("local_ips", "", "have local IPs"),
    ("metering", "", "meter traffic"),
    ("ndp_proxies", "", _FLOATING),
    ("network-ip-availabilities", "", "count free addresses"),
    ("network_segment_ranges", "", "have network segments"),
    ("networks/*/dhcp-agents", "", "have network agents; `hullwright host list` tells the hosts"),
    ("ports/*/bindings", "", "bind ports by request; a server's build binds them"),
    ("qos", "", "limit bandwidth"),
    ("quotas", "", _QUOTAS),
    ("rbac-policies", "", "share networks with single projects; `--share` shares with all"),
    ("routers", "", _FLOATING),
    ("security-group-rules", "POST", _GROUPS),
    ("security-group-rules/*", "DELETE", _GROUPS),
    ("security-groups", "POST", _GROUPS),
    ("security-groups/*", "DELETE PUT", _GROUPS),
    ("segments", "", "have network segments"),
    ("service-providers", "", "have providers of network services"),
    ("subnetpools", "", "have pools of subnets; name the subnet's range"),
    ("trunks", "", "have trunks"),
    ("*/*/tags", "", "tag networks, subnets or ports"),
)
_VOLUME = (
    ("attachments", "POST", _ATTACH_VOLUMES),
    ("attachments/*", "DELETE PUT", _ATTACH_VOLUMES),
    ("attachments/*/action", "", _ATTACH_VOLUMES),
    ("backups", "", _SNAPSHOT),
    ("cgsnapshots", "", _SNAPSHOT),
    ("clusters", "", "have clusters of volume services"),
    ("consistencygroups", "", "group volumes"),
    ("group_snapshots", "", _SNAPSHOT),
    ("group_types", "", "group volumes"),
    ("groups", "", "group volumes"),
    ("manageable_snapshots", "", _SNAPSHOT),
    ("manageable_volumes", "", "manage or unmanage volumes that others made"),
    ("messages", "", "keep messages about volumes"),
    ("os-quota-class-sets", "", _QUOTAS),
    ("os-quota-sets", "", _QUOTAS),
    ("os-services", "", "have volume services of their own; the conductors make volumes"),
    ("os-volume-transfer", "", "hand volumes over to other projects"),
    ("qos-specs", "", "limit the throughput of volumes"),
    ("scheduler-stats", "", "have pools of volumes; a volume is made on the host of its server"),
    ("snapshots", "", _SNAPSHOT),
    ("types", "POST", "have other volume types than its own"),
    ("types/*", "DELETE PUT", "have other volume types than its own"),
    ("volume-transfers", "", "hand volumes over to other projects"),
    ("volumes/summary", "", "sum volumes up"),
)
_IMAGE = (
    ("cache", "", "let clients steer the image cache; hosts keep what they need"),
    ("images/*/import", "", "import images; upload their bytes"),
    ("images/*/members", "POST", "share images with single projects; make the image public"),
    ("images/*/members/*", "DELETE GET PUT", "share images with single projects; make the image public"),
    ("images/*/stage", "", "import images; upload their bytes"),
    ("images/*/tasks", "", "import images; upload their bytes"),
    ("metadefs", "", _METADEFS),
    ("tasks", "", "import images; upload their bytes"),
)


class Refusal(NamedTuple):
    """How a request is refused: the HTTP status, and the rest of the sentence "Hullwright does not ..."."""

    status: int
    what: str


_Place = tuple[re.Pattern[str], frozenset[str], Refusal]


def _compiled(prefix: str, places: tuple[tuple[str, str, str], ...], status: int = 501) -> list[_Place]:
    found = []
    for path, methods, what in places:
        words = re.escape(path).replace(r"\*", "[^/]+")
        place = re.compile(prefix + words + ("" if methods else "(/.*)?"))
        found.append((place, frozenset(methods.split()), Refusal(status, what)))
    return found


_COMPUTE_PREFIX = r"/v2\.1/(?:[^/]+/)?"  # a project id may stand before
_PLACES = [
    *_compiled(_COMPUTE_PREFIX, _REMOVED, 410),  # first: some of what is left of them is in the other table
    *_compiled(_COMPUTE_PREFIX, _COMPUTE),
    *_compiled(r"/network/v2\.0/", _NETWORK),
    *_compiled(r"/volume/v3/(?:[^/]+/)?", _VOLUME),
    *_compiled(r"/image/v2/", _IMAGE),
]


def found(method: str, path: str) -> Refusal | None:
    """The refusal of a request that one of OpenStack's services serves, or did, and Hullwright does not."""
    for place, methods, refusal in _PLACES:
        if (not methods or method in methods) and place.fullmatch(path):
            return refusal
    return None
