"""For tests and benchmarks: a host that is a directory, for the fake hypervisor and for the local drivers on a fake host.

URIs: `fake:///a/directory` is the host whose things lie there; `fake://h1` is the one under `<state_path>/fake/h1`.
In the directory: `journal` (what is there and every effect so far, see `fake_journal`), `faults.json` (what goes wrong, see
`fake_faults`), `facts.json` (what the hypervisor tells of itself, see `virt/fake`). Any number of processes share a host.
Not for: real guests, networks or volumes.
"""

from __future__ import annotations

import contextlib
import functools
import os
import urllib.parse
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from hullwright.drivers.fake_faults import Faults
from hullwright.drivers.fake_journal import Journal, journal_at
from hullwright.objects.hosts import HostRef

SCHEME = "fake"


def is_fake(host: HostRef) -> bool:
    """True when the host is one of these."""
    return host.uri.startswith(f"{SCHEME}:")


@functools.cache
def _faults_of(directory: Path, host: str) -> Faults:
    """One per host and process, so that its file is read again only when it changed."""
    return Faults(directory, host)


class FakeHost:
    """A fake host's things, effects and faults. Objects are cheap; any number may speak of one host."""

    def __init__(self, host: HostRef, state_path: str | os.PathLike[str] = "var") -> None:
        """Raises: ValueError for a URI that is not of a fake host."""
        parsed = urllib.parse.urlsplit(host.uri)
        if parsed.scheme != SCHEME or not (parsed.netloc or parsed.path.strip("/")):
            raise ValueError(f"{host.uri} is not fake:///directory or fake://name")
        self.name = host.name
        place = Path(state_path, SCHEME, parsed.netloc) if parsed.netloc else Path(parsed.path)
        self.directory = place.absolute()
        self.parameters: Mapping[str, str] = dict(urllib.parse.parse_qsl(parsed.query))
        self.faults = _faults_of(self.directory, host.name)
        self.things: Journal = journal_at(self.directory / "journal")

    @contextlib.contextmanager
    def call(self, operation: str, uuid: str = "") -> Iterator[None]:
        """One call of a driver: its faults strike before the body and after it."""
        self.faults.strike(operation, "before", uuid)
        yield
        self.faults.strike(operation, "after", uuid)

    def halfway(self, operation: str, uuid: str = "") -> None:
        """The point between two halves of a call's effect."""
        self.faults.strike(operation, "during", uuid)

    def effects(self, operation: str | None = None, uuid: str | None = None) -> list[dict[str, Any]]:
        """The effects so far, oldest first; of one operation or about one uuid when given."""
        return [
            line
            for line in self.things.lines()
            if line["operation"] is not None and operation in (None, line["operation"]) and uuid in (None, line["uuid"])
        ]
