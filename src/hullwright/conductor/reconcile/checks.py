"""All that must be true of an installation at rest, by kind; and one look that finds what is not.

The same checks are asked by the periodic comparison, by `hullwright doctor`, by repairs before they act, and by tests.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator

from hullwright.conductor.reconcile import checks_history, checks_hosts, checks_jobs, checks_records, checks_requests
from hullwright.conductor.reconcile.findings import KINDS, Finding
from hullwright.conductor.reconcile.view import View

Check = Callable[[View], Iterable[Finding]]

CHECKS: dict[str, Check] = {
    name: getattr(room, name)
    for name in KINDS
    for room in (checks_records, checks_requests, checks_jobs, checks_history, checks_hosts)
    if hasattr(room, name)
}

# These are about the work itself; that their instance has work does not excuse them.
_OF_WORK = frozenset(
    {
        *("job_stuck", "job_without_instance", "job_orphaned", "flow_unknown", "attempt_unclosed", "conductor_stale"),
        *("action_unclosed", "job_inconsistent", "history_broken"),
    }
)


def run(view: View, kinds: Collection[str] = tuple(CHECKS)) -> Iterator[Finding]:
    """Findings of these kinds, without those of instances that somebody is working on."""
    for kind in kinds:
        for finding in CHECKS[kind](view):
            if kind in _OF_WORK or finding.instance_uuid is None or finding.instance_uuid not in view.busy:
                yield finding
