"""How figures are told to a person: sizes, durations, times. Nothing else."""

from __future__ import annotations

import time


def size(count: float) -> str:
    """27.3 MiB."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if abs(count) < 1024:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1024
    return f"{count:.1f} TiB"


def duration(seconds: float | None) -> str:
    """0.004 s, 3.21 s, 2 min 05 s; a dash for what has not ended."""
    if seconds is None:
        return "-"
    if seconds < 1:
        return f"{max(0.0, seconds):.3f} s"
    if seconds < 60:
        return f"{seconds:.2f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02} min" if hours else f"{minutes} min {rest:02} s"


def moment(at: float) -> str:
    """Local time with milliseconds."""
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(at)) + f".{int(at % 1 * 1000):03}"


def clock(at: float) -> str:
    """Local time of the day with milliseconds."""
    return moment(at)[11:]
