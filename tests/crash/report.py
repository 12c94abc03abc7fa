"""The table of docs/reliability.md: what was killed where, and what was left."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from crash.plan import Row

BEGIN, END = "<!-- begin: written by make crash -->", "<!-- end: written by make crash -->"
_HEAD = ("operation", "`--scenario`", "boundaries K", "of them in undo", "kills survived", "pairs survived", "leaks", "seconds")


def table(rows: Sequence[Row], seed: int, workers: int) -> str:
    """Markdown."""
    lines = ["| " + " | ".join(_HEAD) + " |", "|" + "---|" * len(_HEAD)]
    for row in rows:
        cells = (row.title, f"`{row.name}`", row.boundaries, row.in_undo, row.killed, row.pairs, len(row.failures), f"{row.seconds:.0f}")
        lines.append("| " + " | ".join(map(str, cells)) + " |")
    sums = [sum(getattr(row, name) for row in rows) for name in ("boundaries", "in_undo", "killed", "pairs")]
    failures, seconds = sum(len(row.failures) for row in rows), sum(row.seconds for row in rows)
    lines.append("| " + " | ".join(["**all**", "", *(f"**{n}**" for n in sums), f"**{failures}**", f"**{seconds:.0f}**"]) + " |")
    lines += ["", f"SQLite in memory, {workers} workers on {os.cpu_count()} CPUs, pairs chosen with seed {seed}."]
    return "\n".join(lines)


def write(path: Path, text: str) -> None:
    """Put the table between its marks.

    Raises: ValueError when they are not there.
    """
    document = path.read_text()
    head, _, rest = document.partition(BEGIN)
    _, end, tail = rest.partition(END)
    if not end:
        raise ValueError(f"{path} has no place for the table")
    path.write_text(f"{head}{BEGIN}\n{text}\n{END}{tail}")
