"""The inside of a conductor's process in tests. Imported once by a server that forks the processes, so that each starts at once."""

import functools
import logging
import os
import sys
from typing import Any

import psycopg  # noqa: F401  imported before the fork, as is all that a database's first use would import
import sqlalchemy.dialects.postgresql.psycopg
import sqlalchemy.dialects.sqlite  # noqa: F401

from hullwright.conductor.service import run
from hullwright.conf import opts
from hullwright.drivers import registry
from support import boundaries as _boundaries  # noqa: F401  imported before the fork

# What takes long at a process's start and is the same in all of them is done before the fork.
registry.load = functools.cache(registry.load)
for _kind, _name in (("virt", "fake"), ("network", "local"), ("volume", "local"), ("image", "local")):
    registry.load(_kind, _name)
opts.load([], {})


def serve(overrides: dict[str, dict[str, Any]], preamble: str, log: str) -> None:
    """Run the preamble, then a conductor until it is told to stop; what it says goes to `log`."""
    descriptor = os.open(log, os.O_CREAT | os.O_WRONLY | os.O_APPEND)
    os.dup2(descriptor, 1)
    os.dup2(descriptor, 2)
    logging.basicConfig(level="INFO", stream=sys.stderr)
    exec(preamble, {})
    run(opts.load([], overrides))
