"""Where an attempt goes: choosing hosts, then claiming one's resources."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from sqlalchemy.engine import Connection

from hullwright.flows import capacity, host_failures
from hullwright.flows.context import RunContext
from hullwright.flows.failures import cause_of
from hullwright.flows.step import Step
from hullwright.objects.errors import ComputeResourcesUnavailable, InstanceNotFound, NoValidHost, UnexpectedTaskStateError
from hullwright.objects.placement import PlacementReport, Selection
from hullwright.objects.states import AttemptState, TaskState
from hullwright.persistence import allocations, attempts, instances
from hullwright.scheduler.claim import claim_first

_CLAIM_TRIES = 10  # how often hosts are chosen anew when all chosen ones were taken by others meanwhile


def _record_choice(
    run: RunContext, connection: Connection, attempt: int, selection: Selection | None, report: PlacementReport | None
) -> None:
    attempts.begin(
        connection,
        job_uuid=run.job.uuid,
        number=attempt,
        instance_uuid=run.instance_uuid,
        alternates=list(selection.alternates) if selection else [],
        report=report.to_dict() if report else {},
    )


class SelectHost(Step):
    """Chooses a host and alternates; the reasons of the rejected hosts are kept with the attempt.

    Reverts: closes the attempt with the host, the step and the error that ended it; nothing was taken yet.
    """

    step_name = "select_host"
    default_provides: ClassVar[str] = "selection"

    def execute(self, run: RunContext, attempt: int) -> dict[str, Any]:
        """Ask the scheduler, leaving out hosts that earlier attempts went to."""
        tried = _tried(run, attempt)
        capacity.queue_up(run, self.name, tried, lambda connection: _record_choice(run, connection, attempt, None, None))
        selection = _select(run, self.name, attempt, tried)
        run.chose_for = attempt
        run.write_later(lambda connection: _record_choice(run, connection, attempt, selection, selection.report))
        return {
            "host": selection.host,
            "host_id": selection.host_id,
            "alternates": list(selection.alternates),
            "alternate_ids": list(selection.alternate_ids),
            "probe_before": selection.probe_before,
            "used_at_most": dict(selection.used_at_most) if selection.used_at_most else None,
            "only_in_service": selection.only_in_service,
            "only_in_zone": selection.only_in_zone,
        }

    def revert(self, run: RunContext, attempt: int, flow_failures: Mapping[str, Any] | None = None, **kwargs: Any) -> None:
        """Record how the attempt ended."""
        cause = cause_of(flow_failures)
        if cause is None:
            return
        state = AttemptState.CANCELLED if cause.is_cancel else AttemptState.FAILED
        with run.transaction() as connection:
            made = [found for found in attempts.list_for(connection, run.job.uuid) if found.number == attempt]
            attempts.end(connection, run.job.uuid, attempt, state, step=cause.step, error=cause.error, reason=cause.message)
            host = made[0].host if made else None
            if host is not None and made[0].state == AttemptState.RUNNING and cause.is_hosts:
                host_failures.count(run, connection, host, cause)


def _select(run: RunContext, step: str, attempt: int, tried: Mapping[str, str], *, fresh: bool = False) -> Selection:
    """Ask the scheduler. The reasons of a refusal are kept with the attempt; a build that may wait for room does, one that waited leaves
    the queue.

    Raises: NoValidHost, RoomAwaited.
    """
    try:
        selection = run.scheduler.select(run.spec, tried, fresh=fresh)
    except NoValidHost as error:
        report = error.report
        capacity.wait(run, step, tried, error, lambda connection: _record_choice(run, connection, attempt, None, report))
    capacity.found_room(run)
    return selection


def _tried(run: RunContext, attempt: int) -> dict[str, str]:
    if attempt == 1:
        return {}
    with run.db.read() as connection:
        return attempts.tried(connection, run.job.uuid, before=attempt)


def _from_store(selection: Mapping[str, Any]) -> Selection:
    """What `SelectHost` answered; by an older version, without the newer fields."""
    return Selection(
        host=selection["host"],
        host_id=selection["host_id"],
        alternates=tuple(selection["alternates"]),
        alternate_ids=tuple(selection["alternate_ids"]),
        probe_before=selection.get("probe_before"),
        used_at_most=selection.get("used_at_most"),
        only_in_service=selection.get("only_in_service", False),
        only_in_zone=selection.get("only_in_zone"),
    )


class Claim(Step):
    """Takes the resources on the first of the chosen hosts that still has them, and gives the instance its host.

    Reverts: gives the resources back; the instance has no host again.
    """

    step_name = "claim"
    default_provides: ClassVar[str] = "host"

    def execute(self, run: RunContext, selection: Mapping[str, Any], attempt: int) -> str:
        """Claim in one transaction with the instance's and the attempt's rows; a claim made before a crash is found again."""
        chosen = _from_store(selection) if run.chose_for == attempt else self._take_up(run, attempt)
        for _ in range(_CLAIM_TRIES):
            try:
                return self._claim(run, chosen, attempt)
            except ComputeResourcesUnavailable:
                # Others were quicker. There may be room elsewhere: look again rather than spend an attempt.
                chosen = _select(run, self.name, attempt, _tried(run, attempt), fresh=True)
        return self._claim(run, chosen, attempt)

    def _take_up(self, run: RunContext, attempt: int) -> Selection:
        """What to claim when hosts were chosen in an earlier run of the job, before a crash or a wait: what was claimed then, else hosts
        chosen anew. Those of then may be disabled, elsewhere or better left alone by now, and a claim asks for little of that.

        Raises: NoValidHost, RoomAwaited.
        """
        with run.db.read() as connection:
            held = allocations.held_by(connection, run.instance_uuid)
        if held is not None and run.instance.host is not None:  # written by the claim's own transaction
            return Selection(host=run.instance.host, host_id=held.host_id)
        tried = _tried(run, attempt)
        capacity.queue_up(run, self.name, tried, lambda connection: _record_choice(run, connection, attempt, None, None))
        return _select(run, self.name, attempt, tried, fresh=True)

    def _claim(self, run: RunContext, chosen: Selection, attempt: int) -> str:
        with run.transaction() as connection:
            if chosen.report is not None:
                _record_choice(run, connection, attempt, chosen, chosen.report)
            host, lost = claim_first(connection, chosen, run.spec.resources(), run.instance_uuid, run.job.uuid, run.spec.server_group)
            instances.transition(
                connection,
                run.instance_uuid,
                expected_task_state=(TaskState.SCHEDULING, TaskState.NETWORKING),
                task_state=TaskState.NETWORKING,
                host=host,
                node=host,
            )
            attempts.update(connection, run.job.uuid, attempt, host=host)
            if lost:
                report = attempts.get_report(connection, run.job.uuid, attempt).claimed(host, lost)
                attempts.update(connection, run.job.uuid, attempt, report=report.to_dict())
        run.set_host(host)
        return host

    def revert(self, run: RunContext, **kwargs: Any) -> None:
        """Release; when the user deletes the instance, its states are left to the delete."""
        with run.transaction() as connection:
            allocations.release(connection, run.instance_uuid)
            try:
                instances.transition(
                    connection,
                    run.instance_uuid,
                    expected_task_state=(TaskState.SCHEDULING, TaskState.NETWORKING, TaskState.SPAWNING),
                    task_state=TaskState.SCHEDULING,
                    host=None,
                    node=None,
                    availability_zone=run.spec.availability_zone,
                )
            except (UnexpectedTaskStateError, InstanceNotFound):
                pass
