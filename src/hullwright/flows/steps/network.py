"""Networks on their own, without an instance."""

from __future__ import annotations

import logging
from typing import Any

from hullwright.flows.context import RunContext
from hullwright.flows.step import Step
from hullwright.objects.errors import HostNotFound, HypervisorUnavailable
from hullwright.persistence import hosts

LOG = logging.getLogger(__name__)


class SweepNetworks(Step):
    """Takes networks whose records are gone off every host.

    Reverts: nothing; it is tried again.
    """

    step_name = "sweep_networks"

    def execute(self, run: RunContext) -> None:
        """Sweep; a host that does not answer keeps its bridge until a new network needs the addresses."""
        with run.db.read() as connection:
            names = [host.name for host in hosts.list_all(connection)]
        for name in names:
            try:
                run.network.sweep(run.host_ref(name))
            except (HostNotFound, HypervisorUnavailable) as error:
                LOG.warning("Networks are not swept from host %s: %s", name, error)

    def revert(self, run: RunContext, **kwargs: Any) -> None:
        """Nothing."""
