"""The inside of a conductor's process in tests. Imported once by a server that forks the processes, so that each starts at once."""

import logging
import os
import sys
from typing import Any

from hullwright.conductor.service import run
from hullwright.conf import opts
from hullwright.drivers.virt.fake import driver as _fake  # noqa: F401  imported before the fork


def serve(overrides: dict[str, dict[str, Any]], preamble: str, log: str) -> None:
    """Run the preamble, then a conductor until it is told to stop; what it says goes to `log`."""
    descriptor = os.open(log, os.O_CREAT | os.O_WRONLY | os.O_APPEND)
    os.dup2(descriptor, 1)
    os.dup2(descriptor, 2)
    logging.basicConfig(level="INFO", stream=sys.stderr)
    exec(preamble, {})
    run(opts.load([], overrides))
