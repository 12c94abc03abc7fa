"""`hullwright up`: the whole service in one terminal: the API, conductors, the database, and a clouds.yaml for the OpenStack client.

Not for: machines that a service manager looks after; see etc/systemd.
"""

from __future__ import annotations

import argparse
import errno
import os
import socket
from pathlib import Path

from hullwright.cli import clouds, http, services
from hullwright.cli.base import LocalCommand
from hullwright.cli.supervisor import Child, Supervisor, python_child
from hullwright.objects.errors import HullwrightError
from hullwright.persistence import schema


class AddressTaken(HullwrightError):
    """Somebody listens there already."""

    message = "{address} cannot be listened at: {reason}"
    hint = "Is another `hullwright up` running? Choose another port with --port."


class Up(LocalCommand):
    """Run everything in the foreground until Ctrl-C, which drains"""

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        """Arguments."""
        parser = super().get_parser(prog_name)
        parser.add_argument(
            "--conductors", type=int, default=int(os.environ.get("CONDUCTORS") or 1), metavar="N", help="how many (CONDUCTORS; default 1)"
        )
        parser.add_argument("--port", type=int, help="of the API (default: as configured)")
        parser.add_argument("--clouds-yaml", type=Path, metavar="FILE", help="default clouds.yaml under state_path")
        return parser

    def take_action(self, parsed_args: argparse.Namespace) -> int:
        """Prepare, then supervise."""
        if parsed_args.conductors < 0:
            raise HullwrightError("There cannot be fewer than 0 conductors.")
        services.end_with_supervisor()
        host, port = self.conf.api.host, parsed_args.port or self.conf.api.port
        _must_be_free(host, port)
        state_path = Path(self.conf.state_path)
        state_path.mkdir(parents=True, exist_ok=True)
        schema.upgrade(self.database)
        self.database.close()
        url = f"http://{f'[{host}]' if ':' in host else host}:{port}"
        clouds_yaml = parsed_args.clouds_yaml or state_path / "clouds.yaml"
        clouds.write(clouds_yaml, url)
        supervisor = Supervisor(self._children(parsed_args.conductors, port), self.app.stdout)
        supervisor.on_tick = _Greeting(supervisor, url, clouds_yaml)
        return supervisor.run()

    def _children(self, conductors: int, port: int) -> list[Child]:
        arguments = [word for file in self.app.options.config_file or () for word in ("--config-file", file)]
        environment = {services.SUPERVISOR_VARIABLE: str(os.getpid()), "OS_API__PORT": str(port)}
        children = [python_child("api", [*arguments, "api"], environment)]
        for number in range(1, conductors + 1):
            name = "conductor" if conductors == 1 else f"conductor-{number}"
            children.append(python_child(name, [*arguments, "conductor"], environment))
        return children


class _Greeting:
    """Says where everything is, once, as soon as the API answers."""

    def __init__(self, supervisor: Supervisor, url: str, clouds_yaml: Path) -> None:
        self._say = supervisor.say
        self._url = url
        self._clouds_yaml = clouds_yaml
        self._said = False

    def __call__(self) -> None:
        if self._said:
            return
        try:
            http.Client(self._url, timeout_seconds=0.5).get("/healthz")
        except HullwrightError:
            return
        self._said = True
        self._say(f"the Compute API answers at {self._url}/v2.1, the Build API at {self._url}/v1/builds")
        self._say(f"export OS_CLIENT_CONFIG_FILE={self._clouds_yaml.resolve()}")
        self._say("then: openstack --os-cloud hullwright server list, or: hullwright server list")
        if self._url != http.DEFAULT_URL:
            self._say(f"for hullwright also: export HULLWRIGHT_URL={self._url}")
        self._say("Ctrl-C drains and stops")


def _must_be_free(host: str, port: int) -> None:
    """Raises: AddressTaken; a child that could only die is never started."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            reason = "somebody listens there" if error.errno == errno.EADDRINUSE else error.strerror
            raise AddressTaken(address=f"{host}:{port}", reason=reason) from error
