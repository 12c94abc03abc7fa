"""The inside of a conductor's process in tests. Imported once by a server that forks the processes, so that each starts at once."""

import functools
import logging
import os
import sys
import tempfile
import traceback
from pathlib import Path
from types import TracebackType
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


def words_of(pid: int) -> Path:
    """Where a process says why it died before it had a log: then its standard error is the forking server's, which nobody reads."""
    return Path(tempfile.gettempdir()) / f"hullwright-child-{pid}.log"


def _tell(kind: type[BaseException], error: BaseException, where: TracebackType | None) -> None:
    words_of(os.getpid()).write_text("".join(traceback.format_exception(kind, error, where)))
    sys.__excepthook__(kind, error, where)


os.register_at_fork(after_in_child=lambda: setattr(sys, "excepthook", _tell))


def serve(overrides: dict[str, dict[str, Any]], preamble: str, log: str) -> None:
    """Run the preamble, then a conductor until it is told to stop; what it says goes to `log`."""
    descriptor = os.open(log, os.O_CREAT | os.O_WRONLY | os.O_APPEND)
    os.dup2(descriptor, 1)
    os.dup2(descriptor, 2)
    logging.basicConfig(level="INFO", stream=sys.stderr)
    exec(preamble, {})
    run(opts.load([], overrides))
