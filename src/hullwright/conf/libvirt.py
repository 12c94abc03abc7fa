"""[libvirt]: how guests are made on hosts that libvirt manages."""

from __future__ import annotations

from oslo_config import cfg

GROUP = "libvirt"
OPTS = [
    cfg.StrOpt(
        "pool_name",
        default="hullwright",
        help="Storage pool that holds base images, instance disks, config drives and console logs. A pool of that name which the "
        "host has already is used as it is, else a pool of type dir is made. Two installations on one libvirtd need a name each.",
    ),
    cfg.StrOpt(
        "pool_path",
        help="Directory on the host for a pool that is made; {host} stands for the host's name. Unset: hosts/<host>/instances under "
        "state_path where libvirt is on this machine, else /var/lib/hullwright/instances.",
    ),
    cfg.BoolOpt(
        "pool_shared",
        default=False,
        help="The pool's directory is one and the same on every host (a shared file system; pool_path names it). It must be set where that "
        "is so: otherwise the late cleaning of a host where a build failed deletes the disks of the guest that was then built elsewhere.",
    ),
    cfg.StrOpt(
        "images_type",
        default="qcow2",
        choices=[
            ("qcow2", "an overlay on the base image, made in an instant"),
            ("raw", "a full copy, made by the host"),
        ],
        help="What a root disk is.",
    ),
    cfg.FloatOpt(
        "image_stale_seconds",
        default=15.0,
        min=1.0,
        help="A transfer of an image to a host that has made no progress for this long is taken over by whoever waits for it.",
    ),
    cfg.StrOpt(
        "virt_type",
        default="auto",
        choices=[
            (
                "auto",
                "kvm where the host offers it and its CPU has the extension for it (hosts may offer KVM where guests hang), else qemu",
            ),
            ("kvm", "the host's CPU runs the guest"),
            ("qemu", "the CPU is emulated"),
        ],
        help="How guests are run.",
    ),
    cfg.StrOpt(
        "cpu_mode",
        default="auto",
        choices=[
            ("auto", "host-model with kvm, maximum with qemu (none where libvirt does not know it)"),
            ("none", "QEMU's default"),
            ("host-model", "the model that libvirt knows as nearest to the host's CPU"),
            ("host-passthrough", "the host's CPU as it is"),
            ("maximum", "all that the hypervisor can do on the host"),
            ("custom", "cpu_model"),
        ],
        help="The CPU that guests see.",
    ),
    cfg.StrOpt("cpu_model", help="Name of the CPU model when cpu_mode is custom."),
    cfg.StrOpt(
        "machine_type",
        help="Machine type of guests whose image has no hw_machine_type, such as pc or q35. Unset: libvirt's default.",
    ),
    cfg.IntOpt(
        "tb_cache_mb",
        default=32,
        min=0,
        help="Memory for translated code of each emulated (qemu) guest; 0 leaves it to QEMU, which takes up to 1024 MB.",
    ),
    cfg.StrOpt(
        "disk_cache",
        default="none",
        choices=[
            ("default", "the hypervisor's own choice"),
            ("none", "the host's page cache is bypassed; needs a file system with direct I/O"),
            ("writeback", "the host's page cache is used; the guest's flushes reach the disk"),
            ("writethrough", "as writeback, with each write flushed"),
            ("directsync", "as none, with each write flushed"),
            ("unsafe", "as writeback, and the guest's flushes are ignored: for guests that may be lost"),
        ],
        help="Cache mode of instance disks.",
    ),
    cfg.BoolOpt("vnc_enabled", default=True, help="Give guests a VNC display."),
    cfg.HostAddressOpt("vnc_listen", default="127.0.0.1", help="Address on the host that VNC displays listen on."),
    cfg.IntOpt("memory_stats_seconds", default=10, min=0, help="How often a guest's balloon reports; 0: never."),
    cfg.IntOpt("pcie_root_ports", default=16, min=1, max=28, help="Free PCI Express slots of q35 guests, for devices added later."),
    cfg.FloatOpt(
        "soft_reboot_seconds",
        default=60.0,
        min=0.0,
        help="How long a guest may take to shut down for a soft reboot before it is pulled.",
    ),
    cfg.HostAddressOpt("host_ip", help="Address told for hosts whose libvirt is on this machine. Unset: the address of the default route."),
]
