"""What commands share: the client of the API, or the configuration and the database of this machine; columns with units.

Not for: the commands themselves.
"""

from __future__ import annotations

import argparse
import datetime
from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from typing import Any

from cliff.columns import FormattableColumn
from cliff.command import Command

from hullwright.cli import words
from hullwright.cli.http import DEFAULT_URL, Client
from hullwright.cli.identity import Identity
from hullwright.conf import database as database_options
from hullwright.conf import opts
from hullwright.persistence.database import Database

Table = tuple[Sequence[str], Iterable[Any]]


class ApiCommand(Command):
    """A command about resources: it speaks HTTP to the API, from wherever the user is."""

    @cached_property
    def client(self) -> Client:
        """The API at --url; of a cloud that is named and no URL, where its catalog says."""
        options = self.app.options
        identity = Identity(options.os_cloud) if options.os_cloud else None
        return Client(options.url or (identity.url() if identity else DEFAULT_URL), identity=identity)


class LocalCommand(Command):
    """A command for the operator of this machine: it works on the configured database, with or without an API running."""

    @cached_property
    def conf(self) -> Any:
        """The options, from --config-file or the usual places."""
        return opts.load(self.app.options.config_file)

    @cached_property
    def database(self) -> Database:
        """The configured database."""
        return Database(
            database_options.url(self.conf),
            synchronous=self.conf.database.sqlite_synchronous,
            busy_timeout_seconds=self.conf.database.busy_timeout_seconds,
            pool_size=2,
        )


class Bytes(FormattableColumn[int | None]):
    """A number of bytes: 27.3 MiB to a person, 28639232 to a program."""

    def human_readable(self) -> str:
        """With a unit."""
        return "" if self._value is None else words.size(self._value)


class Time(FormattableColumn[Any]):
    """Seconds since the epoch: local time to a person, ISO 8601 in UTC to a program."""

    def human_readable(self) -> str:
        """Local time."""
        return words.moment(self._value) if self._value else ""

    def machine_readable(self) -> Any:
        """UTC."""
        if not self._value:
            return None
        return datetime.datetime.fromtimestamp(self._value, datetime.UTC).isoformat(timespec="milliseconds")


class Pairs(FormattableColumn[Mapping[str, Any]]):
    """A mapping: a=1, b=2 to a person, an object to a program."""

    def human_readable(self) -> str:
        """On one line."""
        return ", ".join(f"{name}={value}" for name, value in sorted(self._value.items()))


class Words(FormattableColumn[Sequence[Any]]):
    """A list: a, b to a person, an array to a program."""

    def human_readable(self) -> str:
        """On one line."""
        return ", ".join(str(item) for item in self._value)


def pair(text: str) -> tuple[str, str]:
    """KEY=VALUE from the command line."""
    name, equals, value = text.partition("=")
    if not equals or not name:
        raise argparse.ArgumentTypeError(f"{text!r} is not KEY=VALUE")
    return name, value
