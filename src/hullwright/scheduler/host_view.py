"""HostView: one host of the columns, for filters that look at one host at a time."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from hullwright.scheduler import attributes
from hullwright.scheduler.columns import Columns


class HostView:
    """One host."""

    def __init__(self, columns: Columns, position: int, read: dict[str, attributes.Values | None] | None = None) -> None:
        """`position`: in the columns; `read`: attributes that were read already, shared by the views of one round."""
        self.columns = columns
        self.position = position
        self._read = {} if read is None else read

    @property
    def name(self) -> str:
        """The host's name."""
        return self.columns.names[self.position]

    @property
    def availability_zone(self) -> str:
        """The zone that it is in."""
        zones = self.columns.availability_zone
        return next(word for word, code in zones.words.items() if code == zones.codes[self.position])

    @property
    def aggregates(self) -> list[Mapping[str, str]]:
        """The metadata of each aggregate that it is in."""
        return self.columns.aggregates.of_host(self.position)

    def __getitem__(self, name: str) -> Any:
        """An attribute by its name in `attributes`: a number or a text.

        Raises: KeyError.
        """
        if name not in self._read:
            self._read[name] = attributes.read(self.columns, name)
        values = self._read[name]
        if values is None:
            raise KeyError(name)
        value = values[self.position]
        return value.item() if hasattr(value, "item") else value
