"""The worker process of the API: gunicorn's threads, kept from clients that are slow, silent or gone.

A thread serves one request at a time, and there are few: what waits for a client must not hold one without limit, nor the loop that
feeds them. A connection that has said nothing waits beside the threads; one that has begun to speak has a budget of waiting, which it
earns back by sending; one that does not read its answer is left; one that is to be closed is watched for the client's farewell by the
loop, which gunicorn's own worker stands still for.
Not for: many hostile clients at once; that is a reverse proxy's trade.
"""

from __future__ import annotations

import errno
import selectors
import socket
import time
from collections import deque
from functools import partial
from typing import Any

from gunicorn.http.unreader import SocketUnreader
from gunicorn.workers.gthread import TConn, ThreadWorker

CONNECTIONS = 512  # open at once in one worker; more wait to be accepted. Below the usual limit of 1024 open files
WAIT_SECONDS = 20.0  # that a thread waits for the bytes of one request, whatever they earn
LEAST_BYTES_PER_SECOND = 2048  # what a client must send to be waited for longer
SEND_SECONDS = 60.0  # that a thread waits for a client to read a piece of its answer
_DRAIN_BYTES = 65536
FAREWELL_SECONDS = 2.0  # that a client has to read the end of its answer, before what it still sends would make the kernel reset it


class _Budgeted(SocketUnreader):  # type: ignore[misc]
    """Reads from a client until it has been waited for too long; then the client counts as gone."""

    def __init__(self, sock: socket.socket) -> None:
        super().__init__(sock)
        self._left_seconds = WAIT_SECONDS

    def begin(self) -> None:
        """A new request has its own budget, unless the one before was given up."""
        if self._left_seconds > 0:
            self._left_seconds = WAIT_SECONDS

    def chunk(self, size_hint: int | None = None) -> bytes:
        """The next bytes; none when the client has closed.

        Raises: ConnectionResetError when it was too slow, now and ever after: where a next request would begin is unknown then.
            TimeoutError when a limit of gunicorn's own ran out first.
        """
        if self._left_seconds <= 0:
            raise _too_slow()
        others = self.sock.gettimeout()
        self.sock.settimeout(self._left_seconds if others is None else min(self._left_seconds, others))
        began = time.monotonic()
        data: bytes = b""
        try:
            data = super().chunk(size_hint)
        except TimeoutError:
            if others is not None and others < self._left_seconds:
                raise
            raise _too_slow() from None
        finally:
            self.sock.settimeout(others)
            spent_seconds = time.monotonic() - began - len(data) / LEAST_BYTES_PER_SECOND
            self._left_seconds = min(WAIT_SECONDS, self._left_seconds - spent_seconds)
        return data


def _too_slow() -> ConnectionResetError:
    return ConnectionResetError(errno.ECONNRESET, "the client was too slow")


class _Connection(TConn):  # type: ignore[misc]
    """A client's connection."""

    def __init__(self, worker: Worker, *arguments: Any) -> None:
        super().__init__(*arguments)
        self._worker = worker
        self.drained_bytes = 0

    def close(self, graceful: bool = False) -> None:
        """Called in the loop when a request has ended, or waiting has."""
        if graceful:
            self._worker.say_farewell(self)
        else:
            super().close()

    def init(self) -> None:
        """Called in a thread before each request."""
        first = not self.initialized
        super().init()
        self.sock.settimeout(SEND_SECONDS)
        if first:
            self.parser.unreader = _Budgeted(self.sock)
        self.parser.unreader.begin()


class Worker(ThreadWorker):  # type: ignore[misc]
    """See the module."""

    def __init__(self, *arguments: Any, **more: Any) -> None:
        """As gunicorn makes it."""
        super().__init__(*arguments, **more)
        self._leaving: deque[_Connection] = deque()  # the first has waited longest

    def accept(self, listener: Any) -> None:
        """Take a connection; it gets a thread when it has said something."""
        try:
            client, address = listener.accept()
        except OSError as error:
            if error.errno not in (errno.EAGAIN, errno.ECONNABORTED, errno.EWOULDBLOCK):
                raise
            return
        self.nr_conns += 1
        connection = _Connection(self, self.cfg, client, address, listener.getsockname())
        connection.set_timeout()
        self.pending_conns.append(connection)
        self.poller.register(client, selectors.EVENT_READ, partial(self.on_pending_socket_readable, connection))

    def _cap_keepalive(self, deadline: float) -> None:
        """A worker that stops waits no longer for silent connections than for those that are kept open."""
        super()._cap_keepalive(deadline)
        for connection in self.pending_conns:
            connection.timeout = min(connection.timeout, deadline)

    def say_farewell(self, connection: _Connection) -> None:
        """Close a connection's way out, and wait beside the threads until the client closes the other."""
        try:
            connection.sock.shutdown(socket.SHUT_WR)
            connection.sock.setblocking(False)
            self.poller.register(connection.sock, selectors.EVENT_READ, partial(self._on_leaving_readable, connection))
        except (OSError, ValueError):
            connection.close()
            return
        connection.timeout = time.monotonic() + FAREWELL_SECONDS
        self.nr_conns += 1
        self._leaving.append(connection)

    def _on_leaving_readable(self, connection: _Connection, client: socket.socket) -> None:
        try:
            data = client.recv(_DRAIN_BYTES)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        connection.drained_bytes += len(data)
        if not data or connection.drained_bytes > _DRAIN_BYTES:
            self._leaving.remove(connection)
            self._let_go(connection)

    def murder_pending(self) -> None:
        """Close what has waited long enough."""
        super().murder_pending()
        while self._leaving and self._leaving[0].timeout <= time.monotonic():
            self._let_go(self._leaving.popleft())

    def _let_go(self, connection: _Connection) -> None:
        self.poller.unregister(connection.sock)
        self.nr_conns -= 1
        connection.close()
