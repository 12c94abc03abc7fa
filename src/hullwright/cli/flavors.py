"""`hullwright flavor ...`: sizes of machines."""

from __future__ import annotations

import argparse
from typing import Any
from urllib.parse import quote

from cliff.lister import Lister
from cliff.show import ShowOne

from hullwright.cli import find, http
from hullwright.cli.base import ApiCommand, Pairs, Table, pair

COLUMNS = ("ID", "Name", "VCPUs", "Memory MB", "Disk GB", "Ephemeral GB", "Swap MB", "Public", "Extra specs")


def _row(flavor: dict[str, Any]) -> tuple[Any, ...]:
    return (
        flavor["id"],
        flavor["name"],
        flavor["vcpus"],
        flavor["ram"],
        flavor["disk"],
        flavor["OS-FLV-EXT-DATA:ephemeral"],
        int(flavor["swap"] or 0),
        flavor["os-flavor-access:is_public"],
        Pairs(flavor.get("extra_specs") or {}),
    )


class Create(ApiCommand, ShowOne):
    """Make a flavor"""

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        """Arguments."""
        parser = super().get_parser(prog_name)
        parser.add_argument("name")
        parser.add_argument("--id", default="auto", help="default: a new uuid")
        parser.add_argument("--vcpus", type=int, default=1, help="default 1")
        parser.add_argument("--memory-mb", type=int, default=256, help="default 256")
        parser.add_argument("--disk-gb", type=int, default=1, help="root disk; 0: as large as the image; default 1")
        parser.add_argument("--ephemeral-gb", type=int, default=0)
        parser.add_argument("--swap-mb", type=int, default=0)
        parser.add_argument("--property", type=pair, action="append", default=[], metavar="KEY=VALUE", help="an extra spec")
        return parser

    def take_action(self, parsed_args: argparse.Namespace) -> Table:
        """Make it."""
        body = {
            "name": parsed_args.name,
            "id": parsed_args.id,
            "vcpus": parsed_args.vcpus,
            "ram": parsed_args.memory_mb,
            "disk": parsed_args.disk_gb,
            "OS-FLV-EXT-DATA:ephemeral": parsed_args.ephemeral_gb,
            "swap": parsed_args.swap_mb,
        }
        flavor = self.client.post(http.COMPUTE + "/flavors", {"flavor": body})["flavor"]
        if parsed_args.property:
            specs = {"extra_specs": dict(parsed_args.property)}
            flavor |= self.client.post(f"{http.COMPUTE}/flavors/{quote(flavor['id'], safe='')}/os-extra_specs", specs)
        return COLUMNS, _row(flavor)


class List(ApiCommand, Lister):
    """List flavors"""

    def take_action(self, parsed_args: argparse.Namespace) -> Table:
        """Ask for all, private ones too."""
        found = self.client.get(http.COMPUTE + "/flavors/detail", is_public="None")["flavors"]
        return COLUMNS, [_row(flavor) for flavor in found]


class Show(ApiCommand, ShowOne):
    """Show a flavor"""

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        """Arguments."""
        parser = super().get_parser(prog_name)
        parser.add_argument("flavor", help="id or name")
        return parser

    def take_action(self, parsed_args: argparse.Namespace) -> Table:
        """Find it."""
        return COLUMNS, _row(find.flavor(self.client, parsed_args.flavor))


class Delete(ApiCommand):
    """Delete flavors; servers that were built with one keep its figures"""

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        """Arguments."""
        parser = super().get_parser(prog_name)
        parser.add_argument("flavors", nargs="+", metavar="flavor", help="id or name")
        return parser

    def take_action(self, parsed_args: argparse.Namespace) -> None:
        """Delete each."""
        for wanted in parsed_args.flavors:
            identity = find.flavor(self.client, wanted)["id"]
            self.client.delete(f"{http.COMPUTE}/flavors/{quote(identity, safe='')}")
