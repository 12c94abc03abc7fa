"""`hullwright host ...`: which hypervisors guests may be built on.

For the operator, on a machine that reaches the database: hosts are registered there directly, before the API or a conductor ever runs.
Conductors see the change by themselves.
"""

from __future__ import annotations

import argparse
import contextlib
import socket
from collections.abc import Iterator
from typing import Any

from cliff.lister import Lister
from cliff.show import ShowOne

from hullwright.cli.base import LocalCommand, Pairs, Table, Time, Words
from hullwright.conductor.hosts import HostMonitor
from hullwright.drivers import registry
from hullwright.drivers.virt.contract import VirtDriver
from hullwright.objects.errors import HypervisorUnavailable
from hullwright.objects.hosts import HOST_RATIOS, HOST_RESERVES, HOST_SETTINGS, Host, HostRef, Inventory, is_up
from hullwright.persistence import aggregates, hosts, schema
from hullwright.persistence.database import Database

DEFAULT_URI = "qemu:///system"


class HostCommand(LocalCommand):
    """A command about hosts."""

    @contextlib.contextmanager
    def open(self) -> Iterator[Database]:
        """The database, with the schema that this code wants."""
        schema.check(self.database)
        try:
            yield self.database
        finally:
            self.database.close()

    def state(self, host: Host) -> str:
        """As the scheduler sees it; whether an operator enabled it is its status."""
        if not is_up(host, self.conf.compute.service_down_time):
            return "down"
        return "up" if host.quarantined_at is None else "quarantined"

    def refresh(self, database: Database, name: str) -> None:
        """Ask the hypervisor now, and note its answer."""
        drivers: list[VirtDriver] = []

        def connect(host: HostRef) -> VirtDriver:
            drivers.append(registry.load("virt", host.driver)(host, self.conf))
            return drivers[-1]

        try:
            HostMonitor(database, self.conf, connect).refresh_now(name)
        finally:
            for driver in drivers:
                driver.close()

    def details(self, database: Database, name: str) -> Table:
        """All that is known of a host."""
        with database.read() as reading:
            host = hosts.get(reading, name)
            inventories = hosts.list_inventories(reading, [host.id]).get(host.id, [])
        row: dict[str, Any] = {
            "Name": host.name,
            "URI": host.uri,
            "Driver": host.driver,
            "State": self.state(host),
            "Status": "enabled" if host.enabled else "disabled",
            "Disabled reason": host.disabled_reason,
            "Error": getattr(host, "error", None),
            "Zone": host.availability_zone,
            "Settings": Pairs(host.settings) if host.settings else None,
            "Last seen": Time(host.last_seen_at),
            "Silent since": Time(host.silent_since),
            "Failed builds": host.failed_builds,
            "Failed at": f"{host.failed_step}, {host.failed_in_step} in a row" if host.failed_step else None,
            "Quarantined since": Time(host.quarantined_at),
            "Quarantine reason": host.quarantine_reason,
            "Latest probe": Time(host.probed_at) if host.probed_at != host.quarantined_at else None,
        }
        if host.facts is not None:
            row |= {
                "Hypervisor": f"{host.facts.hypervisor_type} {_version(host.facts.hypervisor_version)}",
                "Hostname": host.facts.hostname,
                "CPU": f"{host.facts.cpu_arch} {host.facts.cpu_model}".strip(),
                "Virtualisation": Words(host.facts.virt_types),
                "Free disk GB": host.facts.disk_free_gb,
            }
        row |= {f"Resource {inventory.resource_class}": Pairs(_amounts(inventory)) for inventory in inventories}
        return tuple(row), tuple(row.values())


def _version(number: int) -> str:
    """7002022 is 7.2.22."""
    return f"{number // 1_000_000}.{number // 1_000 % 1_000}.{number % 1_000}"


def _amounts(inventory: Inventory) -> dict[str, Any]:
    return {
        "total": inventory.total,
        "reserved": inventory.reserved,
        "ratio": inventory.allocation_ratio,
        "capacity": inventory.capacity,
        "used": inventory.used,
    }


def _zone(text: str) -> str:
    if not text or ":" in text:
        raise argparse.ArgumentTypeError("a zone's name is not empty and has no colon, which begins a host: ZONE:HOST")
    return text


class _Named(HostCommand):
    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        """Arguments."""
        parser = super().get_parser(prog_name)
        parser.add_argument("host", help="its name")
        return parser


class Add(HostCommand, ShowOne):
    """Register a host, and ask its hypervisor what it has"""

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        """Arguments."""
        parser = super().get_parser(prog_name)
        parser.add_argument("name", nargs="?", default=socket.gethostname(), help="default: this machine's name")
        parser.add_argument("--uri", default=DEFAULT_URI, help=f"libvirt connection URI as conductors use it; default {DEFAULT_URI}")
        parser.add_argument("--driver", help="default: fake for fake: URIs, else libvirt")
        parser.add_argument("--availability-zone", metavar="ZONE", type=_zone)
        parser.add_argument("--unseen", action="store_true", help="register it even when it does not answer now")
        return parser

    def take_action(self, parsed_args: argparse.Namespace) -> Table:
        """Register, ask; one that does not answer is not kept."""
        name = parsed_args.name
        driver = parsed_args.driver or ("fake" if parsed_args.uri.startswith("fake:") else "libvirt")
        registry.load("virt", driver)
        zone = parsed_args.availability_zone or self.conf.default_availability_zone
        with self.open() as database:
            with database.write() as writing:
                hosts.register(writing, name, parsed_args.uri, driver, availability_zone=zone)
            try:
                self.refresh(database, name)
            except BaseException:
                if not parsed_args.unseen:
                    with database.write() as writing:
                        hosts.remove(writing, name)
                    raise
            return self.details(database, name)


class List(HostCommand, Lister):
    """List hosts with what they have and what is used of it"""

    COLUMNS = ("Name", "URI", "State", "Status", "Zone", "VCPUs used", "Memory MB used", "Disk GB used", "Last seen")

    def take_action(self, parsed_args: argparse.Namespace) -> Table:
        """All, by name."""
        with self.open() as database, database.read() as reading:
            found = hosts.list_all(reading)
            inventories = hosts.list_inventories(reading)
        return self.COLUMNS, [self._row(host, inventories.get(host.id, [])) for host in found]

    def _row(self, host: Host, inventories: list[Inventory]) -> tuple[Any, ...]:
        used = {inventory.resource_class: f"{inventory.used} of {inventory.capacity}" for inventory in inventories}
        return (
            host.name,
            host.uri,
            self.state(host),
            "enabled" if host.enabled else "disabled",
            host.availability_zone,
            *(used.get(name, "") for name in ("VCPU", "MEMORY_MB", "DISK_GB")),
            Time(host.last_seen_at),
        )


class Show(_Named, ShowOne):
    """Show a host"""

    def take_action(self, parsed_args: argparse.Namespace) -> Table:
        """All that is known."""
        with self.open() as database:
            return self.details(database, parsed_args.host)


class Refresh(_Named, ShowOne):
    """Ask a host's hypervisor now what it has"""

    def take_action(self, parsed_args: argparse.Namespace) -> Table:
        """Ask, then show."""
        with self.open() as database:
            self.refresh(database, parsed_args.host)
            return self.details(database, parsed_args.host)


class Set(_Named, ShowOne):
    """Have a host differ from [compute]: its allocation ratios, what of it is not given to guests; or move it to another zone"""

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        """Arguments."""
        parser = super().get_parser(prog_name)
        for name in HOST_RATIOS:
            parser.add_argument(f"--{name.replace('_', '-')}", type=float, metavar="RATIO", dest=name)
        for name in HOST_RESERVES:
            unit = "MB" if name.endswith("_mb") else "COUNT"
            parser.add_argument(f"--{name.replace('_', '-').replace('-host-', '-')}", type=int, metavar=unit, dest=name)
        parser.add_argument(
            "--availability-zone", metavar="ZONE", type=_zone, help="of its own: an aggregate that is a zone goes before it"
        )
        parser.add_argument("--unset", action="append", default=[], choices=HOST_SETTINGS, help="as [compute] says again; may be repeated")
        return parser

    def take_action(self, parsed_args: argparse.Namespace) -> Table:
        """Write it down; ask the hypervisor, so that it holds at once."""
        changes: dict[str, float | None] = dict.fromkeys(parsed_args.unset)
        changes |= {name: value for name in HOST_SETTINGS if (value := getattr(parsed_args, name)) is not None}
        with self.open() as database:
            with database.write() as writing:
                if parsed_args.availability_zone:
                    aggregates.set_home_zone(writing, parsed_args.host, parsed_args.availability_zone)
                hosts.change_settings(writing, parsed_args.host, changes)
            with contextlib.suppress(HypervisorUnavailable):  # then when it answers again
                self.refresh(database, parsed_args.host)
            return self.details(database, parsed_args.host)


class Enable(_Named):
    """Let builds go to a host again that was disabled, or is in quarantine"""

    def take_action(self, parsed_args: argparse.Namespace) -> None:
        """Enable it; its failed builds are forgotten."""
        with self.open() as database, database.write() as writing:
            hosts.enable(writing, parsed_args.host)


class Disable(_Named):
    """Send no more builds to a host; its guests go on"""

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        """Arguments."""
        parser = super().get_parser(prog_name)
        parser.add_argument("--reason")
        return parser

    def take_action(self, parsed_args: argparse.Namespace) -> None:
        """Disable it."""
        with self.open() as database, database.write() as writing:
            hosts.disable(writing, parsed_args.host, parsed_args.reason)


class Remove(_Named):
    """Forget a host that holds no instances"""

    def take_action(self, parsed_args: argparse.Namespace) -> None:
        """Remove it."""
        with self.open() as database, database.write() as writing:
            hosts.remove(writing, parsed_args.host)
