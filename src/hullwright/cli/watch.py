"""Shows a build while it happens: a table that redraws itself on a terminal, one line per event elsewhere.

Not for: fetching events (`builds`) or making sense of them (`history`).
"""

from __future__ import annotations

import time
from types import TracebackType
from typing import Protocol, Self, TextIO

from rich.console import Console, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.spinner import Spinner
from rich.table import Table
from rich.text import Text

from hullwright.cli import words
from hullwright.objects.history import History, Run
from hullwright.objects.states import StepState

_STYLES = {
    StepState.SUCCESS: "green",
    StepState.FAILURE: "red",
    StepState.REVERTED: "yellow",
    StepState.REVERT_FAILURE: "bold red",
}
_BAR_COLUMNS = 24


class Watch(Protocol):
    """Somebody who is told what happens."""

    def __enter__(self) -> Self: ...

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None: ...

    def changed(self, history: History, run: Run | None) -> None:
        """`run` changed; None: something else of the build did."""


def on(out: TextIO) -> Watch:
    """A live table where `out` is a terminal, plain lines elsewhere."""
    console = Console(file=out, highlight=False)
    return LiveTable(console) if console.is_terminal else PlainLines(out)


class LiveTable:
    """Redraws the whole build a few times a second."""

    def __init__(self, console: Console) -> None:
        self._history = History()
        self._spinner = Spinner("dots")
        self._live = Live(console=console, refresh_per_second=8, get_renderable=self._draw)

    def __enter__(self) -> Self:
        self._live.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._live.stop()

    def changed(self, history: History, run: Run | None) -> None:
        """Remember; the table draws itself."""
        self._history = history

    def _draw(self) -> RenderableType:
        now = time.time()
        table = Table(box=None, pad_edge=False, show_header=True, header_style="bold")
        for title in ("attempt", "step", "state"):
            table.add_column(title, no_wrap=True)
        table.add_column("time", justify="right", no_wrap=True)
        table.add_column("")
        for run in self._history.runs:
            table.add_row(
                str(run.attempt or ""),
                run.title,
                Text(run.state, _STYLES[StepState(run.state)]) if run.state in _STYLES else self._running(run.state),
                words.duration(run.seconds(now)),
                _extent(run),
            )
        return table

    def _running(self, state: str) -> RenderableType:
        grid = Table.grid(padding=(0, 1))
        grid.add_row(self._spinner, Text(state, "cyan"))
        return grid


def _extent(run: Run) -> RenderableType:
    """How far a long step is, or why it failed."""
    remark = run.note or (f"on {run.host}" if run.host and run.step in ("claim", "spawn") else "")
    if run.resumed:
        remark = f"taken up again after a crash{' x' + str(run.resumed) if run.resumed > 1 else ''} {remark}"
    if not run.total:
        return Text(remark, style="red" if run.note and run.finished_at else "dim")
    grid = Table.grid(padding=(0, 1))
    bar = ProgressBar(total=run.total, completed=run.done, width=_BAR_COLUMNS)
    grid.add_row(bar, Text(f"{amount(run)} {remark}"))
    return grid


def amount(run: Run) -> str:
    """27.3 MiB of 100.0 MiB."""
    if run.unit == "bytes":
        return f"{words.size(run.done)} of {words.size(run.total)}"
    return f"{run.done} of {run.total} {run.unit}"


class PlainLines:
    """One line for each change: for pipes, logs and screen readers."""

    def __init__(self, out: TextIO) -> None:
        self._out = out
        self._begun_at: float | None = None
        self._tenths: dict[int, int] = {}  # id of run -> tenths of its work that were told

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        return None

    def changed(self, history: History, run: Run | None) -> None:
        """Print what is new."""
        if run is None:
            return
        if self._begun_at is None:
            self._begun_at = run.started_at
        at = run.finished_at or run.started_at
        if run.total and run.finished_at is None:
            tenths = run.done * 10 // run.total
            if tenths <= self._tenths.get(id(run), -1):
                return
            self._tenths[id(run)] = tenths
            at = run.progress_at
        attempt = f"attempt {run.attempt}" if run.attempt else " " * len("attempt 1")
        parts = [f"{at - self._begun_at:8.3f} s", attempt, f"{run.title:<20}", run.state]
        if run.finished_at is not None:
            parts.append(f"({words.duration(run.seconds())})")
        if run.total:
            parts.append(amount(run))
        if run.resumed:
            parts.append("taken up again after a crash")
        if run.note:
            parts.append(run.note)
        self._out.write("  ".join(parts).rstrip() + "\n")
        self._out.flush()
