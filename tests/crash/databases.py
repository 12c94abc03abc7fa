"""On what database a scenario is furnished, and how each case gets a copy of its own.

They are handed to workers: what they hold of servers is where they are, and each process that copies ends what it began.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import shutil
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from support import outages
from support.postgres import PostgresServer

_numbers = itertools.count(1)  # of copies made by this process


@dataclass
class InDirectory:
    """SQLite: its file lies in the house's directory, and is copied with it."""

    def furnish(self, _name: str) -> str | None:
        """The URL of an empty database; None: the house's own choice."""
        return None

    def furnished(self, _name: str) -> None:
        """Nobody is connected any more: what is there is what cases begin with."""

    def copy(self, _name: str) -> str | None:
        """The URL of a copy."""
        return None

    def drop(self, url: str) -> None:
        """Leave nothing of a copy."""

    def away(self, url: str) -> contextlib.AbstractContextManager[None]:
        """Have a copy go away meanwhile."""
        return outages.locked(url)

    def close(self) -> None:
        """Leave nothing."""


@dataclass
class OnServer:
    """PostgreSQL: a database for each case, on one server, of which only the port is known."""

    port: int

    @property
    def _server(self) -> PostgresServer:
        server = PostgresServer()
        server.port = self.port
        return server

    def furnish(self, name: str) -> str | None:
        return self._server.create_database(name=name)

    def furnished(self, _name: str) -> None:
        """The server keeps it."""

    def copy(self, name: str) -> str | None:
        return self._server.create_database(name, name=f"{name}_{os.getpid()}_{next(_numbers)}")

    def drop(self, url: str) -> None:
        self._server.drop_database(url)

    def away(self, url: str) -> contextlib.AbstractContextManager[None]:
        return outages.terminated(self._server, url)

    def close(self) -> None:
        """The server is somebody else's."""


@dataclass
class OnServerEach:
    """PostgreSQL: a server for each case, on a copy of one's data."""

    directories: dict[str, str] = field(default_factory=dict)  # name -> the halted server's directory
    _running: dict[str, PostgresServer] = field(default_factory=dict)  # by URL, in this process

    def __getstate__(self) -> dict[str, Any]:
        return {"directories": self.directories, "_running": {}}

    def furnish(self, name: str) -> str | None:
        server = PostgresServer(synchronous_commit="on")
        server.start()
        url = server.create_database(name=name)
        self._running[name] = server
        return url

    def furnished(self, name: str) -> None:
        self.directories[name] = str(self._running.pop(name).halt())

    def copy(self, name: str) -> str | None:
        server = PostgresServer.clone(Path(self.directories[name]), synchronous_commit="on")
        url = server.url(name)
        self._running[url] = server
        return url

    def drop(self, url: str) -> None:
        self._running.pop(url).stop()

    def away(self, url: str) -> contextlib.AbstractContextManager[None]:
        return outages.stopped(self._running[url])

    def close(self) -> None:
        while self._running:
            self._running.popitem()[1].stop()
        for directory in self.directories.values():
            shutil.rmtree(directory, ignore_errors=True)


Databases = InDirectory | OnServer | OnServerEach
