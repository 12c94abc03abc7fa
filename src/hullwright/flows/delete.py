"""Deleting an instance, and cleaning up after it on a host that was silent.

destroy_guest, leave_host, release, finish_delete
"""

from __future__ import annotations

from taskflow.patterns import linear_flow

from hullwright.flows.steps.teardown import CleanHost, DestroyGuest, FinishDelete, LeaveHost, Release, ReleaseVolumes


def delete_instance_v1() -> linear_flow.Flow:
    """The graph of a delete. Needs `run` injected."""
    return linear_flow.Flow("delete_instance").add(DestroyGuest(), LeaveHost(), Release(), FinishDelete())


def clean_host_v1() -> linear_flow.Flow:
    """The graph of a late cleaning. Needs `run` injected."""
    return linear_flow.Flow("clean_host").add(CleanHost())


def release_instance_v1() -> linear_flow.Flow:
    """The graph of a late release of volumes. Needs `run` injected."""
    return linear_flow.Flow("release_instance").add(ReleaseVolumes())
