"""How a posted job reaches an idle conductor at once, without a broker and without polling.

On SQLite everybody is on one machine: each conductor binds a datagram socket in the state directory and a poster sends it a byte.
On PostgreSQL it is LISTEN and NOTIFY. A wake-up may be lost, never the job: conductors look at the table from time to time anyway.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import socket
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hullwright.persistence.database import Database, DatabaseUnavailable

if TYPE_CHECKING:
    import psycopg

    _Source = socket.socket | psycopg.Connection[Any]

CHANNEL = "hullwright_jobs"


@contextlib.contextmanager
def _short(directory: Path) -> Iterator[str]:
    """Another name of a directory, for this process and this while: a socket's address has room for about a hundred characters."""
    descriptor = os.open(directory, os.O_PATH | os.O_DIRECTORY)
    try:
        yield f"/proc/self/fd/{descriptor}"
    finally:
        os.close(descriptor)


class Wakeup:
    """Both ends: `poke` from anywhere; `wait` in the process that called `listen`."""

    def __init__(self, db: Database, state_path: str | Path) -> None:
        """`state_path`: the installation's directory; sockets go to its `run/`."""
        self._db = db
        self._directory = Path(state_path).resolve() / "run"
        # One socket for all threads: a datagram is sent whole.
        self._sender = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._sender.setblocking(False)
        # In-process pokes and `close` come by this pair, whatever the database is.
        self._inner, self._outer = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
        for end in (self._inner, self._outer):
            end.setblocking(False)
        self._listener: socket.socket | None = None
        self._path: Path | None = None
        self._postgresql: psycopg.Connection[Any] | None = None
        self._hears_signals = False

    def poke(self) -> None:
        """Wake every conductor. Never fails: a conductor that is not there needs no waking."""
        if self._db.is_postgresql:
            with contextlib.suppress(DatabaseUnavailable), self._db.read() as connection:
                connection.exec_driver_sql(f"NOTIFY {CHANNEL}")
            return
        with contextlib.suppress(OSError), _short(self._directory) as short:
            for path in self._directory.glob("*.wake"):
                self._send(path, f"{short}/{path.name}")

    def _send(self, path: Path, address: str) -> None:
        try:
            self._sender.sendto(b"1", address)
        except (ConnectionRefusedError, FileNotFoundError):
            with contextlib.suppress(OSError):  # its conductor is dead
                path.unlink()
        except BlockingIOError:
            pass  # it has unread pokes already: one is enough

    def poke_self(self) -> None:
        """Wake only this process's `wait`."""
        with contextlib.suppress(OSError):
            self._outer.send(b"1")

    def hear_signals(self) -> None:
        """Have this process's signals end `wait`, whichever thread the kernel hands them to. For the main thread.

        A signal that another thread takes interrupts the main thread's sleep before Python knows of it, and the sleep goes on.
        """
        signal.set_wakeup_fd(self._outer.fileno(), warn_on_full_buffer=False)
        self._hears_signals = True

    def listen(self) -> None:
        """Be woken by pokes from now on."""
        if self._db.is_postgresql:
            return  # `wait` connects, and again when the server was away
        self._directory.mkdir(parents=True, exist_ok=True)
        self._path = self._directory / f"{os.getpid()}-{uuid.uuid4().hex[:8]}.wake"
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._listener.setblocking(False)
        with _short(self._directory) as short:
            self._listener.bind(f"{short}/{self._path.name}")

    def wait(self, timeout_seconds: float) -> bool:
        """Sleep until somebody pokes, at most `timeout_seconds`; True when poked. Earlier unread pokes count."""
        poll = select.poll()  # not select(): a conductor of a thousand hosts has descriptors beyond the 1,024 that it can name
        sources = {source.fileno(): source for source in self._sources()}
        for descriptor in sources:
            poll.register(descriptor, select.POLLIN)
        ready = poll.poll(timeout_seconds * 1000)
        for descriptor, _ in ready:
            self._drain(sources[descriptor])
        return bool(ready)

    def _sources(self) -> list[_Source]:
        """What a poke may come by. One that was lost is opened again."""
        sources: list[_Source] = [self._inner]
        if self._listener is not None:
            sources.append(self._listener)
        if self._db.is_postgresql and (listener := self._postgresql_listener()) is not None:
            sources.append(listener)
        return sources

    def _drain(self, source: _Source) -> None:
        if isinstance(source, socket.socket):
            with contextlib.suppress(OSError):
                while source.recv(16):
                    pass
            return
        import psycopg

        try:
            for _ in source.notifies(timeout=0):
                pass
        except psycopg.Error:
            with contextlib.suppress(psycopg.Error):
                source.close()
            self._postgresql = None

    def _postgresql_listener(self) -> psycopg.Connection[Any] | None:
        import psycopg

        if self._postgresql is None:
            url = self._db.engine.url
            try:
                where = url.set(drivername="postgresql").render_as_string(hide_password=False)
                listener = psycopg.connect(where, autocommit=True, **self._db.connect_args)
                listener.execute(f"LISTEN {CHANNEL}")
            except psycopg.Error:
                return None  # the conductor's own look at the table will tell that the database is away
            self._postgresql = listener
        return self._postgresql

    def close(self) -> None:
        """Stop listening and remove the socket."""
        if self._hears_signals:
            signal.set_wakeup_fd(-1)
        for end in (self._inner, self._outer, self._listener, self._sender):
            if end is not None:
                end.close()
        if self._path is not None:
            self._path.unlink(missing_ok=True)
        if self._postgresql is not None:
            self._postgresql.close()
