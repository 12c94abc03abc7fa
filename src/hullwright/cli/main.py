"""The `hullwright` command: its global options, its table of commands, and how an error is told.

Not for: what a command does; each lives in the file of its noun. A command's file is imported only when it is asked for.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import logging
import os
import sys
from typing import Any

from cliff.app import App
from cliff.commandmanager import CommandManager

import hullwright
from hullwright.cli.http import DEFAULT_URL
from hullwright.objects.errors import HullwrightError

COMMANDS = {
    "up": "up:Up",
    "api": "services:Api",
    "conductor": "services:Conductor",
    "db upgrade": "db:Upgrade",
    "db current": "db:Current",
    "db check": "db:Check",
    "db purge": "db:Purge",
    "doctor": "doctor:Run",
    "host add": "hosts:Add",
    "host list": "hosts:List",
    "host show": "hosts:Show",
    "host set": "hosts:Set",
    "host enable": "hosts:Enable",
    "host disable": "hosts:Disable",
    "host refresh": "hosts:Refresh",
    "host remove": "hosts:Remove",
    "host why": "placement:Why",
    "flavor create": "flavors:Create",
    "flavor list": "flavors:List",
    "flavor show": "flavors:Show",
    "flavor delete": "flavors:Delete",
    "image create": "images:Create",
    "image list": "images:List",
    "image show": "images:Show",
    "image save": "images:Save",
    "image delete": "images:Delete",
    "network create": "networks:Create",
    "network list": "networks:List",
    "network show": "networks:Show",
    "network delete": "networks:Delete",
    "server create": "servers:Create",
    "server list": "servers:List",
    "server show": "servers:Show",
    "server delete": "servers:Delete",
    "server queue": "queue:List",
    "server timeline": "timeline:Timeline",
    "server console-log": "servers:ConsoleLog",
    "job release": "jobs:Release",
}


App.NAME = "hullwright"  # cliff's --version asks the base class, which took the name from sys.argv[0]


class Hullwright(App):
    """The application."""

    LOG = logging.getLogger("hullwright.cli")

    def __init__(self) -> None:
        manager = CommandManager()
        for name, place in COMMANDS.items():
            manager.commands[name] = importlib.metadata.EntryPoint(name, f"hullwright.cli.{place}", "hullwright.cli")
        super().__init__(hullwright.__doc__, importlib.metadata.version("hullwright"), manager, deferred_help=True)

    def build_option_parser(
        self, description: str | None, version: str | None, argparse_kwargs: dict[str, Any] | None = None
    ) -> argparse.ArgumentParser:
        """The options before the command."""
        parser = super().build_option_parser(description, version, argparse_kwargs)
        parser.add_argument(
            "--url",
            default=os.environ.get("HULLWRIGHT_URL"),
            help=f"where the API is (HULLWRIGHT_URL; default: where the catalog of --os-cloud says, else {DEFAULT_URL})",
        )
        parser.add_argument(
            "--os-cloud",
            metavar="NAME",
            default=os.environ.get("OS_CLOUD") or ("envvars" if "OS_AUTH_URL" in os.environ else None),
            help="who asks an API behind Keystone: a cloud of clouds.yaml (OS_CLOUD; default: what OS_AUTH_URL and its like say)",
        )
        parser.add_argument(
            "--config-file",
            action="append",
            metavar="FILE",
            default=[os.environ["HULLWRIGHT_CONFIG"]] if os.environ.get("HULLWRIGHT_CONFIG") else None,
            help="configuration of up, api, conductor, db and host; may be repeated "
            "(HULLWRIGHT_CONFIG; default etc/hullwright.conf, else /etc/hullwright/hullwright.conf, where there is one)",
        )
        return parser

    def configure_logging(self) -> None:
        """Errors and warnings go to stderr, one line each; --debug shows tracebacks and all the rest."""
        handler = logging.StreamHandler(self.stderr)
        handler.setFormatter(logging.Formatter("%(message)s") if self.options.debug else OneLine())
        root = logging.getLogger()
        root.setLevel(logging.DEBUG if self.options.debug else logging.WARNING)
        root.handlers = [handler]

    def run_subcommand(self, argv: list[str]) -> int:
        """Run one command; an error of ours brings its hint along.

        Returns: the exit code: 0, 1 for an error, 2 for a command that does not exist, 130 for Ctrl-C.
        """
        try:
            return super().run_subcommand(argv)
        except BrokenPipeError:  # the reader of our output has gone: not worth a word
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            return 141
        except Exception as error:  # a command whose file cannot be imported: cliff lets that through
            self.LOG.error(error, exc_info=self.options.debug)
            return 1


class OneLine(logging.Formatter):
    """`hullwright: what went wrong. What to do about it`, without the traceback."""

    def format(self, record: logging.LogRecord) -> str:
        """One line, whatever the message holds."""
        text = record.getMessage()
        if isinstance(record.msg, HullwrightError) and record.msg.hint and record.msg.hint not in text:
            text = f"{text.rstrip('.')}. {record.msg.hint}"
        elif isinstance(record.msg, Exception) and not isinstance(record.msg, HullwrightError | ValueError):
            text = f"{type(record.msg).__name__}: {text} (--debug tells more)"  # nobody foresaw it
        return "hullwright: " + " ".join(text.split())


def main(argv: list[str] | None = None) -> int:
    """The console script."""
    arguments = sys.argv[1:] if argv is None else argv
    return Hullwright().run(arguments or ["--help"])


if __name__ == "__main__":
    sys.exit(main())
