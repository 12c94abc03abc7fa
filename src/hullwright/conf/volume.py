"""[volume]: the volume service."""

from __future__ import annotations

from oslo_config import cfg

GROUP = "volume"
OPTS = [
    cfg.StrOpt("driver", default="local", help="Volume service. local: the embedded one, files in a libvirt storage pool of each host."),
    cfg.StrOpt(
        "pool_name",
        default="hullwright-volumes",
        help="Storage pool of the local driver on each host. A pool of that name which the host has already is used as it is, else "
        "a pool of type dir is made.",
    ),
    cfg.StrOpt(
        "pool_path",
        help="Directory on the host for a pool that is made; {host} stands for the host's name. Unset: hosts/<host>/volumes under "
        "state_path where libvirt is on this machine, else /var/lib/hullwright/volumes.",
    ),
    cfg.BoolOpt(
        "shared",
        default=False,
        help="The pool's directory is one and the same on every host (a shared file system; pool_path names it). Otherwise a volume "
        "of the local driver can only be used on the host where it was first used.",
    ),
    cfg.StrOpt(
        "format",
        default="qcow2",
        choices=[("qcow2", "grows as it is written to"), ("raw", "the bytes as the guest sees them")],
        help="Format of blank volumes; one made from an image has the image's format.",
    ),
]
