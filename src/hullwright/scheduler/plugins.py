"""Finds filters and weighers by name: files of this package, entry points of others, and modules that the configuration names.

Not for: what they do; see `filters` and `weighers`.
"""

from __future__ import annotations

import importlib
import importlib.util
import pkgutil
from collections.abc import Iterable, Mapping
from importlib.metadata import entry_points
from typing import Any

ALL = "all"  # of this package, and of installed packages by entry point


class UnknownPlugin(ValueError):
    """The configuration names a filter or weigher that nobody provides, or one that it does not make available."""


def load(kind: str, names: Iterable[str], aliases: Mapping[str, str], available: Iterable[str] = (ALL,)) -> list[tuple[str, Any]]:
    """The modules (or objects with the same attributes) of these names, in order; `kind` is filters or weighers.

    `available`: what may be named: ALL, names as above, and dotted paths of modules, which go by the last word.
    Raises: UnknownPlugin.
    """
    allowed = {_last_word(aliases.get(path, path)): aliases.get(path, path) for path in available}
    found = []
    for asked in names:
        name = aliases.get(asked, asked)
        if (path := allowed.get(name, "")) != name and "." in path:
            found.append((name, _import(path, asked)))
        elif ALL not in allowed and name not in allowed:
            raise UnknownPlugin(f"[scheduler] names {asked!r}, which is not among available_{kind}")
        else:
            found.append((name, _find(kind, name, asked)))
    return found


def names_of(kind: str) -> list[str]:
    """The files of this package."""
    package = importlib.import_module(f"hullwright.scheduler.{kind}")
    return sorted(each.name for each in pkgutil.iter_modules(package.__path__))


def _find(kind: str, name: str, asked: str) -> Any:
    path = f"hullwright.scheduler.{kind}.{name}"
    if name.isidentifier() and importlib.util.find_spec(path) is not None:
        return importlib.import_module(path)
    foreign = list(entry_points(group=f"hullwright.{kind}", name=name))
    if not foreign:
        raise UnknownPlugin(f"[scheduler] names {asked!r}, which is neither a file in hullwright.scheduler.{kind} nor an entry point")
    return foreign[0].load()


def _import(path: str, asked: str) -> Any:
    try:
        return importlib.import_module(path)
    except ImportError as error:
        raise UnknownPlugin(f"[scheduler] names {asked!r}, whose module {path} cannot be loaded: {error}") from error


def _last_word(path: str) -> str:
    return path.rpartition(".")[2]
