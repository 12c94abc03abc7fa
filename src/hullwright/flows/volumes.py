"""Making and deleting a volume of the embedded volume service."""

from __future__ import annotations

from taskflow.patterns import linear_flow

from hullwright.flows.steps.volume import MakeVolume, RemoveVolume


def create_volume_v1() -> linear_flow.Flow:
    """The graph of a new volume. Needs `run` injected."""
    return linear_flow.Flow("create_volume").add(MakeVolume())


def delete_volume_v1() -> linear_flow.Flow:
    """The graph of a volume's end. Needs `run` injected."""
    return linear_flow.Flow("delete_volume").add(RemoveVolume())
