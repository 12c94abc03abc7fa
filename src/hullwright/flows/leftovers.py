"""What to do when a host that must be cleaned does not answer, or answers that it cannot: note it as work of its own, and go on.

A build must not be stuck, and a user's delete must not wait, because a host that failed cannot be reached or cannot stop a guest whose
disk hangs. The note is a durable job (`clean_host`, `release_instance`) that is tried until the host has done it. What was claimed on the
host is given back meanwhile, though something may still be there: the next host, or the user, does not wait for it.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import Any

from sqlalchemy.engine import Connection
from tenacity import Retrying, retry_if_exception_type, retry_if_not_exception_type, stop_after_attempt, wait_chain, wait_fixed

from hullwright.flows.context import RunContext
from hullwright.objects.builds import Job
from hullwright.objects.errors import HostNotFound, HullwrightError, HypervisorUnavailable, InstanceNotFound, Reschedulable, VolumeError
from hullwright.persistence import instances, jobs
from hullwright.persistence.database import read_clock

LOG = logging.getLogger(__name__)
KINDS = ("clean_host", "release_instance")  # of jobs that do it later
FIRST_TRY_SECONDS = 15.0
PAUSES_SECONDS = (0.5, 2.0)  # before a host that refused is asked again; often it was only busy
_OF_A_HOST = (Reschedulable, VolumeError)  # what another try, or that host's operator, may mend; anything else is a defect of ours


def is_too_early(connection: Connection, job: Job) -> bool:
    """Whether a cleaning must wait: the instance is still being built or deleted on that host. It may be about to leave, and past the step
    that would find what there is to clean; once it has left, or stays, the cleaning knows what to do.
    """
    uuid = job.inputs.get("instance_uuid")
    if job.kind != "clean_host" or uuid is None:
        return False
    try:
        lives_on = instances.get_row(connection, uuid, deleted=True)["host"]
    except InstanceNotFound:
        return False
    return lives_on == job.inputs["host"] and any(jobs.has_open(connection, uuid, kind) for kind in ("build_instance", "delete_instance"))


def _post(run: RunContext, kind: str, **inputs: Any) -> None:
    with run.transaction() as connection:
        jobs.post(
            connection,
            kind=kind,
            instance_uuid=None,
            inputs={"instance_uuid": run.instance_uuid, **inputs},
            request_id=run.job.request_id,
            rank=jobs.RANK_CLEANING,
            not_before=read_clock(connection) + FIRST_TRY_SECONDS,
        )


def _persistent(act: Callable[[], None], what: str) -> HullwrightError | None:
    """Do it; a host that refuses is asked again, one that is silent is not. Answers the last error, None when it is done."""
    tries = Retrying(
        retry=retry_if_exception_type(_OF_A_HOST) & retry_if_not_exception_type(HypervisorUnavailable),
        wait=wait_chain(*map(wait_fixed, PAUSES_SECONDS)),
        stop=stop_after_attempt(1 + len(PAUSES_SECONDS)),
        before_sleep=lambda told: LOG.warning(
            "%s: %s; it is tried again in %.1f s", what, told.outcome and told.outcome.exception(), told.upcoming_sleep
        ),
        reraise=True,
    )
    try:
        tries(act)
    except (HypervisorUnavailable, *_OF_A_HOST) as error:
        return error
    return None


def release_volumes(run: RunContext, *, undo: bool = False) -> None:
    """Free the instance's volumes; those that are to be deleted and that their host cannot delete now are deleted when it can.

    `undo`: the build is undone, so what the user gave is not deleted, however it is marked.
    """
    uuid = run.instance_uuid
    failed: HullwrightError | str | None = "the call that deletes them never came back" if run.has_given_up() else None
    failed = failed or _persistent(lambda: run.volume.release(uuid, undo=undo), f"Volumes of instance {uuid} are not all deleted")
    if failed is not None:
        LOG.warning("Volumes of instance %s are deleted later: %s", uuid, failed)
        # The release itself may not have been begun: who goes on with it must know that it is an undo.
        _post(run, "release_instance", **({"undo": True} if undo else {}))


def clean_now_or_later(run: RunContext, host: str, clean: Callable[[], None]) -> None:
    """Have `clean` done on `host`; if the host is silent or goes on refusing, post the cleaning for later.

    A host that is no longer registered needs none.
    """
    started, uuid = time.monotonic(), run.instance_uuid
    try:
        failed = _persistent(clean, f"Host {host} is not clean of instance {uuid}")
    except HostNotFound:
        LOG.warning("Host %s is not registered any more; nothing of instance %s is cleaned there", host, uuid)
        return
    if failed is not None:
        how = "is silent" if isinstance(failed, HypervisorUnavailable) else "goes on refusing"
        LOG.warning("Host %s %s (%.1f s): instance %s is cleaned there later: %s", host, how, time.monotonic() - started, uuid, failed)
        _post(run, "clean_host", host=host)
