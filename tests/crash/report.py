"""The tables of docs/reliability.md: what happened where, and what was left."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path

from crash.plan import Row

BEGIN, END = "<!-- begin: written by make crash -->", "<!-- end: written by make crash -->"
_OPERATION = ("operation", "`--scenario`")
_OUTAGES = {"locked": "SQLite locked", "terminated": "PostgreSQL cut off", "stopped": "PostgreSQL stopped"}


def tables(rows: Sequence[Row], *, seed: object, workers: int, seconds: float) -> str:
    """Markdown: a table for each kind of trouble that there are rows of."""
    of = {trouble: [row for row in rows if row.trouble == trouble] for trouble in ("kill", "delete", "stall", "hang", *_OUTAGES)}
    parts = [
        _part("Kills", ("boundaries K", "of them in undo", "kills survived", "pairs survived"), of["kill"], _kills),
        _part("Deletes of which nobody dies", ("boundaries K", "of them in undo", "deletes that won"), of["delete"], _deletes),
        _part("Stalls", ("boundaries K", "stalls tried", "stalls survived"), of["stall"], _tried),
        _outages(of),
        _part(
            "Calls that never return",
            ("boundaries of driver calls", "of them in undo", "hangs tried", "hangs survived"),
            of["hang"],
            lambda row: [row.boundaries, row.in_undo, row.tried, row.survived],
        ),
    ]
    note = f"{seconds:.0f} s in all, {workers} workers on {os.cpu_count()} CPUs; what was not tried in full was chosen by seed {seed}."
    return "\n\n".join([*filter(None, parts), f"{note} {_missed(rows)}"])


def _missed(rows: Sequence[Row]) -> str:
    """Cases in which nothing was wrong, and nothing befell anybody either: they are not among those survived."""
    found = [f"{row.missed} of `{row.name}` ({row.trouble})" for row in rows if row.missed]
    if not found:
        return "All processes came to their boundaries."
    return f"Cases, pairs too, whose process never came to its boundary, and that count for nothing: {', '.join(found)}."


def _kills(row: Row) -> list[int]:
    return [row.boundaries, row.in_undo, row.survived, row.pairs]


def _deletes(row: Row) -> list[int]:
    return [row.boundaries, row.in_undo, row.survived]


def _tried(row: Row) -> list[int]:
    return [row.boundaries, row.tried, row.survived]


def _part(title: str, head: Sequence[str], rows: Sequence[Row], numbers: Callable[[Row], list[int]]) -> str:
    if not rows:
        return ""
    lines = [[row.title, f"`{row.name}`", *numbers(row), len(row.failures), round(row.seconds)] for row in rows]
    sums = [sum(column) for column in zip(*(line[2:] for line in lines), strict=True)]  # type: ignore[arg-type]
    lines.append(["**all**", "", *(f"**{number}**" for number in sums)])
    return f"### {title}\n\n" + _markdown((*_OPERATION, *head, "leaks", "case seconds"), lines)


def _outages(of: dict[str, list[Row]]) -> str:
    """One line for each operation, with the ways in which the database was away side by side."""
    found = {row.name: row.title for trouble in _OUTAGES for row in of[trouble]}
    if not found:
        return ""
    kinds = [trouble for trouble in _OUTAGES if of[trouble]]
    lines: list[list[object]] = []
    for name, title in found.items():
        there = {trouble: row for trouble in kinds for row in of[trouble] if row.name == name}
        cells = [f"{row.survived} of {row.tried} tried of {row.boundaries}" if (row := there.get(trouble)) else "" for trouble in kinds]
        lines.append([title, f"`{name}`", *cells, *_ends(list(there.values()))])
    totals = [sum(row.survived for row in of[trouble]) for trouble in kinds]
    ends = _ends([row for trouble in kinds for row in of[trouble]])
    lines.append(["**all**", "", *(f"**{total}**" for total in totals), *(f"**{end}**" for end in ends)])
    head = (*_OPERATION, *(_OUTAGES[trouble] for trouble in kinds), "leaks", "case seconds")
    return "### Outages of the database\n\n" + _markdown(head, lines)


def _ends(rows: Sequence[Row]) -> list[int]:
    return [sum(len(row.failures) for row in rows), round(sum(row.seconds for row in rows))]


def _markdown(head: Sequence[str], lines: Sequence[Sequence[object]]) -> str:
    rule = "|" + "---|" * len(head)
    return "\n".join(["| " + " | ".join(head) + " |", rule, *("| " + " | ".join(map(str, line)) + " |" for line in lines)])


def write(path: Path, text: str) -> None:
    """Put the tables between their marks.

    Raises: ValueError when they are not there.
    """
    document = path.read_text()
    head, _, rest = document.partition(BEGIN)
    _, end, tail = rest.partition(END)
    if not end:
        raise ValueError(f"{path} has no place for the tables")
    path.write_text(f"{head}{BEGIN}\n{text}\n{END}{tail}")
