"""Serves the application with gunicorn: one master, worker processes with threads, graceful stop on SIGTERM.

Not for: supervising; `hullwright up` or a service manager does that.
"""

from __future__ import annotations

import ipaddress
import logging
import signal
import socket
import threading
from types import FrameType
from typing import Any

from gunicorn.app.base import BaseApplication

from hullwright.api.app import WsgiApp, create_app, with_authentication
from hullwright.api.worker import CONNECTIONS, Worker
from hullwright.conductor.client import ConductorClient
from hullwright.conf.database import url
from hullwright.objects.errors import HullwrightError
from hullwright.persistence.database import Database
from hullwright.persistence.wakeup import Wakeup

LOG = logging.getLogger(__name__)

KEEPALIVE_SECONDS = 30  # idle connections cost no thread


class UnsafeBinding(HullwrightError):
    """Without authentication only this machine may reach the API."""

    message = (
        "Refusing to listen on {host} without authentication: whoever reaches the port owns all servers. "
        "Set [api] host = 127.0.0.1, or auth_strategy = keystone, or allow_noauth_remote = true."
    )


def serve(conf: Any) -> None:
    """Serve until SIGTERM or SIGINT; requests under way may end.

    Raises: UnsafeBinding.
    """
    check_binding(conf)
    _Server(conf).run()


def check_binding(conf: Any) -> None:
    """Refuse to serve without authentication to other machines, unless told to.

    Raises: UnsafeBinding.
    """
    api = conf.api
    if api.auth_strategy == "noauth" and not api.allow_noauth_remote and not _is_loopback(api.host):
        raise UnsafeBinding(host=api.host)


def _is_loopback(host: str) -> bool:
    """Whether every address of a name or address is this machine's own loopback."""
    try:
        found = {str(info[4][0]) for info in socket.getaddrinfo(host or "0.0.0.0", None)}
    except OSError:
        return False
    return bool(found) and all(ipaddress.ip_address(address).is_loopback for address in found)


def application(conf: Any, stopping: threading.Event | None = None) -> WsgiApp:
    """The application with a database of its own; call it in the process that serves."""
    options = conf.database
    db = Database(
        url(conf),
        synchronous=options.sqlite_synchronous,
        busy_timeout_seconds=options.busy_timeout_seconds,
        pool_size=max(options.pool_size, conf.api.threads + 1),
    )
    client = ConductorClient(db, conf, Wakeup(db, conf.state_path))
    return with_authentication(create_app(db, conf, client, stopping=stopping), conf)


class _Server(BaseApplication):  # type: ignore[misc]
    def __init__(self, conf: Any) -> None:
        self._conf = conf
        super().__init__()

    def load_config(self) -> None:
        api = self._conf.api
        host = f"[{api.host}]" if ":" in api.host else api.host
        options = {
            "bind": f"{host}:{api.port}",
            "workers": api.workers,
            "threads": api.threads,
            "worker_class": Worker,
            "worker_connections": CONNECTIONS,
            "graceful_timeout": api.graceful_timeout_seconds,
            "keepalive": KEEPALIVE_SECONDS,
            "loglevel": "warning",
            "proc_name": "hullwright-api",
            "control_socket_disable": True,
            "when_ready": lambda _: LOG.info("listening on http://%s:%d", host, api.port),
        }
        for name, value in options.items():
            self.cfg.set(name, value)

    def load(self) -> WsgiApp:
        # In the worker, whose handlers for these signals are set already; an open stream would make it wait for its grace time.
        stopping = threading.Event()
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGQUIT):
            _tell(stopping, number)
        return application(self._conf, stopping)


def _tell(stopping: threading.Event, number: signal.Signals) -> None:
    """Set `stopping` when the signal comes, then do what was done for it before."""
    before = signal.getsignal(number)

    def tell(received: int, frame: FrameType | None) -> None:
        stopping.set()
        if callable(before):
            before(received, frame)

    signal.signal(number, tell)
