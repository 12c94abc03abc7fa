"""What the benchmarks share: CPU time and memory of process trees, percentiles, tables of results; from Linux's /proc, proc(5)."""

from __future__ import annotations

import datetime
import os
import platform
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

_TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")
MIB = 1 << 20


def _fields(pid: int) -> list[str]:
    """/proc/PID/stat from the state on: the name before it may hold anything."""
    text = Path(f"/proc/{pid}/stat").read_text()
    return text[text.rindex(")") + 2 :].split()


def tree(root: int) -> list[int]:
    """A process and all that descend from it."""
    children: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                children.setdefault(int(_fields(int(entry.name))[1]), []).append(int(entry.name))
            except (OSError, ValueError):
                continue  # it has ended meanwhile
    found, todo = [], [root]
    while todo:
        pid = todo.pop()
        found.append(pid)
        todo += children.get(pid, [])
    return found


def cpu_seconds(pids: Iterable[int]) -> float:
    """User and system time of processes so far, and of their children that have ended."""
    total = 0
    for pid in pids:
        try:
            total += sum(int(field) for field in _fields(pid)[11:15])
        except OSError:
            continue
    return total / _TICKS_PER_SECOND


def memory_mib(pids: Iterable[int]) -> dict[str, float]:
    """Memory of processes in MiB: `rss` and its peak `hwm` count shared pages for each, `pss` counts them once."""
    total = {"rss": 0.0, "hwm": 0.0, "pss": 0.0}
    names = {"VmRSS": "rss", "VmHWM": "hwm", "Pss": "pss"}
    for pid in pids:
        for file in ("status", "smaps_rollup"):
            try:
                lines = Path(f"/proc/{pid}/{file}").read_text().splitlines()
            except OSError:
                continue
            for line in lines:
                name, _, value = line.partition(":")
                if name in names:
                    total[names[name]] += int(value.split()[0]) / 1024
    return total


def percentile(values: Sequence[float], percent: float) -> float:
    """The value that so many percent of all do not exceed; 0 without any."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, round(percent / 100 * (len(ordered) - 1)))] if ordered else 0.0


def machine() -> str:
    """What the figures were measured on."""
    model = next((line.partition(": ")[2] for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")), "?")
    return f"{os.cpu_count()} CPUs ({model}), Linux {platform.release()}, Python {platform.python_version()}"


def table(rows: Sequence[Mapping[str, object]]) -> str:
    """Rows as a Markdown table; the first one names the columns."""
    names = list(rows[0])
    lines = ["| " + " | ".join(names) + " |", "|" + "---|" * len(names)]
    lines += ["| " + " | ".join(str(row.get(name, "")) for name in names) + " |" for row in rows]
    return "\n".join(lines) + "\n"


def write(path: Path, title: str, method: str, rows: Sequence[Mapping[str, object]]) -> None:
    """One file per benchmark: how it was measured, on what, when, and the figures."""
    path.parent.mkdir(parents=True, exist_ok=True)
    when = datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d")
    path.write_text(f"# {title}\n\n{method}\n\nMeasured {when} on {machine()}.\n\n{table(rows)}")
