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
from pathlib import Path

from hullwright.persistence.database import Database, DatabaseUnavailable

CHANNEL = "hullwright_jobs"


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
        self._postgresql: object | None = None
        self._hears_signals = False

    def poke(self) -> None:
        """Wake every conductor. Never fails: a conductor that is not there needs no waking."""
        if self._db.is_postgresql:
            with contextlib.suppress(DatabaseUnavailable), self._db.read() as connection:
                connection.exec_driver_sql(f"NOTIFY {CHANNEL}")
            return
        with contextlib.suppress(OSError):
            for path in self._directory.glob("*.wake"):
                self._send(path)

    def _send(self, path: Path) -> None:
        try:
            self._sender.sendto(b"1", str(path))
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
        self._listener.bind(str(self._path))

    def wait(self, timeout_seconds: float) -> bool:
        """Sleep until somebody pokes, at most `timeout_seconds`; True when poked. Earlier unread pokes count."""
        sources: list[socket.socket | int] = [self._inner]
        if self._listener is not None:
            sources.append(self._listener)
        if self._db.is_postgresql:
            sources.extend(self._postgresql_sources())
        ready, _, _ = select.select(sources, [], [], timeout_seconds)
        for source in ready:
            self._drain(source)
        return bool(ready)

    def _drain(self, source: socket.socket | int) -> None:
        if isinstance(source, socket.socket):
            with contextlib.suppress(OSError):
                while source.recv(16):
                    pass
            return
        import psycopg

        listener = self._postgresql
        assert isinstance(listener, psycopg.Connection)
        try:
            for _ in listener.notifies(timeout=0):
                pass
        except psycopg.Error:
            with contextlib.suppress(psycopg.Error):
                listener.close()
            self._postgresql = None

    def _postgresql_sources(self) -> list[int]:
        import psycopg

        if self._postgresql is None:
            url = self._db.engine.url
            try:
                listener = psycopg.connect(url.set(drivername="postgresql").render_as_string(hide_password=False), autocommit=True)
                listener.execute(f"LISTEN {CHANNEL}")
            except psycopg.Error:
                return []  # the conductor's own look at the table will tell that the database is away
            self._postgresql = listener
        assert isinstance(self._postgresql, psycopg.Connection)
        return [self._postgresql.fileno()]

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
            self._postgresql.close()  # type: ignore[attr-defined]
