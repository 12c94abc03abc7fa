"""Builds as JSON. What names hosts, conductors or the inside of an error is for administrators; others get the same shape without it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from hullwright.api.builds.errors import hint
from hullwright.api.builds.steps import Step, fold
from hullwright.api.times import iso_micro_utc
from hullwright.objects.builds import Attempt, Job, Progress, StepEvent
from hullwright.objects.errors import text_for_users
from hullwright.objects.history import Run
from hullwright.objects.instances import Fault
from hullwright.objects.placement import PlacementReport, Rejection
from hullwright.objects.states import OPEN_JOB_STATES, StepState
from hullwright.persistence.builds import Pulse, Server
from hullwright.persistence.database import now
from hullwright.persistence.waits import Place


def is_at_rest(state: str) -> bool:
    """Whether nobody will do anything with a job in that state."""
    return state not in OPEN_JOB_STATES


def brief_view(job: Job, server: Server | None, place: Place | None = None) -> dict[str, Any]:
    """A build in a list. `place`: of one that waits for room."""
    return {
        "id": job.uuid,
        "kind": job.kind,
        "server_id": job.instance_uuid,
        "server_name": server.name if server is not None else None,
        "state": job.state,
        "progress": job.progress,
        "cancel_requested": job.cancel_requested,
        "request_id": job.request_id,
        "created_at": iso_micro_utc(job.created_at),
        "started_at": iso_micro_utc(job.started_at),
        "finished_at": iso_micro_utc(job.finished_at),
        "duration_seconds": _seconds(job.started_at, job.finished_at, open_until=now()),
        "waiting": place and _waiting_view(job, place),
    }


def _waiting_view(job: Job, place: Place) -> dict[str, Any]:
    """Since when a build waits for room, until when it will, and where it stands. One that was woken looks for room just now."""
    return {
        "since": iso_micro_utc(job.waiting_since),
        "until": iso_micro_utc(job.not_before or None),
        "place": place.number,
        "of": place.of,
    }


def build_view(
    job: Job,
    server: Server | None,
    attempts: Sequence[Attempt],
    events: Sequence[StepEvent],
    progress: Sequence[Progress],
    fault: Fault | None,
    place: Place | None,
    *,
    limit_seconds: Callable[[str], float],
    admin: bool,
) -> dict[str, Any]:
    """All of a build. `limit_seconds`: how long a step may go without progress."""
    steps = fold(events)
    open_steps = [step for step in steps if step.is_open] if not is_at_rest(job.state) else []
    return brief_view(job, server, place) | {
        "deadline": iso_micro_utc(job.deadline_at),
        "leases": job.leases,
        "conductor": job.owner if admin else None,
        "error": job.error if admin else (job.error and (fault.message if fault is not None else "The build failed.")),
        "server": server and _server_view(server, admin=admin),
        "fault": fault and _fault_view(fault, admin=admin),
        "current_step": _current_view(open_steps[-1], limit_seconds, admin=admin) if open_steps else None,
        "attempts": [
            attempt_view(attempt, [step for step in steps if step.attempt == attempt.number], admin=admin) for attempt in attempts
        ],
        "steps": [step_view(step, admin=admin) for step in steps if step.attempt == 0],
        "step_progress": [progress_view(each) for each in progress],
        "events": [event_view(event, admin=admin) for event in events],
        "last_seq": events[-1].seq if events else 0,
    }


def _server_view(server: Server, *, admin: bool) -> dict[str, Any]:
    return {
        "id": server.id,
        "name": server.name,
        "vm_state": server.vm_state,
        "task_state": server.task_state,
        "host": server.host if admin else None,
    }


def _fault_view(fault: Fault, *, admin: bool) -> dict[str, Any]:
    return {
        "code": fault.code,
        "message": fault.message,
        "hint": fault.hint,
        "step": fault.step,
        "details": fault.details if admin else None,
        "created_at": iso_micro_utc(fault.created_at),
    }


def attempt_view(attempt: Attempt, steps: Sequence[Step], *, admin: bool) -> dict[str, Any]:
    """One pass of the retry loop with its steps."""
    return {
        "number": attempt.number,
        "state": attempt.state,
        "host": attempt.host if admin else None,
        "alternates": list(attempt.alternates) if admin else [],
        "step": attempt.step,
        "error": attempt.error,
        "reason": _text(attempt.error, attempt.reason, admin=admin) if attempt.error or attempt.reason else None,
        "hint": hint(attempt.error),
        "started_at": iso_micro_utc(attempt.started_at),
        "finished_at": iso_micro_utc(attempt.finished_at),
        "duration_seconds": _seconds(attempt.started_at, attempt.finished_at),
        "placement": placement_view(attempt, admin=admin),
        "steps": [step_view(step, admin=admin) for step in steps],
    }


def placement_view(attempt: Attempt, *, admin: bool) -> dict[str, Any] | None:
    """Why the attempt went where it went; None before that is known."""
    if not attempt.report:
        return None
    return report_view(PlacementReport.from_dict(attempt.report), admin=admin)


def report_view(report: PlacementReport, *, admin: bool) -> dict[str, Any]:
    """Which hosts fit and which did not, with reasons; names are for administrators."""
    rejections = report.rejections if admin else tuple(_without_hosts(each) for each in report.rejections)
    shown = PlacementReport(report.considered, report.chosen, rejections, report.candidates)
    return {
        "considered": report.considered,
        "fit": report.considered - sum(rejection.count for rejection in rejections),
        "summary": shown.summary(),
        "advice": list(report.advice()),
        "chosen": report.chosen if admin else None,
        "rejections": [_rejection_view(each) for each in rejections],
        "candidates": [each.to_dict() for each in report.candidates] if admin else [],
    }


def _rejection_view(rejection: Rejection) -> dict[str, Any]:
    told = {"check": rejection.check, "reason": rejection.reason, "count": rejection.count, "hosts": list(rejection.hosts)}
    return told | {"details": list(rejection.details)} if rejection.details else told


def _without_hosts(rejection: Rejection) -> Rejection:
    return Rejection(rejection.check, rejection.reason, rejection.count)


def step_view(step: Step, *, admin: bool) -> dict[str, Any]:
    """One step."""
    run = step.run
    return {
        "name": step.name,
        "attempt": step.attempt,
        "state": step.state,
        "host": step.host if admin else None,
        "started_at": iso_micro_utc(run.started_at) if run else None,
        "finished_at": iso_micro_utc(run.finished_at) if run else None,
        "duration_seconds": _seconds(run.started_at, run.finished_at) if run else None,
        "resumed": (run.resumed if run else 0) + (step.undo.resumed if step.undo else 0),
        "error": _error_view(run, admin=admin) if run else None,
        "undo": step.undo and _undo_view(step.undo, admin=admin),
    }


def _current_view(step: Step, limit_seconds: Callable[[str], float], *, admin: bool) -> dict[str, Any]:
    waits = step.state == StepState.WAITING  # in no conductor's hands
    return step_view(step, admin=admin) | {"limit_seconds": None if waits else limit_seconds(step.name)}


def _undo_view(run: Run, *, admin: bool) -> dict[str, Any]:
    return {
        "state": run.state,
        "started_at": iso_micro_utc(run.started_at),
        "finished_at": iso_micro_utc(run.finished_at),
        "duration_seconds": _seconds(run.started_at, run.finished_at),
        "error": _error_view(run, admin=admin),
    }


def _error_view(run: Run, *, admin: bool) -> dict[str, Any] | None:
    if run.state not in (StepState.FAILURE, StepState.REVERT_FAILURE):
        return None
    return {
        "error": run.error,
        "message": _text(run.error, run.message, admin=admin),
        "hint": hint(run.error),
    }


def event_view(event: StepEvent, *, admin: bool) -> dict[str, Any]:
    """One event. `result` is what the step provided, {error, message, hint} of a failure, {reason, until} of a wait for room."""
    result = event.result
    if event.to_state in (StepState.FAILURE, StepState.REVERT_FAILURE) and isinstance(result, dict):
        error = result.get("error")
        result = {
            "error": error,
            "message": _text(error, result.get("message"), admin=admin),
            "hint": result.get("hint") or hint(error),
        }
    elif event.to_state == StepState.WAITING and isinstance(result, dict):
        result = {"reason": result.get("reason"), "until": iso_micro_utc(result.get("until"))}
    elif not admin:
        result = None
    return {
        "seq": event.seq,
        "at": iso_micro_utc(event.at),
        "attempt": event.attempt,
        "step": event.step,
        "from_state": event.from_state,
        "to_state": event.to_state,
        "host": event.host if admin else None,
        "conductor": event.owner if admin else None,
        "fence": event.fence,
        "result": result,
    }


def progress_view(progress: Progress) -> dict[str, Any]:
    """How far a long step is."""
    return {
        "step": progress.step,
        "done": progress.done,
        "total": progress.total,
        "unit": progress.unit,
        "percent": min(100, 100 * progress.done // progress.total) if progress.total else None,
        "at": iso_micro_utc(progress.at),
    }


def state_view(job_id: str, pulse: Pulse) -> dict[str, Any]:
    """The event `state` of a stream: where the job is."""
    return {
        "id": job_id,
        "state": pulse.state,
        "progress": pulse.progress,
        "cancel_requested": pulse.cancel_requested,
        "last_seq": pulse.seq,
    }


def _text(error: str | None, text: str | None, *, admin: bool) -> str:
    """What an error says; `error`: its class's name."""
    return text if admin and text else text_for_users(error, text or "")


def _seconds(start: float | None, end: float | None, open_until: float | None = None) -> float | None:
    if start is None or (end is None and open_until is None):
        return None
    return round(max(0.0, (end if end is not None else open_until or start) - start), 6)
