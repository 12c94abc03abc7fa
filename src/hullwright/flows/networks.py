"""Taking deleted networks of the embedded network service off the hosts."""

from __future__ import annotations

from taskflow.patterns import linear_flow

from hullwright.flows.steps.network import SweepNetworks


def sweep_networks_v1() -> linear_flow.Flow:
    """The graph of a sweep. Needs `run` injected."""
    return linear_flow.Flow("sweep_networks").add(SweepNetworks())
