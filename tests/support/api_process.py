"""The API as real processes, gunicorn's master and workers, forked for tests in milliseconds, in the directory of a house."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import socket
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import falcon
import pytest
import requests

from hullwright.api import app, server
from hullwright.cli import http
from hullwright.conf import opts
from hullwright.persistence import flavors
from support.house import FLAVOR, House, _forks
from support.ports import free_port

THREADS = 4
# With those that the house names; imported once, before the fork.
_forks.set_forkserver_preload(["support.conductor_process", "support.api_process"])
_PRELOADED = (app, falcon)


def serve(overrides: dict[str, dict[str, Any]], preamble: str, log: str) -> None:
    """In the process: run the preamble, then serve until told to stop. Master and workers are a process group of their own."""
    os.setsid()
    descriptor = os.open(log, os.O_CREAT | os.O_WRONLY | os.O_APPEND)
    os.dup2(descriptor, 1)
    os.dup2(descriptor, 2)
    logging.basicConfig(level="INFO", stream=sys.stderr)
    sys.argv = ["hullwright-api"]  # gunicorn looks at it
    exec(preamble, {})
    server.serve(opts.load([], overrides))


class ServedHouse(House):
    """A house with a door: the API on a port of its own, a flavor and an image."""

    def __init__(self, directory: Path, url: str | None = None, *, api: dict[str, Any] | None = None, **overrides: dict[str, Any]) -> None:
        self.port = free_port()
        super().__init__(directory, url, api={"port": self.port, "threads": THREADS} | (api or {}), **overrides)
        self.url = f"http://127.0.0.1:{self.port}"
        self._apis: list[Any] = []
        with self.db.write() as connection:
            flavors.create(connection, FLAVOR)
        self.image_id = self.add_image()

    def start_api(self, preamble: str = "", *, wait: bool = True) -> Any:
        """Start it; `preamble` is Python that its master runs before it forks workers."""
        process = _forks.Process(target=serve, args=(self.overrides, preamble, str(self.directory / "api.log")))
        process.start()
        self._apis.append(process)
        if wait:
            self.wait(self.answers, 30)
        return process

    def answers(self) -> bool:
        """Whether the API does."""
        try:
            with socket.create_connection(("127.0.0.1", self.port), timeout=5) as peer:
                peer.sendall(b"GET /healthz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
                return peer.recv(100).startswith(b"HTTP/1.1 200")
        except OSError:
            return False

    def body(self, name: str = "vm", **fields: Any) -> dict[str, Any]:
        """A create request."""
        return {"server": {"name": name, "flavorRef": FLAVOR.id, "imageRef": self.image_id, "networks": "none"} | fields}

    def post(self, body: Any, key: str | None = None, **more: Any) -> requests.Response:
        """POST /servers, once."""
        headers = {"OpenStack-API-Version": f"compute {http.MICROVERSION}"} | ({"Idempotency-Key": key} if key else {})
        with requests.Session() as session:
            session.trust_env = False
            return session.post(f"{self.url}/v2.1/servers", json=body, headers=headers, timeout=60, **more)

    def api_log(self) -> str:
        """What the API said."""
        path = self.directory / "api.log"
        return path.read_text(errors="replace") if path.exists() else ""

    def close(self) -> None:
        """End all processes."""
        for process in self._apis:
            if process.is_alive():
                os.kill(process.pid, signal.SIGTERM)
        for process in self._apis:
            process.join(15)
            with contextlib.suppress(ProcessLookupError):  # workers too
                os.killpg(process.pid, signal.SIGKILL)
            process.join(5)
        super().close()


@contextlib.contextmanager
def sockets(count: int, port: int) -> Iterator[Sequence[socket.socket]]:
    """Connections, closed at the end."""
    made: list[socket.socket] = []
    try:
        for _ in range(count):
            made.append(socket.create_connection(("127.0.0.1", port), timeout=30))
        yield made
    finally:
        for each in made:
            each.close()


def drain(peer: socket.socket, timeout_seconds: float = 30.0) -> tuple[bytes, float]:
    """All that comes until the other side closes, and the seconds that it took."""
    began, data = time.monotonic(), b""
    peer.settimeout(timeout_seconds)
    with contextlib.suppress(ConnectionResetError):
        while piece := peer.recv(65536):
            data += piece
    return data, time.monotonic() - began


@pytest.fixture
def served(tmp_path: Path) -> Iterator[ServedHouse]:
    """An empty house on SQLite whose API is not yet started."""
    made = ServedHouse(tmp_path)
    yield made
    made.close()
