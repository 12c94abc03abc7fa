"""Builds as people see them: jobs, attempts, step events, progress. The audit trail's records."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from hullwright.objects.records import Record


@dataclass(frozen=True, slots=True)
class Job(Record):
    """A piece of work that outlives processes. `fence` grows at each lease, so that an old owner's writes are refused."""

    id: int
    uuid: str
    kind: str  # build_instance, delete_instance, ...: names a flow factory or a query
    instance_uuid: str | None
    inputs: Mapping[str, Any]
    state: str
    owner: str | None = None
    fence: int = 0
    leases: int = 0  # how often it was leased; a job that crashes its conductor too often is parked
    cancel_requested: bool = False
    seq: int = 0  # of its last step event
    progress: int = 0  # percent
    result: Any = None
    error: str | None = None
    request_id: str | None = None
    created_at: float = 0.0
    started_at: float | None = None
    finished_at: float | None = None
    not_before: float = 0.0
    deadline_at: float | None = None  # a build that is not done by then is undone
    waiting_since: float | None = None  # when it first found no room and began to wait
    waits_for: str | None = None  # while it waits for room: what for, equal for builds that fit in the same places


@dataclass(frozen=True, slots=True)
class Attempt(Record):
    """One pass of the retry loop, with the scheduler's reasons."""

    job_uuid: str
    number: int  # from 1
    instance_uuid: str
    state: str
    host: str | None = None
    alternates: tuple[str, ...] = ()
    report: Mapping[str, Any] = field(default_factory=dict)  # PlacementReport.to_dict()
    step: str | None = None  # that failed
    error: str | None = None  # class name
    reason: str | None = None  # message
    started_at: float = 0.0
    finished_at: float | None = None


@dataclass(frozen=True, slots=True)
class StepEvent(Record):
    """One change of state of a step (or of the flow: step is empty), written in the transaction of the change itself."""

    job_uuid: str
    seq: int  # from 1, without gaps within a job
    attempt: int  # 0: outside the retry loop
    step: str
    from_state: str | None
    to_state: str
    at: float  # seconds since the epoch
    owner: str  # conductor
    fence: int
    host: str | None = None
    result: Any = None  # of SUCCESS: what the step provides; of FAILURE: {error, message, hint}


@dataclass(frozen=True, slots=True)
class Progress(Record):
    """How far a long step is."""

    job_uuid: str
    step: str
    done: int
    total: int
    unit: str = "bytes"
    at: float = 0.0


@dataclass(frozen=True, slots=True)
class Action(Record):
    """One entry of a server's instance actions."""

    id: int
    instance_uuid: str
    request_id: str
    action: str  # create, delete, ...
    project_id: str
    user_id: str
    started_at: float
    job_uuid: str | None = None
    finished_at: float | None = None
    message: str | None = None  # Error, when it failed
