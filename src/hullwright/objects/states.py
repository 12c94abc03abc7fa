"""States of instances, steps, jobs and attempts, with the words that Nova and TaskFlow use for them.

Not for: deciding transitions. A transition is a compare-and-swap in `persistence/instances.py`.
"""

from __future__ import annotations

from enum import IntEnum, StrEnum


class VmState(StrEnum):
    """What the instance is, when nothing is being done to it."""

    BUILDING = "building"  # never yet been active
    ACTIVE = "active"  # has a guest that runs, or should
    PAUSED = "paused"
    SUSPENDED = "suspended"
    STOPPED = "stopped"  # has a guest that is shut down on request
    ERROR = "error"  # a build or an operation failed for good; the fault says why
    DELETED = "deleted"  # gone; the row stays as record


class TaskState(StrEnum):
    """What is being done to the instance right now; None in the database means nothing."""

    SCHEDULING = "scheduling"
    NETWORKING = "networking"
    SPAWNING = "spawning"
    DELETING = "deleting"
    POWERING_OFF = "powering-off"
    POWERING_ON = "powering-on"
    REBOOTING = "rebooting"
    REBOOTING_HARD = "rebooting_hard"


class PowerState(IntEnum):
    """What the hypervisor says; numbers are those of the Compute API."""

    NOSTATE = 0
    RUNNING = 1
    PAUSED = 3
    SHUTDOWN = 4
    CRASHED = 6
    SUSPENDED = 7


class JobState(StrEnum):
    """Where a job is. Only QUEUED and RUNNING are open: a conductor will still do something with them."""

    QUEUED = "queued"  # nobody drives it; may be leased once `not_before` has passed
    RUNNING = "running"  # leased; when its owner's heartbeat lapses it may be leased again
    DONE = "done"  # the flow ended SUCCESS
    REVERTED = "reverted"  # the flow ended cleanly undone
    CANCELLED = "cancelled"  # ended before it was ever leased
    STUCK = "stuck"  # an undo failed, it cannot be loaded, or it crashed its conductor too often: an operator decides


OPEN_JOB_STATES = (JobState.QUEUED, JobState.RUNNING)


class AttemptState(StrEnum):
    """How one pass of the retry loop went."""

    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"  # the reason, step and host are in the row
    CANCELLED = "cancelled"  # the user deleted the instance meanwhile


class StepState(StrEnum):
    """States of a step as TaskFlow names them."""

    PENDING = "PENDING"
    RUNNING = "RUNNING"
    SUCCESS = "SUCCESS"
    FAILURE = "FAILURE"
    REVERTING = "REVERTING"
    REVERTED = "REVERTED"
    REVERT_FAILURE = "REVERT_FAILURE"
    RETRYING = "RETRYING"
    IGNORE = "IGNORE"
    RESUMED = "RESUMED"  # ours: a conductor took the step up again after a crash
    WAITING = "WAITING"  # ours: there is no room for the build, and it waits for some; RESUMED follows
