"""`hullwright server ...`: build a server and watch it, look at it, read its console, delete it."""

from __future__ import annotations

import argparse
import base64
import contextlib
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TextIO

from cliff.lister import Lister
from cliff.show import ShowOne

from hullwright.cli import builds, find, http, placement, watch
from hullwright.cli.base import ApiCommand, Pairs, Table, Words, pair
from hullwright.objects.errors import HullwrightError

LIST_COLUMNS = ("ID", "Name", "Status", "Task state", "Host", "Addresses", "Image", "Flavor")
POLL_SECONDS = 0.3


class BuildFailed(HullwrightError):
    """The server ended in ERROR."""

    message = "Server {name} could not be built: {reason}"
    hint = "`hullwright server timeline` shows each attempt and each step."


class StillThere(HullwrightError):
    """The delete did not end in time."""

    message = "Server {name} is still there after {seconds} s; its task state is {task_state}."
    hint = "The delete goes on by itself; is a conductor running?"


def addresses(server: dict[str, Any]) -> list[str]:
    """All fixed addresses of a server."""
    return [entry["addr"] for entries in server["addresses"].values() for entry in entries]


def _fault(server: dict[str, Any]) -> str | None:
    """All that the asker may know of why it is in ERROR."""
    fault = server.get("fault") or {}
    return fault.get("details") or fault.get("message")


def _details(server: dict[str, Any]) -> Table:
    fault = server.get("fault") or {}
    row = {
        "ID": server["id"],
        "Name": server["name"],
        "Status": server["status"],
        "Task state": server.get("OS-EXT-STS:task_state"),
        "Power state": server.get("OS-EXT-STS:power_state"),
        "Progress": server.get("progress"),
        "Host": server.get("OS-EXT-SRV-ATTR:host"),
        "Guest name": server.get("OS-EXT-SRV-ATTR:instance_name"),
        "Hostname": server.get("OS-EXT-SRV-ATTR:hostname"),
        "Addresses": Words(addresses(server)),
        "Image": (server.get("image") or {}).get("id"),
        "Flavor": server["flavor"].get("original_name"),
        "Volumes": Words([volume["id"] for volume in server.get("os-extended-volumes:volumes_attached", ())]),
        "Key": server.get("key_name"),
        "Metadata": Pairs(server.get("metadata") or {}),
        "Created": server["created"],
        "Launched": server.get("OS-SRV-USG:launched_at"),
    }
    if fault:
        row["Fault"] = fault.get("message")
        if fault.get("details"):
            row["Fault details"] = fault["details"]
    return tuple(row), tuple(row.values())


class _Named(ApiCommand):
    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        """Arguments."""
        parser = super().get_parser(prog_name)
        parser.add_argument("server", help="id or name")
        return parser


class Create(ApiCommand, ShowOne):
    """Build a server, and watch its steps until it is there"""

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        """Arguments."""
        parser = super().get_parser(prog_name)
        parser.add_argument("name")
        parser.add_argument("--image", help="id or name; none: boot from --boot-volume")
        parser.add_argument("--boot-volume", metavar="ID", help="an existing volume as root disk")
        parser.add_argument("--flavor", required=True, help="id or name")
        parser.add_argument("--network", action="append", default=[], help="id or name; may be repeated; none: no network card")
        parser.add_argument("--volume", action="append", default=[], metavar="ID", help="an existing volume to attach; may be repeated")
        parser.add_argument("--user-data", type=Path, metavar="FILE", help="what the guest finds on its config drive")
        parser.add_argument("--key-name")
        parser.add_argument("--availability-zone")
        parser.add_argument("--property", type=pair, action="append", default=[], metavar="KEY=VALUE", help="metadata of the server")
        waits = "for how long the build may wait for room when no host fits"
        parser.add_argument("--wait-for-capacity", type=int, metavar="SECONDS", help=waits)
        parser.add_argument("--no-wait", action="store_true", help="answer as soon as the build is on record")
        parser.add_argument("--dry-run", action="store_true", help="say where it would go, and why; build nothing")
        return parser

    def take_action(self, parsed_args: argparse.Namespace) -> Table:
        """Post it, follow it, show it."""
        body = {"server": self._body(parsed_args)}
        if parsed_args.wait_for_capacity is not None:
            body["os:scheduler_hints"] = {"wait_for_capacity": parsed_args.wait_for_capacity}
        if parsed_args.dry_run:
            return placement.summary(self.client.post(http.EXPLAIN, body)["placement"])
        server = dict(self.client.post_once(http.COMPUTE + "/servers", body)["server"])
        if not parsed_args.no_wait:
            # A table of the result belongs on stdout; what happens on the way does too, unless a program reads it.
            out = self.app.stdout if parsed_args.formatter == "table" else self.app.stderr
            with watch.on(out) as screen, told_on_interrupt(self.app.stderr, parsed_args.name):
                builds.follow(self.client, builds.latest(self.client, server["id"])["id"], screen)
            server = find.server(self.client, server["id"])
            if server["status"] == "ERROR":
                raise BuildFailed(name=server["name"], reason=_fault(server) or "no fault was recorded")
        else:
            server = find.server(self.client, server["id"])
        return _details(server)

    def _body(self, parsed_args: argparse.Namespace) -> dict[str, Any]:
        body: dict[str, Any] = {
            "name": parsed_args.name,
            "flavorRef": find.flavor(self.client, parsed_args.flavor)["id"],
            "networks": [{"uuid": find.network(self.client, name)["id"]} for name in parsed_args.network] or "none",
            "config_drive": True,
        }
        if parsed_args.image:
            body["imageRef"] = find.image(self.client, parsed_args.image)["id"]
        devices = [_volume(identity, -1) for identity in parsed_args.volume]
        if parsed_args.boot_volume:
            devices.insert(0, _volume(parsed_args.boot_volume, 0))
        if devices:
            if parsed_args.image:  # the API wants the image's own disk told when there are others
                image = {"uuid": body["imageRef"], "source_type": "image", "destination_type": "local", "boot_index": 0}
                devices.insert(0, image | {"delete_on_termination": True})
            body["block_device_mapping_v2"] = devices
        if parsed_args.user_data:
            body["user_data"] = _encoded(parsed_args.user_data)
        for name in ("key_name", "availability_zone"):
            if getattr(parsed_args, name):
                body[name] = getattr(parsed_args, name)
        if parsed_args.property:
            body["metadata"] = dict(parsed_args.property)
        return body


@contextlib.contextmanager
def told_on_interrupt(out: TextIO, name: str) -> Iterator[None]:
    """Who looks away does not stop the build: say so."""
    try:
        yield
    except KeyboardInterrupt:
        out.write(f"The build goes on. `hullwright server timeline {name}` shows it, `hullwright server delete {name}` ends it.\n")
        raise


def _volume(identity: str, boot_index: int) -> dict[str, Any]:
    return {"uuid": identity, "source_type": "volume", "destination_type": "volume", "boot_index": boot_index}


def _encoded(path: Path) -> str:
    try:
        return base64.b64encode(path.read_bytes()).decode()
    except OSError as error:
        raise HullwrightError(f"{path} cannot be read: {error.strerror}") from error


class List(ApiCommand, Lister):
    """List servers"""

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        """Arguments."""
        parser = super().get_parser(prog_name)
        parser.add_argument("--name", help="only those whose name matches this regular expression")
        parser.add_argument("--status", help="only those, such as ACTIVE or ERROR")
        return parser

    def take_action(self, parsed_args: argparse.Namespace) -> Table:
        """Ask for all, page by page."""
        query = {name: value for name in ("name", "status") if (value := getattr(parsed_args, name))}
        images = {image["id"]: image["name"] for image in self.client.get(http.IMAGE + "/images", limit=1000)["images"]}
        rows = []
        while True:
            page = self.client.get(http.COMPUTE + "/servers/detail", **query)["servers"]
            rows += [_row(server, images) for server in page]
            if not page:
                return LIST_COLUMNS, rows
            query["marker"] = page[-1]["id"]


def _row(server: dict[str, Any], images: dict[str, str]) -> tuple[Any, ...]:
    image = (server.get("image") or {}).get("id")
    return (
        server["id"],
        server["name"],
        server["status"],
        server.get("OS-EXT-STS:task_state"),
        server.get("OS-EXT-SRV-ATTR:host"),
        Words(addresses(server)),
        images.get(image or "", image),
        server["flavor"].get("original_name"),
    )


class Show(_Named, ShowOne):
    """Show a server"""

    def take_action(self, parsed_args: argparse.Namespace) -> Table:
        """Find it; of one that is being built, say when it waits for room."""
        server = find.server(self.client, parsed_args.server)
        columns, values = _details(server)
        if server["status"] == "BUILD" and (waiting := builds.latest(self.client, server["id"])["waiting"]):
            columns, values = (*columns, "Waits for room"), (*values, _waits(waiting))
        return columns, values


def _waits(waiting: dict[str, Any]) -> str:
    place = f"place {waiting['place']} of {waiting['of']}"
    return f"{place}, until {waiting['until']}" if waiting["until"] else f"{place}, looks for some now"


class Delete(ApiCommand):
    """Delete servers, also while they are being built"""

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        """Arguments."""
        parser = super().get_parser(prog_name)
        parser.add_argument("servers", nargs="+", metavar="server", help="id or name")
        parser.add_argument("--wait", action="store_true", help="until nothing of them is left")
        parser.add_argument("--timeout", type=float, default=300.0, metavar="SECONDS", help="of --wait; default 300")
        return parser

    def take_action(self, parsed_args: argparse.Namespace) -> None:
        """Ask for all of them first, then wait."""
        found, missed = [], []
        for wanted in parsed_args.servers:
            try:
                found.append(find.server(self.client, wanted))
            except (find.NoSuch, find.Ambiguous) as error:  # the others are deleted all the same
                missed.append(error)
        for server in found:
            self.client.delete(f"{http.COMPUTE}/servers/{server['id']}")
        if parsed_args.wait:
            until = time.monotonic() + parsed_args.timeout
            for server in found:
                wait_until_gone(self.client, server, until, parsed_args.timeout)
        if len(missed) == 1:
            raise missed[0]
        if missed:
            raise HullwrightError(" ".join(error.text for error in missed))


def wait_until_gone(client: http.Client, server: dict[str, Any], until: float, seconds: float) -> None:
    """Poll until the API knows the server no more.

    Raises: StillThere past `until` (monotonic); BuildFailed when the delete ended in ERROR.
    """
    while True:
        try:
            server = client.get(f"{http.COMPUTE}/servers/{server['id']}")["server"]
        except http.Gone:
            return
        if server["status"] == "ERROR" and server.get("OS-EXT-STS:task_state") is None:
            raise HullwrightError(f"Server {server['name']} could not be deleted: {_fault(server)}")
        if time.monotonic() > until:
            raise StillThere(name=server["name"], seconds=int(seconds), task_state=server.get("OS-EXT-STS:task_state"))
        time.sleep(POLL_SECONDS)


class ConsoleLog(_Named):
    """Print what the guest wrote on its console"""

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        """Arguments."""
        parser = super().get_parser(prog_name)
        parser.add_argument("--lines", type=int, metavar="N", help="only the last N")
        return parser

    def take_action(self, parsed_args: argparse.Namespace) -> None:
        """Ask, and print."""
        server = find.server(self.client, parsed_args.server)
        text = console_log(self.client, server["id"], parsed_args.lines)
        self.app.stdout.write(text if text.endswith("\n") or not text else text + "\n")


def console_log(client: http.Client, server_id: str, lines: int | None = None) -> str:
    """A server's console log, the last `lines` of it."""
    length = {} if lines is None else {"length": lines}
    answer = client.post(f"{http.COMPUTE}/servers/{server_id}/action", {"os-getConsoleOutput": length})
    return str(answer["output"])
