"""What to do when a host that must be cleaned does not answer: note it as work of its own, and let the operation go on.

A build must not be stuck, and a user's delete must not wait, because a host that failed cannot be reached. The note is a durable job
(`clean_host`, `release_instance`) that is tried until the host answers.
"""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Iterator

from hullwright.flows.context import RunContext
from hullwright.objects.errors import HostNotFound, HypervisorUnavailable
from hullwright.persistence import jobs
from hullwright.persistence.database import read_clock

LOG = logging.getLogger(__name__)
FIRST_TRY_SECONDS = 15.0


def _post(run: RunContext, kind: str, **inputs: str) -> None:
    with run.transaction() as connection:
        jobs.post(
            connection,
            kind=kind,
            instance_uuid=None,
            inputs={"instance_uuid": run.instance_uuid, **inputs},
            request_id=run.job.request_id,
            not_before=read_clock(connection) + FIRST_TRY_SECONDS,
        )


def release_volumes(run: RunContext, *, undo: bool = False) -> None:
    """Free the instance's volumes; those that are to be deleted and whose bytes are on a silent host are deleted when it is back.

    `undo`: the build is undone, so what the user gave is not deleted, however it is marked.
    """
    try:
        run.volume.release(run.instance_uuid, undo=undo)
    except HypervisorUnavailable as error:
        LOG.warning("Volumes of instance %s are deleted later: %s", run.instance_uuid, error)
        _post(run, "release_instance")


@contextlib.contextmanager
def tolerating_silence(run: RunContext, host: str) -> Iterator[None]:
    """Run an undo on `host`; if it cannot be reached, post the cleaning for later. A host that is no longer registered needs none."""
    started = time.monotonic()
    try:
        yield
    except HostNotFound:
        LOG.warning("Host %s is not registered any more; nothing of instance %s is cleaned there", host, run.instance_uuid)
    except HypervisorUnavailable as error:
        LOG.warning(
            "Host %s is silent (%.1f s): instance %s is cleaned there later: %s", host, time.monotonic() - started, run.instance_uuid, error
        )
        _post(run, "clean_host", host=host)
