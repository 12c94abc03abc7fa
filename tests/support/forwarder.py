"""A TCP port of this machine that leads to a unix socket, and a way that can be cut: a host on the network, for tests."""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
from collections.abc import Iterator

_RESET = struct.pack("ii", 1, 0)  # SO_LINGER: close() resets


class Forwarder:
    """The way to one socket. `forwarded` makes it."""

    def __init__(self, path: str, server: socket.socket) -> None:
        self._path = path
        self._server = server
        self._ends: list[socket.socket] = []
        self._lock = threading.Lock()
        self._is_open = threading.Event()  # unset: what is sent is kept back, as on a line that lost its packets
        self._is_open.set()
        self._refuses = False
        self.port: int = server.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    @property
    def uri(self) -> str:
        """For libvirt."""
        return f"qemu+tcp://127.0.0.1:{self.port}/system"

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                near, _ = self._server.accept()
                far = socket.socket(socket.AF_UNIX)
                with self._lock:
                    try:
                        if self._refuses:
                            raise ConnectionRefusedError
                        far.connect(self._path)
                    except OSError:
                        far.close()
                        near.close()
                        continue
                    self._ends += (near, far)
                for pair in ((near, far), (far, near)):
                    threading.Thread(target=self._pump, args=pair, daemon=True).start()

    def _pump(self, source: socket.socket, sink: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                self._is_open.wait()
                sink.sendall(data)
        for end in (source, sink):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)

    def cut(self) -> None:
        """Reset all connections; new ones are closed at once until `mend`."""
        with self._lock:
            self._refuses = True
            self._close()

    def stall(self) -> None:
        """Let nothing through until `mend`, and say nothing of it."""
        self._is_open.clear()

    def mend(self) -> None:
        """All is well again; what was under way is lost."""
        with self._lock:
            self._close()
            self._refuses = False
        self._is_open.set()

    def _close(self) -> None:
        for end in self._ends:
            with contextlib.suppress(OSError):
                if end.family == socket.AF_INET:
                    end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
                end.shutdown(socket.SHUT_RDWR)
            end.close()
        self._ends.clear()

    def close(self) -> None:
        """No way any more."""
        self.mend()
        with contextlib.suppress(OSError):
            self._server.shutdown(socket.SHUT_RDWR)


@contextlib.contextmanager
def forwarded(path: str) -> Iterator[Forwarder]:
    """A port that leads to the unix socket."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        forwarder = Forwarder(path, server)
        try:
            yield forwarder
        finally:
            forwarder.close()
