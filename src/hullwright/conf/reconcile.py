"""[reconcile]: how often records and hosts are compared, what is mended without asking, how power states are kept true."""

from __future__ import annotations

from oslo_config import cfg

GROUP = "reconcile"

# What may be mended without asking: nothing here can take a guest, a disk or a volume from somebody who still has it.
SAFE = (
    "action_unclosed",
    "address_without_port",
    "allocation_without_instance",
    "attachment_without_instance",
    "attempt_unclosed",
    "base_image_half",
    "conductor_stale",
    "files_left",
    "image_abandoned",
    "instance_stranded",
    "instance_without_allocation",
    "job_orphaned",
    "network_entry_left",
    "network_left",
    "port_misbound",
    "port_without_instance",
    "usage_miscounted",
    "volume_stuck",
)

OPTS = [
    cfg.FloatOpt(
        "interval",
        default=600.0,
        min=0.0,
        help="Seconds between two comparisons of the records with each other and with the hosts. One conductor makes each. 0: never.",
    ),
    cfg.FloatOpt(
        "grace_seconds",
        default=15.0,
        min=0.0,
        help="What looks wrong is looked at again after these seconds, and counts only when it still is and nobody has been at it.",
    ),
    cfg.ListOpt(
        "mend",
        default=list(SAFE),
        help="Kinds of findings that the periodic comparison mends. The others it reports; `hullwright doctor --fix` mends them. "
        "`hullwright doctor --kinds` lists all kinds. Empty: none.",
    ),
    cfg.StrOpt(
        "running_deleted_instance_action",
        default="reap",
        choices=[("reap", "destroys it"), ("log", "reports it"), ("noop", "does not even look for it")],
        help="What the periodic comparison does with the guest of a deleted instance that is still on a host. Guests that were not made "
        "by us are never touched.",
    ),
    cfg.FloatOpt(
        "sync_power_state_interval",
        default=600.0,
        min=0.0,
        help="Seconds between two comparisons of the power states of all guests with the record. One conductor makes each. 0: never.",
    ),
    cfg.BoolOpt(
        "watch_guests",
        default=True,
        help="Listen to what hypervisors tell of their guests, so that one that was shut down shows at once and not after an interval.",
    ),
    cfg.FloatOpt(
        "event_delay_seconds",
        default=2.0,
        min=0.0,
        help="How long after such news the guest is looked at: what follows from our own work is over by then.",
    ),
    cfg.FloatOpt(
        "host_timeout_seconds",
        default=30.0,
        min=0.1,
        help="A host that does not tell what is on it within these seconds is left out, and named in the report.",
    ),
    cfg.IntOpt(
        "max_concurrent_hosts",
        default=16,
        min=1,
        help="How many hosts are asked at the same time.",
    ),
]
