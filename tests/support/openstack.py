"""The real `openstack` command, unmodified, in processes that are forked where it is imported already.

On its own each command takes more than a second of CPU to start, and tests run a hundred of them.
"""

from __future__ import annotations

import atexit
import contextlib
import importlib
import json
import os
import select
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path

_IMPORTED = ("openstack.connection", *(f"openstackclient.{name}.client" for name in ("compute", "identity", "image", "network", "volume")))
_servers: list[subprocess.Popen[str]] = []  # one at most


def openstack(*words: str, environment: Mapping[str, str], directory: Path, seconds: float = 120.0) -> subprocess.CompletedProcess[str]:
    """Run `openstack` with these words in a directory; how it ended and what it said.

    Raises: subprocess.TimeoutExpired.
    """
    server = _server()
    assert server.stdin is not None
    assert server.stdout is not None
    with tempfile.TemporaryDirectory() as scratch:
        told = [str(Path(scratch, name)) for name in ("out", "errors")]
        print(json.dumps([words, dict(environment), str(directory), told]), file=server.stdin, flush=True)
        if not select.select([server.stdout], [], [], seconds)[0]:
            _end()
            raise subprocess.TimeoutExpired(["openstack", *words], seconds)
        code = int(server.stdout.readline())
        return subprocess.CompletedProcess(["openstack", *words], code, *(Path(path).read_text() for path in told))


def _server() -> subprocess.Popen[str]:
    if not _servers:
        command = [sys.executable, "-P", __file__]  # this file is not the module of its name
        _servers.append(subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, start_new_session=True))
        atexit.register(_end)
    return _servers[0]


def _end() -> None:
    """With the command that it waits for."""
    while _servers:
        server = _servers.pop()
        with contextlib.suppress(ProcessLookupError):
            os.killpg(server.pid, 9)
        server.wait()
        for end in (server.stdin, server.stdout):
            if end is not None:
                end.close()


def _serve() -> None:
    """In a process of its own: run what is asked for, one after the other."""
    from openstackclient import shell

    for name in _IMPORTED:
        importlib.import_module(name)
    for line in sys.stdin:
        words, environment, directory, told = json.loads(line)
        child = os.fork()
        if child == 0:
            for number, path in enumerate(("/dev/null", *told)):
                os.dup2(os.open(path, os.O_CREAT | os.O_RDWR), number)
            os.environ.clear()
            os.environ.update(environment)
            os.chdir(directory)
            sys.argv = ["openstack", *words]
            sys.exit(shell.main(words))
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)


if __name__ == "__main__":
    _serve()
