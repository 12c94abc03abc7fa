"""Building an instance.

guard, reserve, [ select_host, claim, { plug_network, connect_volumes, fetch_image }, spawn ] retried, activate
"""

from __future__ import annotations

from taskflow.patterns import graph_flow, linear_flow

from hullwright.flows.reschedule import Reschedule
from hullwright.flows.steps.activate import Activate
from hullwright.flows.steps.connections import ConnectVolumes, FetchImage, PlugNetwork
from hullwright.flows.steps.guard import Guard
from hullwright.flows.steps.guest import Spawn
from hullwright.flows.steps.placement import Claim, SelectHost
from hullwright.flows.steps.resources import Reserve


def build_instance_v1() -> linear_flow.Flow:
    """The graph of a build. Needs `run` and `max_attempts` injected."""
    attempt = graph_flow.Flow("attempt", retry=Reschedule())
    attempt.add(SelectHost(), Claim(), PlugNetwork(), ConnectVolumes(), FetchImage(), Spawn())
    return linear_flow.Flow("build_instance").add(Guard(), Reserve(), attempt, Activate())
