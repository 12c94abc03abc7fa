"""Claim: makes a selection hold, on its host or on the first alternate that still has room.

Not for: choosing again when all of them filled up; `Scheduler.select(..., fresh=True)` does, and costs no attempt.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from sqlalchemy.engine import Connection

from hullwright.objects.errors import ComputeResourcesUnavailable, ServerGroupPolicyViolated
from hullwright.objects.placement import Selection
from hullwright.persistence import allocations, server_groups


class Claimed(NamedTuple):
    """What came of a claim."""

    host: str
    lost: Mapping[str, str]  # host -> why it was not to be had, of those that were tried before


def claim_first(
    conn: Connection,
    selection: Selection,
    resources: Mapping[str, int],
    instance_uuid: str,
    job_uuid: str | None,
    server_group: str | None = None,
) -> Claimed:
    """Claim `resources` on the selected host, or walk down the alternates, in the caller's write transaction.

    `server_group`: the instance's group. Its policy is kept whatever others claim meanwhile: from here to the end of the transaction
    nobody else claims for that group.

    A host that was disabled or left the zone since it was chosen is as good as full, where the selection insists on that.
    When the selection says how much may be used of its host and more is, no alternate is tried: hosts are to be chosen anew.

    Returns the host that holds the claim, and those before it in the selection; one of the selection that held it already keeps it.
    Raises: ComputeResourcesUnavailable when none has room any more, ServerGroupPolicyViolated (one of those) when the group's policy
    forbids the first of them; no claim is held on any of them then.
    """
    group = server_groups.lock(conn, server_group, instance_uuid) if server_group else None
    names = dict(zip((selection.host_id, *selection.alternate_ids), (selection.host, *selection.alternates), strict=True))
    lost: dict[str, ComputeResourcesUnavailable] = {}
    for host_id, name in names.items():
        if group is not None and not group.allows(host_id):
            lost[name] = ServerGroupPolicyViolated(host=name, policy=group.policy, group=group.uuid)
            continue
        try:
            held_on = allocations.claim(
                conn,
                instance_uuid=instance_uuid,
                host_id=host_id,
                resources=resources,
                job_uuid=job_uuid,
                or_keep_on=names,
                probe_before=selection.probe_before if host_id == selection.host_id else None,
                used_at_most=selection.used_at_most if host_id == selection.host_id else None,
                only_in_service=selection.only_in_service,
                only_in_zone=selection.only_in_zone,
            )
        except ComputeResourcesUnavailable as error:
            lost[name] = error
            if selection.used_at_most is not None:
                break  # the alternates were chosen on the same old view
        else:
            return Claimed(names[held_on], {each: str(error.fields.get("reason") or error.text) for each, error in lost.items()})
    raise next(iter(lost.values()))
