"""How busy a host's CPUs are, as metrics with Nova's names: times since the host's boot, and shares of the time since the last reading.

Not for: guests' CPUs, nor for what a CPU can do; the latter is in capabilities.py.
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Mapping
from typing import Any

from hullwright.drivers.libvirt_binding import is_connection_lost, load_libvirt

NAME = "cpu.virt_driver"  # in [compute] compute_monitors
KINDS = ("kernel", "idle", "user", "iowait")
_SHORTEST_SECONDS = 1.0  # shares of less time than this say nothing


class CpuMonitor:
    """Reads one host and keeps the last reading. Safe to use from many threads."""

    def __init__(self) -> None:
        """Start with the host's boot as the last reading."""
        self._lock = threading.Lock()
        self._times: Mapping[str, int] = dict.fromkeys(KINDS, 0)
        self._read_at = -math.inf  # monotonic
        self._shares: dict[str, int] = {}

    def read(self, connection: Any) -> dict[str, float]:
        """Frequency in MHz, times in ns, shares in whole percents, at first since the boot. Nothing where the host counts no times."""
        libvirt = load_libvirt()
        try:
            told = connection.getCPUStats(libvirt.VIR_NODE_CPU_STATS_ALL_CPUS)
        except libvirt.libvirtError as error:
            if is_connection_lost(error):
                raise
            return {}  # not every hypervisor counts
        if not all(kind in told for kind in KINDS):
            return {}
        times = {kind: int(told[kind]) for kind in KINDS}
        with self._lock:
            self._compare(times, time.monotonic())
            shares = dict(self._shares)
        return {"cpu.frequency": connection.getInfo()[3]} | {f"cpu.{kind}.time": spent for kind, spent in times.items()} | shares

    def _compare(self, times: Mapping[str, int], at: float) -> None:
        if at - self._read_at < _SHORTEST_SECONDS:
            return
        self._shares = shares(self._times, times)
        self._times, self._read_at = times, at


def shares(before: Mapping[str, int], after: Mapping[str, int]) -> dict[str, int]:
    """What became of the time between two readings, in percents; nothing when the counters began anew, as after the host's boot."""
    spent = {kind: after[kind] - before[kind] for kind in KINDS}
    whole = sum(spent.values())
    # The kernel may take back a little of what it counted as idle or waiting.
    if whole <= 0 or min(spent["kernel"], spent["user"]) < 0:
        return {}
    told = {f"cpu.{kind}.percent": _percent(spent[kind], whole) for kind in KINDS}
    return told | {"cpu.percent": _percent(whole - spent["idle"], whole)}


def _percent(part: int, whole: int) -> int:
    return min(100, max(0, part * 100 // whole))
