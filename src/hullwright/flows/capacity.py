"""Waiting for room: a build that asked for it does not fail for want of room but joins the queue, for as long as it has patience.

Its flow is left where it stands and its job goes back to the queue; whoever leases it next runs the same step again.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Collection
from typing import NoReturn

import orjson
from sqlalchemy.engine import Connection

from hullwright.flows.context import RunContext
from hullwright.objects.errors import NoValidHost, RoomAwaited
from hullwright.objects.instances import RequestSpec
from hullwright.objects.states import StepState
from hullwright.persistence import waits

# What says nothing about where a server fits.
_OF_ONE_SERVER = ("instance_uuid", "user_id", "networks", "block_devices", "max_attempts", "wait_seconds")
_BEHIND = "Builds that were asked for before it wait for the same."
_PATIENCE_HINT = "wait_for_capacity"  # what `wait_seconds` came from


def what_it_needs(spec: RequestSpec, tried: Collection[str]) -> str:
    """Equal for requests that fit on the same hosts: 40 characters."""
    told = {name: value for name, value in spec.to_dict().items() if name not in _OF_ONE_SERVER}
    told["scheduler_hints"] = {name: value for name, value in spec.scheduler_hints.items() if name != _PATIENCE_HINT}
    told |= {"resources": spec.resources(), "tried": sorted(tried)}
    return hashlib.sha1(orjson.dumps(told, option=orjson.OPT_SORT_KEYS), usedforsecurity=False).hexdigest()


def queue_up(run: RunContext, step: str, tried: Collection[str], record: Callable[[Connection], None]) -> None:
    """Of a build that would wait: let those pass that were asked for before it and wait for the same. `record` is written when it must.

    Raises: RoomAwaited.
    """
    if not run.spec.wait_seconds or run.job.waiting_since is not None:
        return
    needs = what_it_needs(run.spec, tried)
    with run.db.read() as connection:
        if not waits.is_behind(connection, run.job, needs):
            return
    _wait(run, step, needs, _BEHIND, record)


def wait(run: RunContext, step: str, tried: Collection[str], error: NoValidHost, record: Callable[[Connection], None]) -> NoReturn:
    """There is no room: have the build wait if it may, else raise `error`. `record` is written in either case.

    Raises: RoomAwaited, NoValidHost.
    """
    seconds, considered = run.spec.wait_seconds, error.report.considered if error.report is not None else 0
    only_ones = (run.spec.force_host, run.spec.requested_host, run.spec.volume_host)
    is_over = any(host in tried for host in only_ones) or (bool(tried) and considered <= len(tried))
    if seconds and not is_over:  # where it failed on every host that it may go to, time does not help
        _wait(run, step, what_it_needs(run.spec, tried), str(error.fields["reason"]), record)
        waited = NoValidHost(reason=f"Waited {seconds} s for room. {error.fields['reason']}")
        waited.report, error = error.report, waited
    run.write_later(record)
    raise error


def _wait(run: RunContext, step: str, needs: str, why: str, record: Callable[[Connection], None]) -> None:
    """Returns when the build's patience is over. `why` is told with the step's event, to users too: it names no host."""
    with run.transaction() as connection:
        until = waits.until(connection, run.job, run.spec.wait_seconds)
        if until is None:
            return
        record(connection)
        seq = run.session.tell(connection, step, StepState.WAITING, {"reason": why, "until": until})
        waits.begin(connection, run.job, needs, until, seq)
    raise RoomAwaited(f"job {run.job.uuid} waits for room: {why}")


def found_room(run: RunContext) -> None:
    """Have the build leave the queue, with the next thing that is written."""
    job = run.job  # as it is now: `leave` may be done again, when the first transaction that it was in is rolled back
    if job.waits_for is None:
        return

    def leave(connection: Connection) -> None:
        run.go_on_as(waits.leave(connection, job, run.spec.wait_seconds))

    run.write_later(leave)
