"""[compute]: how hosts are asked for facts, when they count as down or go into quarantine, and how much of them may be claimed."""

from __future__ import annotations

from oslo_config import cfg, types

GROUP = "compute"
OPTS = [
    cfg.FloatOpt(
        "report_interval",
        default=10.0,
        min=0.1,
        help="Seconds between two questions to a host for what it has and can do. One conductor asks each host.",
    ),
    cfg.FloatOpt(
        "service_down_time",
        default=60.0,
        min=0.1,
        help="A host that was asked and did not answer, again and again for longer than these seconds, counts as down and gets no builds. "
        "One answer brings it back. Hosts that no conductor asks do not become down.",
    ),
    cfg.FloatOpt(
        "facts_timeout_seconds",
        default=30.0,
        min=0.1,
        help="Seconds after which a question to a host counts as unanswered. Its answer is taken even later than that.",
    ),
    cfg.IntOpt(
        "max_concurrent_facts",
        default=16,
        min=1,
        help="How many hosts one conductor asks at the same time; hosts that exceed facts_timeout_seconds do not count.",
    ),
    cfg.ListOpt(
        "compute_monitors",
        item_type=types.String(choices=["cpu.virt_driver"]),
        default=[],
        help="What hosts tell of how busy they are, for [metrics] weight_setting. cpu.virt_driver: cpu.frequency (MHz), cpu.percent, and "
        "of kernel, user, idle and iowait cpu.KIND.time (ns) and cpu.KIND.percent; whole percents since the question before, none in the "
        "first answer to each conductor. These numbers are never the same twice, so with it every answer of every host is news that all "
        "schedulers read, where else a host without news costs them nothing. The same on all conductors.",
    ),
    cfg.FloatOpt(
        "shutdown_timeout_seconds",
        default=60.0,
        min=0.0,
        help="How long a guest may take to shut down by itself when its server is stopped, before it is pulled.",
    ),
    cfg.IntOpt(
        "consecutive_build_service_disable_threshold",
        default=10,
        min=0,
        help="So many builds in a row that failed on a host at the same step put it into quarantine: it gets no builds but probes. Builds "
        "that failed for a reason of their own, or were deleted, do not count. 0: no host goes into quarantine.",
    ),
    cfg.FloatOpt(
        "quarantine_probe_interval",
        default=300.0,
        min=0.1,
        help="Seconds between two probes of a host in quarantine. A probe is a build of a user that still may go elsewhere; when it "
        "succeeds, the host is out of quarantine.",
    ),
    cfg.IntOpt(
        "reserved_host_memory_mb",
        default=512,
        min=0,
        help="Memory of each host, in MB, that is not given to guests.",
    ),
    cfg.IntOpt(
        "reserved_host_disk_mb",
        default=0,
        min=0,
        help="Disk of each host, in MB, that is not given to guests; rounded up to whole GB.",
    ),
    cfg.IntOpt(
        "reserved_host_cpus",
        default=0,
        min=0,
        help="CPUs of each host that are not given to guests.",
    ),
    cfg.FloatOpt(
        "cpu_allocation_ratio",
        default=4.0,
        min=0.01,
        help="Virtual CPUs per CPU that may be claimed. The same on all conductors.",
    ),
    cfg.FloatOpt(
        "ram_allocation_ratio",
        default=1.0,
        min=0.01,
        help="Memory that may be claimed per memory there is. The same on all conductors.",
    ),
    cfg.FloatOpt(
        "disk_allocation_ratio",
        default=1.0,
        min=0.01,
        help="Disk that may be claimed per disk there is. The same on all conductors.",
    ),
]
