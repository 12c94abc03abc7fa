"""[volume]: the volume service."""

from __future__ import annotations

from oslo_config import cfg

GROUP = "volume"
OPTS = [
    cfg.StrOpt("driver", default="local", help="Volume service. local: the embedded one, files in a libvirt storage pool of each host."),
    cfg.StrOpt("pool", default="hullwright-volumes", help="Name of the local driver's storage pool on each host; made when absent."),
    cfg.StrOpt(
        "pool_path",
        default="/var/lib/hullwright/volumes",
        help="Directory of that pool, on the host. An existing pool of that name is used as it is.",
    ),
    cfg.BoolOpt(
        "shared",
        default=False,
        help="The pool's directory is one and the same on every host (a shared file system). Otherwise a volume of the local driver can "
        "only be used on the host where it was used first.",
    ),
    cfg.StrOpt(
        "format", default="qcow2", choices=["qcow2", "raw"], help="Format of blank volumes; one made from an image has the image's format."
    ),
]
