"""Finds filters and weighers by name: files of this package first, then entry points of others.

Not for: what they do; see `filters` and `weighers`.
"""

from __future__ import annotations

import importlib
import importlib.util
from importlib.metadata import entry_points
from typing import Any


class UnknownPlugin(ValueError):
    """The configuration names a filter or weigher that nobody provides."""


def load(kind: str, names: list[str], aliases: dict[str, str]) -> list[tuple[str, Any]]:
    """The modules (or objects with the same attributes) of these names, in order; `kind` is filters or weighers.

    Raises: UnknownPlugin.
    """
    found = []
    for asked in names:
        name = aliases.get(asked, asked)
        path = f"hullwright.scheduler.{kind}.{name}"
        if name.isidentifier() and importlib.util.find_spec(path) is not None:
            found.append((name, importlib.import_module(path)))
            continue
        foreign = list(entry_points(group=f"hullwright.{kind}", name=name))
        if not foreign:
            raise UnknownPlugin(f"[scheduler] names {asked!r}, which is neither a file in hullwright.scheduler.{kind} nor an entry point")
        found.append((name, foreign[0].load()))
    return found
