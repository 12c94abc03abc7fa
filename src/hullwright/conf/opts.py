"""Finds the groups of options in this package, registers them, reads the configuration, and lists them for the sample."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Iterable, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

from oslo_config import cfg

import hullwright.conf


def _modules() -> Iterable[ModuleType]:
    """Every file of this package that declares a group; one that forgets to fails loudly."""
    for found in sorted(pkgutil.iter_modules(hullwright.conf.__path__), key=lambda module: module.name):
        if found.name != "opts":
            module = importlib.import_module(f"hullwright.conf.{found.name}")
            if not hasattr(module, "GROUP") or not hasattr(module, "OPTS"):
                raise RuntimeError(f"{module.__name__} must declare GROUP and OPTS")
            yield module


def list_opts() -> list[tuple[str, list[Any]]]:
    """Group name -> options, as oslo-config-generator wants them."""
    return [(module.GROUP, list(module.OPTS)) for module in _modules()]


def load(config_files: Sequence[str | Path] | None = None, overrides: dict[str, dict[str, Any]] | None = None) -> cfg.ConfigOpts:
    """Read the configuration.

    `config_files`: None looks for ./etc/hullwright.conf, then /etc/hullwright/hullwright.conf; an empty list reads none.
    `overrides`: group -> option -> value, stronger than the files. Environment variables OS_<GROUP>__<OPTION> count too.

    Raises: ValueError for a value that is none of its option's, whether or not anybody is going to ask for it.
    """
    conf = cfg.ConfigOpts()
    for group, options in list_opts():
        conf.register_opts(options, group=None if group == "DEFAULT" else group)
    if config_files is None:
        places = (Path("etc/hullwright.conf"), Path("/etc/hullwright/hullwright.conf"))
        config_files = [path for path in places if path.is_file()][:1]
    conf([], project="hullwright", default_config_files=[str(path) for path in config_files])
    for group, options in list_opts():
        for option in options:
            getattr(conf if group == "DEFAULT" else conf[group], option.dest)
    for group, values in (overrides or {}).items():
        for name, value in values.items():
            conf.set_override(name, value, group=None if group == "DEFAULT" else group)
    return conf
