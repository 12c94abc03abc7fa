"""`hullwright network ...`: networks, each with the subnet that it is made with."""

from __future__ import annotations

import argparse
from typing import Any

from cliff.lister import Lister
from cliff.show import ShowOne

from hullwright.cli import find, http
from hullwright.cli.base import ApiCommand, Table, Words

COLUMNS = ("ID", "Name", "Status", "MTU", "Shared", "Subnets")
SUBNET_COLUMNS = ("Gateway", "DHCP", "Name servers", "Allocation pools")


def _row(network: dict[str, Any], subnets: list[dict[str, Any]]) -> tuple[Any, ...]:
    mine = [subnet["cidr"] for subnet in subnets if subnet["network_id"] == network["id"]]
    return network["id"], network["name"], network["status"], network["mtu"], network["shared"], Words(mine)


def _subnet_row(subnets: list[dict[str, Any]]) -> tuple[Any, ...]:
    pools = [f"{pool['start']}-{pool['end']}" for subnet in subnets for pool in subnet["allocation_pools"]]
    return (
        Words([subnet["gateway_ip"] for subnet in subnets]),
        Words([subnet["enable_dhcp"] for subnet in subnets]),
        Words([address for subnet in subnets for address in subnet["dns_nameservers"]]),
        Words(pools),
    )


class Create(ApiCommand, ShowOne):
    """Make a network with a subnet"""

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        """Arguments."""
        parser = super().get_parser(prog_name)
        parser.add_argument("name")
        parser.add_argument("--subnet", required=True, metavar="CIDR", help="its range of addresses, such as 192.0.2.0/24")
        parser.add_argument("--gateway", metavar="ADDRESS", help="default: the first address of the range")
        parser.add_argument("--no-dhcp", action="store_true", help="addresses reach guests only by their config drive")
        parser.add_argument("--dns", action="append", default=[], metavar="ADDRESS", help="a name server that guests are told")
        parser.add_argument("--mtu", type=int)
        return parser

    def take_action(self, parsed_args: argparse.Namespace) -> Table:
        """Make both, or neither."""
        body: dict[str, Any] = {"name": parsed_args.name, "shared": True}
        if parsed_args.mtu:
            body["mtu"] = parsed_args.mtu
        network = self.client.post(http.NETWORK + "/networks", {"network": body})["network"]
        subnet: dict[str, Any] = {
            "network_id": network["id"],
            "name": parsed_args.name,
            "cidr": parsed_args.subnet,
            "ip_version": 6 if ":" in parsed_args.subnet else 4,
            "enable_dhcp": not parsed_args.no_dhcp,
            "dns_nameservers": parsed_args.dns,
        }
        if parsed_args.gateway:
            subnet["gateway_ip"] = parsed_args.gateway
        try:
            made = self.client.post(http.NETWORK + "/subnets", {"subnet": subnet})["subnet"]
        except BaseException:
            self.client.delete(f"{http.NETWORK}/networks/{network['id']}")
            raise
        return COLUMNS + SUBNET_COLUMNS, _row(network, [made]) + _subnet_row([made])


class List(ApiCommand, Lister):
    """List networks"""

    def take_action(self, parsed_args: argparse.Namespace) -> Table:
        """Ask for all, and for all subnets at once."""
        networks = self.client.get(http.NETWORK + "/networks")["networks"]
        subnets = self.client.get(http.NETWORK + "/subnets")["subnets"]
        return COLUMNS, [_row(network, subnets) for network in networks]


class Show(ApiCommand, ShowOne):
    """Show a network"""

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        """Arguments."""
        parser = super().get_parser(prog_name)
        parser.add_argument("network", help="id or name")
        return parser

    def take_action(self, parsed_args: argparse.Namespace) -> Table:
        """Find it and its subnets."""
        network = find.network(self.client, parsed_args.network)
        subnets = self.client.get(http.NETWORK + "/subnets", network_id=network["id"])["subnets"]
        return COLUMNS + SUBNET_COLUMNS, _row(network, subnets) + _subnet_row(subnets)


class Delete(ApiCommand):
    """Delete networks that no port uses"""

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        """Arguments."""
        parser = super().get_parser(prog_name)
        parser.add_argument("networks", nargs="+", metavar="network", help="id or name")
        return parser

    def take_action(self, parsed_args: argparse.Namespace) -> None:
        """Delete each."""
        for wanted in parsed_args.networks:
            self.client.delete(f"{http.NETWORK}/networks/{find.network(self.client, wanted)['id']}")
