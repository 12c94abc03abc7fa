"""`hullwright api` and `hullwright conductor`: one service in the foreground, for a service manager or for `hullwright up`."""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import logging
import os
import signal
import sys
from typing import Any

from hullwright.cli.base import LocalCommand
from hullwright.persistence import schema

SUPERVISOR_VARIABLE = "HULLWRIGHT_SUPERVISOR_PID"
_PR_SET_PDEATHSIG = 1  # prctl(2)
_M_ARENA_MAX = -8  # mallopt(3)


def end_with_supervisor() -> None:
    """Be asked to stop (SIGTERM) when the `hullwright up` that started us dies, however it dies."""
    supervisor = os.environ.pop(SUPERVISOR_VARIABLE, "")
    if not supervisor:
        return
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
    if os.getppid() != int(supervisor):  # it died before we asked
        sys.exit(1)


def keep_memory_together() -> None:
    """Have all threads allocate from two arenas: glibc would give each its own, and what one freed would be of no use to the others."""
    if sys.platform == "linux":
        with contextlib.suppress(AttributeError):  # a C library that has no such thing needs none
            ctypes.CDLL(None).mallopt(_M_ARENA_MAX, 2)


def log_to_stderr(conf: Any) -> None:
    """A service's own log: one line per message with its time, from the configured level on; tracebacks are kept whole."""
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)-7s %(name)s: %(message)s"))
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(logging.WARNING)  # other people's libraries
    logging.getLogger("hullwright").setLevel(conf.log_level)


class _Service(LocalCommand):
    def begin(self) -> None:
        """What both services do first. Raises: WrongSchema, so that neither runs on tables that it does not know."""
        end_with_supervisor()
        keep_memory_together()
        log_to_stderr(self.conf)
        schema.check(self.database)
        self.database.close()  # the service opens its own


class Api(_Service):
    """Run the API in the foreground, until SIGTERM or Ctrl-C"""

    def take_action(self, parsed_args: argparse.Namespace) -> None:
        """Serve."""
        self.begin()
        from hullwright.api import server

        server.serve(self.conf)


class Conductor(_Service):
    """Run a conductor in the foreground, until SIGTERM or Ctrl-C; several may run at once"""

    def take_action(self, parsed_args: argparse.Namespace) -> None:
        """Lease jobs and run them; steps under way end before it stops."""
        self.begin()
        from hullwright.conductor import service

        service.run(self.conf)
