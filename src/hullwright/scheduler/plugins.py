"""Finds filters and weighers by name: files of this package, entry points of others, and modules that the configuration names.

Not for: what they do; see `filters` and `weighers`.
"""

from __future__ import annotations

import importlib
import importlib.util
import pkgutil
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from importlib.metadata import entry_points
from typing import Any

ALL = "all"  # of this package, and of installed packages by entry point


class UnknownPlugin(ValueError):
    """The configuration names a filter or weigher that nobody provides, that it does not make available, or that cannot work so."""


@dataclass(frozen=True, slots=True)
class Kind:
    """Filters or weighers, and what configurations may call them."""

    name: str
    aliases: Mapping[str, str]  # names that Nova has for ours
    lacking: Mapping[str, str]  # names that Nova has for what Hullwright does not do, and what that is
    functions: tuple[str, ...]  # one of which a plugin has
    by_path: bool = False  # whether a name may be the dotted path of a module, as well as an entry in `available`


def load(kind: Kind, names: Iterable[str], available: Iterable[str] = (ALL,)) -> list[tuple[str, Any]]:
    """The modules (or objects with the same attributes) of these names, in order.

    `available`: what may be named: ALL, names as above, and dotted paths of modules, which go by the last word.
    Raises: UnknownPlugin.
    """
    aliases = kind.aliases
    allowed = {_last_word(aliases.get(path, path)): aliases.get(path, path) for path in available}
    found = []
    for asked in names:
        name = aliases.get(asked, asked)
        if (path := allowed.get(name, "")) != name and "." in path:
            plugin = _import(path, asked)
        elif ALL not in allowed and name not in allowed:
            raise UnknownPlugin(f"[scheduler] names {asked!r}, which is not among available_{kind.name}")
        else:
            plugin = _find(kind, name, asked)
        if not any(hasattr(plugin, function) for function in kind.functions):
            raise UnknownPlugin(f"[scheduler] names {asked!r}, which has no function {' or '.join(kind.functions)}(hosts, request)")
        found.append((_last_word(name) if kind.by_path else name, plugin))
    return found


def names_of(kind: str) -> list[str]:
    """The files of this package."""
    package = importlib.import_module(f"hullwright.scheduler.{kind}")
    return sorted(each.name for each in pkgutil.iter_modules(package.__path__))


def _find(kind: Kind, name: str, asked: str) -> Any:
    path = f"hullwright.scheduler.{kind.name}.{name}"
    if name.isidentifier() and importlib.util.find_spec(path) is not None:
        return importlib.import_module(path)
    group = f"hullwright.{kind.name}"
    foreign = list(entry_points(group=group, name=name))
    if foreign:
        return foreign[0].load()
    if what := kind.lacking.get(name):
        raise UnknownPlugin(
            f"[scheduler] names {asked!r}, but Hullwright has no {what}: leave it out, or install a package that has an entry point of "
            f"that name in the group {group}"
        )
    if kind.by_path and "." in name:
        return _import(name, asked)
    raise UnknownPlugin(f"[scheduler] names {asked!r}, which is neither a file in hullwright.scheduler.{kind.name} nor an entry point")


def _import(path: str, asked: str) -> Any:
    """A module, or what a module has of that name."""
    parent, _, word = path.rpartition(".")
    try:
        if parent and importlib.util.find_spec(parent) is not None and hasattr(found := importlib.import_module(parent), word):
            return getattr(found, word)
        return importlib.import_module(path)
    except (ImportError, ValueError) as error:  # the latter: a module without a spec
        raise UnknownPlugin(f"[scheduler] names {asked!r}, whose module {path} cannot be loaded: {error}") from error


def _last_word(path: str) -> str:
    return path.rpartition(".")[2]
