"""What builds tell of the host that they were on: failures in a row put it into quarantine, a success takes it out.

Not for: whether a failure is the host's fault (`failures`), nor for keeping builds away (the scheduler's `compute_up` filter does).
"""

from __future__ import annotations

import logging

from sqlalchemy.engine import Connection

from hullwright.flows.context import RunContext
from hullwright.flows.failures import Cause
from hullwright.persistence import hosts

LOG = logging.getLogger(__name__)
STEPS_ON_HOST = frozenset({"plug_network", "connect_volumes", "fetch_image", "spawn"})  # the others fail wherever they run


def count(run: RunContext, connection: Connection, host: str, cause: Cause) -> None:
    """Count a failed attempt against its host, if the step acted there."""
    if cause.step not in STEPS_ON_HOST:
        return
    threshold = run.conf.compute.consecutive_build_service_disable_threshold
    if hosts.count_build(connection, host, failed=True, step=cause.step, reason=cause.message, threshold=threshold):
        LOG.warning("Host %s goes into quarantine: %d builds in a row failed at %s: %s", host, threshold, cause.step, cause.message)


def clear(connection: Connection, host: str) -> None:
    """Note that a build succeeded on a host."""
    if hosts.count_build(connection, host, failed=False):
        LOG.warning("Host %s is out of quarantine: a build succeeded there", host)
