"""Aggregates as columns: which hosts are in each, and what filters and weighers ask of their metadata, of all hosts at once.

Not for: reading them; see `surroundings`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hullwright.objects.aggregates import words

Mask = NDArray[np.bool_]
Integers = NDArray[np.int64]


@dataclass(slots=True)
class AggregateColumn:
    """One aggregate."""

    metadata: Mapping[str, str]
    members: Mask


class AggregateColumns:
    """All aggregates, by id."""

    def __init__(self) -> None:
        """Start without any."""
        self.size = 0  # hosts
        self.by_id: dict[int, AggregateColumn] = {}

    def put(self, id: int, metadata: Mapping[str, str]) -> None:
        """Add an aggregate, or replace its metadata; its hosts stay."""
        known = self.by_id.get(id)
        self.by_id[id] = AggregateColumn(metadata, np.zeros(self.size, dtype=bool) if known is None else known.members)

    def place(self, positions: Integers, members: Mapping[int, Sequence[int]]) -> None:
        """Say anew which aggregates the hosts at these positions are in; `members`: aggregate id -> the positions of those that are."""
        for id, each in self.by_id.items():
            each.members[positions] = False
            if id in members:
                each.members[members[id]] = True

    def drop(self, id: int) -> None:
        """Forget an aggregate."""
        self.by_id.pop(id, None)

    def having(self, key: str) -> Iterator[tuple[str, Mask]]:
        """The value and the hosts of each aggregate that has this metadata."""
        for each in self.by_id.values():
            if key in each.metadata:
                yield each.metadata[key], each.members

    def all_keys(self) -> set[str]:
        """The keys of all metadata."""
        return {key for each in self.by_id.values() for key in each.metadata}

    def with_value(self, key: str, is_wanted: Callable[[str], bool]) -> tuple[Mask, Mask]:
        """Which hosts have this metadata by any aggregate, and which have a word in it that is wanted."""
        has, good = np.zeros(self.size, dtype=bool), np.zeros(self.size, dtype=bool)
        for value, members in self.having(key):
            has |= members
            if any(is_wanted(word) for word in words(value)):
                good |= members
        return has, good

    def least(self, key: str, default: float, number: type[int] | type[float] = float) -> Any:
        """The least number that a host's aggregates name; the default without any, or when one of them is no number.

        An array, or the default itself when no aggregate names one.
        """
        found = np.full(self.size, np.inf)
        unreadable = np.zeros(self.size, dtype=bool)
        is_default = True
        for value, members in self.having(key):
            is_default = False
            try:
                told = float(number(value))
            except ValueError:
                told = math.nan
            if math.isfinite(told):
                found[members] = np.minimum(found[members], told)
            else:  # "nan" and "inf" are numbers to Python; one would spoil every sum that it enters
                unreadable |= members
        return default if is_default else np.where(unreadable | np.isinf(found), default, found)

    def of_host(self, position: int) -> list[Mapping[str, str]]:
        """The metadata of each aggregate that a host is in."""
        return [each.metadata for each in self.by_id.values() if each.members[position]]

    def resize(self, size: int) -> None:
        """Make room for hosts at the end."""
        for each in self.by_id.values():
            each.members = np.concatenate((each.members, np.zeros(size - self.size, dtype=bool)))
        self.size = size

    def keep(self, mask: Mask) -> None:
        """Drop the other hosts."""
        self.size = int(mask.sum())
        for each in self.by_id.values():
            each.members = each.members[mask]
