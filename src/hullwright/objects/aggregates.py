"""Aggregates: hosts that operators put together, with metadata that filters, weighers and inventories look at."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from hullwright.objects.records import Record

ZONE_KEY = "availability_zone"  # the metadata that makes an aggregate an availability zone


@dataclass(frozen=True, slots=True)
class Aggregate(Record):
    """An aggregate and its hosts. A host may be in several."""

    id: int
    uuid: str
    name: str
    metadata: Mapping[str, str] = field(default_factory=dict)
    hosts: tuple[str, ...] = ()  # names, in the order in which they came
    created_at: float = 0.0
    updated_at: float | None = None

    @property
    def availability_zone(self) -> str | None:
        """The zone that its hosts are in by it."""
        return self.metadata.get(ZONE_KEY)


def words(value: str) -> set[str]:
    """The words of a metadata value: it may hold several, with commas in between."""
    return {word.strip() for word in value.split(",")}


def least(values: Iterable[str], default: float) -> float:
    """The least of the numbers that a host's aggregates name for it; the default without any, or when one is no number."""
    try:
        numbers = [float(value) for value in values]
    except ValueError:
        return default
    return min(numbers, default=default) if all(map(math.isfinite, numbers)) else default
