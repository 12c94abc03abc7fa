"""Ports for what tests start, chosen seconds before they are bound.

They are below those that the kernel gives to outgoing connections, so that no connection takes one meanwhile.
"""

from __future__ import annotations

import random
import socket
from pathlib import Path

LOWEST = 20_000  # guests' displays are below
_given: set[int] = set()
_random = random.SystemRandom()  # sessions side by side choose others, whatever is seeded


def free_port() -> int:
    """A port of 127.0.0.1 at which nobody listens, and that was not given before."""
    first_of_kernel = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    while True:
        port = _random.randrange(min(LOWEST, first_of_kernel - 1000), first_of_kernel)
        with socket.socket() as probe:
            if port not in _given and probe.connect_ex(("127.0.0.1", port)) != 0:
                _given.add(port)
                return port
