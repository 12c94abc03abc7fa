"""[conductor]: how a conductor leases and runs jobs."""

from __future__ import annotations

from typing import Any

from oslo_config import cfg, types

GROUP = "conductor"
OPTS = [
    cfg.IntOpt(
        "max_concurrent_jobs",
        default=16,
        min=1,
        help="Jobs that one conductor drives at a time, each in a thread of its own. Most of a job's time is waiting for a hypervisor. "
        "A quarter as many more, at least one, may be deletes, and as many again questions that people wait for.",
    ),
    cfg.StrOpt(
        "engine",
        default="serial",
        choices=[
            ("serial", "one after the other, for the least CPU"),
            ("parallel", "network, volumes and image are prepared side by side, for the shortest build where each of them waits"),
        ],
        help="How the steps of one build run.",
    ),
    cfg.FloatOpt(
        "lease_seconds",
        default=15.0,
        min=1.0,
        help="How long a conductor may be silent before others take over its jobs. It renews its lease three times as often.",
    ),
    cfg.FloatOpt(
        "poll_interval",
        default=2.0,
        min=0.01,
        help="Seconds between looks at the table of jobs when nobody woke the conductor. Wake-ups make new jobs start at once; this "
        "finds jobs whose time has come, and those whose wake-up was lost.",
    ),
    cfg.IntOpt(
        "max_leases",
        default=5,
        min=1,
        help="A job that was leased this often without getting a step further, and whose conductor died each time, is parked as stuck "
        "with its evidence, for an operator to look at. From the third lease on such jobs are run one at a time, so that those which "
        "only ran beside the one that crashes conductors are not parked for it.",
    ),
    cfg.FloatOpt(
        "unknown_job_seconds",
        default=300.0,
        min=0.1,
        help="How long a job of a kind or flow that this version does not know is left to conductors of another version, as in a rolling "
        "upgrade, before it is parked as stuck. While one of another version lives, it is not parked.",
    ),
    cfg.FloatOpt(
        "step_timeout",
        default=600.0,
        min=0.1,
        help="Seconds that a step may go without progress. Then its call is given up, the step is undone and the build moves to another "
        "host. A step that tells progress, as transfers of images and volumes and copies of disks do, may take longer in all.",
    ),
    cfg.Opt(
        "step_timeouts",
        type=types.Dict(types.Float(min=0.1)),
        default={"spawn": 300.0, "plug_network": 120.0},
        help="Other limits for single steps, in seconds: name:seconds, separated by commas.",
    ),
    cfg.FloatOpt(
        "build_timeout",
        default=3600.0,
        min=0.0,
        help="Seconds that a build may take in all, from the request on; then it is undone and ends in ERROR. 0: as long as it takes.",
    ),
    cfg.FloatOpt(
        "drain_timeout",
        default=60.0,
        min=0.0,
        help="Seconds that a stopping conductor waits for steps under way. What is not done by then is resumed by another conductor.",
    ),
    cfg.FloatOpt(
        "retry_interval",
        default=5.0,
        min=0.1,
        help="Seconds before work that must end, such as a delete, is tried again after a failure; doubled each time up to a minute.",
    ),
]


def step_limit_seconds(options: Any, step: str) -> float:
    """How long a step may go without progress before it is given up; `options`: those of [conductor]."""
    limit: float = options.step_timeouts.get(step, options.step_timeout)
    return limit
