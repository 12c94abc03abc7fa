"""The rounds that conductors make: jobs like others, so that one conductor makes each, and what it found stays on record.

`reconcile`: a first look; when it finds anything, it posts the second one for after the grace period, which mends. `sync_power_states`:
asks every host for its guests. A round without news leaves nothing but the time of it (`caretaker` clears such rows away).
"""

from __future__ import annotations

import logging
from collections.abc import Collection, Mapping
from typing import Any

import sqlalchemy as sa

from hullwright.conductor.reconcile import power
from hullwright.conductor.reconcile.doctor import Doctor, told
from hullwright.conductor.reconcile.findings import KINDS, Outcome
from hullwright.conductor.reconcile.view import ask_all, ref_of
from hullwright.flows.context import Shared
from hullwright.objects.hosts import Host
from hullwright.objects.states import JobState, PowerState
from hullwright.persistence import hosts, jobs
from hullwright.persistence.database import read_clock
from hullwright.persistence.models.jobs import jobs as jobs_table

LOG = logging.getLogger(__name__)
RECONCILE = "reconcile"
SYNC_POWER = "sync_power_states"
TOLD_MAX = 500  # findings that one row keeps
CONFIRMED_MAX = 5000  # findings that are looked at again; the rest waits for the next round


def mended_kinds(conf: Any) -> set[str]:
    """What is mended without asking."""
    options = conf.reconcile
    kinds = {kind for kind in options.mend if kind in KINDS and KINDS[kind].is_mendable}
    if options.running_deleted_instance_action == "reap":
        kinds.add("guest_of_deleted")
    else:
        kinds.discard("guest_of_deleted")
    return kinds


def looked_for(conf: Any) -> Collection[str]:
    """What is looked for without being asked."""
    unwanted = {"power_state_wrong"}  # rounds of their own are made for it
    if conf.reconcile.running_deleted_instance_action == "noop":
        unwanted.add("guest_of_deleted")
    return [kind for kind in KINDS if kind not in unwanted]


def reconcile(shared: Shared, inputs: Mapping[str, Any]) -> dict[str, Any] | None:
    """Look, or look again and mend. Inputs: request_id; `since`, from when on what ended is examined; `seen`, key -> since, of what the
    first look found.

    Raises: DatabaseUnavailable.
    """
    doctor, conf = Doctor(shared.db, shared.drivers, shared.conf), shared.conf
    since = float(inputs.get("since", 0.0))
    look = doctor.look(kinds=looked_for(conf), since=since)
    request_id = str(inputs["request_id"])
    seen = inputs.get("seen")
    if seen is None:
        if look.findings:
            first = dict(list(look.keys().items())[:CONFIRMED_MAX])
            with shared.db.write() as conn:
                not_before = read_clock(conn) + conf.reconcile.grace_seconds
                jobs.post(
                    conn,
                    kind=RECONCILE,
                    instance_uuid=None,
                    inputs={"request_id": request_id, "since": since, "seen": first},
                    request_id=request_id,
                    not_before=not_before,
                )
        return None
    outcomes = doctor.mend(look.confirming(seen), kinds=mended_kinds(conf), request_id=request_id)
    if not outcomes:
        return None
    found = {"count": len(outcomes), "outcomes": told(outcomes[:TOLD_MAX]), "silent": dict(look.silent)}
    return {"unchanged": len(outcomes)} if _is_known(shared, outcomes) else found


def _is_known(shared: Shared, outcomes: list[Outcome]) -> bool:
    """Whether nothing was done, and the last round that told anything told of the same."""
    if any(outcome.state != "found" for outcome in outcomes):
        return False
    theirs = sa.select(jobs_table.c.result).where(jobs_table.c.kind == RECONCILE, jobs_table.c.state == JobState.DONE)
    with shared.db.read() as conn:
        results = conn.execute(theirs.order_by(jobs_table.c.id.desc()).limit(10)).scalars().all()
    last = next((result for result in results if result and "outcomes" in result), None)
    if last is None:
        return False
    before = {
        (told["kind"], told["subject"], told["host"]) for told in last["outcomes"] if told["state"] not in ("mended", "posted", "gone")
    }
    return before == {(it.finding.kind, it.finding.subject, it.finding.host) for it in outcomes}


def sync_power_states(shared: Shared, inputs: Mapping[str, Any]) -> dict[str, Any] | None:
    """Bring power states of all guests in line. Inputs: request_id.

    Raises: DatabaseUnavailable.
    """
    options = shared.conf.reconcile
    with shared.db.read() as conn:
        up = [host for host in hosts.list_all(conn) if not host.forced_down]
        before = power.known(conn)

    def guests_of(host: Host) -> dict[str, PowerState | None]:
        return {guest.uuid: guest.power_state for guest in shared.drivers.virt(ref_of(host)).guests()}

    answers, silent = ask_all(up, guests_of, timeout_seconds=options.host_timeout_seconds, at_once=options.max_concurrent_hosts)
    changes = []
    for name, powers in sorted(answers.items()):
        changes += power.sync(shared.db, name, before.get(name, {}), powers, request_id=str(inputs["request_id"]))
    if not changes:
        return None
    return {
        "changes": [
            {
                "instance_uuid": c.uuid,
                "vm_state": c.vm_state,
                "before": c.before,
                "after": c.after,
                "remedy": c.remedy,
                "job_uuid": c.job_uuid,
            }
            for c in changes[:TOLD_MAX]
        ],
        "silent": silent,
    }


ROUNDS = {RECONCILE: reconcile, SYNC_POWER: sync_power_states}
