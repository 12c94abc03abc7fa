"""Work without a flow: its answer goes to the job's row. Questions about a guest, which change nothing, and the rounds of reconciliation,
whose repairs are each one transaction or a job of their own.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from hullwright.conductor.reconcile.rounds import ROUNDS
from hullwright.flows.context import Shared
from hullwright.objects.errors import Conflict
from hullwright.objects.instances import RequestSpec
from hullwright.persistence import instances


def console_log(shared: Shared, inputs: Mapping[str, Any]) -> str:
    """The end of a guest's console log. Inputs: instance_uuid, max_bytes.

    Raises: InstanceNotFound, Conflict when it has no host, HypervisorUnavailable.
    """
    with shared.db.read() as connection:
        instance = instances.get(connection, str(inputs["instance_uuid"]))
    if instance.host is None:
        raise Conflict(reason=f"Instance {instance.uuid} is not on a host yet.")
    hypervisor = shared.drivers.virt(shared.host_ref(instance.host))
    return hypervisor.console_log(instance.uuid, int(inputs.get("max_bytes") or 102_400)).decode("utf-8", "replace")


def explain(shared: Shared, inputs: Mapping[str, Any]) -> dict[str, Any]:
    """Where a request would go now, and why: an `Explanation`. Inputs: `spec`, a RequestSpec, and those of `Scheduler.explain`.

    Without `spec`, it is that of the server instance_uuid.

    Raises: InstanceNotFound.
    """
    if "spec" in inputs:
        spec = RequestSpec.from_dict(inputs["spec"])
    else:
        with shared.db.read() as connection:
            spec = instances.get(connection, str(inputs["instance_uuid"])).spec
    page = {"after": str(inputs.get("after") or ""), "limit": int(inputs.get("limit") or 1000)}
    return shared.scheduler.explain(spec, detail=bool(inputs.get("detail")), **page).to_dict()  # type: ignore[arg-type]


QUERIES: dict[str, Callable[[Shared, Mapping[str, Any]], Any]] = {"console_log": console_log, "explain": explain, **ROUNDS}
