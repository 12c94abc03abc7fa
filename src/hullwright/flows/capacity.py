"""Waiting for room: a build that asked for it does not fail for want of room but joins the queue, for as long as it has patience.

Its flow is left where it stands and its job goes back to the queue; whoever leases it next runs the same step again.
While builds wait, one that comes later and asks for the same stands behind them, whether it would wait or not: else those that wait would
never get what others take at once.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NoReturn

from sqlalchemy.engine import Connection

from hullwright.flows.context import RunContext
from hullwright.objects.builds import Job
from hullwright.objects.errors import NoValidHost, RoomAwaited
from hullwright.objects.instances import RequestSpec
from hullwright.objects.states import StepState
from hullwright.persistence import waits

# How long a build that would not wait stands behind those that do: for some looks of the waiting room, which may see room for it too.
STAND_SECONDS = 5
_BEHIND = "Builds that were asked for before it wait for the same."


def queue_up(run: RunContext, step: str, tried: Mapping[str, str], record: Callable[[Connection], None]) -> None:
    """Let those pass that were asked for before this build and wait for the same. `record` is written when it must.

    Raises: RoomAwaited; NoValidHost, when it would not wait, stood behind them for its time, and nobody saw room for it.
    """
    has_stood = run.job.waiting_since is not None
    if has_stood and not _stood_in_vain(run.job, run.spec):
        return
    # Who would not wait is spared the reading while nobody waits, which the waiting room's latest look is good enough to tell.
    if not has_stood and not run.spec.wait_seconds and not run.shared.has_waiters:
        return
    needs = run.scheduler.demand(run.spec, tried)
    with run.db.read() as connection:
        if not waits.is_behind(connection, run.job, needs):
            return
    if has_stood:
        run.write_later(record)
        raise NoValidHost(reason=_BEHIND)
    _wait(run, step, needs, _BEHIND, record)


def _stood_in_vain(job: Job, spec: RequestSpec) -> bool:
    """Whether it is in the queue only to let others pass, and is here because its time is over: it was not woken."""
    return not spec.wait_seconds and job.waits_for is not None and job.not_before > 0.0


def wait(run: RunContext, step: str, tried: Mapping[str, str], error: NoValidHost, record: Callable[[Connection], None]) -> NoReturn:
    """There is no room: have the build wait if it may, else raise `error`. `record` is written in either case.

    Raises: RoomAwaited, NoValidHost.
    """
    seconds = run.spec.wait_seconds
    # Where it failed on every host that it may go to, time does not help.
    if seconds and (not tried or run.scheduler.has_others(run.spec, tried)):
        _wait(run, step, run.scheduler.demand(run.spec, tried), str(error.fields["reason"]), record)
        waited = NoValidHost(reason=f"Waited {seconds} s for room. {error.fields['reason']}")
        waited.report, error = error.report, waited
    run.write_later(record)
    raise error


def _wait(run: RunContext, step: str, needs: str, why: str, record: Callable[[Connection], None]) -> None:
    """Returns when the build's patience is over. `why` is told with the step's event, to users too: it names no host."""
    with run.transaction() as connection:
        until = waits.until(connection, run.job, _patience_seconds(run.spec))
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
        run.go_on_as(waits.leave(connection, job, _patience_seconds(run.spec)))

    run.write_later(leave)


def _patience_seconds(spec: RequestSpec) -> int:
    return spec.wait_seconds or STAND_SECONDS
