"""Starting, stopping and rebooting an instance; the job's kind says which."""

from __future__ import annotations

from taskflow.patterns import linear_flow

from hullwright.flows.steps.power import PowerGuard, RecordPower, SwitchPower


def switch_power_v1() -> linear_flow.Flow:
    """The graph of a start, stop or reboot. Needs `run` injected."""
    return linear_flow.Flow("switch_power").add(PowerGuard(), SwitchPower(), RecordPower())
